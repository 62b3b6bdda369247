"""The tree of questions has the attempts, verdicts and new questions of the run folder, and states what is missing."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradatim import api
from gradatim.show.content import read
from gradatim.show.page import questions
from gradatim.show.question_tree import MOST_CHILDREN, Question, read_tree

SMALL = (
    *("data.count=120", "data.new=40", "data.split.test=10", "data.split.validation=10", "feedback.questions=30"),
    *("budget.tokens=4500", "evaluate.suites=[{suite: output, protocol: greedy}]", "train.evaluations_per_stage=0"),
)


@pytest.fixture(scope="module")
def cycles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three cycles with an exact teacher."""
    folder = tmp_path_factory.mktemp("tree") / "cycles"
    api.run("smoke/distill-tinypy", folder, changes=SMALL)
    return folder


@pytest.fixture
def run(cycles: Path, tmp_path: Path) -> Path:
    shutil.copytree(cycles, tmp_path / "run")
    return tmp_path / "run"


def below(question: Question) -> Iterator[Question]:
    yield question
    for child in question.children:
        yield from below(child)


def test_every_question_has_its_attempt_and_every_child_its_parent(cycles):
    tree = read_tree(cycles)
    assert tree is not None
    assert tree.notes == ()
    attempted = [pq.read_table(cycles / f"cycle-0{number}/feedback.parquet").to_pylist() for number in (0, 1)]
    corpora = [pq.read_table(cycles / f"cycle-0{number}/corpus/train.parquet").to_pylist() for number in (1, 2)]
    assert 0 < len(tree.roots) <= tree.total
    depths = set()
    for question in (item for root in tree.roots for item in below(root)):
        depths.add(question.cycle)
        rows = (
            [row for row in attempted[question.cycle] if row["prompt"] == question.prompt] if question.cycle < 2 else []
        )
        assert [(item.text, item.verdict) for item in question.attempts] == [
            (row["attempt"], row["verdict"]) for row in rows
        ]
        if question.children:
            new = [row for row in corpora[question.cycle] if row["parent"] == rows[0]["id"]]
            assert {child.prompt for child in question.children} <= {row["prompt"] for row in new}
            assert question.more == max(0, len(new) - MOST_CHILDREN)
    assert depths == {0, 1, 2}


def test_the_tree_is_text_that_opens_without_a_script(cycles):
    content = read([cycles])
    page = questions(content)
    tree = content.runs[0].questions
    assert tree is not None
    assert page.count("<details") == page.count("</details>") > len(tree.roots)
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    root = tree.roots[0]
    for text in (root.prompt, root.answer, root.attempts[0].verdict, root.children[0].prompt):
        assert text in shown


def test_a_part_that_the_run_lacks_is_stated_and_the_rest_is_shown(run):
    (run / "cycle-01/feedback.parquet").unlink()
    tree = read_tree(run)
    assert tree is not None
    assert tree.notes == ("Cycle 2: feedback.parquet is missing.",)
    assert all(child.attempts == () for root in tree.roots for child in root.children)
    (run / "cycle-00/feedback.parquet").write_bytes(b"PAR1")
    content = read([run])
    page = questions(content)
    assert "Cycle 1: feedback.parquet cannot be read" in page
    assert "No question of the first cycle has a new question." in page


def test_a_run_that_has_not_asked_for_new_questions_says_so(run):
    shutil.rmtree(run / "cycle-01")
    shutil.rmtree(run / "cycle-02")
    (run / "finished.json").unlink()
    assert "No question of the first cycle has a new question yet." in questions(read([run]))


def test_a_run_of_one_cycle_has_no_tree(finished):
    assert read_tree(finished) is None
    assert questions(read([finished])).strip() == ""
