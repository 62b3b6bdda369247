"""Estimate of a teacher's requests, tokens and cost before a run.

Arithmetic on numbers of requests; no endpoint, key or model is needed. Prompt tokens are estimated from the text of the
prompt and the mean length of its values. Completion tokens, and their cost, are upper bounds, as only the limit of a
reply is fixed beforehand. The numbers of requests assume that every reply is usable: an unreadable reply costs one more
request, a duplicate question up to the source's ``rounds``. ``Budget`` enforces limits; this estimate does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..client.messages import Budget, Cost
from .prompts import Prompts

__all__ = ["CHARACTERS", "Estimate", "Lengths", "estimate"]

CHARACTERS = 3.5
"""Mean characters of a token in prompts that are half prose and half program."""
FRAME = 8
"""Tokens of a request's frame: the roles and the limits of the messages."""
DESIGN = 2_000.0
"""Characters of the facts of a design request, and as many of its schema: always assumed, about the length with three
bands and a few stages."""
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")


@dataclass(frozen=True)
class Lengths:
    """Mean characters of the values of prompts. ``measured``: on the recipe's samples, else assumed."""

    question: float = 400.0
    answer: float = 400.0
    tests: float = 200.0
    measured: bool = False


@dataclass(frozen=True)
class Estimate:
    """Requests, estimated ``prompt_tokens``, an upper bound of ``completion_tokens``, and the ``cost`` of both (None
    without prices)."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


def estimate(
    requests: Mapping[str, int],
    prompts: Prompts,
    lengths: Lengths,
    *,
    max_tokens: int,
    prices: tuple[float, float] | None = None,
) -> Estimate:
    """The sum over ``requests``, numbers by the name of the prompt (``prompts.PLACEHOLDERS``).

    ``prices`` are per million tokens of (prompt, completion). ``KeyError`` for an unknown prompt.
    """
    total = sum(requests.values())
    characters = sum(number * _characters(prompts.texts[name], lengths) for name, number in requests.items())
    prompt_tokens = round(characters / CHARACTERS) + FRAME * total
    cost = Budget(prices=prices).price(Cost(prompt_tokens, total * max_tokens)) if prices is not None else None
    return Estimate(total, prompt_tokens, total * max_tokens, cost)


def _characters(text: str, lengths: Lengths) -> float:
    """Mean characters of one filled prompt; an attempt counts like a correct answer, a short value 8 characters."""
    values = {"question": lengths.question, "answer": lengths.answer, "attempt": lengths.answer, "tests": lengths.tests}
    values |= {"facts": DESIGN, "form": DESIGN}
    names = [name[1:-1] for name in _PLACEHOLDER.findall(text)]
    return len(_PLACEHOLDER.sub("", text)) + sum(values.get(name, 8.0) for name in names)
