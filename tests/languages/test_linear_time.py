"""Every extractor and source scanner reads long repeats of any delimiter in linear time."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from gradatim.difficulty.complexity import _PLAIN_OPERATORS as _PLAIN
from gradatim.difficulty.model_based import read_rating
from gradatim.distillation import judge as form
from gradatim.evaluation import cruxeval as crux
from gradatim.evaluation import verdicts as candidate
from gradatim.evaluation.output import numbers_in
from gradatim.languages import LANGUAGES, gcc, go, java, javascript, typescript
from gradatim.languages import gcc as gcc_harness
from gradatim.languages import language as check
from gradatim.languages.gcc import declaration
from gradatim.languages.language import LONGEST_REPLY
from gradatim.languages.thinking import fenced_blocks, strip_thinking
from gradatim.programs.equivalence import canonical
from gradatim.table.instruction import messages_of
from gradatim.table.rows import divide
from gradatim.teacher import prompts as reading

SIZE = 4_000
QUADRATIC = re.compile(r"^\s*(?:import\b)", re.MULTILINE).search
RATIO = 3.0
"""The most that twice the text may take: 2 is linear, 4 quadratic."""

UNITS = (
    *"\"'`#\\()[]{}<>;,.:=&*-+0a_ \t\n|~é",
    *('"""', "'''", "/*", "/**/", "*/ ", "//", "=> ", "'\\", '"\\', "\\\n", " \n", "\r\n"),
    *("a ", "a\n", "* ", "& ", "- ", "\x1e", "a.A", "a: 1", "**a**: 1/2\n"),
    *("```", "```\n", "~~~ ", "~~~\n", "```python\n", "- ```\n", "1. ", "> ", "    ```\n", "```markdown\n"),
    *("<think>", "</think>", "<think>\n", "\n</think>\n", "<|channel|>", "<|channel|>a<|message|>", "<|end|>"),
    *("import ", "import (", "import (\n", 'import "a"\n', "import ( //", "import ( /*\n", "package ", "package a\n"),
    *("public ", "public\n", "static ", "static void main(", "class ", "class\n", "void ", "final "),
    *("func ", "func (\n", "func TestA(", "def ", "def f(", "function ", "const a", "const ", "export ", "async "),
    *("int f(", "int f() {\n", "#define ", "define/*", "define /**/", "#include ", "require(", "template<", "using "),
    *("<question>", "<tests>", "<scores>", "</scores>", "<analysis>", "<difficulty>", "[ANSWER]", "[/ANSWER]"),
    *("Assertion ", "aError", "a:1: error: [", " [-W", "a.go:1:", "1 SyntaxError: ", "multiple definition of "),
)
PREFIXES = ("", "const 'a")


SCANNERS: dict[str, Callable[[str], object]] = {
    "extract": lambda text: LANGUAGES.get("python").extract(f"```python\n{text}", "f"),
    "strip_thinking": strip_thinking,
    "fenced_blocks": fenced_blocks,
    "c: declaration": lambda text: declaration(text, "int f(int a) {"),
    "c: undefined": gcc_harness.undefined,
    "c: headers of tests": gcc._INCLUDE.findall,
    "c: diagnostics": lambda text: gcc.diagnostics(text.encode()),
    "candidate: header": candidate._HEADER.findall,
    "canonical": canonical,
    "check: telling line": lambda text: check._error_line(text.encode()),
    "crux: answer": lambda text: crux.answer_in(text, "output", open_tag=True),
    "divide": divide,
    "form: fences": lambda text: form._FENCE.search(text),
    "go: diagnostics": lambda text: go._faults(text.encode()),
    "go: main": go._renamed,
    "go: tests": go._TEST.findall,
    "java: class of main": java._last_main,
    "java: diagnostics": lambda text: java._errors(text.encode()),
    "javascript: module": lambda text: javascript._MODULE.search(text),
    "javascript: diagnostics": lambda text: javascript._SYNTAX.search(text),
    "lexemes": _PLAIN.findall,
    "messages": messages_of,
    "numbers": numbers_in,
    "read_grade": lambda text: reading.read_grade(f"good <scores>{text}</scores>"),
    "read_output": reading.read_output,
    "read_question": lambda text: reading.read_question(f"<question>a</question><tests>{text}</tests>"),
    "read_rating": read_rating,
    "typescript: diagnostics": lambda text: typescript._faults(text.encode()),
}
for _entry in LANGUAGES:
    _language = LANGUAGES.get(_entry.name)
    SCANNERS |= {
        f"{_entry.name}: defined": _language.defined,
        f"{_entry.name}: runnable": _language.runnable,
        f"{_entry.name}: opener": re.compile(_language.openers).match,
    }
    if _entry.name not in ("python", "typescript"):
        SCANNERS[f"{_entry.name}: assemble"] = lambda text, join=_language.assemble: join("", text, "assert(List);")
        SCANNERS[f"{_entry.name}: placed"] = lambda text, language=_language: candidate._definitions(language, text)


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    def stop(*signal_and_frame: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def seconds(scan: Callable[[str], object], text: str, tries: int = 1) -> float:
    best = 60.0
    for _ in range(tries):
        start = time.process_time()  # of this process: what else the machine does is not counted
        with stopped_after(10):
            scan(text)
        best = min(best, time.process_time() - start)
    return best


@cache
def seconds_without_ratio() -> float:
    """Half the processor time of a quadratic scanner on 2 * SIZE characters, on this machine: a scan below it needs
    no look at the ratio."""
    return seconds(QUADRATIC, " \n" * SIZE, 5) / 2


def is_linear(scan: Callable[[str], object], prefix: str, unit: str) -> bool:
    text = prefix + unit * (2 * SIZE // len(unit))
    quick = seconds_without_ratio()
    if seconds(scan, text) < quick or seconds(scan, text, 3) < quick:
        return True
    return seconds(scan, text, 3) < RATIO * seconds(scan, prefix + unit * (SIZE // len(unit)), 3)


@pytest.mark.parametrize("name", SCANNERS)
def test_repeats_of_a_delimiter_are_scanned_in_linear_time(name):
    scan = SCANNERS[name]
    assert [(prefix, unit) for unit in UNITS for prefix in PREFIXES if not is_linear(scan, prefix, unit)] == []


def test_the_measure_sees_a_quadratic_scanner():
    assert not is_linear(QUADRATIC, "", " \n")


@pytest.mark.parametrize("text", ["a " * 300_000, "'" * 600_000, "(" * 600_000, "/*" * 300_000])
def test_a_parser_that_recovers_from_endless_errors_is_stopped(text, monkeypatch):
    monkeypatch.setattr("gradatim.languages.language.STEPS", 200)
    fault = LANGUAGES.get("c").parses(text)
    assert fault is not None
    assert fault.rule == "steps"


def test_the_largest_program_is_within_the_steps_of_the_parser():
    line = "def f(a, b):\n    return [a + b * 2 for a in range(b) if a % 2 == 0]\n"
    assert LANGUAGES.get("python").parses(line * (200_000 // len(line))) is None


def test_a_reply_beyond_every_answer_is_not_searched():
    found = LANGUAGES.get("python").extract("```python\n1\n```\n" + "a" * LONGEST_REPLY)
    assert (found.state, found.code) == ("none", "")
