"""The request for a curriculum: its facts, one reply, and one correction of a reply with faults.

The facts are names and numbers in one JSON text: bands and levels of the samples, the budget, the options, and after a
cycle the results per band on the validation samples. They contain no sample and nothing of the test set, nor a seed or
a time: all seeds of a study send one request before the first cycle, and share its stored reply.

A reply with faults is requested once more, together with its faults. Remaining faults become one error, and nothing is
made up in place of the design; all replies are in the result. A request depends on its text and draw alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import RecipeError
from ..schedule import ORDERS
from ..stage import StageResult, StageSpec
from ..teacher.teacher import used_since
from ..training.objective import OBJECTIVES
from .schema import Design, Terms, read_design, schema_for

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ..schedule import Bands


MAX_LABEL = 40
"""Most characters of a level's label."""
MAX_LEVELS = 20
"""Most levels in the facts, the most frequent ones; user data may have any number of labels."""
MAX_FAULTS = 30
"""Most faults in one request or error; a reply with more of them has another form altogether."""
MAX_QUOTED_REPLY = 20_000
"""Most characters of a reply with faults in the request for its correction, which bounds the price of a runaway."""
BY_NAME = ("asked", "asked_again", "unreadable", "failed", "retried")
"""Facts of a teacher that are counts by prompt or by cause."""
NO_REPLY = ("no reply could be had, or an empty one",)
"""The fault of a missing reply, which is sent to the teacher like others."""


class Designer(Protocol):
    """The part of ``Teacher`` that writes a curriculum."""

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Teacher.facts``."""
        ...

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None:
        """See ``Teacher.design``."""
        ...


@dataclass(frozen=True)
class DesignOutcome:
    """The result of one or two requests for a design.

    ``replies`` are raw, None for a missing one; ``faults[i]`` are those of reply i. ``design`` is None when the last
    reply has faults. ``used``: requests, tokens and cost, in the form of the teacher's facts.
    """

    design: Design | None
    replies: tuple[str | None, ...]
    faults: tuple[tuple[str, ...], ...]
    used: Mapping[str, Any]

    def require_design(self) -> Design:
        """The design; without one ``RecipeError`` with all faults of the last reply."""
        if self.design is not None:
            return self.design
        faults = self.faults[-1]
        raise RecipeError(
            f"the teacher's design cannot be used after two requests: {'; '.join(faults[:MAX_FAULTS])}",
            where="schedule.name: designed",
            faults=faults,
            hint="start gradatim run again for another reply; or in another folder, with a larger teacher.max_tokens",
        )


def request_design(teacher: Designer, facts: str, terms: Terms, *, draw: int = 0) -> DesignOutcome:
    """Request a design within ``terms``, and once more with the faults of the reply where it has some.

    Another ``draw`` is another sample. Exceptions of the chat (no endpoint, an exhausted budget) are not caught.
    """
    before = deepcopy(dict(teacher.facts))
    form = json.dumps(schema_for(terms), ensure_ascii=False)
    replies: list[str | None] = []
    faults: list[tuple[str, ...]] = []
    design = None
    for _ in range(2):
        if replies:
            reply = teacher.design(
                facts,
                form=form,
                reply=_encodable((replies[-1] or "(nothing)")[:MAX_QUOTED_REPLY]),
                faults=_shorten(faults[-1]),
                draw=draw,
            )
        else:
            reply = teacher.design(facts, form=form, draw=draw)
        is_empty = reply is None or not reply.strip()
        design, reply_faults = (None, NO_REPLY) if is_empty else read_design(reply or "", terms)
        replies.append(reply)
        faults.append(reply_faults)
        if design is not None:
            break
    return DesignOutcome(design, tuple(replies), tuple(faults), _nonzero(used_since(before, teacher.facts)))


def _nonzero(used: Mapping[str, Any]) -> dict[str, Any]:
    """Counts by name without zeros, whose names depend on earlier requests of the process."""
    return {
        name: {key: count for key, count in value.items() if count} if name in BY_NAME else value
        for name, value in used.items()
    }


def _encodable(text: str) -> str:
    """``text`` without lone surrogates, which JSON can escape and no request can carry."""
    return text.encode("utf-8", "replace").decode()


def _shorten(faults: Sequence[str]) -> tuple[str, ...]:
    if len(faults) <= MAX_FAULTS:
        return tuple(faults)
    return (*faults[:MAX_FAULTS], f"and {len(faults) - MAX_FAULTS} more")


def describe_samples(
    samples: pa.Table, bands: Bands, difficulty: npt.NDArray[Any], lengths: npt.NDArray[Any], metric: str
) -> dict[str, Any]:
    """Statistics of the training samples as JSON values. ``difficulty`` and ``lengths`` (characters): one per row."""
    band_facts = []
    for index, name in enumerate(bands.names):
        inside = bands.index == index
        band_facts.append(
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
    facts: dict[str, Any] = {"samples": samples.num_rows, "difficulty_is": metric, "bands": band_facts}
    if bands.unscored:
        facts["without_a_difficulty"] = bands.unscored
    counts = samples.column("level").value_counts().to_pylist() if "level" in samples.column_names else []
    levels = {str(row["values"])[:MAX_LABEL]: row["counts"] for row in counts if row["values"] is not None}
    frequent = sorted(levels, key=lambda level: (-levels[level], level))[:MAX_LEVELS]
    return {**facts, "levels": {level: levels[level] for level in sorted(frequent)}} if levels else facts


def design_facts(
    terms: Terms,
    *,
    cycle: int,
    samples: Mapping[str, Any],
    setting: Mapping[str, Any],
    so_far: Sequence[StageResult] = (),
    feedback: Mapping[str, Any] | None = None,
) -> str:
    """The facts of a design request before ``cycle`` (counted from 0), as one JSON text.

    ``samples``: see ``describe_samples``, for the first of the remaining cycles. ``setting``: further facts on the
    budget. ``so_far``: all stages that are finished. ``feedback``: the counts of the student's results on questions
    after the last cycle. Stored replies depend on every character of this text.
    """
    orders = {entry.name: entry.summary for entry in ORDERS}
    objectives = {entry.name: entry.summary for entry in OBJECTIVES}
    facts: dict[str, Any] = {
        "task": "design all cycles" if terms.plan is None else "revise the rest of the plan, or keep it",
        "cycles": {"done": cycle, "left": terms.cycles, "most_stages_in_each": terms.stages},
        "budget_left": {"tokens": terms.tokens, **setting},
        "samples": samples,
        "orders": {name: _with_options(orders.get(name, name), options) for name, options in terms.orders.items()},
        "objectives": {name: objectives.get(name, name) for name in terms.objectives},
    }
    if so_far:
        facts["stages_so_far"] = [_result(result, terms) for result in so_far]
    if feedback:
        facts["questions_after_the_last_cycle"] = _feedback_facts(feedback)
    if terms.plan is not None:
        facts["plan_for_the_rest"] = [{"stages": [_planned(spec, terms) for spec in stages]} for stages in terms.plan]
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)


def _feedback_facts(feedback: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of grades, in total and for the levels with the most questions."""
    levels = sorted((feedback.get("levels") or {}).items(), key=lambda entry: (-sum(entry[1].values()), entry[0]))
    facts = {
        "grades": feedback.get("grades"),
        "levels": {str(name)[:MAX_LABEL]: counts for name, counts in levels[:MAX_LEVELS]},
    }
    return {name: counts for name, counts in facts.items() if counts}


def _with_options(summary: str, options: Mapping[str, Any]) -> str:
    listing = ", ".join(f"{name}: {value}" for name, value in options.items())
    return f"{summary} ({listing})" if listing else summary


def _result(result: StageResult, terms: Terms) -> dict[str, Any]:
    """One point of the learning curves."""
    return {
        "cycle": result.cycle,
        **_choices(result.spec, terms),
        "tokens": result.fitted.tokens,
        "samples": result.samples,
        "training_loss": _rounded(result.fitted.loss),
        "validation": {
            name: {"answers_right": _rounded(band.right), "loss": _rounded(band.loss), "samples": band.samples}
            for name, band in result.progress.items()
        },
    }


def _planned(spec: StageSpec, terms: Terms) -> dict[str, Any]:
    """A stage in the form of the schema."""
    return {**_choices(spec, terms), "share": _rounded(spec.tokens / terms.tokens)}


def _choices(spec: StageSpec, terms: Terms) -> dict[str, Any]:
    return {
        "name": spec.name,
        "bands": {
            name: _rounded(fraction) for name, fraction in zip(terms.bands, spec.fractions, strict=True) if fraction
        },
        "end": spec.ends[0],
        "order": spec.order,
        "objective": spec.objective or terms.objectives[0],
    }


def _rounded(value: float) -> float | None:
    """``value`` to four significant digits; None for NaN and infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
