"""The source `rejection_sampling`: replies that pass are answers, replies that fail are rejected answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import Serving, completion, serving
from small_models import base

from gradatim.distillation.rejection_sampling import Replies, quota, replies_of
from gradatim.errors import RecipeError
from gradatim.evaluation.problems import fold_of
from gradatim.experiment.assemble.teaching import check_answers, check_new_samples
from gradatim.experiment.recipe import load
from gradatim.source import SOURCES
from gradatim.stage import Feedback
from gradatim.table import make_table
from gradatim.teacher import TEACHERS

REPLY = "Sure:\n\n```python\ndef {name}(n):\n    return {body}\n```\n"
PROBLEMS = {
    "twice": ("2 * n", "assert twice(4) == 8"),
    "next_one": ("n + 1", "assert next_one(4) == 5"),
    "square": ("n * n", "assert square(3) == 9"),
}
SAMPLES = 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {
            "task_id": number,
            "text": f"Write a function {name}.",
            "code": f"def {name}(n):\r\n    return {body}",
            "test_list": [test],
        }
        for number, (name, (body, test)) in enumerate(PROBLEMS.items())
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def model():
    """A server whose model solves ``twice`` in every second reply, ``next_one`` always and ``square`` never."""

    def reply(handler, body):
        text, number = body["messages"][-1]["content"], len(handler.server.heard)
        name = next(name for name in PROBLEMS if name in text)
        right = {"twice": number % 2 == 0, "next_one": True, "square": False}[name]
        body = PROBLEMS[name][0] + f" + {number} - {number}" if right else f"n - {number}"
        handler.send(200, completion(REPLY.format(name=name, body=body)))

    with serving() as server:
        server.otherwise = reply
        yield server


def source(file: Path, server: Serving | None = None, **options):
    name = {"model": f"{server.url}#m", "batch": 1} if server else {}  # one request at a time: which pass is fixed
    return SOURCES.get("rejection_sampling")(problems=str(file), **{"num_samples": SAMPLES, **name, **options})


def by_function(table):
    rows = table.to_pylist()
    return {name: [row for row in rows if f"function {name}." in row["prompt"]] for name in PROBLEMS}


def test_replies_that_pass_are_answers_and_replies_that_fail_are_rejected(file, model):
    drawn = source(file, model).draw(0, Feedback())
    rows = by_function(drawn.table)
    assert {name: len(group) for name, group in rows.items()}["square"] == 0
    assert [row["rejected"] for row in rows["next_one"]] == [None] * SAMPLES
    assert all(row["answer"].startswith("Sure:\n\n```python\n") for group in rows.values() for row in group)
    assert {row["failure_rate"] for row in rows["next_one"]} == {0.0}
    twice = rows["twice"]
    assert twice
    assert all("return n - " in row["rejected"] and "2 * n" in row["answer"] for row in twice)
    assert {row["failure_rate"] for row in twice} == {1 - len(twice) / SAMPLES}
    facts = {"problems": 3, "solved": 2, "unsolved": 1, "replies": 3 * SAMPLES, "passed": SAMPLES + len(twice)}
    assert facts.items() <= drawn.facts.items()


def test_replies_of_every_verdict_are_answers_for_distillation(file, model):
    rows = by_function(source(file, model, replies="all").draw(0, Feedback()).table)
    assert {name: len(group) for name, group in rows.items()} == dict.fromkeys(PROBLEMS, SAMPLES)
    assert {row["rejected"] for group in rows.values() for row in group} == {None}
    assert all("return n - " in row["answer"] for row in rows["square"])


def test_answers_and_rejected_answers_have_the_format_of_the_recipe(file, model):
    table = source(file, model, answer_format="fenced").draw(0, Feedback()).table
    texts = [text for row in table.to_pylist() for text in (row["answer"], row["rejected"]) if text]
    assert len(texts) > table.num_rows
    assert all(text.startswith("```python\n") and text.endswith("\n```") for text in texts)


def test_the_reference_answers_what_the_student_fails(file, model):
    drawn = source(file, model, unsolved="reference").draw(0, Feedback())
    (row,) = by_function(drawn.table)["square"]
    assert row["answer"] == "```python\ndef square(n):\n    return n * n\n```"
    assert row["rejected"].startswith("```python\n")
    assert row["failure_rate"] == 1.0
    assert drawn.facts["answered"] == 1


def test_reference_solutions_are_the_answers_without_any_reply(file, model):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["code"] = "def next_one(n):\n    return n + 2"  # a solution that its tests prove wrong is left out
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for replying in ({}, {"model": f"{model.url}#m"}):
        made = SOURCES.get("rejection_sampling")(problems=str(file), replies="reference", **replying)
        drawn = made.draw(0, Feedback())
        answers = {name: [row["answer"] for row in group] for name, group in by_function(drawn.table).items()}
        assert answers == {
            "twice": ["```python\ndef twice(n):\n    return 2 * n\n```"],
            "next_one": [],
            "square": ["```python\ndef square(n):\n    return n * n\n```"],
        }
        assert {row["rejected"] for row in drawn.table.to_pylist()} == {None}
        assert not made.has_rejected
        assert not made.has_wrong_answers
        assert set(drawn.table["category"].to_pylist()) == {None}
        assert not made.changes
    assert not model.asked()


def test_reference_solutions_are_the_same_in_every_cycle_and_refused_for_several(file):
    changes = ["student.base=base", f"data.problems={file}"]
    assert check_new_samples(load("distill/reference-answers", changes)) is None
    with pytest.raises(RecipeError, match=r"cycles: the source 'rejection_sampling' has the same samples"):
        check_new_samples(load("distill/reference-answers", [*changes, "cycles=2"]))
    assert check_new_samples(load("distill/self", [*changes, "cycles=2"])) is None


@pytest.mark.parametrize(("body", "answered"), [("n * n", 1), ("n + n", 0)])
def test_the_teacher_is_asked_only_where_the_student_fails_and_its_wrong_answers_are_left_out(
    file, model, body, answered
):
    reply = REPLY.format(name="square", body=body)
    teacher = TEACHERS.get("scripted")(replies={"function square.": reply})
    drawn = source(file, model, unsolved="teacher", teacher=teacher).draw(0, Feedback())
    assert drawn.facts["answered"] == len(by_function(drawn.table)["square"]) == answered
    assert teacher.facts["asked"] == {"answer": 1}


def test_problems_that_are_always_or_never_solved_have_no_weight_by_learnability(file, model):
    rows = by_function(source(file, model, weighting="learnability").draw(0, Feedback()).table)
    assert rows["twice"]
    assert not rows["next_one"]
    assert not rows["square"]
    assert [quota(Replies((), (), passed, 4), 4, "learnability") for passed in range(5)] == [0, 3, 4, 3, 0]


@pytest.mark.parametrize("finish", ["limit", "context", "length"])
def test_a_reply_that_was_cut_off_is_no_answer_but_counts_in_the_pass_rate(finish):
    replies = replies_of(
        [("a", "passed", finish), ("b", "failed", finish), ("c", "passed", "eos"), ("d", "failed", "")]
    )
    assert (replies.passing, replies.failing) == (("c",), ("d",))
    assert (replies.passed, replies.total, replies.truncated) == (2, 4, 2)
    assert replies.sampled == ("a", "b", "c", "d")


def test_a_reply_that_was_cut_off_is_an_answer_as_far_as_it_goes_for_distillation(file, tmp_path):
    kept = tmp_path / "kept"
    options = {"model": str(base(tmp_path / "base", context=1024)), "max_new_tokens": 4, "answer_format": "fenced"}
    tables = {}
    for replies in ("passing", "all"):
        drawn = source(file, **options, keep=str(kept), replies=replies).draw(0, Feedback())
        tables[replies] = drawn.table
        assert drawn.facts["truncated"] == drawn.facts["replies"] > 0
    assert tables["passing"].num_rows == 0
    texts = {
        json.loads(line)["reply"] for path in kept.rglob("samples.jsonl") for line in path.read_text().splitlines()
    }
    assert set(tables["all"]["answer"].to_pylist()) == {text for text in texts if text.strip()}


def test_a_held_out_fold_and_evaluation_problems_are_never_asked(file, model):
    folds = [fold_of(f"Mbpp/{number}", 3) for number in range(len(PROBLEMS))]
    source(file, model, folds=3, fold=folds[0]).draw(0, Feedback())
    asked = {name for name in PROBLEMS if any(f"function {name}." in text for text in model.asked())}
    assert asked == {name for name, fold in zip(PROBLEMS, folds, strict=True) if fold != folds[0]}
    assert asked
    refused = source(file, model, evaluation=["Write a function next_one.\nassert next_one(4) == 5"])
    assert refused.draw(0, Feedback()).facts["refused"]


def test_a_later_cycle_takes_the_attempts_of_the_student(file):
    right, wrong = (REPLY.format(name="twice", body=body) for body in ("n + n", "n + 3"))
    rows = make_table({"prompt": ["Write a function twice."] * 2, "answer": ["x = 1\n"] * 2, "tests": ["t"] * 2})
    rows = rows.append_column("attempt", [[right, wrong]]).append_column("verdict", [["passed", "failed"]])
    table = source(file, model="m").draw(1, Feedback(0, rows.append_column("finish", [["eos", "eos"]]))).table
    assert table.select(["answer", "rejected"]).to_pylist() == [{"answer": right.strip(), "rejected": wrong.strip()}]


def test_kept_replies_are_not_generated_again(file, tmp_path):
    kept, tasks = str(tmp_path / "kept"), []
    options = {"model": str(base(tmp_path / "base", context=1024)), "max_new_tokens": 4, "keep": kept}
    draws = []
    for _ in range(2):
        made = source(file, **options, unsolved="reference", events=lambda event: tasks.append(event.task))
        draws.append((made.draw(0, Feedback()), tasks.count("write")))
    (first, generated), (again, total) = draws
    assert first.table.equals(again.table)
    assert generated == total > 0
    assert first.facts["truncated"] > 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "no model"),
        ({"model": "m", "unsolved": "teacher"}, "need a teacher"),
        ({"model": "m", "folds": 2, "fold": 2}, "no such fold"),
        ({"model": "m", "answers": 0}, "data.answers"),
        ({"model": "m", "replies": "all", "weighting": "learnability"}, "data.weighting"),
        ({"model": "m", "replies": "all", "unsolved": "reference"}, "data.unsolved"),
        ({"replies": "reference", "weighting": "learnability"}, "data.weighting"),
        ({"replies": "reference", "unsolved": "teacher"}, "data.unsolved"),
        ({"model": "m", "num_samples": 0}, "num_samples"),
    ],
)
def test_unusable_options_are_errors(file, options, text):
    with pytest.raises(RecipeError, match=text):
        source(file, **options)


def test_wrong_answers_need_an_objective_that_does_not_learn_them(file):
    changes = ["student.base=base", f"data.problems={file}", "train.distillation.teacher_model=teacher"]
    recipe = load("distill/on-policy", changes)
    assert check_answers(recipe, "distillation", "train.objective") is None
    with pytest.raises(RecipeError, match=r"wrong answers.*given: answer_only.*data\.replies: passing"):
        check_answers(recipe, "answer_only", "train.objective")
    mixed = load("distill/on-policy", [*changes, "train.distillation.weight=0.5"])
    with pytest.raises(RecipeError, match="wrong answers"):
        check_answers(mixed, "distillation", "train.objective")
