"""How likely were both answers of each pair before the stage began?

DPO measures the student against itself at the stage's start. Those log-probabilities are computed once, before the
first step, and kept in the stage folder as ``reference.safetensors``: a stage that goes on after a kill reads them
back, since its own weights are others by then.
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

    ``log_probabilities`` gives those of a batch's pairs, shape (pairs, 2), under the weights the student has now.
    Raises ``RunFolderError`` when the recorded file is damaged or of other rows.
    """
    batcher = context.batcher
    assert isinstance(batcher, Packed)
    assert batcher.beside is not None
    rows = np.unique(paired_rows(batcher.beside, batcher.stage.rows))
    path = context.folder / REFERENCE
    if not path.exists():
        # Every pair once, whatever the stage mixes or orders.
        stage = replace(
            batcher.stage, spec=replace(batcher.stage.spec, order="sorted", mixture=None), rows=rows, mixture=None
        )
        values = _compute(context, replace(batcher, stage=stage, draws=None), log_probabilities)
        write_atomically(path, save({"rows": rows, "log_probabilities": values[rows]}))
    sums = np.full((context.samples, 2), np.nan, dtype=np.float32)
    sums[rows] = _read(path, rows)
    return sums


def _compute(context: LossContext, batcher: Packed, log_probabilities: Callable[[Batch], torch.Tensor]) -> Sums:
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
    try:
        kept = load(path.read_bytes())
        if not np.array_equal(kept["rows"], rows) or kept["log_probabilities"].shape != (len(rows), 2):
            raise ValueError("these are the log-probabilities of other samples")
        return np.asarray(kept["log_probabilities"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the reference of this stage is damaged",
            where=path,
            given=error,
            hint="remove the stage's folder: it is learnt again from its beginning",
        ) from error
