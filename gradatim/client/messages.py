"""How much may be asked of an endpoint, and how fast?

``Rates`` spaces requests evenly, so that no minute sees more requests or tokens than allowed; what is not known before
a reply (its length) is reserved at its most and given back after. ``Budget`` does the same with tokens and money: a
request starts only when the most that it can cost still fits, and waits while replies under way may give something
back. So a budget is never overdrawn by replies that arrive; what an endpoint charges for a reply that was lost on the
way is not known here. Both are shared by threads. Nothing here sends anything.

Requests to a language model and its replies.

A ``Request`` is a conversation, as teachers send it; a ``Generation`` is one text of an evaluation, a conversation of
one message or a prompt to be continued. Both have the same interface for ``endpoint``: ``chat``, ``seed``, ``content``
and ``texts``.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ..errors import BudgetReached, RecipeError

__all__ = [
    "Budget",
    "Cost",
    "Generation",
    "Query",
    "Rates",
    "Received",
    "Reply",
    "Request",
    "ignore_reply",
    "request_number",
]


@dataclass(frozen=True)
class Cost:
    """Tokens of a request and its reply."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


class Rates:
    """At most so many requests and tokens a minute; None: as many as one likes. ``clock`` tells seconds."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, given in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if given is not None and given <= 0:
                raise RecipeError(f"{name} must be positive", where="teacher", given=given, hint="leave it out")
        self._each = 60 / requests_per_minute if requests_per_minute else 0.0
        self._each_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = self._next_by_tokens = self._held_until = clock()

    def reserve(self, tokens: int) -> float:
        """Take the next place for a request of at most ``tokens``; the seconds until then."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next, self._next_by_tokens, self._held_until)
            self._next = start + self._each
            self._next_by_tokens = start + self._each_token * tokens
            return start - now

    def give_back(self, tokens: int) -> None:
        """That many reserved tokens were not used."""
        with self._lock:
            self._next_by_tokens -= self._each_token * tokens

    def hold(self, seconds: float) -> None:
        """Nobody starts for so long: the endpoint asked for it."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def held(self) -> float:
        """The seconds that a hold still lasts; 0 when there is none."""
        with self._lock:
            return max(0.0, self._held_until - self._clock())


class Budget:
    """At most ``tokens`` and ``money`` in all; ``prices`` are per million tokens of (prompt, completion)."""

    def __init__(
        self, tokens: int | None = None, money: float | None = None, prices: tuple[float, float] | None = None
    ) -> None:
        if money is not None and prices is None:
            raise RecipeError(
                "a budget in money needs prices",
                where="teacher",
                given=f"budget_money {money}",
                allowed="prices: [per million prompt tokens, per million completion tokens]",
            )
        if prices is not None and min(prices) < 0:
            raise RecipeError("prices cannot be negative", where="teacher", given=prices)
        self.tokens, self.money, self.prices = tokens, money, prices or (0.0, 0.0)
        self._spent = Cost(0, 0)
        self._reserved = Cost(0, 0)
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def limited(self) -> bool:
        return self.tokens is not None or self.money is not None

    def price(self, cost: Cost) -> float:
        """What it costs, in the unit of the prices."""
        return (cost.prompt * self.prices[0] + cost.completion * self.prices[1]) / 1e6

    def begin(self, spent: Cost) -> None:
        """Count what was spent before this process."""
        with self._changed:
            self._spent = _sum(self._spent, spent)

    def reserve(self, most: Cost, stopped: Callable[[], bool]) -> bool:
        """Set ``most`` aside; False when the work was stopped meanwhile. ``BudgetReached`` when it does not fit."""
        with self._changed:
            while not self._fits(most):
                if stopped():
                    return False
                if not self._under_way:
                    raise self._reached(most)
                self._changed.wait(0.1)
            self._reserved = _sum(self._reserved, most)
            self._under_way += 1
            return True

    def settle(self, most: Cost, used: Cost) -> None:
        """What was set aside cost ``used`` in the end."""
        with self._changed:
            self._reserved = Cost(self._reserved.prompt - most.prompt, self._reserved.completion - most.completion)
            self._spent = _sum(self._spent, used)
            self._under_way -= 1
            self._changed.notify_all()

    def _fits(self, most: Cost) -> bool:
        total = _sum(_sum(self._spent, self._reserved), most)
        return (self.tokens is None or total.tokens <= self.tokens) and (
            self.money is None or self.price(total) <= self.money
        )

    def _reached(self, most: Cost) -> BudgetReached:
        spent, money = self._spent, self.price(self._spent)
        given, allowed = f"{spent.tokens} tokens", []
        if any(self.prices):
            given += f" at a price of {money:.6g}"
        if self.tokens is not None:
            allowed.append(f"{self.tokens} tokens")
        if self.money is not None:
            allowed.append(f"a price of {self.money:.6g}")
        return BudgetReached(
            f"the budget is used up: the next request may take {most.tokens} tokens more",
            tokens=spent.tokens,
            money=money,
            where="teacher",
            given=given + " spent",
            allowed=" and ".join(allowed),
            hint="the same command with a larger budget goes on; every reply received is kept",
        )


def _sum(left: Cost, right: Cost) -> Cost:
    return Cost(left.prompt + right.prompt, left.completion + right.completion)


@dataclass(frozen=True)
class Request:
    """What is asked: (role, text) pairs, the number of the draw, and how the reply is written.

    Stored replies depend on these fields and their defaults: a new field would change every key of the cache.
    """

    messages: tuple[tuple[str, str], ...]
    draw: int = 0
    temperature: float = 0.0
    max_tokens: int = 512

    @property
    def chat(self) -> bool:
        return True

    @property
    def seed(self) -> int:
        """Another one for each draw."""
        return request_number(self) % 2**31

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.messages)

    @property
    def content(self) -> dict[str, Any]:
        """What the server is to answer, as fields of the request's body."""
        return {"messages": [{"role": role, "content": text} for role, text in self.messages]}


@dataclass(frozen=True)
class Generation:
    """One text of an evaluation: the reply to ``prompt`` where ``chat``, else its continuation up to ``stop``."""

    prompt: str
    chat: bool
    seed: int
    temperature: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.prompt,)

    @property
    def content(self) -> dict[str, Any]:
        """What the server is to answer, as fields of the request's body."""
        if self.chat:
            return {"messages": [{"role": "user", "content": self.prompt}]}
        # OpenAI's own server takes four strings; the caller cuts the text at the others.
        return {"prompt": self.prompt, **({"stop": list(self.stop[:4])} if self.stop else {})}


Query: TypeAlias = Request | Generation


@dataclass(frozen=True)
class Reply:
    """What came back. ``finish``: ``stop``, ``length``, ``refusal``, ``empty``, or the model's own word. ``raw`` is the
    whole body that an endpoint sent."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    raw: str = field(default="", compare=False, repr=False)


Received = Callable[[int, Reply], None]
"""The receiver of a request's place and its reply, called the moment that the reply arrives, by one thread at a
time."""


def ignore_reply(place: int, reply: Reply) -> None:
    """The default receiver: keeps nothing."""


def request_number(request: Query, attempt: int = 0) -> int:
    """32 bits that depend on the request, its draw, and the attempt."""
    text = json.dumps([asdict(request), attempt], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
