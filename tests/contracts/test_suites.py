"""What every suite in the registry owes: the same battery for each, plug-ins included."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.evaluation import SUITES, summary
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer, texts_of
from gradatim.options import option_names
from gradatim.results import decode_suite, encode
from gradatim.sandbox.command import sandbox_support

WITH_PROBLEMS = [name for name in SUITES.names() if "problems" in option_names(SUITES.get(name))]
"""Suites that bring their questions from a file of problems; the others ask about the samples they are handed."""

OF_POLICIES = ["episodes"]
"""Suites of another kind of student; `tests/mobile` has theirs."""

EVERY = pytest.mark.parametrize(
    "suite", [name for name in SUITES.names() if name not in (*WITH_PROBLEMS, *OF_POLICIES)]
)
PROBLEMS = pytest.mark.parametrize("suite", WITH_PROBLEMS)
RUNNING = pytest.mark.parametrize(
    "suite", [name for name in WITH_PROBLEMS if "unsafe" in option_names(SUITES.get(name))]
)
"""Suites that run what was written; the others with problems read only what a model finds likely."""
READING = pytest.mark.parametrize(
    "suite", [name for name in WITH_PROBLEMS if "unsafe" not in option_names(SUITES.get(name))]
)
PROTOCOLS = pytest.mark.parametrize("protocol", ["greedy", "paper"])


@pytest.fixture(scope="module")
def samples():
    return pa.table(
        {
            "id": [f"id{n}" for n in range(12)],
            "prompt": [f"a = {n}\nprint(a + {n})\n# output\n" for n in range(12)],
            "answer": [f"# {2 * n}\n" for n in range(12)],
            "level": ["1.1", "1.2"] * 6,
        }
    )


@pytest.fixture(scope="module")
def student(samples):
    torch.manual_seed(1)
    tokenizer = character_tokenizer(texts_of(samples))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    return LoadedModel(GPT2LMHeadModel(config).eval(), tokenizer)


@EVERY
@PROTOCOLS
def test_the_same_seed_gives_the_same_result(suite, protocol, student, samples):
    one, two = (SUITES.get(suite)(protocol=protocol)(student, samples, seed=5) for _ in range(2))
    assert (one.counts, one.scores, one.examples) == (two.counts, two.scores, two.examples)
    assert (one.suite, one.protocol) == (suite, protocol)


@EVERY
def test_groups_and_outcomes_add_up_to_the_whole(suite, student, samples):
    counts = SUITES.get(suite)()(student, samples, seed=0).counts
    whole = counts["all"]["all"]
    assert set(counts) == {"all", "level", "outcome"}
    for group in counts.values():
        assert sum(part.passed for part in group.values()) == whole.passed
        assert sum(part.total for part in group.values()) == whole.total > 0


@EVERY
def test_the_verdicts_per_sample_add_up_to_the_counts(suite, student, samples):
    result = SUITES.get(suite)(limit=7)(student, samples, seed=0)
    verdicts, whole = result.verdicts, result.counts["all"]["all"]
    assert verdicts is not None
    assert (sum(verdicts.passed), sum(verdicts.total)) == (whole.passed, whole.total)
    assert list(verdicts.ids) == [f"id{row}" for row in verdicts.rows]
    assert set(verdicts.labels) == {"level"}
    for outcome, passed, total in zip(verdicts.outcomes, verdicts.passed, verdicts.total, strict=True):
        assert (outcome == "passed") == (passed == total)


@EVERY
def test_a_result_survives_being_written_and_has_the_stable_shape(suite, student, samples):
    result = SUITES.get(suite)()(student, samples, seed=0)
    again = decode_suite(json.loads(json.dumps(encode(result))))
    assert (again.counts, dict(again.scores)) == (result.counts, result.scores)
    assert list(again.examples) == list(result.examples)
    told = json.loads(json.dumps(summary(result)))
    assert set(told["counts"]) == {"passed", "failed", "timeout", "invalid", "total"}
    assert {"value", "low", "high"} == set(told["scores"]["accuracy"])


@EVERY
def test_the_students_random_state_and_mode_are_left_alone(suite, student, samples):
    student.model.train()
    before = torch.get_rng_state()
    SUITES.get(suite)(protocol="paper")(student, samples, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert student.model.training
    student.model.eval()


@EVERY
def test_progress_is_told(suite, student, samples):
    heard = []
    SUITES.get(suite)(batch=5)(student, samples, seed=0, events=heard.append)
    assert heard[0].kind == "start"
    assert heard[-1].kind == "finish"
    assert heard[-1].done == heard[-1].total
    assert len({event.task for event in heard}) == 1


@EVERY
def test_an_empty_table_is_an_error(suite, student, samples):
    with pytest.raises(DataError, match="no samples"):
        SUITES.get(suite)()(student, samples.slice(0, 0), seed=0)


@EVERY
def test_unknown_options_and_values_are_all_told(suite):
    with pytest.raises(RecipeError) as caught:
        SUITES.get(suite)(protocol="beam", limitt=3)
    assert len(caught.value.faults) == 2
    assert "did you mean 'limit'" in str(caught.value)
    with pytest.raises(RecipeError, match="1 or more") as caught:
        SUITES.get(suite)(limit=0, batch=-1)
    assert len(caught.value.faults) == 2


def test_an_unknown_suite_is_told_with_the_nearest():
    with pytest.raises(UnknownPart, match="did you mean 'output'"):
        SUITES.get("outputs")


PROBLEM_FILES = {
    "functional": [
        {
            "task_id": f"t{n}",
            "prompt": f"a = {n}\nprint(a)\n",
            "entry_point": "a",
            "test": "def check(candidate): 1 / 0",
        }
        for n in range(3)
    ],
    "cruxeval": [{"id": f"t{n}", "code": "def f(a): return a", "input": f"{n}", "output": f"{n}"} for n in range(3)],
    "choice": [{"question": f"a = {n}", "options": ["1", "2 3"], "answer": n % 2} for n in range(3)],
}
"""A plug-in with an option ``problems`` needs a file here to be asked about."""


@pytest.fixture
def ask(tmp_path, student, samples):
    """Call a suite that brings its own questions; it needs walls to answer them."""
    walls = sandbox_support()
    if not walls.available:
        pytest.skip(f"no walls: {walls.reason}; {walls.advice}")

    def ask(suite, events=lambda event: None, **options):
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEM_FILES[suite]))
        made = SUITES.get(suite)(problems=str(path), max_new_tokens=8, **options)
        return made(student, samples.slice(0, 0), seed=5, events=events)

    return ask


@RUNNING
@pytest.mark.parametrize("protocol", ["greedy", "sampled"])
def test_a_suite_with_problems_gives_the_same_result_for_the_same_seed(suite, protocol, ask):
    one, two = (ask(suite, protocol=protocol) for _ in range(2))
    assert (one.counts, one.scores, one.examples) == (two.counts, two.scores, two.examples)
    assert (one.suite, one.protocol) == (suite, protocol)


@RUNNING
def test_a_suite_with_problems_counts_each_once_and_has_the_stable_shape(suite, ask):
    heard = []
    result = ask(suite, events=heard.append)
    assert result.counts["all"]["all"].total == 3
    for group in result.counts.values():
        assert sum(part.total for part in group.values()) == 3
        assert sum(part.passed for part in group.values()) == result.counts["all"]["all"].passed
    assert result.verdicts is not None
    assert result.verdicts.rows == (0, 1, 2)
    assert result.verdicts.total == (1, 1, 1)
    ends = {name: counts.total for name, counts in result.counts["outcome"].items() if counts.total}
    assert ends == {name: result.verdicts.outcomes.count(name) for name in set(result.verdicts.outcomes)}
    again = decode_suite(json.loads(json.dumps(encode(result))))
    assert (again.counts, dict(again.scores)) == (result.counts, result.scores)
    told = json.loads(json.dumps(summary(result)))
    assert set(told["counts"]) == {"passed", "failed", "timeout", "invalid", "total"}
    assert {"accuracy", "pass@1"} <= set(told["scores"])
    assert {event.task: event.kind for event in heard} == {"write": "finish", "check": "finish"}


@PROBLEMS
def test_a_suite_with_problems_tells_all_faults_of_its_options(suite):
    with pytest.raises(RecipeError) as caught:
        SUITES.get(suite)(protocol="beam", limitt=3)
    assert len(caught.value.faults) == 2
    with pytest.raises(RecipeError, match="1 or more") as caught:
        SUITES.get(suite)(limit=0, batch=-1)
    assert len(caught.value.faults) == 2


@PROBLEMS
def test_a_suite_with_problems_names_a_file_that_is_not_there(suite, student, samples):
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        SUITES.get(suite)(problems="nowhere.jsonl")(student, samples, seed=0)


@READING
def test_a_suite_that_reads_gives_the_same_result_and_the_stable_shape(suite, tmp_path, student, samples):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEM_FILES[suite]))
    heard = []
    made = SUITES.get(suite)(problems=str(path), batch=2)
    student.model.train()
    before = torch.get_rng_state()
    one = made(student, samples.slice(0, 0), seed=5, events=heard.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert student.model.training
    student.model.eval()
    two = made(student, samples, seed=5)
    assert (one.counts, one.scores, one.examples) == (two.counts, two.scores, two.examples)
    assert one.suite == suite
    for group in one.counts.values():
        assert sum(part.total for part in group.values()) == 3
        assert sum(part.passed for part in group.values()) == one.counts["all"]["all"].passed
    again = decode_suite(json.loads(json.dumps(encode(one))))
    assert (again.counts, dict(again.scores)) == (one.counts, one.scores)
    assert {"value", "low", "high"} == set(json.loads(json.dumps(summary(one)))["scores"]["accuracy"])
    assert (heard[0].kind, heard[-1].kind) == ("start", "finish")
    assert heard[-1].done == heard[-1].total
    assert len({event.task for event in heard}) == 1
