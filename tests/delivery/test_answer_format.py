"""Programs as answers have one form: right answers, attempts, mutations and mistakes of a teacher alike."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gradatim.distillation import deliver
from gradatim.distillation.answer_format import format_answer, format_of, match_format
from gradatim.distillation.judges import by_tests
from gradatim.languages import named
from gradatim.languages.thinking import fenced_blocks
from gradatim.stage import Feedback
from gradatim.table import make_table

WORDS = "Write a Python function `double(n)` that returns twice a number."
CODE = "def double(n):\n    return 2 * n\n"
FENCED = f"```python\n{CODE}```"
REPLY = f"Certainly! Here is it:\n\n{FENCED}\n\nIt multiplies by two."
WRONG = "Here:\n\n```python\ndef double(n):\n    return n + n + 1\n```\n\nDone."
TESTS = "assert double(4) == 8\n"
FORMATS = ("fenced", "reply", "code")


def samples(answer: str) -> pa.Table:
    return make_table({"prompt": [WORDS], "answer": [answer], "tests": [TESTS], "language": ["python"]})


@pytest.mark.parametrize("text", [CODE, FENCED, REPLY])
def test_a_program_and_a_reply_with_it_have_the_same_text_in_a_format(text):
    assert format_answer(WORDS, text, "python", "fenced") == FENCED
    assert format_answer(WORDS, text, "python", "code") == CODE


def test_a_reply_stays_whole_and_a_program_without_one_is_fenced():
    assert format_answer(WORDS, REPLY, "python", "reply") == REPLY
    assert format_answer(WORDS, f"<think>\nhm\n</think>\n\n{REPLY}", "python", "reply") == REPLY
    assert format_answer(WORDS, CODE, "python", "reply") == FENCED


@pytest.mark.parametrize("text", ["I cannot do that.", "```python\ndef double(n):\n", ""])
def test_a_reply_without_a_whole_program_has_no_format(text):
    assert [format_answer(WORDS, text, "python", form) for form in FORMATS] == [None] * 3


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("print(1)\n# output\n", "# 1\n"), ("def double(n):\n", "    return 2 * n\n"), (WORDS, "anything in Klingon")],
)
def test_outputs_completions_and_other_languages_stay_unchanged(prompt, text):
    language = "klingon" if "Klingon" in text else "python"
    assert [format_answer(prompt, text, language, form) for form in FORMATS] == [text] * 3
    assert format_of(prompt, text, language) is None


def test_the_format_of_an_answer_is_recognised():
    formats = [format_of(WORDS, text, "python") for text in (FENCED, REPLY, CODE, "Multiply it by two, that is all.")]
    assert formats == ["fenced", "reply", "code", None]


def test_a_fence_is_longer_than_any_in_the_program():
    program = 'def text():\n    return """\n```python\n```\n"""\n'
    text = format_answer(WORDS, f"Here:\n\n````python\n{program}````\n\nDone.", "python", "fenced")
    assert text == f"````python\n{program}````"
    assert [block.code for block in fenced_blocks(text)] == [program]


def test_words_stay_words_beside_an_answer_in_words():
    assert match_format(WORDS, "Multiply it by two, that is all.", "Add one to it.", "python") == "Add one to it."


class Mistakes:
    """A teacher that writes the same bare program for every sample."""

    def faults(self, table, *, draw=0):
        return ["def double(n):\n    return 3 * n\n"] * table.num_rows


@pytest.mark.parametrize("answer", [FENCED, CODE], ids=["fenced", "code"])
@pytest.mark.parametrize("source", ["student", "mutation", "teacher"])
def test_the_two_answers_of_a_pair_differ_in_the_program_only(source, answer):
    attempts = pa.table({"id": samples(answer)["id"], "attempt": [WRONG], "verdict": ["failed"], "finish": ["eos"]})
    done = deliver(
        samples(answer), Feedback(0, attempts), shares={source: 1}, teacher=Mistakes(), right=by_tests(), seed=1
    )
    rejected = done.table["rejected"][0].as_py()
    assert done.facts[source] == 1
    assert format_of(WORDS, rejected, "python") == format_of(WORDS, answer, "python")
    assert rejected != answer
    if answer == FENCED:
        assert (rejected.splitlines()[0], rejected.splitlines()[-1]) == ("```python", "```")
    assert named("python").parses(rejected.removeprefix("```python\n").removesuffix("```")) is None


def test_whole_replies_stand_on_both_sides():
    attempts = pa.table({"id": samples(REPLY)["id"], "attempt": [WRONG], "verdict": ["failed"], "finish": ["eos"]})
    done = deliver(samples(REPLY), Feedback(0, attempts), shares={"student": 1}, teacher=None, right=by_tests(), seed=1)
    assert done.table["rejected"].to_pylist() == [WRONG]


def test_a_mutation_of_a_reply_keeps_its_words():
    done = deliver(samples(REPLY), Feedback(), shares={"mutation": 1}, teacher=None, right=by_tests(), seed=1)
    rejected = done.table["rejected"][0].as_py()
    assert rejected != REPLY
    assert rejected.startswith("Certainly! Here is it:\n\n```python\n")
    assert rejected.endswith("```\n\nIt multiplies by two.")


@pytest.mark.parametrize("finish", ["limit", "context", "length"])
def test_an_attempt_that_was_cut_off_is_no_rejected_answer(finish):
    attempts = pa.table({"id": samples(FENCED)["id"], "attempt": [WRONG], "verdict": ["failed"], "finish": [finish]})
    done = deliver(
        samples(FENCED), Feedback(0, attempts), shares={"student": 1}, teacher=None, right=by_tests(), seed=1
    )
    assert done.table["rejected"].to_pylist() == [None]
    assert done.facts["truncated"] == 1


def test_an_attempt_without_a_program_is_counted_and_not_used():
    attempts = pa.table({"id": samples(FENCED)["id"], "attempt": ["No."], "verdict": ["failed"], "finish": ["eos"]})
    done = deliver(
        samples(FENCED), Feedback(0, attempts), shares={"student": 1}, teacher=None, right=by_tests(), seed=1
    )
    assert done.table["rejected"].to_pylist() == [None]
    assert done.facts["no_program"]["student"] == 1
