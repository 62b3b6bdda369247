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
that the server sends. Nothing is kept here; ``cache`` does that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ..errors import RecipeError, TeacherFailed, UserError
from ..options import strict
from ..stage import Event, Events, ignore_events
from .allowance import Budget, Cost, Rates
from .teacher import Received, Reply, Request, Teacher, ignore_reply

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["ApiChat", "api"]

AT_START = 2
"""Retries while nothing at all was received: who mistyped an address need not wait for all of them."""
AGAIN = (408, 409, 425, 429)


class Stumble(Exception):
    """Something that may go better next time: its cause in a word, what was said, and how long to wait, if told."""

    def __init__(self, cause: str, said: str, after: float | None = None) -> None:
        super().__init__(said)
        self.cause, self.said, self.after = cause, said, after


class Rejected(Exception):
    """The server does not take this request, however often."""


@dataclass(eq=False)
class ApiChat:
    """The model ``model`` at ``base_url`` (``https://HOST/v1``).

    ``key`` is the name of the environment variable that holds the key, None where the server wants none. ``seconds`` is
    the timeout of one request; ``retries`` come after ``first_wait`` seconds, twice that, four times …, at most
    ``longest_wait``. ``extra`` goes into every request's body. ``seeded``: send a seed, another for each draw.
    ``limit_name``: how the server calls the most tokens of a reply.
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
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates, repr=False)
    budget: Budget = field(default_factory=Budget, repr=False)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        _check_address(self.base_url)
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
        self._lock = threading.Lock()
        self._last_received: float | None = None
        self._made: tuple[int, Any] | None = None
        self._counts: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

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
        with self._lock:
            counts, used = self._counts, Cost(self._counts["prompt"], self._counts["completion"])
            return {
                "requests": counts["requests"],
                "cached": 0,
                "prompt_tokens": used.prompt,
                "completion_tokens": used.completion,
                "cost": self.budget.price(used),
                "retries": self._retried.total(),
                "retried": dict(sorted(self._retried.items())),
                "failed": dict(sorted(self._failed.items())),
                "without_usage": counts["without_usage"],
            }

    def cost(self, reply: Reply) -> float:
        """At the prices of the budget."""
        return self.budget.price(Cost(reply.prompt_tokens, reply.completion_tokens))

    def begin(self, spent: Cost) -> None:
        """Count against the budget what was spent before this process."""
        self.budget.begin(spent)

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See the module. When ``events`` raises, what is under way still arrives and is handed to ``received``."""
        if not requests:
            return []
        from concurrent.futures import ThreadPoolExecutor

        openai, secret = _package(self.base_url), self._secret()
        batch = _Batch(self, openai, secret, requests, received)
        client = self._client(openai, secret)
        with ThreadPoolExecutor(min(self.concurrency, len(requests))) as pool:
            try:
                batch.run(client, pool, events)
            finally:
                batch.stop.set()
        return batch.result()

    def _client(self, openai: Any, secret: str | None) -> Any:
        """The client, made once for an address and a key: making one takes a tenth of a second."""
        wanted = (self.base_url, secret)
        if self._made is None or self._made[0] != hash(wanted):
            # Servers of one's own mostly want no key, but the client wants one. Retries are ours: they are counted.
            settings: dict[str, Any] = {"api_key": secret or "none", "max_retries": 0, "timeout": self.seconds}
            self._made = (hash(wanted), openai.OpenAI(base_url=self.base_url, **settings))
        return self._made[1]

    def _secret(self) -> str | None:
        if self.key is None:
            return None
        secret = os.environ.get(self.key, "").strip()
        if not secret:
            hint = f"export {self.key}=…, or key: null for a server that wants none"
            raise UserError(
                "there is no key for this endpoint", where=self.base_url, given=f"{self.key} unset", hint=hint
            )
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise UserError("this environment variable does not hold a key", where=self.base_url, given=self.key)
        return secret

    def _most(self, request: Request) -> Cost:
        """The most that a request can cost: no token is shorter than a byte, and each message has a frame."""
        return Cost(sum(len(text.encode()) + 16 for _, text in request.messages) + 16, request.max_tokens)

    def _received(self, reply: Reply, told: bool) -> None:
        with self._lock:
            self._last_received = time.monotonic()
            self._counts.update(requests=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)
            self._counts["without_usage"] += not told


class _Batch:
    """One call of ``ask``: what its threads share."""

    def __init__(self, chat: ApiChat, openai: Any, secret: str | None, requests: Sequence[Request], received: Received):
        self.chat, self.openai, self.secret, self.requests = chat, openai, secret, requests
        self.received = received
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.fatal: BaseException | None = None
        self.replies: list[Reply | None] = [None] * len(requests)
        self.rejections: list[str] = []

    def run(self, client: Any, pool: ThreadPoolExecutor, events: Events) -> None:
        from concurrent.futures import FIRST_COMPLETED, wait

        total = len(self.requests)
        events(Event("start", "ask the teacher", 0, total))
        waiting: set[Future[None]] = {pool.submit(self.one, client, place) for place in range(total)}
        while waiting:
            # Woken now and then without news, so that a listener can stop the work.
            _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            if not self.stop.is_set():
                events(Event("advance", "ask the teacher", total - len(waiting), total))
        if self.fatal is None:
            events(Event("finish", "ask the teacher", total, total))

    def result(self) -> list[Reply | None]:
        if self.fatal is not None:
            raise self.fatal
        if self.rejections and self.chat._last_received is None:
            raise TeacherFailed(
                "the endpoint refuses every request",
                where=self.chat.base_url,
                given=self.rejections[0],
                hint="see whether it knows the options of the recipe (seeded, limit_name, extra)",
            )
        return self.replies

    def one(self, client: Any, place: int) -> None:
        """Ask until there is a reply, none can be had, or all is stopped."""
        try:
            self._one(client, place)
        except BaseException as error:  # told by the thread that called ask, whatever it is
            self.end(error)

    def end(self, error: BaseException) -> None:
        with self.lock:
            self.fatal = self.fatal or error
        self.stop.set()

    def _one(self, client: Any, place: int) -> None:
        chat, request = self.chat, self.requests[place]
        most, began = chat._most(request), time.monotonic()
        for attempt in range(chat.retries + 1):
            if self.stop.is_set() or not chat.budget.reserve(most, self.stop.is_set):
                return
            used = Cost(0, 0)
            try:
                if not self.wait_for_turn(most):
                    return
                reply, told = self.send(client, request, most)
                used = Cost(reply.prompt_tokens, reply.completion_tokens)
                chat._received(reply, told)
                with self.lock:
                    self.replies[place] = reply
                    self.received(place, reply)
                return
            except Rejected as refused:
                self.fail("rejected")
                with self.lock:
                    self.rejections.append(str(refused))
                return
            except Stumble as stumble:
                fault = stumble
            finally:
                chat.budget.settle(most, used)
                chat.rates.give_back(max(0, most.tokens - used.tokens))
            if self.give_up(fault, attempt, began):
                return
            self.pause(fault, request, attempt)

    def wait_for_turn(self, most: Cost) -> bool:
        """False when all was stopped meanwhile."""
        rates = self.chat.rates
        while not self.stop.wait(rates.reserve(most.tokens)):
            if not rates.held():
                return True
            rates.give_back(most.tokens)  # the server asked for quiet meanwhile: take another place after it
        return False

    def give_up(self, fault: Stumble, attempt: int, began: float) -> bool:
        """Whether this request goes without a reply; raises when nobody is answered."""
        last = self.chat._last_received
        most = self.chat.retries if last is not None else min(self.chat.retries, AT_START)
        if fault.after is not None and fault.after > self.chat.longest_wait:
            raise self.failed(f"the endpoint asks to come back in {fault.after:.0f} seconds", fault)
        if attempt < most:
            return False
        if fault.cause != "429" and last is not None and last > began:
            self.fail(fault.cause)
            return True
        what = "the endpoint does not answer" if last is None else "the endpoint does not answer any more"
        raise self.failed(f"{what}, asked {attempt + 1} times", fault)

    def failed(self, what: str, fault: Stumble) -> TeacherFailed:
        chat = self.chat
        done = sum(reply is not None for reply in self.replies)
        hint = f"see to the server, then run the same command again: the replies received ({done} just now) are kept"
        if fault.cause == "429":
            hint = f"set requests_per_minute or a smaller concurrency; {hint}"
        return TeacherFailed(what, where=chat.base_url, given=f"{fault.cause}: {fault.said}", hint=hint)

    def fail(self, cause: str) -> None:
        with self.chat._lock:
            self.chat._failed[cause] += 1

    def pause(self, fault: Stumble, request: Request, attempt: int) -> None:
        chat = self.chat
        with chat._lock:
            chat._retried[fault.cause] += 1
        if fault.after:
            chat.rates.hold(fault.after)
            return
        # Spread by a share that hangs on the request, so that those that stumbled together do not come back together.
        share = 0.5 + _number(request, attempt) / 2**32
        self.stop.wait(min(chat.first_wait * 2**attempt, chat.longest_wait) * share)

    def send(self, client: Any, request: Request, most: Cost) -> tuple[Reply, bool]:
        """One attempt: the reply, and whether the server told its tokens. ``Stumble``, ``Rejected`` or a last error."""
        chat, openai = self.chat, self.openai
        body: dict[str, Any] = {chat.limit_name: request.max_tokens, "temperature": request.temperature}
        if chat.seeded:
            body["seed"] = _number(request) % 2**31
        messages = [{"role": role, "content": text} for role, text in request.messages]
        try:
            answer = client.chat.completions.with_raw_response.create(
                model=chat.model, messages=messages, extra_body=dict(chat.extra) or None, **body
            )
            return self.read(answer.http_response.text, most)
        # The causes are left out of what is raised: their requests hold the key.
        except openai.APITimeoutError:
            raise Stumble("timeout", f"no reply within {chat.seconds:g} seconds") from None
        except openai.APIStatusError as error:
            raise self.told(error) from None
        except openai.APIConnectionError as error:
            raise Stumble("connection", self.clean(str(error.__cause__ or error))) from None

    def read(self, body: str, most: Cost) -> tuple[Reply, bool]:
        raw = self.clean(body, None)
        try:
            answer = json.loads(raw)
            choice = answer["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content") or "", message.get("refusal")
            if not isinstance(text, str):
                raise TypeError("content is no text")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise Stumble("broken reply", f"no chat completion: {self.clean(raw) or 'nothing'}") from None
        finish = str(choice.get("finish_reason") or "stop")
        if refusal:
            text, finish = str(refusal), "refusal"
        elif not text.strip() and finish in ("stop", "length"):
            finish = "empty"
        used = _used(answer.get("usage"))
        cost = used or most
        return Reply(text, finish, cost.prompt, cost.completion, raw), used is not None

    def told(self, error: Any) -> Exception:
        """What a server's refusal means."""
        chat, status, said = self.chat, error.status_code, self.clean(str(error.message))
        code = str(getattr(error, "code", "") or "")
        if status in (401, 403):
            given = f"the key in {chat.key}" if chat.key else "no key"
            return UserError(f"the endpoint refuses the key ({said})", where=chat.base_url, given=given)
        if status == 402 or code == "insufficient_quota":
            hint = "fill it up, then run the same command again: the replies received are kept"
            return TeacherFailed("the account at the endpoint is used up", where=chat.base_url, given=said, hint=hint)
        if status == 404 or code == "model_not_found":
            hint = "see the server's list of models (GET /models) and the address, which mostly ends with /v1"
            what = f"the endpoint has no such model or address ({said})"
            return UserError(what, where=chat.base_url, given=chat.model, hint=hint)
        if status in AGAIN or status >= 500:
            return Stumble(str(status), said, _after(error.response.headers))
        return Rejected(f"{status}: {said}")

    def clean(self, text: str, most: int | None = 200) -> str:
        """Without the key, which some servers repeat; at most so many characters."""
        text = text.replace(self.secret, "***") if self.secret else text
        return text if most is None or len(text) <= most else text[:most] + "…"


def _used(usage: Any) -> Cost | None:
    """The tokens that a server says it counted; None when it does not say."""
    names = ("prompt_tokens", "completion_tokens")
    if not isinstance(usage, dict) or not all(isinstance(usage.get(name), int) and usage[name] >= 0 for name in names):
        return None
    return Cost(*(usage[name] for name in names))


def _number(request: Request, attempt: int = 0) -> int:
    """32 bits that hang on the request, its draw, and the attempt."""
    told = json.dumps([asdict(request), attempt], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=4).digest(), "big")


def _after(headers: Any) -> float | None:
    """The seconds that the server asks to wait; None when it names none."""
    given = str(headers.get("retry-after", "")).strip()
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(given))
    except ValueError:
        pass
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _check_address(base_url: str) -> None:
    allowed = "https://HOST/v1, without a user, a password or a query"
    try:
        parts = urlsplit(base_url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        secret = "@" in parts.netloc or parts.query
    except ValueError:
        plain, secret = None, "?"
    if secret:
        raise RecipeError("an address with secrets in it is not taken", where="teacher.base_url", allowed=allowed)
    if not plain:
        raise RecipeError("this is no address", where="teacher.base_url", given=base_url, allowed=allowed)


def _package(base_url: str) -> Any:
    try:
        import openai
    except ImportError as error:
        hint = "pip install 'gradatim[api]'"
        raise UserError("endpoints are asked through the package 'openai'", where=base_url, hint=hint) from error
    return openai


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
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
    extra: dict[str, Any] | None = None,
    cache: str | Path | None = None,
    account: str = "",
    events: Events = ignore_events,
) -> Teacher:
    """Any OpenAI-compatible endpoint, with rate limits and a budget"""
    from .cache import Cached
    from .language import LanguageTeacher

    chat = ApiChat(
        base_url,
        model,
        key,
        concurrency,
        seconds,
        retries,
        seeded=seeded,
        limit_name=limit_name,
        extra=extra or {},
        rates=Rates(requests_per_minute, tokens_per_minute),
        budget=Budget(budget_tokens, budget_money, prices),
    )
    cached = Cached(chat, cache, account=account)
    return LanguageTeacher(
        cached, prompts, temperature=temperature, max_tokens=max_tokens, language=language, events=events
    )
