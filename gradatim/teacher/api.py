"""The chat with a model behind an OpenAI-compatible server.

Requests are sent through the package ``openai`` (extra ``api``), concurrently, within ``Rates`` and a ``Budget``.
Retried, after the server's ``retry-after`` or an exponential pause: 429, 5xx, a timeout, a lost connection, a body that
is no chat completion. Without a reply, and counted: a request that the server rejects (another 4xx), and one whose
retries are exhausted while others succeed. ``UserError``: no key, a refused key, an unknown model; ``TeacherFailed``: a
server that fails for all requests; ``BudgetReached``: an exhausted budget. Requests in flight are completed first.

A refusal or an empty text counts as a reply: it was paid for. The key is read from the recipe's environment variable at
each call, and removed from every text of the server. Retries are in ``client.requests``, storage in ``reply_store``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client.endpoint import Endpoint, LimitName, Parameters, check_address, load_package, read_key
from ..client.exchange import open_client
from ..client.messages import Budget, Cost, Rates
from ..client.requests import RequestBatch, RequestCounts, RetryPolicy
from ..errors import RecipeError
from ..options import strict
from ..stage import Events, ignore_events
from .llm_teacher import LanguageTeacher
from .reply_store import Cached
from .teacher import Received, Reply, Request, Teacher, ignore_reply

__all__ = ["ApiChat", "api"]


@dataclass(eq=False)
class ApiChat:
    """The model ``model`` at ``base_url`` (``https://HOST/v1``).

    ``key``: name of the environment variable that holds the key, None for a server without keys. ``seconds``: deadline
    of one request, including its reply. ``retries`` follow after ``first_wait`` seconds, twice that, four times …, at
    most ``longest_wait``. ``extra``: further fields of every request's body. ``seeded``: send a seed, different for
    different draws. ``limit_name``: the server's name for the token limit of a reply. ``send_temperature``: send the
    temperature. A parameter of these three that the server refuses by name is not sent again, with an event of kind
    ``note``.
    """

    base_url: str
    model: str
    key: str | None = "OPENAI_API_KEY"
    concurrency: int = 8
    seconds: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    seeded: bool = True
    limit_name: LimitName = "max_tokens"
    send_temperature: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates, repr=False)
    budget: Budget = field(default_factory=Budget, repr=False)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        check_address(self.base_url)
        if self.key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", self.key):
            # The value may be the key itself, so the error does not repeat it.
            raise RecipeError(
                "the recipe names the environment variable that holds the key, never the key",
                where="teacher.key",
                allowed="a name such as OPENAI_API_KEY, or null for a server without keys",
            )
        if self.concurrency < 1 or self.retries < 0 or self.seconds <= 0:
            raise RecipeError(
                "these values cannot be used",
                where="teacher",
                given=f"concurrency {self.concurrency}, retries {self.retries}, seconds {self.seconds}",
                allowed="concurrency of 1 or more, retries of 0 or more, seconds above 0",
            )
        self._client_entry: tuple[int, Any] | None = None
        self._counts = RequestCounts()
        self._parameters = Parameters(self.limit_name, temperature=self.send_temperature, seed=self.seeded)

    @property
    def identity(self) -> str:
        """Address and model, and the further fields of every request."""
        extra = json.dumps(dict(self.extra), sort_keys=True) if self.extra else ""
        return f"{self.base_url}#{self.model}{extra}"

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of this object. ``requests``: replies received, with their tokens and ``cost``; ``retries``, and by
        cause ``retried``; ``failed``: requests without a reply by cause; ``without_usage``: replies without the
        server's token counts, which count with their upper bound."""
        return self._counts.facts(self.budget.price)

    def cost(self, reply: Reply) -> float:
        """The price of a reply at the prices of the budget."""
        return self.budget.price(Cost(reply.prompt_tokens, reply.completion_tokens))

    @property
    def limited(self) -> bool:
        """Whether there is a budget, so that ``begin`` has to be called with the earlier spending."""
        return self.budget.limited

    def begin(self, spent: Cost) -> None:
        """Count the spending before this process against the budget."""
        self.budget.begin(spent)

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask`` and the module. When ``events`` raises, requests in flight are completed and ``received`` is
        called for their replies."""
        if not requests:
            return []
        batch = RequestBatch(
            self._endpoint(),
            requests,
            received,
            policy=RetryPolicy(self.retries, self.first_wait, self.longest_wait),
            rates=self.rates,
            budget=self.budget,
            counts=self._counts,
        )
        return batch.run(self.concurrency, events)

    def _endpoint(self) -> Endpoint:
        """The server for one call, with the current value of the key."""
        openai, secret = load_package(self.base_url), read_key(self.key, self.base_url)
        return Endpoint(
            self.base_url,
            self.model,
            self._client(openai, secret),
            self.key,
            secret,
            self.seconds,
            self._parameters,
            self.extra,
        )

    def _client(self, openai: Any, secret: str | None) -> Any:
        """The client of the package, cached by address and key, as its creation takes a tenth of a second."""
        digest = hash((self.base_url, secret))
        if self._client_entry is None or self._client_entry[0] != digest:
            self._client_entry = (digest, open_client(openai, self.base_url, secret, self.seconds))
        return self._client_entry[1]


@strict("teacher 'api'")
def api(
    *,
    base_url: str,
    model: str,
    key: str | None = "OPENAI_API_KEY",
    prompts: str | Path | None = None,
    temperature: float = 0.7,
    max_tokens: int = 512,
    language: str = "python",
    concurrency: int = 8,
    seconds: float = 120.0,
    retries: int = 6,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    budget_tokens: int | None = None,
    budget_money: float | None = None,
    prices: tuple[float, float] | None = None,
    seeded: bool = True,
    limit_name: LimitName = "max_tokens",
    send_temperature: bool = True,
    extra: dict[str, Any] | None = None,
    cache: str | Path | None = None,
    account: str = "",
    events: Events = ignore_events,
) -> Teacher:
    """Any OpenAI-compatible endpoint, with rate limits and a budget"""
    chat = ApiChat(
        base_url,
        model,
        key,
        concurrency,
        seconds,
        retries,
        seeded=seeded,
        limit_name=limit_name,
        send_temperature=send_temperature,
        extra=extra or {},
        rates=Rates(requests_per_minute, tokens_per_minute),
        budget=Budget(budget_tokens, budget_money, prices),
    )
    cached = Cached(chat, cache, account=account)
    return LanguageTeacher(
        cached, prompts, temperature=temperature, max_tokens=max_tokens, language=language, events=events
    )
