"""Requests to a language model, rate limits and budgets, and the parsing of a response body into a reply.

A ``Request`` is a teacher's conversation; a ``Generation`` is one text of an evaluation, either a conversation of one
message or a prompt to be continued. Both have the interface that ``endpoint`` needs: ``chat``, ``seed``, ``content``
and ``texts``.

``decode`` turns bytes into text, ``parse`` text into a JSON value, ``reply_of`` a value into a ``Reply``. All raise
``UnreadableBody`` with a reason that fits into an error of one line. An unreadable body is neither stored nor counted
as a reply. Sizes of integers and depths of nesting are bounded.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ..errors import BudgetReached, RecipeError
from .exchange import Redactor


@dataclass(frozen=True)
class Cost:
    """Tokens of a request and its reply."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        """The sum of both."""
        return self.prompt + self.completion


class Rates:
    """Limits on requests and tokens per minute; None: no limit. ``clock`` returns seconds.

    ``Rates`` spaces requests evenly, so that no minute has more requests or tokens than allowed; the length of a
    reply is reserved at its maximum, and the difference released afterwards. ``Budget`` does the same for tokens
    and money: a request starts only when its maximum cost still fits, and waits while requests in flight may
    release some. Replies that arrive therefore never overdraw a budget; charges for replies lost on the way are not
    included. Both are thread-safe.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if value is not None and value <= 0:
                raise RecipeError(f"{name} must be positive", where="teacher", given=value, hint="leave it out")
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = self._next_by_tokens = self._hold_end = clock()

    def reserve(self, tokens: int) -> float:
        """Reserve the next slot for a request of at most ``tokens``; the seconds until it begins."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next, self._next_by_tokens, self._hold_end)
            self._next = start + self._seconds_per_request
            self._next_by_tokens = start + self._seconds_per_token * tokens
            return start - now

    def give_back(self, tokens: int) -> None:
        """Release so many reserved tokens that were not used."""
        with self._lock:
            self._next_by_tokens -= self._seconds_per_token * tokens

    def hold(self, seconds: float) -> None:
        """Start no request for so long, at the endpoint's request."""
        with self._lock:
            self._hold_end = max(self._hold_end, self._clock() + seconds)

    def held(self) -> float:
        """The remaining seconds of a hold; 0 without one."""
        with self._lock:
            return max(0.0, self._hold_end - self._clock())


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
        self.tokens, self.money, self.prices = tokens, money, prices
        self._spent = Cost(0, 0)
        self._reserved = Cost(0, 0)
        self._in_flight = 0
        self._changed = threading.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.tokens is not None or self.money is not None

    def price(self, cost: Cost) -> float | None:
        """The price of ``cost``, in the unit of the prices; None without prices."""
        if self.prices is None:
            return None
        return (cost.prompt * self.prices[0] + cost.completion * self.prices[1]) / 1e6

    def begin(self, spent: Cost) -> None:
        """Add the tokens spent before this process."""
        with self._changed:
            self._spent = _sum(self._spent, spent)

    def reserve(self, maximum: Cost, stopped: Callable[[], bool]) -> bool:
        """Reserve ``maximum``; False when ``stopped`` meanwhile. ``BudgetReached`` when it does not fit."""
        with self._changed:
            while not self._fits(maximum):
                if stopped():
                    return False
                if not self._in_flight:
                    raise self._reached(maximum)
                self._changed.wait(0.1)
            self._reserved = _sum(self._reserved, maximum)
            self._in_flight += 1
            return True

    def settle(self, maximum: Cost, used: Cost) -> None:
        """Replace a reservation of ``maximum`` by the cost ``used``."""
        with self._changed:
            self._reserved = Cost(
                self._reserved.prompt - maximum.prompt, self._reserved.completion - maximum.completion
            )
            self._spent = _sum(self._spent, used)
            self._in_flight -= 1
            self._changed.notify_all()

    def _fits(self, maximum: Cost) -> bool:
        total = _sum(_sum(self._spent, self._reserved), maximum)
        price = self.price(total)
        return (self.tokens is None or total.tokens <= self.tokens) and (
            self.money is None or price is None or price <= self.money
        )

    def _reached(self, maximum: Cost) -> BudgetReached:
        spent, money = self._spent, self.price(self._spent)
        usage, allowed = f"{spent.tokens} tokens", []
        if money is not None:
            usage += f" at a price of {money:.6g}"
        if self.tokens is not None:
            allowed.append(f"{self.tokens} tokens")
        if self.money is not None:
            allowed.append(f"a price of {self.money:.6g}")
        return BudgetReached(
            f"the budget is used up: the next request may take up to {maximum.tokens} tokens",
            tokens=spent.tokens,
            money=money or 0.0,
            where="teacher",
            given=usage + " spent",
            allowed=" and ".join(allowed),
            hint="the same command with a larger budget continues; all replies received are stored",
        )


def _sum(first: Cost, second: Cost) -> Cost:
    return Cost(first.prompt + second.prompt, first.completion + second.completion)


@dataclass(frozen=True)
class Request:
    """A conversation of (role, text) pairs, its draw (sample index) and the sampling parameters.

    ``schema``: the text of a JSON Schema that the server constrains the reply to (structured outputs); empty: none.
    The keys of stored replies depend on these fields; an empty ``schema`` is left out of them.
    """

    messages: tuple[tuple[str, str], ...]
    draw: int = 0
    temperature: float = 0.0
    max_tokens: int = 512
    schema: str = ""

    @property
    def chat(self) -> bool:
        """True: a request is a conversation."""
        return True

    @property
    def seed(self) -> int:
        """The sampling seed, different for different draws."""
        return request_number(self) % 2**31

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that count as prompt tokens."""
        return tuple(text for _, text in self.messages)

    @property
    def content(self) -> dict[str, Any]:
        """The conversation as a field of the request's body."""
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
        """All texts that count as prompt tokens."""
        return (self.prompt,)

    @property
    def content(self) -> dict[str, Any]:
        """The conversation or the prompt as fields of the request's body."""
        if self.chat:
            return {"messages": [{"role": "user", "content": self.prompt}]}
        # OpenAI's server accepts four strings; the caller cuts the text at the remaining ones.
        return {"prompt": self.prompt, **({"stop": list(self.stop[:4])} if self.stop else {})}


Query: TypeAlias = Request | Generation


@dataclass(frozen=True)
class Reply:
    """The reply of a model. ``finish``: ``stop``, ``length``, ``refusal``, ``empty``, or the server's finish reason.
    ``raw``: the complete body of an endpoint's response."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    raw: str = field(default="", compare=False, repr=False)


Received = Callable[[int, Reply], None]
"""Callback for the index of a request and its reply, called on arrival of the reply by one thread at a time."""


def ignore_reply(index: int, reply: Reply) -> None:
    """The default callback."""


def request_number(request: Query, attempt: int = 0) -> int:
    """A 32-bit hash of the request, its draw and the attempt."""
    fields = {name: value for name, value in asdict(request).items() if name != "schema" or value}
    text = json.dumps([fields, attempt], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


MAX_DEPTH = 100
"""Deepest nesting of a body's values; a chat completion with all its details has less than 10."""
MAX_TOKENS = 10**9
"""Most tokens that a server can have counted for one request."""
MAX_WORD = 40
"""Most characters of a finish reason or a charset's name."""
WITHOUT_TEXT = ("length", "content_filter", "tool_calls", "function_call")
"""Finish reasons of chat replies that may have no content."""

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
# Python's codecs include others than charsets: zlib, punycode (in quadratic time), unicode_escape.
_TEXT = re.compile(
    r"ascii|utf-(8|16|32)(-sig|-[bl]e)?|iso8859-\d+|cp125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis|euc_(jp|kr)"
)


class UnreadableBody(Exception):
    """A body that is no completion, with the reason."""


def decode(body: bytes, content_type: str) -> str:
    """The text of a body: UTF-8, the encoding of JSON, else the server's charset."""
    name = _CHARSET.search(content_type)
    charset = "utf-8"
    if name is not None:
        try:
            charset = codecs.lookup(name[1][:MAX_WORD]).name
        except (LookupError, ValueError):
            charset = ""
        if not _TEXT.fullmatch(charset):
            raise UnreadableBody(f"the charset {name[1][:MAX_WORD]!r} is none for text")
    for encoding in ("utf-8-sig", charset, json.detect_encoding(body)):
        try:
            return body.decode(encoding)
        except UnicodeError:
            continue
    raise UnreadableBody("the body is not UTF-8")


def parse(text: str) -> Any:
    """The JSON value of a body."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise UnreadableBody("values nested too deeply") from None
    except ValueError as error:  # also integers of more digits than Python converts
        start = text.lstrip()[:9].lower()
        if start.startswith(("data:", "event:", ": ")):
            raise UnreadableBody("an event stream instead of a single response") from None
        if start.startswith("<"):
            raise UnreadableBody(f"a page, no JSON: {text.strip()[:200]}") from None
        reason = str(error) if "digits" in str(error) else text.strip()[:200] or "an empty body"
        raise UnreadableBody(f"no JSON: {reason}") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Bound the nesting: values are later copied, printed and stored by recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children += item.values()
            elif isinstance(item, list):
                children += item
        if not children:
            return
        level = children
    raise UnreadableBody("values nested too deeply")


def error_of(value: Any) -> tuple[str, str, str]:
    """The message, code and parameter of an error body; empty where it has none."""
    error = value.get("error", value) if isinstance(value, Mapping) else value
    if not isinstance(error, Mapping):
        return (error if isinstance(error, str) else ""), "", ""
    message, code, parameter = (error.get(name) for name in ("message", "code", "param"))
    if message is None:
        message = error.get("detail")
    if message is not None and not isinstance(message, str):
        message = json.dumps(message)
    return message or "", str(code or ""), parameter if isinstance(parameter, str) else ""


def reply_of(
    value: Any, raw: str, redactor: Redactor, *, chat: bool, maximum: Cost, strict: bool
) -> tuple[Reply, bool]:
    """The reply of a completion, and whether the server counted its tokens; otherwise ``maximum`` counts.

    With ``strict``, a chat reply without content is unreadable unless it contains the reason.
    """
    choice = _choice(value)
    finish = choice.get("finish_reason")
    finish = redactor.text(finish)[:MAX_WORD] if isinstance(finish, str) and finish else "stop"
    text, refusal = _message(choice, finish, strict) if chat else (_completed(choice), "")
    if refusal:
        text, finish = refusal, "refusal"
    elif not text.strip() and finish in ("stop", "length"):
        finish = "empty"
    used = _usage(value.get("usage"))
    cost = used or maximum
    text = redactor.text(text).encode("utf-8", "replace").decode()  # a lone surrogate could not be sent again
    return Reply(text, finish, cost.prompt, cost.completion, raw), used is not None


def _choice(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnreadableBody(f"no completion: {str(value)[:200]}")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    message, code, _ = error_of(value) if "error" in value or "detail" in value else ("", "", "")
    if message or code:
        raise UnreadableBody(f"an error instead of a completion: {message or code}")
    raise UnreadableBody(f"a completion without choices: {json.dumps(value)[:200]}")


def _message(choice: Mapping[str, Any], finish: str, strict: bool) -> tuple[str, str]:
    """Content and refusal of a chat reply; fields for reasoning (``reasoning_content``) are ignored."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UnreadableBody("a choice without a message")
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(_segment_text(segment) for segment in content)
    refusal = refusal if isinstance(refusal, str) else ""
    if content is None:
        explained = refusal or finish in WITHOUT_TEXT or message.get("reasoning_content") or message.get("reasoning")
        if strict and not explained:
            raise UnreadableBody("a reply without content")
        return "", refusal
    if not isinstance(content, str):
        raise UnreadableBody(f"content that is no text: {json.dumps(content)[:200]}")
    return content, refusal


def _completed(choice: Mapping[str, Any]) -> str:
    """The text of a prompt's completion."""
    text = choice.get("text")
    if not isinstance(text, str):
        raise UnreadableBody("a completion without text")
    return text


def _segment_text(segment: Any) -> str:
    """The text of one content segment; empty for reasoning, images and the like."""
    if isinstance(segment, str):
        return segment
    is_text = isinstance(segment, Mapping) and segment.get("type", "text") in ("text", "output_text")
    text = segment.get("text") if is_text else ""
    return text if isinstance(text, str) else ""


def _usage(usage: Any) -> Cost | None:
    """The server's token counts; None where they are missing or invalid."""
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    valid = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 0]
    if any(count > MAX_TOKENS for count in valid):
        raise UnreadableBody(f"a usage of more than {MAX_TOKENS} tokens")
    return Cost(*valid) if len(valid) == 2 else None
