"""A text that is nested too deeply, or holds a number of too many digits, is refused and counted; it stops nothing."""

from __future__ import annotations

import pytest

from gradatim.difficulty import DIFFICULTIES
from gradatim.distillation.mutations import mutants
from gradatim.distillation.novelty import Contamination
from gradatim.distillation.rejected import deliver
from gradatim.source import TaughtSource
from gradatim.stage import Feedback
from gradatim.table import make_table
from gradatim.teacher.teacher import Question

DEPTH = 900
NESTED = {
    "a sum": "x = " + "1 + " * DEPTH + "1\n",
    "a deep sum": "x = " + "1 + " * 40_000 + "1\n",
    "signs": "x = " + "-" * DEPTH + "1\n",
    "nots": "x = " + "not " * DEPTH + "1\n",
    "calls": "x = f" + "()" * DEPTH + "\n",
    "attributes": "x = f" + ".a" * DEPTH + "\n",
    "indices": "x = f" + "[0]" * DEPTH + "\n",
    "lambdas": "x = " + "lambda: " * DEPTH + "1\n",
    "conditions": "x = " + "1 if a else " * DEPTH + "1\n",
    "powers": "x = " + "2 ** " * DEPTH + "1\n",
    "a number of many digits": "x = 0x" + "f" * 5000 + "\n",
}
OTHER = {
    "brackets": "x = " + "(" * 5000 + "1" + ")" * 5000 + "\n",
    "decimal digits": "x = " + "9" * 5000 + "\n",
    "a null byte": "x = 1\0\n",
    "words": "(" * 5000,
    "elifs": "if x:\n    pass\n" + "elif y:\n    pass\n" * DEPTH,
}
WORDS = " ".join(f"word{number}" for number in range(15))
PROBLEM = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize("kind", NESTED)
def test_a_program_that_cannot_be_compared_is_refused_by_name(kind):
    assert Contamination([PROBLEM]).refuses(NESTED[kind]) == "unreadable_program"


@pytest.mark.parametrize("kind", OTHER)
def test_other_odd_texts_are_compared_as_any_text(kind):
    known = Contamination([PROBLEM, OTHER[kind]])
    assert known.refuses(OTHER[kind]) in ("same_problem", None)
    assert Contamination([PROBLEM]).refuses(OTHER[kind]) is None


@pytest.mark.parametrize("kind", NESTED)
def test_a_problem_of_the_evaluation_that_is_nested_is_known_by_its_words(kind):
    known = Contamination([PROBLEM, f"{NESTED[kind]}# {WORDS}\n"])
    assert known.refuses(f"Write {WORDS}.") == "problem_words"


class Writer:
    """A teacher with one good and many nested answers."""

    facts: dict[str, object] = {}  # noqa: RUF012

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        texts = [*NESTED.values(), PROBLEM.replace("add", "plus").replace("+", "-")]
        return [Question(f"Write program {number}.\n", text, None, "python") for number, text in enumerate(texts)]


def test_nested_answers_are_counted_by_their_cause_and_the_others_are_learnt():
    source = TaughtSource(Writer(), count=len(NESTED) + 1, evaluation=(PROBLEM,))
    drawn = source.draw(0, Feedback())
    assert drawn.table.num_rows == 1
    assert drawn.facts["refused"] == {"unreadable_program": len(NESTED)}


@pytest.mark.parametrize("kind", [*NESTED, *OTHER])
def test_a_nested_answer_has_few_mutants_or_none_and_stops_no_delivery(kind):
    text = {**NESTED, **OTHER}[kind]
    next(mutants("Write it.", text, "python", seed=0), None)
    next(mutants(text + "# output\n", "# 1\n", "python", seed=0), None)
    table = make_table({"prompt": ["a", "b"], "answer": [text, PROBLEM], "language": ["python"] * 2, "id": ["1", "2"]})
    made = deliver(
        table, Feedback(), shares={"mutation": 1.0}, teacher=None, right=lambda rows, texts: [None] * len(texts), seed=0
    )
    assert made.table["rejected"].to_pylist()[1] is not None
    assert made.facts["mutation"] + made.facts["none"] == 2


@pytest.mark.parametrize("metric", ["trace", "size", "cyclomatic", "nesting", "halstead", "om"])
def test_a_nested_sample_has_a_difficulty_or_none_and_stops_no_scoring(metric):
    texts = [*NESTED.values(), *OTHER.values(), PROBLEM]
    scores = DIFFICULTIES.get(metric)()(make_table({"prompt": [""] * len(texts), "answer": texts}))
    assert len(scores) == len(texts)
