"""Nouns of the items that are counted (programs, samples, problems, episodes), of the metric and of the budget.

A suite counts units of its own: ``line`` counts lines and ``token`` characters. The items of the other suites are named
after the data: a TinyPy sample is a program with its output, any other one a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import RunData, StudyData

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


@dataclass(frozen=True)
class Terms:
    """Nouns that depend on the kind of student: the main ``metric``, the ``budget``, and its ``rate``."""

    metric: str = "accuracy"
    budget: str = "training tokens"
    rate: str = "tokens per second"


POLICY = Terms("utility", "agent steps", "agent steps per second")


def terms_of(study: StudyData) -> Terms:
    """The terms of a study, see ``terms_of_runs``."""
    return terms_of_runs(study.runs)


def terms_of_runs(runs: Iterable[RunData]) -> Terms:
    """The terms of ``runs``, those of policies where all of them have one."""
    kinds = {_section(run, "student").get("kind") for run in runs if run.settings}
    return POLICY if kinds == {"policy"} else Terms()


def metric_of(suite: str) -> str:
    """The noun of the main metric of a suite."""
    return POLICY.metric if suite == "episodes" else Terms.metric
