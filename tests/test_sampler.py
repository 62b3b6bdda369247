"""A curriculum in other people's loops: the order is that of a run, a position is all that it depends on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradatim
from gradatim import CurriculumSampler
from gradatim.assemble import stage_seed
from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.programs import generate
from gradatim.registry import Entry
from gradatim.schedule import SCHEDULES
from gradatim.stage import Event, StageSpec

DIFFICULTY = np.arange(60) * 7 % 60 / 10


def sampler(**changes: Any) -> CurriculumSampler:
    given = {"data": range(60), "difficulty": DIFFICULTY, "schedule": "hybrid", "samples": 240, **changes}
    return CurriculumSampler(**given)


def test_the_whole_of_it_is_one_pass_of_the_stages_in_turn():
    curriculum = sampler(schedule="sequential", epochs=3, samples=None)
    rows = list(curriculum)
    assert len(rows) == len(curriculum) == 180
    assert [Counter(rows[at : at + 60]) for at in (0, 60, 120)] == [
        Counter({row: 3 for row in range(60) if low <= DIFFICULTY[row] < low + 2}) for low in (0, 2, 4)
    ]


def test_every_pass_of_a_shuffled_stage_is_a_new_permutation():
    rows = list(sampler(schedule="baseline", samples=150))
    assert sorted(rows[:60]) == sorted(rows[60:120]) == list(range(60))
    assert rows[:60] != rows[60:120] != list(range(60))
    assert len(set(rows[120:])) == 30


@pytest.mark.parametrize("order", ["sorted", "folded", "zigzag"])
def test_another_order_is_kept_in_every_pass(order):
    rows = list(sampler(schedule="baseline", samples=120, options={"order": order}))
    assert rows[:60] == rows[60:]
    assert sorted(rows[:60]) == list(range(60))
    if order == "sorted":
        assert list(DIFFICULTY[rows[:60]]) == sorted(DIFFICULTY)


def test_an_order_by_categories_finds_them_in_the_rows():
    data = [{"level": "ab"[row % 2]} for row in range(60)]
    options = {"order": "blocked", "category": "level"}
    rows = list(sampler(data=data, schedule="baseline", samples=60, options=options))
    assert len({row % 2 for row in rows[:30]}) == len({row % 2 for row in rows[30:]}) == 1
    with pytest.raises(DataError, match=r"no such column; given: topic; allowed: level"):
        sampler(data=data, schedule="baseline", options={"order": "blocked", "category": "topic"})
    with pytest.raises(DataError, match="every sample has the same 'level'"):
        sampler(data=[{"level": "a"}] * 60, schedule="baseline", options=options)


def test_the_same_arguments_give_the_same_rows_and_another_seed_does_not():
    assert list(sampler()) == list(sampler()) != list(sampler(seed=1))
    assert sampler().state_dict() == sampler().state_dict() != sampler(seed=1).state_dict()


def test_an_epoch_number_changes_nothing():
    curriculum = sampler()
    before = list(curriculum)
    curriculum.set_epoch(3)
    assert list(curriculum) == before


@pytest.mark.parametrize("taken", [0, 1, 41, 119, 120, 239, 240])
def test_a_loaded_position_gives_exactly_the_rest_and_then_begins_anew(taken):
    curriculum, other = sampler(), sampler()
    rows = iter(curriculum)
    begun = [next(rows) for _ in range(taken)]
    other.load_state_dict(json.loads(json.dumps(curriculum.state_dict())))
    assert begun + list(other) == list(other) == list(sampler())


def test_two_passes_at_a_time_do_not_disturb_each_other():
    curriculum = sampler()
    both = list(zip(iter(curriculum), iter(curriculum), strict=True))
    assert [one for one, _ in both] == [other for _, other in both] == list(sampler())


def test_a_state_of_another_curriculum_is_refused_by_what_differs():
    for changes, differs in (
        ({"seed": 1}, r"seed 1 \(here 0\)"),
        ({"samples": 120}, r"samples 120 \(here 240\)"),
        ({"schedule": "sequential"}, r"schedule sequential \{\} \(here hybrid \{\}\)"),
        ({"options": {"replay": 0.25}}, "replay"),
        ({"difficulty": DIFFICULTY[::-1]}, "difficulty"),
    ):
        with pytest.raises(RecipeError, match=f"another curriculum; given: .*{differs}"):
            sampler().load_state_dict(sampler(**changes).state_dict())
    with pytest.raises(RecipeError, match="no state of a curriculum"):
        sampler().load_state_dict({"position": 3})
    with pytest.raises(RecipeError, match="a position outside"):
        sampler().load_state_dict(sampler().state_dict(position=241))


def test_every_stage_is_a_whole_number_of_steps():
    curriculum = sampler(samples=None, steps=15, batch=16)
    assert [row["samples"] for row in curriculum.table()] == [16 * steps for steps in (2, 4, 9)]
    assert len(curriculum) == 240
    assert len(sampler(samples=100, batch=16)) == 96


def test_a_stage_ends_with_the_sample_that_reaches_its_tokens():
    lengths = np.arange(60) % 5 + 1
    curriculum = sampler(samples=None, tokens=1200, lengths=lengths, schedule="sequential")
    rows, first = list(curriculum), 0
    for part in curriculum.parts:
        seen = lengths[rows[first : first + part.samples]]
        assert seen[:-1].sum() < part.stage.spec.tokens <= seen.sum()
        first += part.samples


def test_rows_without_a_difficulty_are_left_out_and_told():
    heard: list[Event] = []
    holes = DIFFICULTY.copy()
    holes[::10] = math.nan
    curriculum = sampler(difficulty=holes, schedule="baseline", epochs=2, samples=None, events=heard.append)
    assert len(curriculum) == 2 * 54
    assert not set(curriculum) & set(range(0, 60, 10))
    assert [event.text for event in heard] == ["6 of 60 rows have no difficulty: left out"]
    assert "6 of 60 rows without a difficulty left out" in repr(curriculum)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"difficulty": DIFFICULTY[:-1]}, DataError, r"one difficulty for each row; given: shape \(59,\) for 60 rows"),
        ({"difficulty": [math.nan] * 60}, DataError, "no sample has a difficulty"),
        ({"difficulty": "om"}, DataError, "a metric needs texts"),
        ({"difficulty": "omm", "data": ["a = 1\n"]}, UnknownPart, "did you mean 'om'"),
        ({"schedule": "hybird"}, UnknownPart, "did you mean 'hybrid'"),
        ({"options": {"replays": 1}}, RecipeError, "no option 'replays'"),
        ({"samples": None}, RecipeError, "told in one way; given: none"),
        ({"steps": 3}, RecipeError, "told in one way; given: steps, samples"),
        ({"samples": 0}, RecipeError, "must be positive"),
        ({"samples": 1}, RecipeError, "the budget is too small"),
        ({"batch": 0}, RecipeError, "must be positive"),
        ({"lengths": [1] * 60}, RecipeError, "a budget in tokens needs the lengths"),
        ({"samples": None, "tokens": 99}, RecipeError, "a budget in tokens needs the lengths"),
        ({"samples": None, "tokens": 99, "lengths": [1] * 59}, DataError, r"one positive length .* shape \(59,\)"),
        ({"samples": None, "tokens": 99, "lengths": [0] * 60}, DataError, "one positive length .* least 0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(changes, error, says):
    with pytest.raises(error, match=says):
        sampler(**changes)


@pytest.mark.parametrize("name", ["mastery", "self_paced", "frontier", "bandit"])
def test_a_schedule_that_needs_results_is_refused(name):
    with pytest.raises(RecipeError, match=f"the schedule '{name}' decides by the results .* a sampler never sees"):
        sampler(schedule=name)


def test_a_schedule_that_looks_at_results_unasked_is_refused_when_it_does(monkeypatch):
    class ByLoss:
        def next(self, history):
            if not history:
                return StageSpec("first", (1.0, 1.0, 1.0), 10)
            return StageSpec("more", (1.0, 1.0, 1.0), 10) if history[-1].fitted.loss > 1 else None

    monkeypatch.setitem(SCHEDULES._entries, "by_loss", Entry("by_loss", "", lambda *_: ByLoss()))
    with pytest.raises(RecipeError, match="the schedule 'by_loss' decides by the results"):
        sampler(schedule="by_loss")


def test_a_schedule_that_draws_rows_with_weights_is_refused():
    with pytest.raises(RecipeError, match="'fade' asks for what a sampler does not give: mixture"):
        sampler(schedule="fade")


def test_pacing_without_replay_opens_the_difficulty_from_below():
    curriculum = sampler(schedule="pacing", samples=600)
    hardest = [DIFFICULTY[part.stage.rows].max() for part in curriculum.parts]
    assert hardest == sorted(hardest)
    assert hardest[0] < hardest[-1] == DIFFICULTY.max()


@pytest.mark.parametrize("form", ["table", "columns", "pairs", "strings"])
def test_a_metric_scores_the_rows_in_whatever_form_they_come(form):
    import datasets

    table = generate(40, levels=("1.1", "2.2"), seed=3).table.select(["prompt", "answer"])
    texts = [row["prompt"] + row["answer"] for row in table.to_pylist()]
    data = {
        "table": table,
        "columns": datasets.Dataset.from_dict(
            {"prompt": table["prompt"].to_pylist(), "completion": table["answer"].to_pylist()}
        ),
        "pairs": table.to_pylist(),
        "strings": texts,
    }[form]
    scores = gradatim.score(table, ["om"])["om"].to_numpy()
    given = {"bands": ("easy", "hard"), "epochs": 2}
    assert list(CurriculumSampler(data, "om", **given)) == list(CurriculumSampler(data, scores, **given))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_goes_on_from_a_position_gives_the_remaining_batches(workers):
    from torch.utils.data import DataLoader

    def loader(curriculum: CurriculumSampler) -> DataLoader[int]:
        return DataLoader(range(60), batch_size=16, sampler=curriculum, num_workers=workers)

    curriculum, other = sampler(), sampler()
    whole = [batch.tolist() for batch in loader(sampler())]
    batches = iter(loader(curriculum))
    begun = [next(batches).tolist() for _ in range(4)]
    if not workers:
        assert curriculum.position == 64
    other.load_state_dict(curriculum.state_dict(position=64))
    assert begun + [batch.tolist() for batch in loader(other)] == whole
    assert [row for batch in whole for row in batch] == list(sampler())


def test_importing_the_sampler_imports_no_torch():
    code = (
        "import sys\nimport gradatim\ngradatim.CurriculumSampler, gradatim.CurriculumMixin\n"
        "print([name for name in ('torch', 'transformers', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_stage_has_the_seed_that_a_run_gives_it():
    assert [part.stage.seed for part in sampler(seed=5).parts] == [stage_seed(5, 0, index) for index in range(3)]


@pytest.fixture
def seen(monkeypatch) -> dict[str, list[int]]:
    """The rows that our own batcher hands to training, by stage, in order."""
    from gradatim.student.batches import Packed

    rows: dict[str, list[int]] = {}
    batch = Packed._batch

    def overheard(self: Packed, lines: list[list[int]]) -> Any:
        rows.setdefault(self.stage.spec.name, []).extend(row for line in lines for row in line)
        return batch(self, lines)

    monkeypatch.setattr(Packed, "_batch", overheard)
    return rows


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_our_own_batcher_one_sample_a_line_gives_the_order_of_the_sampler_row_by_row(order, seen):
    from gradatim.schedule import make_bands, realise
    from gradatim.student.batches import Packed
    from gradatim.student.tokenizer import character_tokenizer, encode_table

    table = gradatim.score(generate(90, levels=("1.1", "2.1", "2.2"), seed=3).table, ["om"])
    scores = table["om"].to_numpy()
    encoded = encode_table(character_tokenizer(table["prompt"].to_pylist() + table["answer"].to_pylist()), table)
    bands = make_bands(scores)
    schedule, history = SCHEDULES.get("hybrid")(bands.names, 50_000, order=order), []
    while spec := schedule.next(history):
        stage = realise(spec, bands, scores, seed=stage_seed(9, 0, len(history)), index=len(history))
        tokens = 0
        batcher = Packed(encoded, stage, size=1, length=500, pad=0, chunk=1)
        for batch, _ in batcher.stream(batcher.start):
            tokens += batch.tokens
            if tokens >= spec.tokens:
                break
        history.append(spec)
    lengths = np.diff(encoded.offsets) - 1
    options = {"order": order}
    curriculum = CurriculumSampler(table, "om", tokens=50_000, lengths=lengths, options=options, seed=9)
    assert list(curriculum) == [row for rows in seen.values() for row in rows]
    assert list(seen) == ["easy", "medium+replay", "hard+replay"]
    assert all(row["passes"] > 1 for row in curriculum.table())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_run_sees_the_rows_in_the_order_of_the_sampler(order, seen, tmp_path: Path):
    """A kept order is the same row by row, up to where the loop's last batch ends. A shuffled pass is regrouped by
    length when several samples share a line: then the rows of each pass are the same.
    """
    from gradatim.student.tokenizer import Encoded
    from gradatim.table import read_table

    changes = ["data.count=400", "data.split.test=20", "data.split.validation=20", "budget.tokens=40000"]
    changes += ["schedule.name=hybrid", f"schedule.order={order}", "evaluate.suites=[]", "train.validate=0"]
    changes += ["train.size=2", "train.length=384", "student.context=384"]
    gradatim.run("smoke/baseline", tmp_path, changes=changes)
    table = read_table(next((tmp_path / "data").glob("*/train*.parquet")))
    lengths = np.diff(Encoded.open(next((tmp_path / "data").glob("*/tokens-*/train"))).offsets) - 1
    given = {"tokens": 40_000, "lengths": lengths, "options": {"order": order}, "thresholds": (2, 4), "seed": 1}
    curriculum = CurriculumSampler(table, table["om"].to_numpy(), "hybrid", **given)
    rows = iter(curriculum)
    for part in curriculum.parts:
        ours, theirs = seen[part.stage.spec.name], [next(rows) for _ in range(part.samples)]
        both, size = min(len(ours), len(theirs)), len(part.stage.rows)
        assert max(len(ours), len(theirs)) - both <= 40  # two batches: the last one, and one that was made ready
        if order == "sorted":
            assert ours[:both] == theirs[:both]
        for number in range(both // size):
            assert sorted(ours[number * size :][:size]) == sorted(theirs[number * size :][:size])
