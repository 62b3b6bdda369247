"""Scoring of chat answers by the program in their fence; a fence inside a program changes nothing."""

from __future__ import annotations

import math
import sys
import time

import pytest

from gradatim.difficulty import DIFFICULTIES, score, unscored_note
from gradatim.difficulty.python_source import fenced_program, scored_text
from gradatim.stage import Event
from gradatim.table import make_table

PROGRAM = "def f(x):\n    if x > 1:\n        return x * 2\n    return x\n"
PROSE = f"Here you are:\n\n```python\n{PROGRAM}```\n\nIt doubles what is above one."
DOCSTRING = f'def g(x):\n    """Like this:\n\n    ```python\n    f(1)\n    ```\n    """\n    return x\n\n\n{PROGRAM}'


@pytest.mark.parametrize("language", ["python", "Python", None])
@pytest.mark.parametrize(
    "answer",
    [
        PROSE,
        f"Sure.\n\n~~~\n{PROGRAM}~~~\n",
        f"1. Write it:\n\n```py\n{PROGRAM}```\n",
        f"Call `f` as in\n\n```python\nf(1)\n```\n\nand here it is:\n\n```python\n{PROGRAM}```",
        f"```python\n{PROGRAM}```",
        f"It was cut off:\n```python\n{PROGRAM}",
    ],
)
def test_a_program_in_a_fence_is_scored_like_the_program_alone(answer, language):
    assert scored_text("Double it.", answer, language).strip() == PROGRAM.strip()


@pytest.mark.parametrize(
    "name", ["om", "halstead", "cyclomatic", "nesting", "rarity", "size", "compression", "composite"]
)
def test_every_static_metric_reads_the_fence(name):
    table = make_table({"prompt": ["Double it."] * 2, "answer": [PROSE, f"```python\n{PROGRAM}```"]})
    figures = DIFFICULTIES.get(name)()(table)
    alone = DIFFICULTIES.get(name)()(make_table({"prompt": ["Double it."] * 2, "answer": [PROGRAM] * 2}))
    assert not any(math.isnan(figure) for figure in figures)
    assert figures.tolist() == pytest.approx(alone.tolist())


def test_a_fence_inside_a_program_stays_part_of_it():
    assert scored_text("Write g.", DOCSTRING) == DOCSTRING
    assert scored_text("", "s = '''\n```\nno code\n```\n'''\n") == "s = '''\n```\nno code\n```\n'''\n"


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ("No code here, only ```ticks``` in a line.", "python"),
        ("```java\nint x = 1;\n```", "python"),
        ("```python\n```", "python"),
        ("```rust\nfn main() {}\n```", "rust"),
        ("plain words", None),
    ],
)
def test_an_answer_without_a_fenced_program_of_its_language_is_left_as_it_is(answer, language):
    assert fenced_program(answer, language) == answer


def test_other_languages_are_measured_by_their_fenced_program_too():
    text = "Like so:\n\n```js\nlet x = 1;\n```\n\n" + "Words, many of them. " * 50
    sizes = score(make_table({"prompt": ["p"], "answer": [text], "language": ["javascript"]}), ["size"])[0]["size"]
    assert sizes.to_pylist() == [float(len("let x = 1;\n"))]


def test_a_prompt_with_the_beginning_of_the_program_still_goes_before_its_continuation():
    assert scored_text("def f(x):\n", "    return x\n") == "def f(x):\n    return x\n"
    assert scored_text("x = 1\nprint(x)\n# output\n", "# 1\n```\n") == "x = 1\nprint(x)\n"


def test_many_fence_marks_take_time_in_proportion_to_their_number():
    def seconds(count: int) -> float:
        texts = (
            "```\n" * count,
            "`" * (4 * count),
            " " * (4 * count) + "```",
            ">" * (4 * count) + "```",
            "1" * (4 * count),
        )
        start = time.process_time()
        for text in texts:
            fenced_program(f"words\n{text}", "python")
        return time.process_time() - start

    seconds(100)
    assert seconds(80_000) < 40 * max(seconds(8_000), 0.005)


def note(answers: list[str], name: str = "om", languages: list[str] | None = None) -> str | None:
    table = make_table({"prompt": ["p"] * len(answers), "answer": answers, "language": languages})
    part = DIFFICULTIES.get(name)()
    return unscored_note(name, part, table, part(table), "are not learnt")


def test_a_note_counts_the_samples_without_a_score_by_cause():
    assert note([PROSE, PROGRAM]) is None
    said = note([PROSE, "in prose", "more of it", "int x;"], languages=["python", "python", "python", "java"])
    assert said == (
        "3 of 4 samples have no 'om' and are not learnt: 2 do not parse as Python, 1 are in another language (java); "
        "try a metric that needs no Python program: size, compression, loss or column"
    )
    assert note([PROGRAM], "trace") == "1 of 1 samples have no 'trace' and are not learnt: 1 give no figure"
    assert "1 do not parse as Python" in str(note([PROGRAM, "in prose"], "composite"))


def test_a_note_about_very_many_samples_looks_at_the_first_of_them(monkeypatch):
    monkeypatch.setattr(sys.modules[unscored_note.__module__], "EXAMINED", 3)
    assert "3 do not parse as Python (of the first 3)" in str(note(["in prose"] * 10))


def test_scoring_tells_the_note_as_an_event():
    heard: list[Event] = []
    score(make_table({"answer": ["in prose"]}), ["om"], events=heard.append)
    assert [event.task for event in heard if event.kind == "note"] == ["score om"]
