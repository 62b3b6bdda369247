"""Batches of one fixed shape (``size`` lines of ``length`` predictions) from the samples of a stage.

* ``windows``, the published protocol: crops of length + 1 tokens, cut at random positions of the concatenated text.
* ``packed``: whole samples laid end to end in lines, none cut; with ``isolate`` a sample attends to itself only.
  A second answer to a prompt lies in the same line as the first, since a preference loss needs both in one step and
  distillation on the student's own text needs its completions.

A batcher is a pure function of a *position*, a small dict that a checkpoint stores: the batches after a position
are the same in every process, whatever came before. This module is independent of models and losses.

Weighted row sampling for mixture stages.

For a stage with a ``Mixture`` the passes of a batcher are *slices* of the stage's time; ``WeightedSampler.slice`` gives
the rows of a slice. Low-discrepancy sampling: visit k of a row happens when its expected number of visits passes k + u,
u ~ U(0, 1) drawn anew for each visit. With equal weights every row is therefore visited once in each pass, in a new
order, as in a shuffled stage.

A slice is a pure function of its number, so the position of a batcher stays two integers and a mixture can be resumed.
The shares of a mixture are shares of tokens, like the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError, RecipeError
from ..model.settings import Requirements, TrainSettings
from ..random_streams import crop_stream, pass_stream
from ..stage import Stage

if TYPE_CHECKING:
    from ..model.tokenizer import Answers, Encoded, Tokens

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SLICE_SIZE = 4096
"""Approximate upper bound of the samples in a slice; the same number as a batcher packs at a time."""

MIN_SLICES = 32
"""Least number of slices of a stage with enough batches: the mixture is constant within a slice."""


@dataclass(frozen=True)
class WeightedSampler:
    """Rows with weights that change linearly. ``first`` and ``last`` (float64, aligned with ``rows``) are the expected
    visits of a stage whose mixture stayed as at its beginning, or as at its end.
    """

    rows: Ints
    first: Floats
    last: Floats
    slices: int
    seed: int

    def slice(self, number: int) -> Ints:
        """The rows of slice ``number`` (from 0), in random order; past the stage's end as at its end."""
        start, stop = (self._expected(edge / self.slices) for edge in (number, number + 1))
        visit = np.floor(start).astype(np.int64)
        slices = []
        while (open_ := visit < stop).any():
            due = visit + _uniform(self.seed, self.rows, visit)
            slices.append(self.rows[open_ & (due >= start) & (due < stop)])
            visit = visit + 1
        rows = np.concatenate(slices) if slices else self.rows[:0]
        return pass_stream(self.seed, number).permutation(rows)

    def _expected(self, time: float) -> Floats:
        """Expected visits of each row until ``time``, 1 being the end of the stage."""
        within = min(time, 1.0)
        visits = self.first * within + (self.last - self.first) * within**2 / 2
        return np.asarray(visits + self.last * (time - within))


def make_sampler(stage: Stage, rows: Ints, sizes: Ints, batch: int) -> WeightedSampler | None:
    """The sampler of the ``rows`` of ``stage`` that fit a line; None for a stage without a mixture.

    ``sizes``: loss tokens of each of ``rows``; ``batch``: approximate loss tokens of a batch. Raises ``DataError`` when
    no row remains of all groups that have a share at the beginning, or at the end.
    """
    if stage.mixture is None:
        return None
    fitting = np.isin(stage.rows, rows, assume_unique=True)
    groups, weights = stage.mixture.groups[fitting], stage.mixture.weights[fitting]
    mass = np.bincount(groups, weights * sizes, minlength=len(stage.mixture.start))
    ends = []
    for shares in (stage.mixture.start, stage.mixture.end):
        present = np.where(mass > 0, shares, 0.0)
        if not present.sum() > 0:
            raise DataError(
                "no sample of the mixture fits into the context",
                where=f"stage {stage.spec.name}",
                hint="a larger train.max_length and student.context_length",
            )
        rate = np.divide(present / present.sum(), mass, out=np.zeros_like(mass), where=mass > 0)
        ends.append(stage.spec.tokens * rate[groups] * weights)
    visits = (ends[0].sum() + ends[1].sum()) / 2
    slices = min(max(visits / SLICE_SIZE, MIN_SLICES), stage.spec.tokens / (4 * batch))
    return WeightedSampler(stage.rows[fitting], ends[0], ends[1], max(int(slices), 1), stage.seed)


def refuse_windows(stage: Stage) -> None:
    """Raise ``RecipeError`` for a mixture stage: random crops of the text have no rows."""
    if stage.mixture is not None:
        raise RecipeError(
            "a schedule that draws samples with weights needs whole samples",
            where="train.batching",
            given="random_crops",
            allowed="packed",
        )


def _uniform(seed: int, rows: Ints, visit: Ints) -> Floats:
    """A number in [0, 1) for each visit of each row: a hash of seed, row and visit (the finaliser of SplitMix64)."""
    mixed = np.full(rows.shape, seed, dtype=np.uint64)
    for number in (rows, visit):
        mixed = mixed + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) / (1 << 53))


IGNORE = -100
"""The label of a token without a loss."""

Position = dict[str, int]


@dataclass(frozen=True, eq=False)
class Batch:
    """``inputs`` and ``labels`` are int64 of shape (size, length); ``labels[i, t]`` follows ``inputs[i, t]``.

    ``answer`` (bool, same shape) marks labels that belong to a sample's answer or its end. ``segments`` (int64, same
    shape) numbers the samples of a line from 0, or is None when tokens may attend across samples.

    Where prompts may have a second answer, ``second`` (bool, same shape) marks the labels that belong to one, and
    ``pairs`` (int64, same shape) has the number of the pair at the labels of both answers to a prompt, -1 elsewhere;
    ``rows[p]`` is the row of pair p. The prompt of a second answer has no labels.
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
        """Number of predictions in the batch."""
        return int(np.count_nonzero(self.labels != IGNORE))

    @property
    def answer_tokens(self) -> int:
        """Number of predictions that belong to answers."""
        return int(np.count_nonzero(self.answer & (self.labels != IGNORE)))

    def loss_tokens(self, prompt_loss: bool) -> int:
        """Number of tokens with a loss, in which the budget is counted: all predictions, or those of answers alone."""
        return self.tokens if prompt_loss else self.answer_tokens

    def lines(self, part: slice | Ints) -> Batch:
        """Some lines, by a slice or by their indices, with their pairs, renumbered."""
        segments = None if self.segments is None else self.segments[part]
        plain = Batch(self.inputs[part], self.labels[part], self.answer[part], segments)
        if self.pairs is None or self.second is None or self.rows is None:
            return plain
        pairs = self.pairs[part]
        numbers = np.unique(pairs[pairs >= 0])
        renumbered = np.where(pairs >= 0, np.searchsorted(numbers, pairs), -1)
        return replace(plain, second=self.second[part], pairs=renumbered, rows=self.rows[numbers])


def share(batches: Sequence[Batch], rank: int, size: int) -> Sequence[Batch]:
    """The part of a step's ``batches`` that process ``rank`` of ``size`` computes.

    Whole batches where their number is a multiple of ``size``, otherwise the same number of lines of each batch. The
    parts of all ranks together are the step; sums over them equal the sums of the step.
    """
    if size == 1:
        return batches
    if len(batches) % size == 0:
        return batches[rank::size]
    each = len(batches[0].inputs) // size
    return [batch.lines(slice(rank * each, (rank + 1) * each)) for batch in batches]


def check_processes(train: TrainSettings, size: int) -> None:
    """Raise ``RecipeError`` when the lines of a step cannot be divided evenly among ``size`` processes."""
    lines, steps = train.batch_size, train.gradient_accumulation_steps
    if lines % size == 0 or steps % size == 0:
        return
    allowed = [count for count in range(1, max(lines, steps) + 1) if lines % count == 0 or steps % count == 0]
    raise RecipeError(
        f"a step cannot be divided evenly among {size} processes",
        where="train.batch_size",
        given=f"{lines} lines, {steps} gradient accumulation steps",
        allowed=f"{', '.join(map(str, allowed))} processes",
        hint=f"--set train.batch_size={-(-lines // size) * size}",
    )


Sample: TypeAlias = "tuple[Tokens, int, bool]"
"""The tokens of a prompt and one answer, the index at which the answer starts, and whether it is a second answer."""


@dataclass(frozen=True)
class SecondAnswers:
    """Second answers to the prompts of ``encoded``; with ``replaces_first`` they stand in place of the first ones."""

    encoded: Encoded
    answers: Answers
    replaces_first: bool = False

    def sizes(self, rows: Ints) -> Ints:
        """Tokens of each row in a line, all its answers together; shape of ``rows``."""
        first, extra = self.encoded.offsets[rows + 1] - self.encoded.offsets[rows], self.answers.sizes(rows)
        second = np.where(extra > 0, self.encoded.answer_starts[rows] + extra, 0)
        return np.asarray(np.where((extra > 0) & self.replaces_first, second, first + second))

    def samples(self, row: int) -> list[Sample]:
        """One sample, or two where the row has a second answer."""
        sample, start, answer = (
            self.encoded.sample(row),
            int(self.encoded.answer_starts[row]),
            self.answers.answer(row),
        )
        if not len(answer):
            return [(sample, start, False)]
        second: Sample = (np.concatenate([sample[:start], answer]), start, True)
        return [second] if self.replaces_first else [(sample, start, False), second]


def make_second_answers(objective: str, requirements: Requirements, samples: Encoded) -> SecondAnswers | None:
    """The second answers that a loss needs; None when it needs none or the table has none.

    Raises ``DataError`` when the loss is defined on pairs alone and the table has none.
    """
    column = requirements.second_answer
    answers = None if column is None else samples.rejected if column == "rejected" else samples.attempt
    if answers is None:
        if requirements.pairs_only:
            raise DataError(
                f"the objective {objective!r} needs pairs of answers, and no sample has a second answer",
                where=f"the column {column!r}",
                hint="rejected_answers: {sources: {mutation: 1}}, or the objective sft_dpo, which also trains on "
                "samples without a rejected answer",
            )
        return None
    return SecondAnswers(samples, answers, replaces_first=requirements.replaces_first)


def paired_rows(second_answers: SecondAnswers, rows: Ints) -> Ints:
    """The elements of ``rows`` that have a second answer, in the same order. ``DataError`` when there is none."""
    paired = rows[second_answers.answers.sizes(rows) > 0]
    if not len(paired):
        raise DataError("no sample of the stage has a rejected answer", where="the column 'rejected'", given=len(rows))
    return np.asarray(paired)


def row_tokens(
    requirements: Requirements,
    train: TrainSettings,
    encoded: Encoded,
    rows: Ints,
    second_answers: SecondAnswers | None = None,
) -> Ints:
    """Loss tokens per row, all its answers together, shape of ``rows``. Agrees with ``Batch.loss_tokens``.

    The weighted sampler uses it to turn a token budget into visits. Where samples attend to each other (no
    ``isolate``), the first sample of a line has one token less.
    """
    prompt = encoded.answer_starts[rows]
    answer = encoded.offsets[rows + 1] - encoded.offsets[rows] - prompt
    second = np.zeros_like(answer) if second_answers is None else second_answers.answers.sizes(rows)
    if train.block_diagonal_attention:  # the first token of a sample has no prediction
        answer, second = answer - (prompt == 0), second - ((prompt == 0) & (second > 0))
        prompt = np.maximum(prompt - 1, 0)
    if not requirements.prompt_loss:
        prompt = np.zeros_like(prompt)
    if requirements.replaces_first:
        answer = np.where(second > 0, 0, answer)
    return np.asarray(prompt + answer + second)


def epoch_tokens(objective: str, requirements: Requirements, train: TrainSettings, encoded: Encoded, rows: Ints) -> int:
    """Loss tokens of one pass through ``rows`` with ``objective``, without rows that no batch has."""
    second_answers = make_second_answers(objective, requirements, encoded)
    if second_answers is not None and requirements.pairs_only:
        rows = paired_rows(second_answers, rows)
    if train.batching == "packed":
        rows, _ = fitting_rows(encoded, rows, train.max_length, second_answers)
    return int(row_tokens(requirements, train, encoded, rows, second_answers).sum())


class Batcher(Protocol):
    """An endless stream of batches, from any position."""

    @property
    def start(self) -> Position:
        """The position before the first batch."""
        ...

    def stream(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches from ``position`` on, each with the position after it."""
        ...


def fitting_rows(
    encoded: Encoded, rows: Ints, length: int, second_answers: SecondAnswers | None = None
) -> tuple[Ints, int]:
    """The rows whose sample, with its end, fits into ``length`` + 1 tokens, and the number of the others.

    With ``second_answers`` all answers to one prompt must fit together.
    """
    sizes = encoded.offsets[rows + 1] - encoded.offsets[rows] if second_answers is None else second_answers.sizes(rows)
    fits = sizes <= length + 1
    fitting = rows[fits]
    if not len(fitting):
        raise DataError(
            "no sample of the stage fits into the context"
            if second_answers is None
            else "no pair of answers fits into a line",
            where="train.max_length",
            given=f"{length} tokens; the shortest has {int(sizes.min()) if len(sizes) else 0}",
            hint="a larger train.max_length and student.context_length, or train.batching: random_crops",
        )
    return fitting, int(len(rows) - len(fitting))


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
            generator = crop_stream(self.stage.seed, step)
            first = generator.integers(0, starts[-1] - self.length, size=self.size)
            step += 1
            yield self._cut(rows, starts, first), {"step": step}

    def one_pass(self) -> Iterator[Batch]:
        """The text once, in consecutive windows; a remainder shorter than one window is skipped."""
        rows, starts = self._text()
        offsets = np.arange(0, starts[-1] - self.length, self.length)
        for at in range(0, len(offsets), self.size):
            group = offsets[at : at + self.size]
            batch = self._cut(rows, starts, np.resize(group, self.size))
            batch.labels[len(group) :] = IGNORE  # the last batch is padded to the fixed shape
            yield batch

    def _text(self) -> tuple[Ints, Ints]:
        """The stage's rows, and the offset of each in their concatenation, with the end of the last."""
        rows = self.stage.rows
        starts = np.concatenate([[0], np.cumsum(self.encoded.offsets[rows + 1] - self.encoded.offsets[rows])])
        if starts[-1] <= self.length:
            raise DataError(
                "the stage's text is shorter than one window",
                where=f"stage {self.stage.spec.name}",
                given=f"{int(starts[-1])} tokens for windows of {self.length + 1}",
                hint="more samples, or a smaller train.max_length",
            )
        return rows, starts

    def _cut(self, rows: Ints, starts: Ints, first: Ints) -> Batch:
        """The windows at the offsets ``first`` of the virtual concatenation, which is never built."""
        offsets = first[:, None] + np.arange(self.length + 1)
        index = np.searchsorted(starts, offsets.ravel(), side="right").reshape(offsets.shape) - 1
        inside = offsets - starts[index]
        sample = rows[index]
        tokens = np.asarray(self.encoded.tokens[self.encoded.offsets[sample] + inside]).astype(np.int64)
        answer = inside >= self.encoded.answer_starts[sample]
        return Batch(tokens[:, :-1], tokens[:, 1:].copy(), answer[:, 1:])


@dataclass(frozen=True)
class Packed:
    """Whole samples in lines of ``length`` + 1 tokens. A line begins with a sample, as a prompt does in inference.

    A shuffled stage is permuted anew at each pass and packed best-fit, ``chunk`` samples at a time, to leave little
    padding; any other order is preserved, and a line ends where the next sample does not fit. Rows must fit
    (``fitting_rows``). ``second_answers`` are laid into the line of the first answer. With a ``sampler`` a pass is a
    slice of the stage's mixture.
    """

    encoded: Encoded
    stage: Stage
    size: int
    length: int
    pad: int
    isolate: bool = False
    chunk: int = 4096
    second_answers: SecondAnswers | None = None
    sampler: WeightedSampler | None = None

    @property
    def start(self) -> Position:
        return {"epoch": 0, "chunk": 0, "line": 0}

    def stream(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        lines: list[list[int]] = []
        for line, position_after in self._lines(position):
            lines.append(line)
            if len(lines) == self.size:
                yield self._batch(lines), position_after
                lines = []

    def one_pass(self) -> Iterator[Batch]:
        """Every sample once, in the shape of training; the last batch is padded with empty lines."""
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
        if self.sampler is not None:
            return self.sampler.slice(epoch)
        if not self.stage.shuffled_in(epoch):
            return self.stage.rows
        return pass_stream(self.stage.seed, epoch).permutation(self.stage.rows)

    def _pack(self, rows: Ints, epoch: int, chunk: int) -> list[list[int]]:
        if self.second_answers is None:
            sizes = (self.encoded.offsets[rows + 1] - self.encoded.offsets[rows]).tolist()
        else:
            sizes = self.second_answers.sizes(rows).tolist()
        if not self.stage.shuffled_in(epoch):
            return _next_fit(rows.tolist(), sizes, self.length + 1)
        lines = _best_fit(rows.tolist(), sizes, self.length + 1)
        return [lines[at] for at in pass_stream(self.stage.seed, epoch, chunk).permutation(len(lines))]

    def _batch(self, lines: list[list[int]]) -> Batch:
        shape = (len(lines), self.length + 1)
        tokens = np.full(shape, self.pad, dtype=np.int64)
        segments = np.full(shape, -1, dtype=np.int64)
        answer = np.zeros(shape, dtype=np.bool_)
        second = np.zeros(shape, dtype=np.bool_)
        pairs = np.full(shape, -1, dtype=np.int64)
        rows: list[int] = []
        for at, line in enumerate(lines):
            offset = number = 0
            for row in line:
                samples = self._samples(row)
                for sample, start, is_second in samples:
                    stop = offset + len(sample)
                    tokens[at, offset:stop] = sample
                    segments[at, offset:stop] = number
                    answer[at, offset + start : stop] = True
                    if is_second:
                        second[at, offset:stop] = True
                    if len(samples) == 2:
                        pairs[at, offset + start : stop] = len(rows)
                    offset, number = stop, number + 1
                if len(samples) == 2:
                    rows.append(row)
        predicted = segments[:, 1:] >= 0
        if self.isolate:  # the first token of a sample has no context of its own, so it is not predicted
            predicted &= segments[:, 1:] == segments[:, :-1]
        if self.second_answers is not None:
            predicted &= answer[:, 1:] | ~second[:, 1:]
        labels = np.where(predicted, tokens[:, 1:], IGNORE)
        plain = Batch(tokens[:, :-1], labels, answer[:, 1:], segments[:, :-1] if self.isolate else None)
        if self.second_answers is None:
            return plain
        return replace(plain, second=second[:, 1:], pairs=pairs[:, 1:], rows=np.array(rows, dtype=np.int64))

    def _samples(self, row: int) -> list[Sample]:
        """The samples that are laid into a line for one row."""
        if self.second_answers is None:
            return [(self.encoded.sample(row), int(self.encoded.answer_starts[row]), False)]
        return self.second_answers.samples(row)


def _next_fit(rows: list[int], sizes: list[int], room: int) -> list[list[int]]:
    """Lines in the given order; a sample that does not fit opens the next line."""
    lines: list[list[int]] = []
    remaining = 0
    for row, size in zip(rows, sizes, strict=True):
        if size > remaining or not lines:
            lines.append([])
            remaining = room
        lines[-1].append(row)
        remaining -= size
    return lines


def _best_fit(rows: list[int], sizes: list[int], room: int) -> list[list[int]]:
    """Longest samples first, each into the fullest line with enough room. A bit per remaining room finds that line."""
    lines: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(room + 1)]
    rooms = 0
    for at in sorted(range(len(rows)), key=lambda at: (-sizes[at], at)):
        size = sizes[at]
        candidates = rooms >> size
        if candidates:
            remaining = size + (candidates & -candidates).bit_length() - 1
            line = by_room[remaining].pop()
            if not by_room[remaining]:
                rooms &= ~(1 << remaining)
        else:
            remaining, line = room, len(lines)
            lines.append([])
        lines[line].append(rows[at])
        by_room[remaining - size].append(line)
        rooms |= 1 << (remaining - size)
    return lines
