"""How far has the student come, on each band and on each sample?

Schedules that look at the student ask after every stage (``measure``): how it does on each band of the fixed validation
samples, and how hard it finds some of the training samples. Both read answers under the truth: one forward pass per
sample gives the loss of its answer, and whether every token of it is the student's likeliest, which is the same as
writing it greedily. Nothing is trained or generated here, and no schedule is decided.

A sample is read alone, from its own beginning. One that is longer than the student's context cannot be read and is in
no result.
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
from ..model.load import LoadedStudent
from ..model.tokenizer import Encoded
from ..record import write_atomically
from ..schedule import Bands, probe_rows
from ..stage import BandProgress, Event, Events, Needs, Probe, ignore_events
from ..training.batches import IGNORE
from ..training.losses import token_losses

__all__ = ["Read", "band_progress", "load_probe", "measure", "read_answers", "save_probe"]


Ints = npt.NDArray[np.int64]

PLACES = 16_384
"""Tokens in a batch at most, filled places included."""

LOGITS = 1 << 26
"""Numbers that a batch's logits have at most, about: a quarter of a GiB; a large vocabulary makes batches smaller."""


@dataclass(frozen=True)
class Read:
    """What reading some answers gave, aligned with ``rows``: ``loss`` (float64, nats, a sum over the answer and its
    end), ``tokens`` (int64) of the answer, ``right`` (bool): the student would write it, greedily.
    """

    rows: Ints
    loss: npt.NDArray[np.float64]
    tokens: Ints
    right: npt.NDArray[np.bool_]


def measure(
    needs: Needs,
    student: LoadedStudent,
    samples: Encoded,
    validation: Encoded,
    bands: Bands,
    places: npt.NDArray[np.int8],
    *,
    seed: int,
    path: Path,
    events: Events = ignore_events,
) -> dict[str, Any]:
    """What a schedule ``needs`` to know of the student as a stage left it, as JSON values for the stage's result.

    ``samples`` are the cycle's training samples, which ``bands`` describes; ``places`` is the band of each validation
    sample (``Bands.place``). Keys: ``progress`` and ``probed``, as in ``StageResult``. A probe, of rows drawn by
    ``seed``, is written to ``path`` before that.
    """
    found: dict[str, Any] = {"progress": {}, "probed": 0}
    if needs.band_loss:
        progress = band_progress(student, validation, places, bands.names, events=events)
        found["progress"] = {name: asdict(each) for name, each in progress.items()}
    if needs.sample_loss:
        rows = probe_rows(bands, needs.probe, seed)
        read = read_answers(student, samples, rows, task="probe the student", events=events)
        save_probe(Probe(read.rows, read.loss, read.tokens), path)
        found["probed"] = len(read.rows)
    return found


def read_answers(
    student: LoadedStudent, samples: Encoded, rows: Ints, *, task: str = "read answers", events: Events = ignore_events
) -> Read:
    """Read the answers of ``rows`` of ``samples``, encoded by the student's own tokenizer; too long ones are left out.

    The result depends on nothing but the student and the samples. ``events`` may raise ``Stopped``.
    """
    sizes = np.asarray(samples.offsets[rows + 1] - samples.offsets[rows])
    context = getattr(student.model.config, "max_position_embeddings", None)
    fits = (sizes >= 2) & (sizes <= (context or sizes.max(initial=0)) + 1)
    kept, sizes = rows[fits], sizes[fits]
    loss, right = np.zeros(kept.size), np.zeros(kept.size, dtype=np.bool_)
    # A sample without a prompt has nothing before its first token, so nothing predicts that.
    tokens = sizes - np.maximum(samples.answer_starts[kept], 1)
    done = 0
    events(Event("start", task, 0, kept.size))
    with torch.inference_mode(), reproducible():
        for some in _batches(sizes, min(PLACES, LOGITS // len(student.tokenizer))):
            loss[some], right[some] = _read(student, samples, kept[some], int(sizes[some].max()))
            done += some.size
            events(Event("advance", task, done, kept.size))
    events(Event("finish", task, kept.size, kept.size))
    return Read(kept, loss, np.asarray(tokens, dtype=np.int64), right)


def band_progress(
    student: LoadedStudent,
    validation: Encoded,
    places: npt.NDArray[np.int8],
    names: tuple[str, ...],
    *,
    events: Events = ignore_events,
) -> Mapping[str, BandProgress]:
    """How the student does on each band of the validation samples; a band with none that can be read is left out.

    ``places``: the band of each validation sample, -1 for one without a difficulty (``Bands.place``).
    """
    read = read_answers(student, validation, np.flatnonzero(places >= 0), task="validate by band", events=events)
    own = places[read.rows]
    found = {}
    for band, name in enumerate(names):
        of = own == band
        if of.any():
            mean = float(read.loss[of].sum() / read.tokens[of].sum())
            found[name] = BandProgress(mean, float(read.right[of].mean()), int(of.sum()))
    return found


def save_probe(found: Probe, path: Path) -> None:
    """Write a probe, all or nothing: an .npz with the arrays ``rows``, ``loss`` and ``tokens``."""
    held = BytesIO()
    np.savez(held, rows=found.rows, loss=found.loss, tokens=found.tokens)
    write_atomically(path, held.getvalue())


def load_probe(path: Path) -> Probe:
    """What ``save_probe`` wrote. Raises ``RunFolderError`` when it is not there or not whole."""
    try:
        # Read first: NumPy leaves the file of a broken archive open.
        with np.load(BytesIO(path.read_bytes())) as held:
            return Probe(held["rows"], held["loss"], held["tokens"])
    # Whatever a broken archive raises: OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError.
    except Exception as error:
        raise RunFolderError(
            "the probe of a stage cannot be read",
            where=path,
            given=f"{type(error).__name__}: {error}",
            hint="remove progress.json and result.json beside it: the student is asked again",
        ) from error


def _batches(sizes: Ints, places: int) -> Iterator[Ints]:
    """Places of samples of like length, longest first, so that little is filled up."""
    order = np.argsort(-sizes, kind="stable")
    at = 0
    while at < order.size:
        count = max(places // int(sizes[order[at]]), 1)
        yield order[at : at + count]
        at += count


def _read(
    student: LoadedStudent, samples: Encoded, rows: Ints, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The summed loss of each answer, and whether it is the likeliest throughout."""
    inputs = np.zeros((rows.size, width - 1), dtype=np.int64)
    labels = np.full((rows.size, width - 1), IGNORE, dtype=np.int64)
    for at, row in enumerate(rows):
        sample = samples.sample(int(row))
        first = max(int(samples.answer_starts[row]), 1)
        inputs[at, : len(sample) - 1], inputs[at, len(sample) - 1 :] = sample[:-1], sample[0]
        labels[at, first - 1 : len(sample) - 1] = sample[first:]
    place = student.model.device
    wanted = torch.from_numpy(labels).to(place)
    # What fills a line up stands behind the sample, where causal attention does not look. It is not the pad token:
    # transformers warns of one without a mask.
    logits = student.model(input_ids=torch.from_numpy(inputs).to(place), use_cache=False).logits
    losses = token_losses(logits, wanted).double().sum(dim=1)
    right = ((logits.argmax(dim=-1) == wanted) | (wanted == IGNORE)).all(dim=1)
    return losses.cpu().numpy(), right.cpu().numpy()
