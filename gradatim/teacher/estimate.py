"""What will be asked of a teacher, and what may that cost?

Arithmetic on numbers of requests, before anything is asked: no endpoint, no key and no model is needed. How long a
prompt will be is estimated from the prompt's own words and the mean length of what is put into it; how long a reply
can be is known only as its limit, so tokens of replies, and the cost of them, are upper bounds. Requests are those of a
course in which every reply can be used: one that cannot be read is asked for once more, a question that is not new as
often as the source's ``rounds`` allow. ``allowance.Budget`` holds a run to what was allowed; nothing here does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..client.messages import Budget, Cost
from .prompts import Prompts

__all__ = ["CHARACTERS", "Estimate", "Lengths", "estimate"]

CHARACTERS = 3.5
"""About so many characters make a token, in prompts that are half prose and half program."""
FRAME = 8
"""Tokens of a request's frame: the roles and where messages begin and end."""
DESIGN = 2_000.0
"""Characters of what is known when a curriculum is designed, and as many of its form: always assumed, about what three
bands and a few stages take."""
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")


@dataclass(frozen=True)
class Lengths:
    """Mean characters of what prompts are filled with. ``measured``: on the recipe's own samples, else assumed."""

    question: float = 400.0
    answer: float = 400.0
    tests: float = 200.0
    measured: bool = False


@dataclass(frozen=True)
class Estimate:
    """``prompt_tokens`` are estimated, ``completion_tokens`` the most there can be, ``cost`` the price of both (None:
    the recipe names no prices)."""

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
    """The sum over ``requests``, numbers by the name of the prompt (``prompt_files.PLACEHOLDERS``).

    ``prices`` are per million tokens of (prompt, completion). ``KeyError`` for a prompt that is not there.
    """
    asked = sum(requests.values())
    characters = sum(number * _characters(prompts.texts[name], lengths) for name, number in requests.items())
    prompt = round(characters / CHARACTERS) + FRAME * asked
    cost = Budget(prices=prices).price(Cost(prompt, asked * max_tokens)) if prices is not None else None
    return Estimate(asked, prompt, asked * max_tokens, cost)


def _characters(text: str, lengths: Lengths) -> float:
    """Of one filled prompt. An attempt is taken to be as long as a right answer; names of languages weigh little."""
    filled = {"question": lengths.question, "answer": lengths.answer, "attempt": lengths.answer, "tests": lengths.tests}
    filled |= {"facts": DESIGN, "form": DESIGN}
    used = [name[1:-1] for name in _PLACEHOLDER.findall(text)]
    return len(_PLACEHOLDER.sub("", text)) + sum(filled.get(name, 8.0) for name in used)
