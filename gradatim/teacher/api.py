"""How is a model asked that stands behind an OpenAI-compatible server?

Requests go out through the package ``openai`` (extra ``api``), several at a time, within ``Rates`` and a ``Budget``.
What stumbles is sent again, after the time that the server names or a growing pause: too many requests (429), a
server's fault (5xx), a timeout, a cut connection, a body that is no chat completion. What then happens:

- a request that the server refuses as such (another 4xx) has no reply, and is counted;
- one that still stumbles while others are answered has no reply, and is counted;
- no key, a refused key, an unknown model: ``UserError``; a server that answers nobody: ``TeacherFailed``; a budget used
  up: ``BudgetReached``. What is under way then still arrives, so that nothing paid for is lost.

A refusal or an empty text is a reply like others: it was paid for, and whether it can be used is its reader's to say.
The key is read from the environment variable that the recipe names when something is asked, and taken out of every text
that the server sends. In ``client``, ``endpoint`` makes one attempt, ``sending`` many at a time and again. Nothing is
kept here; ``cache`` does that.
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
from ..client.requests import Patience, Sending, Tally
from ..errors import RecipeError
from ..options import strict
from ..stage import Events, ignore_events
from .teacher import Received, Reply, Request, Teacher, ignore_reply

__all__ = ["ApiChat", "api"]


@dataclass(eq=False)
class ApiChat:
    """The model ``model`` at ``base_url`` (``https://HOST/v1``).

    ``key`` is the name of the environment variable that holds the key, None where the server wants none. ``seconds`` is
    the deadline of one request, until the whole reply is there; ``retries`` come after ``first_wait`` seconds, twice
    that, four times …, at most ``longest_wait``. ``extra`` goes into every request's body. ``seeded``: send a seed,
    another for each draw. ``limit_name``: how the server calls the most tokens of a reply. ``send_temperature``: send
    the temperature. A server that refuses one of these three parameters by name gets no more of it, which an event of
    kind ``note`` reports.
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
            # The value may be the key itself, so it is not repeated.
            raise RecipeError(
                "the recipe names the environment variable that holds the key, never the key",
                where="teacher.key",
                allowed="a name such as OPENAI_API_KEY, or null where the server wants none",
            )
        if self.concurrency < 1 or self.retries < 0 or self.seconds <= 0:
            given = f"concurrency {self.concurrency}, retries {self.retries}, seconds {self.seconds}"
            raise RecipeError("the server cannot be asked that way", where="teacher", given=given)
        self._made: tuple[int, Any] | None = None
        self._tally = Tally()
        self._parameters = Parameters(self.limit_name, temperature=self.send_temperature, seed=self.seeded)

    @property
    def identity(self) -> str:
        """Address and model, and what else goes into every request."""
        extra = json.dumps(dict(self.extra), sort_keys=True) if self.extra else ""
        return f"{self.base_url}#{self.model}{extra}"

    @property
    def facts(self) -> dict[str, Any]:
        """Of this object: replies received as ``requests``, their tokens and ``cost``; ``retries``, by cause
        ``retried``; requests without a reply by cause as ``failed``; ``without_usage``: replies whose tokens the
        server did not tell, counted as the most they can have been."""
        return self._tally.facts(self.budget.price)

    def cost(self, reply: Reply) -> float:
        """At the prices of the budget."""
        return self.budget.price(Cost(reply.prompt_tokens, reply.completion_tokens))

    @property
    def limited(self) -> bool:
        """Whether there is a budget, so that somebody has to tell what was spent before."""
        return self.budget.limited

    def begin(self, spent: Cost) -> None:
        """Count against the budget what was spent before this process."""
        self.budget.begin(spent)

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See the module. When ``events`` raises, what is under way still arrives and is handed to ``received``."""
        if not requests:
            return []
        sending = Sending(
            self._endpoint(),
            requests,
            received,
            patience=Patience(self.retries, self.first_wait, self.longest_wait),
            rates=self.rates,
            budget=self.budget,
            tally=self._tally,
        )
        return sending.run(self.concurrency, events)

    def _endpoint(self) -> Endpoint:
        """The server as this call sees it: the key is read anew each time."""
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
        """The client, made once for an address and a key: making one takes a tenth of a second."""
        wanted = hash((self.base_url, secret))
        if self._made is None or self._made[0] != wanted:
            self._made = (wanted, open_client(openai, self.base_url, secret, self.seconds))
        return self._made[1]


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
    from .llm_teacher import LanguageTeacher
    from .reply_store import Cached

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
