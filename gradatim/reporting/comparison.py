"""Comparability of arms: the conditions without which two arms have no difference, and the settings that differ.

Two arms are compared where their runs answer the same test items after the same training budget, by recipes that are
not equal. ``obstacles`` gives the reasons against a comparison; ``summary`` then reports neither a difference nor an
interval. ``setting_differences`` is the table of the keys in which the arms' recipes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..experiment.recipe import MAY_CHANGE
from .data import RunData, StudyData
from .terms import terms_of_runs

TOLERANCE = 0.98
"""Quantities of two arms that differ by less than 2 % count as equal: batches round the tokens of a budget."""

MAY_DIFFER = ("data.count", "data.new", "title")
"""Keys in which a control for the number of samples may differ from the baseline."""

OWN = ("seed", "threads", *MAY_CHANGE)
"""Keys of a recipe in which runs of one arm may differ."""


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings as (dotted key, value); lists are values."""
    for name, value in settings.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping) and value:
            yield from flat(value, key)
        else:
            yield key, value


def arm_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The flat settings of a recipe that all runs of one arm share."""
    return {key: value for key, value in flat(settings) if key not in OWN and value is not None}


def obstacles(study: StudyData, arm: str, against: str, suite: str, protocol: str) -> tuple[str, ...]:
    """The reasons why ``arm`` and ``against`` are not comparable on ``suite``, in words; empty if they are.

    Arms without finished runs are comparable: their differences are undefined anyway.
    """
    first, second, title = study.finished(arm), study.finished(against), study.title_of(against)
    if not first or not second:
        return ()
    return tuple(
        reason
        for reason in (
            _same_recipe(first, second, title),
            _other_test_set(first, second, title, suite, protocol),
            _other_budget(first, second, title),
        )
        if reason
    )


def _same_recipe(first: Sequence[RunData], second: Sequence[RunData], title: str) -> str | None:
    """Equal recipes outside of one study: the runs are then seeds of one arm."""
    settings = [arm_settings(runs[0].settings) for runs in (first, second)]
    if not settings[0] or settings[0] != settings[1] or _one_study((*first, *second)):
        return None
    return f"the recipe of {title}: only seeds differ"


def _one_study(runs: Sequence[RunData]) -> bool:
    studies = {run.study for run in runs}
    return len(studies) == 1 and None not in studies


def _other_test_set(
    first: Sequence[RunData], second: Sequence[RunData], title: str, suite: str, protocol: str
) -> str | None:
    sizes = [
        {total for run in runs if (total := items_of(run, suite, protocol)) is not None} for runs in (first, second)
    ]
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        totals = [" or ".join(f"{total:,}" for total in sorted(size)) for size in sizes]
        return f"{totals[0]} test items, {title} {totals[1]}"
    tests = [{run.test_set for run in runs} for runs in (first, second)]
    if None not in tests[0] | tests[1]:
        return None if tests[0] == tests[1] else f"another test set than {title}"
    # The arms of a study share their test set, whatever their samples.
    samples = {_samples(run) for run in (*first, *second)} - {None}
    if len(samples) < 2 or _one_study((*first, *second)):
        return None
    return f"other samples than {title}, and no test set is stored"


def _samples(run: RunData) -> str | None:
    return next((table.corpus for table in run.tables), None)


def items_of(run: RunData, suite: str, protocol: str) -> int | None:
    """The number of items of the suite after the last stage; None without a result."""
    result = run.evaluation(suite, protocol)
    counts = result.counts.get("all", {}).get("all") if result else None
    return counts.total if counts else None


def _other_budget(first: Sequence[RunData], second: Sequence[RunData], title: str) -> str | None:
    """Another training budget in the recipe, and other training tokens: a schedule may end below an equal budget."""
    budgets = [runs[0].settings.get("budget") for runs in (first, second)]
    if budgets[0] is not None and budgets[0] == budgets[1]:
        return None
    tokens = [fmean(run.tokens for run in runs) for runs in (first, second)]
    if min(tokens) >= TOLERANCE * max(tokens):
        return None
    noun = terms_of_runs(run.settings for run in (*first, *second)).budget
    return f"{tokens[0]:,.0f} {noun}, {title} {tokens[1]:,.0f}"


def differs_in_numbers_only(study: StudyData, arm: str, baseline: str) -> bool:
    """Whether the recipes of two arms with finished runs are equal but for their numbers of samples."""
    runs, others = study.finished(arm), study.finished(baseline)
    if not runs or not others:
        return False
    settings, reference = arm_settings(runs[0].settings), arm_settings(others[0].settings)
    if not settings or not reference:  # unknown recipes
        return False
    return all(settings.get(key) == reference.get(key) or key in MAY_DIFFER for key in {**settings, **reference})


def setting_differences(study: StudyData) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """(key, value of each arm in order) of the settings in which the arms differ; a missing value is None."""
    runs = [next((run for run in study.of(arm.name) if run.settings), None) for arm in study.arms]
    settings = [arm_settings(run.settings) if run else {} for run in runs]
    keys = dict.fromkeys(key for entry in settings for key in entry)
    rows = ((key, tuple(entry.get(key) for entry in settings)) for key in keys)
    return tuple((key, values) for key, values in rows if any(value != values[0] for value in values))
