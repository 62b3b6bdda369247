"""In what form does a teacher write a curriculum?

``SCHEMA`` is the form, a JSON Schema. A design names the stages of every cycle that is left; each stage says which
fraction of which band it takes and its *share* of the budget. Shares, not tokens, because a language model adds small
fractions more reliably than six-digit numbers: the budget is kept when all shares add up to 1 within a hundredth, and
is then parted to the token. ``reading`` reads what comes back, by these same keys and bounds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..stage import End, StageSpec

__all__ = ["CYCLE", "ENDS", "LEAST", "NAME", "SCHEMA", "SLACK", "STAGE", "Design", "Terms", "schema_for"]

LEAST = 0.001
"""The smallest fraction of a band that counts as using it."""
SLACK = 0.01
"""By how much the shares may miss 1: three thirds written as 0.33 do."""
NAME = r"[A-Za-z0-9][A-Za-z0-9+_-]{0,39}"
"""What a stage may be called: the name is part of a folder's."""
ENDS = get_args(End)

STAGE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "share", "bands"],
    "properties": {
        "name": {
            "type": "string",
            "pattern": f"^{NAME}$",
            "description": "a short name, different from the other stages' of the cycle",
        },
        "share": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "the stage's share of the budget that is left; the shares of all stages of all cycles add "
            "up to 1",
        },
        "bands": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
            "description": "for each band the fraction of its samples that the stage uses: 0, or 0.001 to 1; a band "
            "left out is not used",
        },
        "end": {
            "enum": list(ENDS),
            "description": "which part of a band, where the fraction is below 1; left out: hardest",
        },
        "order": {"type": "string", "description": "how the samples follow each other; left out: the first one"},
        "objective": {"type": "string", "description": "what is learnt from them; left out: the first one"},
    },
}

CYCLE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["stages"],
    "properties": {"stages": {"type": "array", "minItems": 1, "items": STAGE}},
}

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "The design of a curriculum",
    "type": "object",
    "additionalProperties": False,
    "required": ["reason"],
    "oneOf": [{"required": ["cycles"]}, {"required": ["keep"], "properties": {"keep": {"const": True}}}],
    "properties": {
        "reason": {"type": "string", "minLength": 1, "description": "why, in a few sentences"},
        "keep": {"type": "boolean", "description": "true: the plan stays as it was, and cycles is left out"},
        "cycles": {
            "type": "array",
            "minItems": 1,
            "description": "the cycles that are left, in their order",
            "items": CYCLE,
        },
    },
}
"""The published form; ``schema_for`` fills in what the one asked may choose among."""


@dataclass(frozen=True)
class Terms:
    """Within which bounds a design has to stay.

    ``cycles`` are left, with ``tokens`` for all of them and at most ``stages`` stages in each. ``orders``: {name:
    options}; ``objectives``: names; of both the first is taken when a stage names none, and of the objectives it is
    the recipe's own. ``least`` is the fewest tokens of a stage, those of one step: no stage can train on fewer.
    ``plan``: the stages of the cycles that are left as they stand, None before the first design.
    """

    bands: tuple[str, ...]
    cycles: int
    tokens: int
    stages: int
    orders: Mapping[str, Mapping[str, Any]]
    objectives: tuple[str, ...]
    plan: tuple[tuple[StageSpec, ...], ...] | None = None
    least: int = 1


@dataclass(frozen=True)
class Design:
    """The stages of each cycle that is left, and why; ``kept``: the plan as it was."""

    reason: str
    cycles: tuple[tuple[StageSpec, ...], ...]
    kept: bool = False


def schema_for(terms: Terms) -> dict[str, Any]:
    """``SCHEMA`` with the names and numbers of these terms in it."""
    schema: dict[str, Any] = copy.deepcopy(dict(SCHEMA))
    cycles = schema["properties"]["cycles"]
    cycles |= {"minItems": terms.cycles, "maxItems": terms.cycles}
    stages = cycles["items"]["properties"]["stages"]
    stages["maxItems"] = terms.stages
    stage = stages["items"]["properties"]
    stage["bands"]["properties"] = {name: stage["bands"]["additionalProperties"] for name in terms.bands}
    stage["bands"]["additionalProperties"] = False
    stage["order"]["enum"], stage["objective"]["enum"] = list(terms.orders), list(terms.objectives)
    if terms.plan is None:
        del schema["properties"]["keep"], schema["oneOf"]
        schema["required"] = ["reason", "cycles"]
    return schema
