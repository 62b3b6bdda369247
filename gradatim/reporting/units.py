"""Nouns of the items that are counted (programs, samples, problems, episodes), of the metric and of the budget.

A suite counts units of its own: ``line`` counts lines and ``token`` characters. The items of the other suites are named
after the data: a TinyPy sample is a program with its output, any other one a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .data import RunData, StudyData
from .terms import POLICY, Terms, terms_of_runs

SUITE_UNITS = {
    "line": "line",
    "token": "character",
    "functional": "problem",
    "cruxeval": "problem",
    "choice": "question",
    "episodes": "episode",
}
"""The unit of each suite that counts anything but samples."""


def is_tinypy(study: StudyData) -> bool:
    """Whether all runs with a readable recipe train on TinyPy programs, generated or from the exact teacher."""
    sources = {
        "tinypy" if _section(run, "teacher").get("name") == "oracle" else str(_section(run, "data").get("source"))
        for run in study.runs
        if run.settings
    }
    return sources == {"tinypy"}


def _section(run: RunData, name: str) -> Mapping[str, Any]:
    section = run.settings.get(name)
    return section if isinstance(section, Mapping) else {}


def item_noun(study: StudyData) -> str:
    """The noun of a sample: ``program`` for TinyPy, else ``sample``."""
    return "program" if is_tinypy(study) else "sample"


def unit_of(study: StudyData, suite: str) -> str:
    """The noun of an item that ``suite`` counts."""
    return SUITE_UNITS.get(suite, item_noun(study))


def plural(number: float, noun: str) -> str:
    """A number with its noun: ``1 program``, ``2,000 programs``."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def terms_of(study: StudyData) -> Terms:
    """The terms of a study, those of policies where all its runs have one."""
    return terms_of_runs(run.settings for run in study.runs)


def metric_of(suite: str) -> str:
    """The noun of the main metric of a suite."""
    return POLICY.metric if suite == "episodes" else Terms.metric
