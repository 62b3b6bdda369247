"""Batches: pure functions of a position, whole samples when packed, true next tokens always."""

from itertools import islice

import numpy as np
import pytest

from gradatim.errors import DataError
from gradatim.model.tokenizer import Encoded
from gradatim.stage import Stage, StageSpec
from gradatim.training.batches import IGNORE, Batch, Packed, Windows, fitting_rows

END, PAD = 1, 0


def encoded(lengths: list[int], seed: int = 0) -> Encoded:
    """Samples whose tokens tell the sample: sample i is i + 10 repeated, then END."""
    samples = [np.array([i + 10] * (length - 1) + [END], dtype=np.uint16) for i, length in enumerate(lengths)]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encoded(np.concatenate(samples), offsets, np.array([length // 2 for length in lengths], dtype=np.int64))


def stage(rows: int, order: str = "shuffled", seed: int = 3) -> Stage:
    return Stage(StageSpec("all", (1.0,), 1000, order=order), 0, np.arange(rows), seed, 0, 1000)


LENGTHS = [int(length) for length in np.random.default_rng(0).integers(4, 30, size=300)]


def batchers(order: str = "shuffled") -> list[Windows | Packed]:
    samples = encoded(LENGTHS)
    return [
        Windows(samples, stage(300, order), 4, 40),
        Packed(samples, stage(300, order), 4, 40, PAD, chunk=64),
        Packed(samples, stage(300, order), 4, 40, PAD, isolate=True, chunk=64),
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_batches_after_a_position_do_not_depend_on_what_came_before(which: int) -> None:
    batcher = batchers()[which]
    whole = list(islice(batcher.stream(batcher.start), 120))
    for at in (0, 1, 37, 99):
        position = whole[at][1]
        again = next(iter(batcher.stream(position)))
        assert np.array_equal(again[0].inputs, whole[at + 1][0].inputs)
        assert again[1] == whole[at + 1][1]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_batch_has_one_shape_and_labels_are_the_next_tokens(which: int) -> None:
    batcher = batchers()[which]
    for batch, _ in islice(batcher.stream(batcher.start), 50):
        assert batch.inputs.shape == batch.labels.shape == batch.answer.shape == (4, 40)
        real = batch.labels[:, :-1] != IGNORE
        assert np.array_equal(batch.inputs[:, 1:][real], batch.labels[:, :-1][real])


def rows_of(batch: Batch) -> list[int]:
    """The samples in a batch, from the token that names each."""
    seen = []
    for line in batch.labels:
        ends = np.flatnonzero(line == END)
        seen += [int(line[end - 1]) - 10 for end in ends]
    return seen


def test_one_pass_packs_every_sample_once_and_cuts_none() -> None:
    samples = encoded(LENGTHS)
    packed = Packed(samples, stage(300), 4, 40, PAD, chunk=64)
    batches = list(packed.one_pass())
    assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(300))
    lines = sum(int((batch.labels != IGNORE).any(axis=1).sum()) for batch in batches)
    assert sum(batch.tokens for batch in batches) == sum(LENGTHS) - lines  # all but the first token of each line


def test_packing_leaves_few_places_empty() -> None:
    packed = Packed(encoded(LENGTHS), stage(300), 4, 40, PAD)
    batches = list(packed.one_pass())
    assert sum(batch.tokens for batch in batches) / sum(batch.labels.size for batch in batches) > 0.93


def test_an_ordered_stage_is_learnt_in_its_order_at_each_pass() -> None:
    packed = Packed(encoded(LENGTHS), stage(300, order="sorted"), 2, 40, PAD, chunk=64)
    seen: list[int] = []
    for batch, _ in packed.stream(packed.start):
        seen += rows_of(batch)
        if len(seen) >= 620:
            break
    assert seen[:300] == list(range(300))
    assert seen[300:600] == list(range(300))


def test_a_shuffled_stage_has_another_order_at_each_pass() -> None:
    packed = Packed(encoded(LENGTHS), stage(300), 1, 40, PAD, chunk=1000)
    passes: dict[int, list[int]] = {}
    for batch, position in packed.stream(packed.start):
        if position["epoch"] == 2:
            break
        passes.setdefault(position["epoch"], []).extend(rows_of(batch))
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(300))
    assert passes[0] != passes[1]


def test_the_answer_mask_marks_the_answer_and_its_end() -> None:
    packed = Packed(encoded([8, 8]), stage(2, order="sorted"), 1, 20, PAD)
    batch = next(packed.one_pass())
    assert batch.answer[0].tolist() == [False] * 3 + [True] * 4 + [False] * 4 + [True] * 4 + [False] * 5


def test_isolated_segments_follow_the_samples() -> None:
    packed = Packed(encoded([5, 4]), stage(2, order="sorted"), 1, 12, PAD, isolate=True)
    batch = next(packed.one_pass())
    assert batch.segments is not None
    assert batch.segments[0].tolist() == [0] * 5 + [1] * 4 + [-1] * 3
    assert (batch.labels[0] == IGNORE).tolist() == [False] * 4 + [True] + [False] * 3 + [True] * 4


def test_windows_reach_every_place_of_the_text() -> None:
    windows = Windows(encoded([6, 7, 5]), stage(3), 8, 4)
    seen = {tuple(line) for batch, _ in islice(windows.stream(windows.start), 60) for line in batch.inputs}
    text = [10] * 5 + [END] + [11] * 6 + [END] + [12] * 4 + [END]
    assert seen == {tuple(text[at : at + 4]) for at in range(len(text) - 4)}


def test_one_pass_of_windows_reads_the_text_once_in_batches_of_one_shape() -> None:
    samples = encoded(LENGTHS)
    batches = list(Windows(samples, stage(300), 4, 40).one_pass())
    read = [
        line for batch in batches for line, label in zip(batch.inputs, batch.labels, strict=True) if label[0] != IGNORE
    ]
    assert {batch.inputs.shape for batch in batches} == {(4, 40)}
    assert np.array_equal(np.concatenate(read), samples.tokens[: len(read) * 40])
    assert len(samples.tokens) - len(read) * 40 <= 41


def test_chunks_of_one_pass_are_shuffled_differently() -> None:
    samples = encoded([10] * 256)
    packed = Packed(samples, stage(256), 1, 9, PAD, chunk=64)
    orders = [packed._pack(np.arange(64), 0, chunk) for chunk in range(4)]
    assert len({tuple(map(tuple, order)) for order in orders}) == 4


def test_text_shorter_than_a_window_is_refused() -> None:
    windows = Windows(encoded([6]), stage(1), 8, 40)
    with pytest.raises(DataError, match=r"train\.max_length"):
        next(iter(windows.stream(windows.start)))


def test_samples_longer_than_the_context_are_counted() -> None:
    rows, dropped = fitting_rows(encoded([5, 50, 7]), np.arange(3), 20)
    assert rows.tolist() == [0, 2]
    assert dropped == 1
    with pytest.raises(DataError, match=r"train\.max_length"):
        fitting_rows(encoded([50]), np.arange(1), 20)
