"""Batches of one fixed shape (``size`` lines of ``length`` predictions) from the samples of a stage.

* ``windows``, the published protocol: crops of length + 1 tokens, cut at random positions of the concatenated text.
* ``packed``: whole samples laid end to end in lines, none cut; with ``isolate`` a sample attends to itself only.
  A second answer to a prompt lies in the same line as the first, since a preference loss needs both in one step and
  distillation on the student's own text needs its completions.

A batcher is a pure function of a *position*, a small dict that a checkpoint stores: the batches after a position
are the same in every process, whatever came before. This module is independent of models and losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model.settings import Requirements, TrainSettings
from ..model.tokenizer import Answers, Encoded, Tokens
from ..stage import Stage
from .weighted_sampling import Draws

__all__ = [
    "IGNORE",
    "Batch",
    "Batcher",
    "Beside",
    "Packed",
    "Part",
    "Position",
    "Windows",
    "fitting_rows",
    "make_beside",
    "paired_rows",
    "row_tokens",
]


IGNORE = -100
"""The label of a place without a prediction."""

Position = dict[str, int]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """``inputs`` and ``labels`` are int64 of shape (size, length); ``labels[i, t]`` follows ``inputs[i, t]``.

    ``answer`` (bool, same shape) marks labels that belong to a sample's answer or its end. ``segments`` (int64, same
    shape) numbers the samples of a line from 0, or is None when places may attend across samples.

    Where prompts may have a second answer, ``second`` (bool, same shape) marks the labels that belong to one, and
    ``pairs`` (int64, same shape) has at the labels of both answers to one prompt the number of their pair, -1
    elsewhere; ``rows[p]`` is the row of pair p. A second answer's prompt has no labels.
    """

    inputs: Ints
    labels: Ints
    answer: npt.NDArray[np.bool_]
    segments: Ints | None = None
    second: npt.NDArray[np.bool_] | None = None
    pairs: Ints | None = None
    rows: Ints | None = None

    @property
    def tokens(self) -> int:
        """How many predictions the batch holds."""
        return int(np.count_nonzero(self.labels != IGNORE))

    @property
    def answer_tokens(self) -> int:
        """How many of them belong to answers."""
        return int(np.count_nonzero(self.answer & (self.labels != IGNORE)))

    def loss_tokens(self, prompt_loss: bool) -> int:
        """Tokens that have a loss, which the budget counts: all predictions, or those of answers alone."""
        return self.tokens if prompt_loss else self.answer_tokens


Part = tuple[Tokens, int, bool]
"""The tokens of a prompt and one answer, where the answer starts, and whether it is the second answer."""


@dataclass(frozen=True)
class Beside:
    """The answers of ``encoded`` and second ones to the same prompts; ``instead`` leaves the first one out."""

    encoded: Encoded
    answers: Answers
    instead: bool = False

    def sizes(self, rows: Ints) -> Ints:
        """Tokens that each row takes up in a line, all its answers together; shape of ``rows``."""
        own, more = self.encoded.offsets[rows + 1] - self.encoded.offsets[rows], self.answers.sizes(rows)
        second = np.where(more > 0, self.encoded.answer_starts[rows] + more, 0)
        return np.asarray(np.where((more > 0) & self.instead, second, own + second))

    def parts(self, row: int) -> list[Part]:
        """One sample, or two where the row has a second answer."""
        sample, start, more = (
            self.encoded.sample(row),
            int(self.encoded.answer_starts[row]),
            self.answers.answer(row),
        )
        if not len(more):
            return [(sample, start, False)]
        second: Part = (np.concatenate([sample[:start], more]), start, True)
        return [second] if self.instead else [(sample, start, False), second]


def make_beside(objective: str, requirements: Requirements, samples: Encoded) -> Beside | None:
    """The second answers that a loss needs; None when it needs none or the table has none.

    Raises ``DataError`` when the loss learns from pairs alone and the table has none.
    """
    column = requirements.second_answer
    answers = None if column is None else samples.rejected if column == "rejected" else samples.attempt
    if answers is None:
        if requirements.pairs_only:
            raise DataError(
                f"the objective {objective!r} needs pairs of answers, and no sample has a second answer",
                where=f"the column {column!r}",
                hint="delivery: {faulty: {mutation: 1}}, or the objective correct_and_fault, which also learns "
                "samples without a rejected answer",
            )
        return None
    return Beside(samples, answers, instead=requirements.replaces_first)


def paired_rows(beside: Beside, rows: Ints) -> Ints:
    """Those of ``rows`` that have a second answer, in their order. ``DataError`` when none has."""
    kept = rows[beside.answers.sizes(rows) > 0]
    if not len(kept):
        raise DataError("no sample of the stage has a rejected answer", where="the column 'rejected'", given=len(rows))
    return np.asarray(kept)


def row_tokens(
    requirements: Requirements, train: TrainSettings, encoded: Encoded, rows: Ints, beside: Beside | None = None
) -> Ints:
    """Loss tokens of each of ``rows``, all its answers together, shape of ``rows``; what ``Batch.loss_tokens`` counts.

    Where samples attend to each other (no ``isolate``), the first sample of a line has one token less.
    """
    prompt = encoded.answer_starts[rows]
    answer = encoded.offsets[rows + 1] - encoded.offsets[rows] - prompt
    second = np.zeros_like(answer) if beside is None else beside.answers.sizes(rows)
    if train.isolate:  # nothing predicts the first token of a sample
        answer, second = answer - (prompt == 0), second - ((prompt == 0) & (second > 0))
        prompt = np.maximum(prompt - 1, 0)
    if not requirements.prompt_loss:
        prompt = np.zeros_like(prompt)
    if requirements.replaces_first:
        answer = np.where(second > 0, 0, answer)
    return np.asarray(prompt + answer + second)


class Batcher(Protocol):
    """Batches without end, from any position."""

    @property
    def start(self) -> Position:
        """The position before the first batch."""
        ...

    def stream(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches from ``position`` on, each with the position after it."""
        ...


def fitting_rows(encoded: Encoded, rows: Ints, length: int, beside: Beside | None = None) -> tuple[Ints, int]:
    """The rows whose sample, with its end, fits into ``length`` + 1 tokens, and how many do not.

    With ``beside`` all answers to one prompt must fit together.
    """
    sizes = encoded.offsets[rows + 1] - encoded.offsets[rows] if beside is None else beside.sizes(rows)
    fits = sizes <= length + 1
    kept = rows[fits]
    if not len(kept):
        raise DataError(
            "no sample of the stage fits into the context" if beside is None else "no pair of answers fits into a line",
            where="train.length",
            given=f"{length} tokens; the shortest has {int(sizes.min()) if len(sizes) else 0}",
            hint="a larger train.length and student.context, or train.batching: windows, which cuts samples",
        )
    return kept, int(len(rows) - len(kept))


@dataclass(frozen=True)
class Windows:
    """Random crops of the concatenated text of a stage (arXiv 2407.10194: 64 crops of 257 tokens)."""

    encoded: Encoded
    stage: Stage
    size: int
    length: int

    @property
    def start(self) -> Position:
        return {"step": 0}

    def stream(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        rows, starts = self._text()
        step = position["step"]
        while True:
            chance = np.random.Generator(np.random.Philox(key=np.array([self.stage.seed, step], dtype=np.uint64)))
            first = chance.integers(0, starts[-1] - self.length, size=self.size)
            step += 1
            yield self._cut(rows, starts, first), {"step": step}

    def one_pass(self) -> Iterator[Batch]:
        """The text once, in consecutive windows; what is left over is shorter than one and is not read."""
        rows, starts = self._text()
        places = np.arange(0, starts[-1] - self.length, self.length)
        for at in range(0, len(places), self.size):
            some = places[at : at + self.size]
            batch = self._cut(rows, starts, np.resize(some, self.size))
            batch.labels[len(some) :] = IGNORE  # the last batch is filled up to the one shape
            yield batch

    def _text(self) -> tuple[Ints, Ints]:
        """The stage's rows, and where each begins in their concatenation, with the end of the last."""
        rows = self.stage.rows
        starts = np.concatenate([[0], np.cumsum(self.encoded.offsets[rows + 1] - self.encoded.offsets[rows])])
        if starts[-1] <= self.length:
            raise DataError(
                "the stage's text is shorter than one window",
                where=f"stage {self.stage.spec.name}",
                given=f"{int(starts[-1])} tokens for windows of {self.length + 1}",
                hint="more samples, or a smaller train.length",
            )
        return rows, starts

    def _cut(self, rows: Ints, starts: Ints, first: Ints) -> Batch:
        """The windows that begin at the places ``first`` of the virtual concatenation, which is never built."""
        places = first[:, None] + np.arange(self.length + 1)
        which = np.searchsorted(starts, places.ravel(), side="right").reshape(places.shape) - 1
        inside = places - starts[which]
        sample = rows[which]
        tokens = np.asarray(self.encoded.tokens[self.encoded.offsets[sample] + inside]).astype(np.int64)
        answer = inside >= self.encoded.answer_starts[sample]
        return Batch(tokens[:, :-1], tokens[:, 1:].copy(), answer[:, 1:])


@dataclass(frozen=True)
class Packed:
    """Whole samples in lines of ``length`` + 1 tokens; a line begins with a sample, as a prompt does later.

    A shuffled stage is permuted anew at each pass and packed best-fit, ``chunk`` samples at a time, so that few
    places stay empty; any other order is kept, each line being closed when the next sample does not fit.
    Rows must fit (``fitting_rows``). ``beside`` lays second answers to the same prompts into the same lines.
    With ``draws`` a pass is a slice of the stage's mixture (``mixture``).
    """

    encoded: Encoded
    stage: Stage
    size: int
    length: int
    pad: int
    isolate: bool = False
    chunk: int = 4096
    beside: Beside | None = None
    draws: Draws | None = None

    @property
    def start(self) -> Position:
        return {"epoch": 0, "chunk": 0, "line": 0}

    def stream(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        lines: list[list[int]] = []
        for line, place in self._lines(position):
            lines.append(line)
            if len(lines) == self.size:
                yield self._batch(lines), place
                lines = []

    def one_pass(self) -> Iterator[Batch]:
        """Every sample once, in the shape of training; the last batch is filled up with empty lines."""
        rows = self._epoch(0)
        packs = (self._pack(rows[at : at + self.chunk], 0, at // self.chunk) for at in range(0, len(rows), self.chunk))
        lines = [line for pack in packs for line in pack]
        lines += [[]] * (-len(lines) % self.size)
        for at in range(0, len(lines), self.size):
            yield self._batch(lines[at : at + self.size])

    def _lines(self, position: Position) -> Iterator[tuple[list[int], Position]]:
        """Lines as lists of rows, each with the position after it."""
        epoch, chunk, line = position["epoch"], position["chunk"], position["line"]
        while True:
            rows = self._epoch(epoch)
            for at in range(chunk * self.chunk, len(rows), self.chunk):
                lines = self._pack(rows[at : at + self.chunk], epoch, at // self.chunk)
                for number in range(line, len(lines)):
                    yield lines[number], {"epoch": epoch, "chunk": at // self.chunk, "line": number + 1}
                line = 0
            epoch, chunk = epoch + 1, 0

    def _epoch(self, epoch: int) -> Ints:
        if self.draws is not None:
            return self.draws.slice(epoch)
        if not self.stage.shuffled_in(epoch):
            return self.stage.rows
        return self._chance(epoch, 0).permutation(self.stage.rows)

    def _chance(self, epoch: int, use: int) -> np.random.Generator:
        """A generator of its own for every pass (``use`` 0) and for every chunk of it (``use`` 1, 2, …)."""
        return np.random.default_rng([self.stage.seed, epoch, use])

    def _pack(self, rows: Ints, epoch: int, chunk: int) -> list[list[int]]:
        if self.beside is None:
            sizes = (self.encoded.offsets[rows + 1] - self.encoded.offsets[rows]).tolist()
        else:
            sizes = self.beside.sizes(rows).tolist()
        if not self.stage.shuffled_in(epoch):
            return _next_fit(rows.tolist(), sizes, self.length + 1)
        lines = _best_fit(rows.tolist(), sizes, self.length + 1)
        return [lines[at] for at in self._chance(epoch, chunk + 1).permutation(len(lines))]

    def _batch(self, lines: list[list[int]]) -> Batch:
        shape = (len(lines), self.length + 1)
        tokens = np.full(shape, self.pad, dtype=np.int64)
        segments = np.full(shape, -1, dtype=np.int64)
        answer = np.zeros(shape, dtype=np.bool_)
        second = np.zeros(shape, dtype=np.bool_)
        pairs = np.full(shape, -1, dtype=np.int64)
        rows: list[int] = []
        for at, line in enumerate(lines):
            place = number = 0
            for row in line:
                parts = self._parts(row)
                for sample, start, is_second in parts:
                    stop = place + len(sample)
                    tokens[at, place:stop] = sample
                    segments[at, place:stop] = number
                    answer[at, place + start : stop] = True
                    if is_second:
                        second[at, place:stop] = True
                    if len(parts) == 2:
                        pairs[at, place + start : stop] = len(rows)
                    place, number = stop, number + 1
                if len(parts) == 2:
                    rows.append(row)
        known = segments[:, 1:] >= 0
        if self.isolate:  # nothing of its own comes before a sample's first token, so nothing predicts it
            known &= segments[:, 1:] == segments[:, :-1]
        if self.beside is not None:
            known &= answer[:, 1:] | ~second[:, 1:]
        labels = np.where(known, tokens[:, 1:], IGNORE)
        plain = Batch(tokens[:, :-1], labels, answer[:, 1:], segments[:, :-1] if self.isolate else None)
        if self.beside is None:
            return plain
        return replace(plain, second=second[:, 1:], pairs=pairs[:, 1:], rows=np.array(rows, dtype=np.int64))

    def _parts(self, row: int) -> list[Part]:
        """What lies in a line for one row."""
        if self.beside is None:
            return [(self.encoded.sample(row), int(self.encoded.answer_starts[row]), False)]
        return self.beside.parts(row)


def _next_fit(rows: list[int], sizes: list[int], room: int) -> list[list[int]]:
    """Lines in the given order; a sample that does not fit opens the next line."""
    lines: list[list[int]] = []
    left = 0
    for row, size in zip(rows, sizes, strict=True):
        if size > left or not lines:
            lines.append([])
            left = room
        lines[-1].append(row)
        left -= size
    return lines


def _best_fit(rows: list[int], sizes: list[int], room: int) -> list[list[int]]:
    """Longest samples first, each into the fullest line that holds it. A bit per remaining room finds that line."""
    lines: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(room + 1)]
    rooms = 0
    for at in sorted(range(len(rows)), key=lambda at: (-sizes[at], at)):
        size = sizes[at]
        candidates = rooms >> size
        if candidates:
            left = size + (candidates & -candidates).bit_length() - 1
            line = by_room[left].pop()
            if not by_room[left]:
                rooms &= ~(1 << left)
        else:
            left, line = room, len(lines)
            lines.append([])
        lines[line].append(rows[at])
        by_room[left - size].append(line)
        rooms |= 1 << (left - size)
    return lines
