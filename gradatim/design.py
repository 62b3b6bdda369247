"""The JSON Schema of a designed curriculum, and the parser of a teacher's reply.

A design names the stages of every remaining cycle; each stage has fractions of the bands and a *share* of the budget.
Shares instead of tokens, because a language model adds small fractions more reliably than six-digit numbers: they must
add up to 1 within ``SLACK``, and the budget is then split exactly. Small models write shares that add up to 1 in each
cycle, and repeat them when they are corrected; so this is a second valid form, in which all cycles have equal budgets.

``read_design`` reports all faults of a reply at once, each in a line that a model can act on. Nothing is repaired or
guessed. The text is untrusted: any text gives a design, whose tokens add up to the budget exactly, or faults. The
quality of a curriculum is not judged. The schema and the faults are sent to teachers, so a change of their texts would
invalidate stored replies.

The request for a curriculum: its facts, one reply, and one correction of a reply with faults.

The facts are names and numbers in one JSON text: bands and levels of the samples, the budget, the options, and after a
cycle the results per band on the validation samples. They contain no sample and nothing of the test set, nor a seed or
a time: all seeds of a study send one request before the first cycle, and share its stored reply.

A reply with faults is requested once more, together with its faults. Remaining faults become one error, and nothing is
made up in place of the design; all replies are in the result. A request depends on its text and draw alone.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, get_args

from .errors import RecipeError, did_you_mean
from .schedule import ORDERS, split_budget
from .stage import End, StageResult, StageSpec
from .teacher.teacher import used_since

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from .schedule import Bands


LEAST = 0.001
"""The smallest fraction of a band other than 0."""
SLACK = 0.01
"""Largest difference of the sum of shares from 1: three thirds written as 0.33 are accepted."""
NAME = r"[A-Za-z0-9][A-Za-z0-9+_-]{0,39}"
"""Pattern of a stage's name, which is part of a folder's name."""
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
"""The published schema; ``schema_for`` adds the options of a request."""


@dataclass(frozen=True)
class Terms:
    """The bounds of a design.

    ``cycles``: the remaining cycles, with ``tokens`` in total and at most ``stages`` stages per cycle. ``orders``:
    {name: options}; ``objectives``: names; the first of each is the default of a stage, and the first objective is the
    recipe's. ``least``: fewest tokens of a stage, those of one optimizer step. ``plan``: the current stages of the
    remaining cycles, None before the first design.
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
    """The stages of each remaining cycle, and the reason; ``kept``: the current plan is unchanged."""

    reason: str
    cycles: tuple[tuple[StageSpec, ...], ...]
    kept: bool = False


def schema_for(terms: Terms) -> dict[str, Any]:
    """``SCHEMA`` with the names and numbers of ``terms``."""
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


MAX_REPLY = 100_000
"""Most characters of a reply; the longest sensible design has a few thousand."""
MAX_REASON = 4_000
"""Most characters of a reason."""


def read_design(text: str, terms: Terms) -> tuple[Design | None, tuple[str, ...]]:
    """The design of a reply, or None and all its faults. The stages' tokens add up to ``terms.tokens`` exactly."""
    content, faults = _parse_json(text)
    if content is None:
        return None, tuple(faults)
    design = _Parser(terms, faults).design(content)
    return (None, tuple(faults)) if faults or design is None else (design, ())


def _shares_of_all(cycles: Sequence[Sequence[Any]]) -> list[Any]:
    """The shares of all stages in the whole budget, also where those of each of several cycles add up to 1."""
    is_complete = all(stages and None not in stages for stages in cycles)
    by_cycle = len(cycles) > 1 and is_complete and all(abs(math.fsum(stages) - 1) <= SLACK for stages in cycles)
    return [share / len(cycles) if by_cycle else share for stages in cycles for share in stages]


def _parse_json(text: str) -> tuple[Any, list[str]]:
    """The JSON value of a reply, alone or in its only fence, and faults; None for a text that cannot be parsed."""
    if len(text) > MAX_REPLY:
        return None, [f"the reply has {len(text):,} characters; at most {MAX_REPLY:,} are read"]
    lines = text.splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    if len(fences) not in (0, 2):
        return None, ["reply with the JSON alone, or in exactly one closed block between ``` and ```"]
    body = "\n".join(lines[fences[0] + 1 : fences[1]] if fences else lines)
    faults: list[str] = []

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        duplicates = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        faults.extend(f"the key {_shown(key)} stands twice in one object" for key in duplicates)
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


class _Parser:
    """The parser of one reply; it appends to ``faults`` and continues after each of them."""

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
            return self._unchanged(content, reason)
        cycles = content.get("cycles")
        if not isinstance(cycles, list):
            self.faults.append(
                "cycles: missing: the list of the cycles that are left, each with its stages"
                if cycles is None
                else f"cycles: a list is needed, not {_shown(cycles)}"
            )
            return None
        if len(cycles) != self.terms.cycles:
            remaining = f"{self.terms.cycles} cycle{'s are' if self.terms.cycles > 1 else ' is'} left to design"
            self.faults.append(f"cycles: {remaining}, and there are {len(cycles)} here")
        parsed = [self._cycle(cycle, f"cycles[{number}]") for number, cycle in enumerate(cycles)]
        budgets = self._budgets(_shares_of_all([[share for _, share in stages] for stages in parsed]))
        if self.faults or budgets is None or not isinstance(reason, str):
            return None
        tokens = iter(budgets)
        specs = tuple(tuple(StageSpec(tokens=next(tokens), **stage) for stage, _ in stages) for stages in parsed)
        return Design(_plain(reason), specs)

    def _unchanged(self, content: Mapping[str, Any], reason: Any) -> Design | None:
        if self.terms.plan is None:
            self.faults.append("keep: there is no plan yet that could stay")
        if "cycles" in content:
            self.faults.append("keep: with true, cycles is left out; to change the plan, leave out keep")
        if self.faults or self.terms.plan is None or not isinstance(reason, str):
            return None
        return Design(_plain(reason), self.terms.plan, kept=True)

    def _cycle(self, content: Any, where: str) -> list[tuple[dict[str, Any], Any]]:
        """Pairs of a stage without its tokens and its share."""
        if not self._object(content, where, CYCLE["properties"], CYCLE["required"]) or "stages" not in content:
            return []
        stages = content["stages"]
        if not isinstance(stages, list) or not stages:
            self.faults.append(f"{where}.stages: a list of at least one stage is needed, not {_shown(stages)}")
            return []
        if len(stages) > self.terms.stages:
            self.faults.append(f"{where}.stages: at most {self.terms.stages} stages, not {len(stages)}")
        parsed = [self._stage(stage, f"{where}.stages[{number}]") for number, stage in enumerate(stages)]
        names = Counter(stage["name"].casefold() for stage, _ in parsed if isinstance(stage.get("name"), str))
        self.faults += [f"{where}: {count} stages are called {_shown(n)}" for n, count in names.items() if count > 1]
        return parsed

    def _stage(self, content: Any, where: str) -> tuple[dict[str, Any], Any]:
        if not self._object(content, where, STAGE["properties"], STAGE["required"]):
            return {}, None
        name, share = content.get("name"), content.get("share")
        if "name" in content and not (isinstance(name, str) and re.fullmatch(NAME, name)):
            self.faults.append(
                f"{where}.name: 1 to 40 letters, digits, +, - or _, the first a letter or digit, not {_shown(name)}"
            )
        if "share" in content and not (_is_fraction(share) and share > 0):
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
        self._check_keys(content, where, self.terms.bands, "band")
        present = [name for name in self.terms.bands if name in content]
        invalid = [name for name in present if not _is_fraction(content[name]) or 0 < content[name] < LEAST]
        self.faults += [f"{where}.{name}: 0, or {LEAST} to 1, not {_shown(content[name])}" for name in invalid]
        if not invalid and not any(content.get(name) for name in self.terms.bands):
            self.faults.append(f"{where}: the stage uses nothing; at least one band needs a fraction above 0")
        return tuple(0.0 if name in invalid else float(content.get(name, 0)) for name in self.terms.bands)

    def _budgets(self, shares: Sequence[Any]) -> list[int] | None:
        """The tokens of all stages; None where a share is missing or the shares do not fit the budget."""
        if not shares or any(share is None for share in shares):
            return None
        total = math.fsum(shares)
        if abs(total - 1) > SLACK:
            fault = f"the budget is not kept: the shares of all stages of all cycles add up to {total:.4g}, not to 1"
            if len(shares) <= MAX_FAULTS:
                fault += f"; divided by {total:.4g}: {', '.join(f'{share / total:.3g}' for share in shares)}"
            self.faults.append(fault)
            return None
        try:
            budgets = split_budget(self.terms.tokens, shares)
            # A budget of a few steps in total is not enough for one step in every stage.
            least = min(self.terms.least, self.terms.tokens // (4 * len(budgets)))
            if min(budgets) < least:
                self.faults.append(
                    f"a share is too small: its stage would get {min(budgets):,} of the {self.terms.tokens:,} tokens, "
                    f"and one step of training takes {least:,}"
                )
                return None
            return budgets
        except RecipeError:
            share = 1 / self.terms.tokens
            self.faults.append(
                f"a share is too small: its stage would get none of the {self.terms.tokens:,} tokens; a token is "
                f"{share:.2g} of them"
            )
            return None

    def _choice(self, content: Mapping[str, Any], key: str, allowed: Sequence[str], where: str) -> str:
        """One of ``allowed``, by default the first."""
        value = content.get(key, allowed[0])
        if isinstance(value, str) and value in allowed:
            return value
        hint = did_you_mean(value, allowed) if isinstance(value, str) else None
        self.faults.append(
            f"{where}.{key}: one of {', '.join(allowed)}, not {_shown(value)}" + (f"; {hint}" if hint else "")
        )
        return allowed[0]

    def _object(self, content: Any, where: str, allowed: Iterable[str], required: Iterable[str]) -> bool:
        """Whether ``content`` is an object; its unknown and missing keys are faults."""
        if not isinstance(content, dict):
            self.faults.append(f"{where}: an object is needed, not {_shown(content)}")
            return False
        self._check_keys(content, where, list(allowed), "key")
        self.faults += [f"{where}: the key {key!r} is missing" for key in required if key not in content]
        return True

    def _check_keys(self, content: Mapping[str, Any], where: str, allowed: Sequence[str], kind: str) -> None:
        for key in content:
            if key not in allowed:
                hint = did_you_mean(key[:100], allowed) or f"known: {', '.join(allowed)}"
                self.faults.append(f"{where}: there is no {kind} {_shown(key)}; {hint}")


def _is_fraction(value: Any) -> bool:
    """Whether ``value`` is a number in 0..1, which excludes NaN and infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _plain(reason: str) -> str:
    """``reason`` for a page and a terminal: without control characters and lone surrogates, of bounded length."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    return words if len(words) <= MAX_REASON else words[:MAX_REASON] + " …"


def _shown(value: Any) -> str:
    """A value in a few plain characters; a list or an object by its type only."""
    if isinstance(value, list | dict):
        return ("an empty " if not value else "a ") + ("list" if isinstance(value, list) else "object")
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


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
        self,
        facts: str,
        *,
        form: str,
        reply: str = "",
        faults: Sequence[str] = (),
        prompt: str = "design",
        draw: int = 0,
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


def request_design(
    teacher: Designer, facts: str, terms: Terms, *, prompt: str = "design", draw: int = 0
) -> DesignOutcome:
    """Request a design within ``terms``, and once more with the faults of the reply where it has some.

    ``prompt``: the name of the prompt. Another ``draw`` is another sample. Exceptions of the chat (no endpoint, an
    exhausted budget) are not caught.
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
                prompt=prompt,
                draw=draw,
            )
        else:
            reply = teacher.design(facts, form=form, prompt=prompt, draw=draw)
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
    summaries: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The facts of a design request before ``cycle`` (counted from 0), as one JSON text.

    ``samples``: see ``describe_samples``, for the first of the remaining cycles. ``setting``: further facts on the
    budget. ``so_far``: all stages that are finished. ``feedback``: the counts of the student's results on questions
    after the last cycle. ``summaries``: of the objectives. Stored replies depend on every character of this text.
    """
    orders = {entry.name: entry.summary for entry in ORDERS}
    facts: dict[str, Any] = {
        "task": "design all cycles" if terms.plan is None else "revise the rest of the plan, or keep it",
        "cycles": {"done": cycle, "left": terms.cycles, "most_stages_in_each": terms.stages},
        "budget_left": {"tokens": terms.tokens, **setting},
        "samples": samples,
        "orders": {name: _with_options(orders.get(name, name), options) for name, options in terms.orders.items()},
        "objectives": {name: summaries.get(name, name) for name in terms.objectives},
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
