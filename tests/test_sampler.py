"""A curriculum in other people's loops: the order is that of a run, a position is all that it depends on."""

from __future__ import annotations

import functools
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
from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.programs import generate
from gradatim.random_streams import stage_seed
from gradatim.registry import Entry
from gradatim.schedule import SCHEDULES
from gradatim.stage import Event, Schedule, StageSpec

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
        ({"samples": None}, RecipeError, "exactly one unit; given: none"),
        ({"steps": 3}, RecipeError, "exactly one unit; given: steps, samples"),
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
    with pytest.raises(RecipeError, match=f"the schedule '{name}' decides by the results .* a sampler does not have"):
        sampler(schedule=name)


def test_a_schedule_that_looks_at_results_unasked_is_refused_when_it_does(monkeypatch):
    class ByLoss(Schedule):
        def next(self, history):
            if not history:
                return StageSpec("first", (1.0, 1.0, 1.0), 10)
            return StageSpec("more", (1.0, 1.0, 1.0), 10) if history[-1].fitted.loss > 1 else None

    monkeypatch.setitem(SCHEDULES._entries, "by_loss", Entry("by_loss", "", lambda bands, tokens: ByLoss()))
    with pytest.raises(RecipeError, match="the schedule 'by_loss' decides by the results"):
        sampler(schedule="by_loss")


def test_a_stage_with_an_objective_of_its_own_is_refused(monkeypatch):
    class Contrasting(Schedule):
        def next(self, history):
            return None if history else StageSpec("pairs", (1.0, 1.0, 1.0), 10, objective="preference")

    monkeypatch.setitem(SCHEDULES._entries, "pairs", Entry("pairs", "", lambda bands, tokens: Contrasting()))
    with pytest.raises(RecipeError, match=r"stage 'pairs': .* features that a sampler does not have: objective"):
        sampler(schedule="pairs")


DRAWN = [
    pytest.param({"schedule": "fade"}, id="fade"),
    pytest.param({"schedule": "fade", "options": {"replay": 0.2}}, id="fade with replay"),
    pytest.param({"schedule": "pacing", "options": {"parts": 4, "replay": 0.25}}, id="pacing with replay"),
]


@pytest.mark.parametrize("given", DRAWN)
@pytest.mark.parametrize("taken", [0, 1, 119, 1200, 2399, 2400])
def test_rows_drawn_with_weights_go_on_from_any_position(given, taken):
    curriculum, other = sampler(samples=2400, **given), sampler(samples=2400, **given)
    whole, rows = list(sampler(samples=2400, **given)), iter(curriculum)
    begun = [next(rows) for _ in range(taken)]
    other.load_state_dict(json.loads(json.dumps(curriculum.state_dict())))
    assert begun + list(other) == whole == list(other)
    assert len(whole) == len(curriculum) == 2400


def test_bands_fade_into_each_other_in_straight_lines():
    curriculum = sampler(schedule="fade", samples=9600, options={"milestones": {0: (1, 0, 0), 1: (0, 0, 1)}})
    hard = (DIFFICULTY[list(curriculum)] >= 4).reshape(10, 960).mean(axis=1)
    assert hard == pytest.approx(np.arange(10) / 10 + 0.05, abs=0.02)
    (row,) = curriculum.table()
    assert (row["order"], row["samples"], row["distinct"], row["passes"]) == ("drawn", 9600, 40, 240.0)


def test_a_budget_in_tokens_is_kept_by_rows_that_are_drawn_and_their_mixture_is_one_of_tokens():
    lengths = np.where(DIFFICULTY >= 4, 9, 1)
    half = {"milestones": {0: (1, 0, 1), 1: (1, 0, 1)}}
    curriculum = sampler(schedule="fade", samples=None, tokens=18_000, lengths=lengths, options=half)
    rows = list(curriculum)
    spent = lengths[rows]
    assert spent[:-1].sum() < 18_000 <= spent.sum()
    assert spent[spent == 9].sum() == pytest.approx(9000, rel=0.02)


def test_a_state_of_other_weights_is_refused():
    first, other = (
        sampler(schedule="fade", options={"milestones": {0: (1, weight), 1: (1, 1)}}, bands=("a", "b"))
        for weight in (1, 2)
    )
    with pytest.raises(RecipeError, match=r"another curriculum; given: schedule .* order"):
        first.load_state_dict(other.state_dict())


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


@pytest.mark.parametrize("schedule", ["hybrid", "fade"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
def test_a_stateful_loader_of_torchdata_goes_on_with_exactly_the_remaining_batches(schedule, workers):
    """Its state counts what was handed out, also where workers have read ahead."""
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        curriculum = sampler(schedule=schedule, samples=480)
        return loaders.StatefulDataLoader(range(60), batch_size=16, sampler=curriculum, num_workers=workers)

    first, second = loader(), loader()
    batches = iter(first)
    begun = [next(batches).tolist() for _ in range(11)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())) if not workers else first.state_dict())
    rest = [batch.tolist() for batch in second]
    assert [row for batch in begun + rest for row in batch] == list(sampler(schedule=schedule, samples=480))
    assert len(rest) == 19


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
    from gradatim.training.batches import Packed

    rows: dict[str, list[int]] = {}
    batch = Packed._batch

    def overheard(self: Packed, lines: list[list[int]]) -> Any:
        rows.setdefault(self.stage.spec.name, []).extend(row for line in lines for row in line)
        return batch(self, lines)

    monkeypatch.setattr(Packed, "_batch", overheard)
    return rows


WALKED = [
    pytest.param("hybrid", {"order": "sorted"}, id="sorted"),
    pytest.param("hybrid", {"order": "shuffled"}, id="shuffled"),
    pytest.param("fade", {}, id="fade"),
    pytest.param("pacing", {"parts": 3, "replay": 0.25}, id="pacing with replay"),
]


@pytest.mark.parametrize(("schedule", "options"), WALKED)
def test_our_own_batches_one_sample_a_line_give_the_order_of_the_sampler_row_by_row(
    schedule, options, seen, tmp_path, monkeypatch
):
    from gradatim.model.settings import ModelSettings, TrainSettings
    from gradatim.model.tokenizer import character_tokenizer, encode_table
    from gradatim.record import Metrics
    from gradatim.schedule import make_bands, select_rows
    from gradatim.training import trainer as learner
    from gradatim.training.batches import Packed

    monkeypatch.setattr(learner, "Packed", functools.partial(Packed, chunk=1))
    budget = 120_000
    table = gradatim.score(generate(90, levels=("1.1", "2.1", "2.2"), seed=3).table, ["om"])
    scores = table["om"].to_numpy()
    tokenizer = character_tokenizer(table["prompt"].to_pylist() + table["answer"].to_pylist())
    encoded = encode_table(tokenizer, table)
    ours = learner.StageTrainer(
        tokenizer, encoded, encoded, Metrics(tmp_path / "metrics"), 0, ModelSettings(),
        TrainSettings(batching="packed", batch_size=1, max_length=300),
    )  # fmt: skip
    bands = make_bands(scores)
    planned, history = SCHEDULES.get(schedule)(bands.names, budget, **options), []
    while spec := planned.next(history):
        stage = select_rows(spec, bands, scores, seed=stage_seed(9, 0, len(history)), index=len(history))
        tokens, (batcher, dropped) = 0, learner._batcher(ours, stage, "next_token", print)
        assert not dropped
        for batch, _ in batcher.stream(batcher.start):
            tokens += batch.tokens + 1  # nothing predicts the first token of a line
            if tokens >= spec.tokens:
                break
        history.append(spec)
    lengths = np.diff(encoded.offsets)
    given = {"tokens": budget, "lengths": lengths, "options": options, "seed": 9}
    curriculum = CurriculumSampler(table, "om", schedule, **given)
    assert list(curriculum) == [row for rows in seen.values() for row in rows]
    assert list(seen) == [part.stage.spec.name for part in curriculum.parts]
    assert all(row["passes"] > 1 for row in curriculum.table())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_run_sees_the_rows_in_the_order_of_the_sampler(order, seen, tmp_path: Path):
    """A kept order is the same row by row, up to where the loop's last batch ends. A shuffled pass is regrouped by
    length when several samples share a line: then the rows of each pass are the same.
    """
    from gradatim.model.tokenizer import Encoded
    from gradatim.table import read_table

    changes = ["data.count=400", "data.split.test=20", "data.split.validation=20", "budget.tokens=40000"]
    changes += [
        "schedule.name=hybrid",
        f"schedule.order={order}",
        "evaluate.suites=[]",
        "train.evaluations_per_stage=0",
    ]
    changes += ["train.batch_size=2", "train.max_length=384", "student.context_length=384"]
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


# Which data is it?

TEXTS = [f"x = {row}\n" for row in range(60)]


def as_table(texts: list[str]) -> Any:
    import pyarrow as pa

    return pa.table({"answer": texts})


def as_dataset(texts: list[str]) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"answer": texts})


class Computed:
    """A dataset that makes its rows when they are asked for."""

    def __init__(self, texts: list[str], noisy: bool = False) -> None:
        self.texts, self.noisy, self.reads = texts, noisy, 0

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        self.reads += 1
        return {"answer": self.texts[row], **({"noise": self.reads} if self.noisy else {})}


KINDS = {
    "strings": list,
    "rows": lambda texts: [{"answer": text} for text in texts],
    "arrays": lambda texts: np.array([len(text) * 1000 + int(text[4:]) for text in texts]),
    "table": as_table,
    "dataset": as_dataset,
    "computed": Computed,
    "computed with noise": functools.partial(Computed, noisy=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_other_data_of_the_same_length_is_refused_in_one_line(kind):
    data = KINDS[kind](TEXTS)
    state = json.loads(json.dumps(sampler(data=data).state_dict(position=41)))
    other = sampler(data=KINDS[kind]([*TEXTS[:-1], "x = 7\n"]))
    with pytest.raises(RecipeError, match="made with another curriculum; given: the data's column '") as caught:
        other.load_state_dict(state)
    assert "\n" not in str(caught.value)
    same = sampler(data=KINDS[kind](list(TEXTS)))
    same.load_state_dict(state)
    assert list(same) == list(sampler())[41:]


def test_a_table_in_other_chunks_or_from_another_reader_is_the_same_data():
    import pyarrow as pa

    table = as_table(TEXTS)
    parts = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    large = table.cast(pa.schema([("answer", pa.large_string())]))
    assert sampler(data=table).data == sampler(data=parts).data == sampler(data=large).data
    assert sampler(data=as_dataset(TEXTS)).data == sampler(data=table).data


def test_a_column_more_is_the_same_data_and_a_column_less_is_not():
    less, more = [{"a": row} for row in range(60)], [{"a": row, "b": row} for row in range(60)]
    sampler(data=more).load_state_dict(sampler(data=less).state_dict())
    with pytest.raises(RecipeError, match="the data's column 'b'"):
        sampler(data=less).load_state_dict(sampler(data=more).state_dict())


def test_a_state_of_a_former_version_is_still_taken():
    state = sampler(data=TEXTS).state_dict(position=3)
    del state["data"]
    sampler(data=TEXTS).load_state_dict(state)


def test_large_data_is_sampled_from_end_to_end(monkeypatch):
    monkeypatch.setattr("gradatim.integrate.sampler.MAX_ROWS", 10)
    rows = [{"a": row} for row in range(60)]
    assert sampler(data=rows).data != sampler(data=[*rows[:-1], {"a": 0}]).data
    monkeypatch.setattr("gradatim.integrate.sampler.MAX_BYTES", 100)
    monkeypatch.setattr("gradatim.integrate.sampler.BLOCK", 4)
    table, other = as_table(TEXTS), as_table([*TEXTS[:-1], "x"])
    assert sampler(data=table).data != sampler(data=other).data


def test_a_metric_leaves_out_rows_without_an_answer_and_says_so():
    heard: list[Event] = []
    data: list[dict[str, Any]] = [{"prompt": "p", "answer": text} for text in TEXTS]
    data[3], data[4], data[5] = {"prompt": "p"}, {"prompt": "p", "answer": None}, {"prompt": None, "answer": "x = 1\n"}
    data[6] = {"prompt": "p", "answer": "in words"}
    curriculum = sampler(data=data, difficulty="om", schedule="baseline", events=heard.append, bands=("all",))
    assert not set(curriculum) & {3, 4, 5, 6}
    assert curriculum.unscored == 4
    assert len(heard) == 1
    assert "4 of 60 samples have no 'om' and are left out" in heard[0].text
