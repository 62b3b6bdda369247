"""What does a teacher know who designs a curriculum?

Names and numbers: the bands and levels of the samples, the budget, what may be chosen, and after a cycle how the
student did, band by band, on the validation samples. The test set is not among them, and no sample is. ``tell`` puts it
into one JSON text that hangs on nothing else, no seed and no clock: so all seeds of a study ask the same question
before the first cycle, and one reply serves them all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..schedule import ORDERS
from ..stage import StageResult, StageSpec
from ..training.objective import OBJECTIVES
from .schema import Terms

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ..schedule import Bands

__all__ = ["describe_samples", "tell"]


MOST_OF_A_LABEL = 40
MOST_LEVELS = 20
"""Levels that are told, the most frequent ones; labels of a user's own may be without number."""


def describe_samples(
    samples: pa.Table, bands: Bands, difficulty: npt.NDArray[Any], lengths: npt.NDArray[Any], metric: str
) -> dict[str, Any]:
    """The training samples in numbers, as JSON values. ``difficulty`` and ``lengths`` (characters): a value a row."""
    told = []
    for place, name in enumerate(bands.names):
        inside = bands.index == place
        told.append(
            {
                "name": name,
                "samples": int(inside.sum()),
                "difficulty": {
                    "least": _rounded(float(difficulty[inside].min())),
                    "mean": _rounded(float(difficulty[inside].mean())),
                    "most": _rounded(float(difficulty[inside].max())),
                },
                "mean_characters": _rounded(float(lengths[inside].mean())),
            }
        )
    found: dict[str, Any] = {"samples": samples.num_rows, "difficulty_is": metric, "bands": told}
    if bands.unscored:
        found["without_a_difficulty"] = bands.unscored
    counts = samples.column("level").value_counts().to_pylist() if "level" in samples.column_names else []
    levels = {str(each["values"])[:MOST_OF_A_LABEL]: each["counts"] for each in counts if each["values"] is not None}
    kept = sorted(levels, key=lambda level: (-levels[level], level))[:MOST_LEVELS]
    return {**found, "levels": {level: levels[level] for level in sorted(kept)}} if levels else found


def tell(
    terms: Terms,
    *,
    cycle: int,
    samples: Mapping[str, Any],
    setting: Mapping[str, Any],
    so_far: Sequence[StageResult] = (),
    feedback: Mapping[str, Any] | None = None,
) -> str:
    """Everything that is known before ``cycle`` (counted from 0), as one JSON text.

    ``samples``: see ``describe_samples``, for the first cycle that is left. ``setting``: what else bears on a plan.
    ``so_far``: every stage that is done. ``feedback``: the counts of what the student got wrong after the cycle before.
    """
    orders = {entry.name: entry.summary for entry in ORDERS}
    objectives = {entry.name: entry.summary for entry in OBJECTIVES}
    told: dict[str, Any] = {
        "task": "design all cycles" if terms.plan is None else "revise the rest of the plan, or keep it",
        "cycles": {"done": cycle, "left": terms.cycles, "most_stages_in_each": terms.stages},
        "budget_left": {"tokens": terms.tokens, **setting},
        "samples": samples,
        "orders": {name: _with_options(orders.get(name, name), options) for name, options in terms.orders.items()},
        "objectives": {name: objectives.get(name, name) for name in terms.objectives},
    }
    if so_far:
        told["stages_so_far"] = [_result(result, terms) for result in so_far]
    if feedback:
        told["questions_after_the_last_cycle"] = _asked_after(feedback)
    if terms.plan is not None:
        told["plan_for_the_rest"] = [{"stages": [_planned(spec, terms) for spec in stages]} for stages in terms.plan]
    return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)


def _asked_after(feedback: Mapping[str, Any]) -> dict[str, Any]:
    """How the questions went, all together and by level; as many levels as are told of the samples, the largest."""
    levels = sorted((feedback.get("levels") or {}).items(), key=lambda entry: (-sum(entry[1].values()), entry[0]))
    told = {
        "grades": feedback.get("grades"),
        "levels": {str(name)[:MOST_OF_A_LABEL]: of for name, of in levels[:MOST_LEVELS]},
    }
    return {name: counts for name, counts in told.items() if counts}


def _with_options(summary: str, options: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name}: {value}" for name, value in options.items())
    return f"{summary} ({chosen})" if chosen else summary


def _result(result: StageResult, terms: Terms) -> dict[str, Any]:
    """One point of the learning curves."""
    return {
        "cycle": result.cycle,
        **_choices(result.spec, terms),
        "tokens": result.fitted.tokens,
        "samples": result.samples,
        "training_loss": _rounded(result.fitted.loss),
        "validation": {
            name: {"answers_right": _rounded(each.right), "loss": _rounded(each.loss), "samples": each.samples}
            for name, each in result.progress.items()
        },
    }


def _planned(spec: StageSpec, terms: Terms) -> dict[str, Any]:
    """A stage in the form in which it is answered."""
    return {**_choices(spec, terms), "share": _rounded(spec.tokens / terms.tokens)}


def _choices(spec: StageSpec, terms: Terms) -> dict[str, Any]:
    return {
        "name": spec.name,
        "bands": {name: _rounded(part) for name, part in zip(terms.bands, spec.fractions, strict=True) if part},
        "end": spec.ends[0],
        "order": spec.order,
        "objective": spec.objective or terms.objectives[0],
    }


def _rounded(value: float) -> float | None:
    """Four digits: more say nothing to a reader; None for what is no number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
