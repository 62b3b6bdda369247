"""Log-probabilities of both answers of each pair under the reference model of DPO.

The reference is the model at the start of the stage. The log-probabilities are computed once, before the first step,
and stored in the stage folder as ``reference.safetensors``: a resumed stage reads them back, since its weights have
changed by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import RunFolderError
from ..record import write_atomically
from ..stage import Event
from .batches import Batch, Packed, paired_rows
from .objective import LossContext

__all__ = ["REFERENCE", "stage_start"]


REFERENCE = "reference.safetensors"
Sums = npt.NDArray[np.float32]


def stage_start(context: LossContext, log_probabilities: Callable[[Batch], torch.Tensor]) -> Sums:
    """Summed log-probabilities of both answers, fp32, shape (samples, 2); NaN for rows without a pair in the stage.

    ``log_probabilities`` computes them for the pairs of a batch, shape (pairs, 2), under the present weights of the
    model. Raises ``RunFolderError`` when the stored file is damaged or belongs to other rows.
    """
    batcher = context.batcher
    assert isinstance(batcher, Packed)
    assert batcher.second_answers is not None
    rows = np.unique(paired_rows(batcher.second_answers, batcher.stage.rows))
    path = context.folder / REFERENCE
    if not path.exists():
        # Every pair once, without the stage's mixture or order.
        stage = replace(
            batcher.stage, spec=replace(batcher.stage.spec, order="sorted", mixture=None), rows=rows, mixture=None
        )
        values = _compute(context, replace(batcher, stage=stage, sampler=None), log_probabilities)
        write_atomically(path, save({"rows": rows, "log_probabilities": values[rows]}))
    sums = np.full((context.samples, 2), np.nan, dtype=np.float32)
    sums[rows] = _read(path, rows)
    return sums


def _compute(context: LossContext, batcher: Packed, log_probabilities: Callable[[Batch], torch.Tensor]) -> Sums:
    """One forward pass over every pair of the stage."""
    task = f"reference {batcher.stage.spec.name}"
    sums, done, total = np.full((context.samples, 2), np.nan, dtype=np.float32), 0, len(batcher.stage.rows)
    context.events(Event("start", task, 0, total))
    context.model.eval()
    with torch.no_grad():
        for batch in batcher.one_pass():
            if batch.rows is not None and len(batch.rows):
                sums[batch.rows] = log_probabilities(batch).cpu().numpy()
                done += len(batch.rows)
                context.events(Event("advance", task, done, total))
    context.model.train()
    context.events(Event("finish", task, total, total))
    return sums


def _read(path: Path, rows: npt.NDArray[np.int64]) -> Sums:
    """The stored log-probabilities of ``rows``, shape (rows, 2)."""
    try:
        stored = load(path.read_bytes())
        if not np.array_equal(stored["rows"], rows) or stored["log_probabilities"].shape != (len(rows), 2):
            raise ValueError("the log-probabilities belong to other samples")
        return np.asarray(stored["log_probabilities"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the reference log-probabilities of this stage are damaged",
            where=path,
            given=error,
            hint="remove the stage's folder: it is trained again from its beginning",
        ) from error
