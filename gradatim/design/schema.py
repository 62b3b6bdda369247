"""In what form does a teacher write a curriculum?

``SCHEMA`` is the form, a JSON Schema. A design names the stages of every cycle that is left; each stage says which
fraction of which band it takes and its *share* of the budget. Shares, not tokens, because a language model adds small
fractions more reliably than six-digit numbers: the budget is kept when all shares add up to 1 within a hundredth, and
is then parted to the token. ``reading`` reads what comes back, by these same keys and bounds.

What does a teacher's design say, and what is wrong with it?

``read_design`` tells all faults at once, each a line that a model can act on. Nothing is repaired and nothing guessed.
The text is untrusted: whatever it is, it gives a design or faults, and in a design the stages' tokens add up to the
budget exactly. The form is ``form``'s; whether a curriculum is any good nobody knows here.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import RecipeError, did_you_mean
from ..schedule import split_budget
from ..stage import End, StageSpec

__all__ = ["CYCLE", "ENDS", "LEAST", "NAME", "SCHEMA", "SLACK", "STAGE", "Design", "Terms", "read_design", "schema_for"]


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


LONGEST = 100_000
"""Characters of a reply that are looked at; the longest sensible design has a few thousand."""
LONGEST_REASON = 4_000


def read_design(text: str, terms: Terms) -> tuple[Design | None, tuple[str, ...]]:
    """The design in a reply, or None and every fault of it. The stages' tokens add up to ``terms.tokens`` exactly."""
    content, faults = _parsed(text)
    if content is None:
        return None, tuple(faults)
    reading = _Reading(terms, faults)
    design = reading.design(content)
    return (None, tuple(faults)) if faults or design is None else (design, ())


def _parsed(text: str) -> tuple[Any, list[str]]:
    """What the JSON of a reply holds, alone or in its one fence; None where it cannot be read."""
    if len(text) > LONGEST:
        return None, [f"the reply has {len(text):,} characters; at most {LONGEST:,} are read"]
    lines = text.splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    if len(fences) not in (0, 2):
        return None, ["reply with the JSON alone, or in exactly one closed block between ``` and ```"]
    body = "\n".join(lines[fences[0] + 1 : fences[1]] if fences else lines)
    faults: list[str] = []

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        faults.extend(f"the key {_shown(key)} stands twice in one object" for key in twice)
        return dict(pairs)

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        content = json.loads(body, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return None, [
            f"this is not JSON: {error.msg} at {where}; nothing may stand before or after the object, and it has to be "
            "there to its end"
        ]
    except ValueError as error:  # also a number with thousands of digits
        return None, [f"this is not JSON: {str(error).partition(';')[0]}"]
    except RecursionError:
        return None, ["this is nested too deeply to be a design"]
    return (content, faults) if content is not None else (None, ["the reply is null; an object is needed"])


class _Reading:
    """One reading of one reply: what is wrong is added to ``faults`` and the rest is read on."""

    def __init__(self, terms: Terms, faults: list[str]) -> None:
        self.terms, self.faults = terms, faults

    def design(self, content: Any) -> Design | None:
        if not self._object(content, "the reply", SCHEMA["properties"], SCHEMA["required"]):
            return None
        reason, keep = content.get("reason", "-"), content.get("keep", False)
        if not isinstance(reason, str) or not _plain(reason):
            self.faults.append("reason: say why in a few sentences")
        if not isinstance(keep, bool):
            self.faults.append(f"keep: true or false, not {_shown(keep)}")
        if keep is True:
            return self._kept(content, reason)
        cycles = content.get("cycles")
        if not isinstance(cycles, list):
            self.faults.append(
                "cycles: missing: the list of the cycles that are left, each with its stages"
                if cycles is None
                else f"cycles: a list is needed, not {_shown(cycles)}"
            )
            return None
        if len(cycles) != self.terms.cycles:
            left = f"{self.terms.cycles} cycle{'s are' if self.terms.cycles > 1 else ' is'} left to design"
            self.faults.append(f"cycles: {left}, and there are {len(cycles)} here")
        read = [self._cycle(cycle, f"cycles[{number}]") for number, cycle in enumerate(cycles)]
        budgets = self._budgets([share for stages in read for _, share in stages])
        if self.faults or budgets is None or not isinstance(reason, str):
            return None
        parts = iter(budgets)
        made = tuple(tuple(StageSpec(tokens=next(parts), **stage) for stage, _ in stages) for stages in read)
        return Design(_plain(reason), made)

    def _kept(self, content: Mapping[str, Any], reason: Any) -> Design | None:
        if self.terms.plan is None:
            self.faults.append("keep: there is no plan yet that could stay")
        if "cycles" in content:
            self.faults.append("keep: with true, cycles is left out; to change the plan, leave out keep")
        if self.faults or self.terms.plan is None or not isinstance(reason, str):
            return None
        return Design(_plain(reason), self.terms.plan, kept=True)

    def _cycle(self, content: Any, where: str) -> list[tuple[dict[str, Any], Any]]:
        """(a stage without its tokens, its share) for each stage."""
        if not self._object(content, where, CYCLE["properties"], CYCLE["required"]) or "stages" not in content:
            return []
        stages = content["stages"]
        if not isinstance(stages, list) or not stages:
            self.faults.append(f"{where}.stages: a list of at least one stage is needed, not {_shown(stages)}")
            return []
        if len(stages) > self.terms.stages:
            self.faults.append(f"{where}.stages: at most {self.terms.stages} stages, not {len(stages)}")
        read = [self._stage(stage, f"{where}.stages[{number}]") for number, stage in enumerate(stages)]
        names = Counter(stage["name"].casefold() for stage, _ in read if isinstance(stage.get("name"), str))
        self.faults += [f"{where}: {count} stages are called {_shown(n)}" for n, count in names.items() if count > 1]
        return read

    def _stage(self, content: Any, where: str) -> tuple[dict[str, Any], Any]:
        if not self._object(content, where, STAGE["properties"], STAGE["required"]):
            return {}, None
        name, share = content.get("name"), content.get("share")
        if "name" in content and not (isinstance(name, str) and re.fullmatch(NAME, name)):
            self.faults.append(
                f"{where}.name: 1 to 40 letters, digits, +, - or _, the first a letter or digit, not {_shown(name)}"
            )
        if "share" in content and not (_between(share) and share > 0):
            self.faults.append(f"{where}.share: a number above 0 and at most 1, not {_shown(share)}")
            share = None
        order = self._choice(content, "order", list(self.terms.orders), where)
        objective = self._choice(content, "objective", self.terms.objectives, where)
        end = self._choice(content, "end", ENDS, where)
        fractions = self._fractions(content["bands"], f"{where}.bands") if "bands" in content else ()
        stage = {
            "name": name,
            "fractions": fractions,
            "ends": (end,) * len(fractions),
            "order": order,
            "order_options": dict(self.terms.orders.get(order, {})),
            "objective": None if objective == self.terms.objectives[0] else objective,
        }
        return stage, share

    def _fractions(self, content: Any, where: str) -> tuple[float, ...]:
        if not isinstance(content, dict):
            self.faults.append(f"{where}: an object with a fraction for each band is needed, not {_shown(content)}")
            return ()
        self._known(content, where, self.terms.bands, "band")
        given = [name for name in self.terms.bands if name in content]
        wrong = [name for name in given if not _between(content[name]) or 0 < content[name] < LEAST]
        self.faults += [f"{where}.{name}: 0, or {LEAST} to 1, not {_shown(content[name])}" for name in wrong]
        if not wrong and not any(content.get(name) for name in self.terms.bands):
            self.faults.append(f"{where}: the stage uses nothing; at least one band needs a fraction above 0")
        return tuple(0.0 if name in wrong else float(content.get(name, 0)) for name in self.terms.bands)

    def _budgets(self, shares: Sequence[Any]) -> list[int] | None:
        """The tokens of all stages; None where some share is not known, or they do not keep the budget."""
        if not shares or any(share is None for share in shares):
            return None
        total = math.fsum(shares)
        if abs(total - 1) > SLACK:
            self.faults.append(
                f"the budget is not kept: the shares of all stages of all cycles add up to {total:.4g}, not to 1"
            )
            return None
        try:
            parts = split_budget(self.terms.tokens, shares)
            # A budget of few steps for all cannot give every stage one.
            least = min(self.terms.least, self.terms.tokens // (4 * len(parts)))
            if min(parts) < least:
                self.faults.append(
                    f"a share is too small: its stage would get {min(parts):,} of the {self.terms.tokens:,} tokens, "
                    f"and one step of training takes {least:,}"
                )
                return None
            return parts
        except RecipeError:
            one = 1 / self.terms.tokens
            self.faults.append(
                f"a share is too small: its stage would get none of the {self.terms.tokens:,} tokens; a token is "
                f"{one:.2g} of them"
            )
            return None

    def _choice(self, content: Mapping[str, Any], key: str, allowed: Sequence[str], where: str) -> str:
        """One of ``allowed``, the first where the stage does not say."""
        value = content.get(key, allowed[0])
        if isinstance(value, str) and value in allowed:
            return value
        near = did_you_mean(value, allowed) if isinstance(value, str) else None
        self.faults.append(
            f"{where}.{key}: one of {', '.join(allowed)}, not {_shown(value)}" + (f"; {near}" if near else "")
        )
        return allowed[0]

    def _object(self, content: Any, where: str, known: Iterable[str], needed: Iterable[str]) -> bool:
        """Whether it is an object; keys that are not known and keys that lack are faults."""
        if not isinstance(content, dict):
            self.faults.append(f"{where}: an object is needed, not {_shown(content)}")
            return False
        self._known(content, where, list(known), "key")
        self.faults += [f"{where}: the key {key!r} is missing" for key in needed if key not in content]
        return True

    def _known(self, content: Mapping[str, Any], where: str, known: Sequence[str], what: str) -> None:
        for key in content:
            if key not in known:
                near = did_you_mean(key[:100], known)
                allowed = f"known: {', '.join(known)}"
                self.faults.append(f"{where}: there is no {what} {_shown(key)}; {near or allowed}")


def _between(value: Any) -> bool:
    """Whether it is a number of 0..1; NaN and infinity are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _plain(reason: str) -> str:
    """Words for a page and a terminal: no control characters, no half of a pair, not without end."""
    words = " ".join("".join(each if each.isprintable() else " " for each in reason).split())
    return words if len(words) <= LONGEST_REASON else words[:LONGEST_REASON] + " …"


def _shown(value: Any) -> str:
    """What was given, in a few plain characters; of a list or an object only that it is one."""
    if isinstance(value, list | dict):
        return ("an empty " if not value else "a ") + ("list" if isinstance(value, list) else "object")
    told = json.dumps(value)
    return told if len(told) <= 60 else told[:57] + "…"
