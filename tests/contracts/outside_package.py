"""An outside package with one component of every family, installed by entry points, for the contract tests.

``install`` writes its module and its metadata into a folder; with the folder on ``PYTHONPATH`` the entry points are
those of an installed distribution. For each family the package registers a component that fits the contract under the
name ``outside`` and one that does not under ``broken``. A test module may add sources and entry points of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from forked_commands import run_command

PACKAGE = "outside_parts"

SOURCE = '''\
"""One component of every family, as a package of its own writes them."""

from dataclasses import replace

import numpy as np

from gradatim.distillation import Judge, View
from gradatim.languages.python import PYTHON
from gradatim.model.settings import PRESETS, Preset
from gradatim.schedule import split_budget
from gradatim.stage import Counts, Difficulty, Drawn, Schedule, Source, StageSpec, Suite, SuiteResult
from gradatim.stage import ignore_events
from gradatim.table import make_table
from gradatim.teacher import Question, Teacher


def sums(count, first):
    """Programs that print a sum, with their output."""
    pairs = [(n % 10, n // 10 % 10) for n in range(first, first + count)]
    middle = ["", "c = a * b\\n"]
    prompts = [f"a = {n}\\nb = {m}{n}\\n{middle[m % 2]}print(a + b)\\n# output\\n" for n, m in pairs]
    return prompts, [f"# {n + 10 * m + n}\\n" for n, m in pairs]


class Sums(Source):
    def __init__(self, count):
        self.count = count

    def draw(self, cycle, feedback):
        prompts, answers = sums(self.count, cycle * self.count)
        table = make_table({"prompt": prompts, "answer": answers, "language": ["python"] * self.count})
        return Drawn(table, {"kept": self.count})


def source(*, count: int = 90):
    """Programs that print a sum."""
    return Sums(count)


class Bare:
    def draw(self, cycle, feedback):
        return make_table({"answer": []})


def broken_source(*, count: int = 90):
    """A source without the members of the Protocol."""
    return Bare()


class Length(Difficulty):
    def __call__(self, samples, *, workers=1, events=ignore_events):
        return np.array([float(len(prompt)) for prompt in samples["prompt"].to_pylist()])


def difficulty(*, scale: float = 1.0):
    """Characters of the prompt."""
    return Length()


def broken_difficulty(*, scale: float = 1.0):
    """A difficulty that is a number."""
    return scale


class Texts(Difficulty):
    def __call__(self, samples, *, workers=1, events=ignore_events):
        return samples["prompt"].to_pylist()


def wrong_difficulty():
    """A difficulty that returns texts."""
    return Texts()


class Halves(Schedule):
    def __init__(self, bands, tokens):
        self.specs = [StageSpec(f"half-{n}", (1.0,) * len(bands), part, order="outside")
                      for n, part in enumerate(split_budget(tokens, [1, 1]))]

    def next(self, history):
        return self.specs[len(history)] if len(history) < 2 else None


def schedule(bands, tokens):
    """Two stages of all bands in an order of this package."""
    return Halves(bands, tokens)


def broken_schedule(bands):
    """A schedule without a budget."""
    return Halves(bands, 100)


class Names(Schedule):
    def next(self, history):
        return "first"


def wrong_schedule(bands, tokens):
    """A schedule that returns names."""
    return Names()


def order(*, step: int = 1):
    """The rows backwards."""
    return lambda rows, context: rows[::-1].copy()


def broken_order():
    """An order that loses a row."""
    return lambda rows, context: rows[1:]


class Nonempty(Suite):
    def __call__(self, student, samples, *, seed, events=ignore_events):
        return SuiteResult("outside", "count", {"all": {"all": Counts(samples.num_rows, samples.num_rows)}})


def suite(*, limit: int = 3):
    """All samples pass."""
    return Nonempty()


class Wrong(Suite):
    def __call__(self, student, samples, *, seed, events=ignore_events):
        return {"accuracy": 1.0}


def broken_suite():
    """A suite that returns a mapping."""
    return Wrong()


class Longer(Judge):
    proves = False

    def __call__(self, samples, attempts, *, events=ignore_events):
        return [View(1.0 if attempt else 0.0, "passed" if attempt else "failed", "by length") for attempt in attempts]


def judge(grader=None, /, *, least: int = 1):
    """Completions that are not empty pass."""
    return Longer()


class Silent(Judge):
    def __call__(self, samples, attempts):
        return []


def broken_judge(grader=None, /):
    """A judge that does not state whether it proves."""
    return Silent()


class Adder(Teacher):
    facts = {"requests": 0}

    def answers(self, questions, *, draw=0):
        return [None] * questions.num_rows

    def faults(self, samples, *, draw=0):
        return ["# 0\\n"] * samples.num_rows

    def questions(self, parents, *, grade, draw=0):
        prompts, answers = sums(parents.num_rows, 50 + draw % 1000)
        return [Question(prompt, answer, None, "python") for prompt, answer in zip(prompts, answers)]

    def seeds(self, count, *, seed):
        prompts, answers = sums(count, 0)
        return [Question(prompt, answer, None, "python") for prompt, answer in zip(prompts, answers)]


def teacher(*, seed: int = 0):
    """Questions about sums."""
    return Adder()


class Mute(Teacher):
    def answers(self, questions):
        return []


def broken_teacher():
    """A teacher that writes no questions."""
    return Mute()


language = replace(PYTHON, name="outside", aliases=("outsidish",))
broken_language = object()

preset = replace(PRESETS.get("tiny"), width=16)
broken_preset = (32, 2)
'''

FAMILIES = {
    "sources": "source",
    "difficulties": "difficulty",
    "schedules": "schedule",
    "orders": "order",
    "suites": "suite",
    "judges": "judge",
    "teachers": "teacher",
    "languages": "language",
    "presets": "preset",
}
"""Families of this package, with the name of the component in its module."""

ENTRY_POINTS = {
    family: {"outside": f"{PACKAGE}:{name}", "broken": f"{PACKAGE}:broken_{name}", "absent": f"{PACKAGE}:absent"}
    for family, name in FAMILIES.items()
}
ENTRY_POINTS["difficulties"]["wrong"] = f"{PACKAGE}:wrong_difficulty"
ENTRY_POINTS["schedules"]["wrong"] = f"{PACKAGE}:wrong_schedule"


def install(
    folder: Path,
    *,
    package: str = PACKAGE,
    source: str = SOURCE,
    entry_points: Mapping[str, Mapping[str, str]] = ENTRY_POINTS,
) -> dict[str, str]:
    """Install the package into ``folder``; the environment variables with which a process finds it."""
    (folder / f"{package}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    sections = [
        f"[gradatim.{family}]\n" + "".join(f"{name} = {path}\n" for name, path in names.items())
        for family, names in entry_points.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def gradatim(environment: Mapping[str, str], *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return run_command(words, cwd, environment)
