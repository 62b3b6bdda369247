"""Progress of a student by difficulty band and by sample, for adaptive schedules.

After each stage ``measure`` evaluates the student on the bands of the fixed validation samples, and on some of the
training samples. One teacher-forced forward pass per sample gives the loss of its answer, and whether each of its
tokens is the most probable one, which is equivalent to greedy decoding of the answer.

Samples do not share a context. Samples that are longer than the student's context are excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import RunFolderError
from ..model.hardware import reproducible
from ..model.tokenizer import Encoded
from ..record import write_atomically
from ..schedule import Bands, probe_rows
from ..stage import BandProgress, Event, Events, Model, Needs, Probe, ignore_events
from ..training.batches import IGNORE
from ..training.losses import token_losses

__all__ = ["AnswerScores", "band_progress", "load_probe", "measure", "read_answers", "save_probe"]


Ints = npt.NDArray[np.int64]

MAX_TOKENS = 16_384
"""Maximal number of tokens in a batch, padding included."""

MAX_LOGITS = 1 << 26
"""Approximate maximal number of logits in a batch (a quarter of a GiB), which limits batches of large vocabularies."""


@dataclass(frozen=True)
class AnswerScores:
    """Scores of answers, aligned with ``rows``: ``loss`` (float64, nats, the sum over the answer and its end token),
    ``tokens`` (int64): the answer's length, ``correct`` (bool): greedy decoding gives the answer.
    """

    rows: Ints
    loss: npt.NDArray[np.float64]
    tokens: Ints
    correct: npt.NDArray[np.bool_]


def measure(
    needs: Needs,
    student: Model,
    samples: Encoded,
    validation: Encoded,
    bands: Bands,
    band_indices: npt.NDArray[np.int8],
    *,
    seed: int,
    path: Path,
    events: Events = ignore_events,
) -> dict[str, Any]:
    """The metrics of the student that a schedule ``needs`` after a stage, as JSON values for the stage's result.

    ``samples`` are the cycle's training samples, which ``bands`` describes; ``band_indices`` is the band of each
    validation sample (``Bands.place``). Keys: ``progress`` and ``probed``, as in ``StageResult``. The probe, of random
    rows from ``seed``, is written to ``path``.
    """
    result: dict[str, Any] = {"progress": {}, "probed": 0}
    if needs.band_loss:
        progress = band_progress(student, validation, band_indices, bands.names, events=events)
        result["progress"] = {name: asdict(values) for name, values in progress.items()}
    if needs.sample_loss:
        rows = probe_rows(bands, needs.probe, seed)
        read = read_answers(student, samples, rows, task="probe the student", events=events)
        save_probe(Probe(read.rows, read.loss, read.tokens), path)
        result["probed"] = len(read.rows)
    return result


def read_answers(
    student: Model, samples: Encoded, rows: Ints, *, task: str = "read answers", events: Events = ignore_events
) -> AnswerScores:
    """Score the answers of ``rows`` of ``samples``, encoded by the student's tokenizer; too long ones are excluded.

    The result depends only on the student and the samples. ``events`` may raise ``Stopped``.
    """
    sizes = np.asarray(samples.offsets[rows + 1] - samples.offsets[rows])
    context = getattr(student.model.config, "max_position_embeddings", None)
    fits = (sizes >= 2) & (sizes <= (context or sizes.max(initial=0)) + 1)
    readable, sizes = rows[fits], sizes[fits]
    loss, correct = np.zeros(readable.size), np.zeros(readable.size, dtype=np.bool_)
    # The first token of a sample without a prompt has no context, so it has no prediction.
    tokens = sizes - np.maximum(samples.answer_starts[readable], 1)
    done = 0
    events(Event("start", task, 0, readable.size))
    with torch.inference_mode(), reproducible():
        for batch in _batches(sizes, min(MAX_TOKENS, MAX_LOGITS // len(student.tokenizer))):
            loss[batch], correct[batch] = _answer_losses(student, samples, readable[batch], int(sizes[batch].max()))
            done += batch.size
            events(Event("advance", task, done, readable.size))
    events(Event("finish", task, readable.size, readable.size))
    return AnswerScores(readable, loss, np.asarray(tokens, dtype=np.int64), correct)


def band_progress(
    student: Model,
    validation: Encoded,
    band_indices: npt.NDArray[np.int8],
    names: tuple[str, ...],
    *,
    events: Events = ignore_events,
) -> Mapping[str, BandProgress]:
    """The student's progress on each band of the validation samples; a band without readable samples is omitted.

    ``band_indices``: the band of each validation sample, -1 for one without a difficulty (``Bands.place``).
    """
    scores = read_answers(
        student, validation, np.flatnonzero(band_indices >= 0), task="validate by band", events=events
    )
    bands = band_indices[scores.rows]
    progress = {}
    for band, name in enumerate(names):
        members = bands == band
        if members.any():
            mean = float(scores.loss[members].sum() / scores.tokens[members].sum())
            progress[name] = BandProgress(mean, float(scores.correct[members].mean()), int(members.sum()))
    return progress


def save_probe(probe: Probe, path: Path) -> None:
    """Write a probe atomically: an .npz file with the arrays ``rows``, ``loss`` and ``tokens``."""
    buffer = BytesIO()
    np.savez(buffer, rows=probe.rows, loss=probe.loss, tokens=probe.tokens)
    write_atomically(path, buffer.getvalue())


def load_probe(path: Path) -> Probe:
    """The probe that ``save_probe`` wrote. Raises ``RunFolderError`` when it is missing or damaged."""
    try:
        # Read into memory first: NumPy leaves the file of a broken archive open.
        with np.load(BytesIO(path.read_bytes())) as archive:
            return Probe(archive["rows"], archive["loss"], archive["tokens"])
    # A broken archive can raise OSError, ValueError, KeyError, zipfile.BadZipFile or EOFError.
    except Exception as error:
        raise RunFolderError(
            "the probe of a stage cannot be read",
            where=path,
            given=f"{type(error).__name__}: {error}",
            hint="remove progress.json and result.json in its folder to measure the student again",
        ) from error


def _batches(sizes: Ints, max_tokens: int) -> Iterator[Ints]:
    """Batches of indices of samples of similar length, longest first, which minimises padding."""
    order = np.argsort(-sizes, kind="stable")
    start = 0
    while start < order.size:
        count = max(max_tokens // int(sizes[order[start]]), 1)
        yield order[start : start + count]
        start += count


def _answer_losses(
    student: Model, samples: Encoded, rows: Ints, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The summed loss of each answer, and whether each of its tokens is the most probable one."""
    inputs = np.zeros((rows.size, width - 1), dtype=np.int64)
    labels = np.full((rows.size, width - 1), IGNORE, dtype=np.int64)
    for line, row in enumerate(rows):
        sample = samples.sample(int(row))
        first = max(int(samples.answer_starts[row]), 1)
        inputs[line, : len(sample) - 1], inputs[line, len(sample) - 1 :] = sample[:-1], sample[0]
        labels[line, first - 1 : len(sample) - 1] = sample[first:]
    device = student.model.device
    targets = torch.from_numpy(labels).to(device)
    # Padding on the right, which causal attention ignores. It is not the pad token, for which transformers would warn
    # about a missing mask.
    logits = student.model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False).logits
    losses = token_losses(logits, targets).double().sum(dim=1)
    correct = ((logits.argmax(dim=-1) == targets) | (targets == IGNORE)).all(dim=1)
    return losses.cpu().numpy(), correct.cpu().numpy()
