"""Nouns of the items that are counted: programs, samples, problems, lines, characters.

A suite counts units of its own: ``line`` counts lines and ``token`` characters. The items of the other suites are named
after the data: a TinyPy sample is a program with its output, any other one a sample.
"""

from __future__ import annotations

from .data import StudyData

SUITE_UNITS = {
    "line": "line",
    "token": "character",
    "functional": "problem",
    "cruxeval": "problem",
    "choice": "question",
}
"""The unit of each suite that counts anything but samples."""


def is_tinypy(study: StudyData) -> bool:
    """Whether all runs with a readable recipe train on TinyPy programs."""
    sources = {
        str(data.get("source")) for run in study.runs if isinstance(data := run.settings.get("data"), dict) and data
    }
    return sources == {"tinypy"}


def item_noun(study: StudyData) -> str:
    """The noun of a sample: ``program`` for TinyPy, else ``sample``."""
    return "program" if is_tinypy(study) else "sample"


def unit_of(study: StudyData, suite: str) -> str:
    """The noun of an item that ``suite`` counts."""
    return SUITE_UNITS.get(suite, item_noun(study))


def plural(number: float, noun: str) -> str:
    """A number with its noun: ``1 program``, ``2,000 programs``."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"
