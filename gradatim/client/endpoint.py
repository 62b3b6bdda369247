"""One attempt at one request to an OpenAI-compatible server, and concurrent requests with retries.

``Endpoint.send`` sends through the package ``openai`` (extra ``api``), within an ``Exchange``. It returns the reply or
raises: ``RetryableError``, which a later attempt may avoid (429, 5xx, a timeout, a lost connection, a body that is no
completion or is too large); ``RequestRejected``, final for this request; ``UserError`` (a refused key, an unknown
model, a redirection) or ``TeacherFailed`` (an exhausted account), final for all requests. The key is removed from every
text of the server. ``RetryPolicy`` and ``RequestBatch`` repeat and count requests.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field

from ..errors import RecipeError, TeacherFailed, UserError
from ..options import is_address
from ..stage import Event, Events
from .exchange import BadBody, Exchange, Redactor, TooLarge, reply_limit
from .messages import (
    Budget,
    Cost,
    Query,
    Rates,
    Received,
    Reply,
    Request,
    UnreadableBody,
    decode,
    error_of,
    parse,
    reply_of,
    request_number,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


LimitName: TypeAlias = Annotated[
    Literal["max_tokens", "max_completion_tokens"],
    Field(description="Request field for the maximum number of completion tokens."),
]
KeyVariable = Annotated[
    str | None, Field(description="Environment variable with the API key; null: the server requires none.")
]
Concurrency = Annotated[int, Field(description="Number of concurrent requests.")]
RequestTimeout = Annotated[float, Field(description="Timeout of a request in seconds, the complete reply included.")]
Retries = Annotated[int, Field(description="Maximum number of retries of a failed request.")]
SendSeed = Annotated[
    bool, Field(description="Send a seed with each request, so that samples differ on servers that support it.")
]
SendTemperature = Annotated[
    bool, Field(description="Send the temperature; false for servers that accept only their default.")
]
StructuredOutputs = Annotated[
    bool,
    Field(
        description="Send the JSON Schema of a design with its request, so that the server constrains the reply to it; "
        "small models need this."
    ),
]
ExtraFields = Annotated[dict[str, Any] | None, Field(description="Additional fields of each request.")]
ALTERNATIVE_NAME: dict[LimitName, LimitName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|not (permitted|allowed)|unexpected"
    r"|extra (input|field)|only the default",
    re.IGNORECASE,
)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The request field for structured outputs, as OpenAI's API, vLLM, SGLang and llama.cpp define it.

    ``schema``: a JSON Schema. Where its root has ``oneOf`` with lists of required keys, each alternative becomes a
    complete object, because servers read such an alternative without the keys beside it. Strings without a maximum
    length get ``MAX_STRING``.
    """
    content = _limited({name: value for name, value in schema.items() if name not in ("$schema", "oneOf")})
    alternatives = [entry["required"] for entry in schema.get("oneOf", ())]
    if alternatives:
        content = {"anyOf": [_alternative(content, required, alternatives) for required in alternatives]}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": content}}


def _alternative(
    schema: Mapping[str, Any], required: Sequence[str], alternatives: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """``schema`` with the keys of one alternative, without those of the others alone."""
    others = {name for names in alternatives for name in names} - set(required)
    properties = {name: value for name, value in schema["properties"].items() if name not in others}
    return {**schema, "properties": properties, "required": [*schema.get("required", ()), *required]}


def _limited(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_limited(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    limited = {name: _limited(value) for name, value in schema.items()}
    is_free_text = schema.get("type") == "string" and not {"enum", "pattern", "maxLength"} & set(schema)
    return {**limited, "maxLength": MAX_STRING} if is_free_text else limited


class Parameters:
    """The optional parameters that are sent, and the name of the token limit. Shared by threads.

    Newer servers refuse ``max_tokens`` in favour of ``max_completion_tokens``, or ``seed``, or any ``temperature``
    but their own; others have no structured outputs (``response_format``). ``Parameters.adapt`` detects this at the
    first refusal, once for all requests of a chat; a refusal changes a parameter only when it names the parameter and
    calls it unsupported.
    """

    def __init__(self, limit_name: LimitName = "max_tokens", *, temperature: bool = True, seed: bool = True) -> None:
        self.limit_name = limit_name
        self.sent = {"temperature": temperature, "seed": seed, "response_format": True}
        self.notes: list[str] = []
        self._lock = threading.Lock()

    def fields(self, request: Query) -> dict[str, Any]:
        """The optional parameters of a request's body. Only chat requests have a newer name for the limit."""
        fields: dict[str, Any] = {self.limit_name if request.chat else "max_tokens": request.max_tokens}
        values: dict[str, Any] = {"temperature": request.temperature, "seed": request.seed}
        if isinstance(request, Request) and request.schema:
            values["response_format"] = response_format(json.loads(request.schema))
        return fields | {name: value for name, value in values.items() if self.sent[name]}

    def adapt(self, fields: dict[str, Any], message: str, code: str, parameter: str) -> bool:
        """Whether a refused request with these ``fields`` is worth another attempt with other parameters."""
        if not _UNSUPPORTED.search(f"{message} {code.replace('_', ' ')}"):
            return False
        # Where the error has no field for the parameter, the first word of its message that is a parameter counts.
        candidates = [parameter] if parameter in fields else re.findall(r"\w+", message)
        name = next((word for word in candidates if word in fields), None)
        with self._lock:
            if name in ALTERNATIVE_NAME:
                if self.limit_name == name and "messages" in fields:
                    self.limit_name = ALTERNATIVE_NAME[self.limit_name]
                    self.notes.append(f"the server does not support {name!r}; {self.limit_name!r} is sent")
                return "messages" in fields
            if name in self.sent:
                if self.sent[name]:
                    self.sent[name] = False
                    self.notes.append(f"the server does not support {name!r}; it is left out")
                return True
        return False

    def take_notes(self) -> list[str]:
        """Remove and return the notes that have come since the last call."""
        with self._lock:
            notes, self.notes = self.notes, []
        return notes


RETRYABLE_STATUSES = (408, 409, 425, 429)
ADAPTATIONS = 4
"""Parameters that a server can refuse: the limit's name, the temperature, the seed, the response format."""
MAX_STRING = 600
"""Most characters of a string of a constrained reply: at temperature 0 a small model may repeat itself without end."""


class RetryableError(Exception):
    """A failure that a later attempt may avoid: ``cause`` in a word, the ``message``, and the seconds ``after`` which
    the server wants the next attempt (None: not specified)."""

    def __init__(self, cause: str, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.cause, self.message, self.after = cause, message, after


class RequestRejected(Exception):
    """A final refusal of this request by the server."""


class _StatusError(Exception):
    """A response with the status of an error."""

    def __init__(self, status: int, headers: Any, message: str, code: str, parameter: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.message, self.code, self.parameter = message, code, parameter


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One model of one server.

    ``key``: name of the environment variable that holds ``secret``. ``client``: see ``exchange.open_client``.
    ``seconds``: deadline of an attempt. ``extra``: further fields of every request's body. ``strict``: see
    ``messages.reply_of``.
    """

    base_url: str
    model: str
    client: Any = field(repr=False)
    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    seconds: float = 120.0
    parameters: Parameters = field(default_factory=Parameters, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False

    @cached_property
    def redactor(self) -> Redactor:
        """The removal of the key from texts."""
        return Redactor(self.secret)

    def send(self, request: Query) -> tuple[Reply, bool]:
        """The reply, and whether the server counted its tokens. Errors: see the module."""
        openai = load_package(self.base_url)
        for remaining in reversed(range(ADAPTATIONS + 1)):
            fields = {**request.content, **self.parameters.fields(request)}
            try:
                return self._attempt(openai, request, fields)
            except _StatusError as error:
                details = error.message, error.code, error.parameter
                if error.status not in (400, 422) or not remaining or not self.parameters.adapt(fields, *details):
                    raise self._classify(error) from None
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, openai: Any, request: Query, fields: dict[str, Any]) -> tuple[Reply, bool]:
        kind = self.client.chat.completions if request.chat else self.client.completions
        with Exchange(self.seconds, reply_limit(request.max_tokens)) as exchange:
            try:
                response = kind.with_raw_response.create(
                    model=self.model, extra_body=dict(self.extra) or None, **fields
                ).http_response
                status = None
            # Raised without their causes, whose requests hold the key.
            except openai.APITimeoutError:
                raise self._timeout() from None
            except openai.APIStatusError as error:
                response, status = error.response, error.status_code
            except (TooLarge, BadBody, openai.APIConnectionError) as error:
                raise self._timeout() if exchange.expired else self._broken(error.__cause__ or error) from None
            if exchange.expired:  # a body delimited by the end of its connection looks complete
                raise self._timeout()
        content_type = response.headers.get("content-type", "")
        if status is not None:
            raise _StatusError(status, response.headers, *self._error(response.content, content_type, status))
        return self.read(response.content, content_type, request)

    def read(self, body: bytes, content_type: str, request: Query) -> tuple[Reply, bool]:
        """The reply in a body, and whether it counts its tokens. ``RetryableError`` where it is no completion."""
        try:
            raw = self.redactor.text(decode(body, content_type))
            value = parse(raw)
            # A form of the key that shows only after decoding: the reply's texts are cleaned, the body is not stored.
            body_text = raw if self.redactor.is_clean(value) else ""
            return reply_of(
                value, body_text, self.redactor, chat=request.chat, maximum=max_cost(request), strict=self.strict
            )
        except UnreadableBody as error:
            raise RetryableError("broken reply", self.clean(str(error))) from None

    def _error(self, body: bytes, content_type: str, status: int) -> tuple[str, str, str]:
        """Message, code and parameter of an error response, without the key."""
        try:
            text = decode(body, content_type)
            try:
                message, code, parameter = error_of(parse(text))
            except UnreadableBody:
                message, code, parameter = text.strip(), "", ""
        except UnreadableBody as error:
            message, code, parameter = str(error), "", ""
        return self.clean(message or f"status {status}"), self.clean(code), self.clean(parameter)

    def _timeout(self) -> RetryableError:
        return RetryableError("timeout", f"no complete reply within {self.seconds:g} seconds")

    def _broken(self, cause: BaseException) -> RetryableError:
        message = self.clean(str(cause) or type(cause).__name__)
        if isinstance(cause, TooLarge):
            return RetryableError("too large", message)
        return RetryableError("broken reply" if isinstance(cause, BadBody) else "connection", message)

    def _classify(self, error: _StatusError) -> Exception:
        """The exception for a response with the status of an error."""
        status, message, code = error.status, error.message, error.code
        if status in (401, 403):
            value = f"the key in {self.key}" if self.secret else f"no key in {self.key}" if self.key else "no key"
            hint = f"export {self.key}=…" if self.key and not self.secret else None
            return UserError(f"the endpoint refuses the key ({message})", where=self.base_url, given=value, hint=hint)
        if status == 402 or code == "insufficient_quota":
            hint = "add credit, then run the same command again: the replies received are stored"
            return TeacherFailed("the endpoint's account is used up", where=self.base_url, given=message, hint=hint)
        if status == 404 or code == "model_not_found":
            hint = "see the server's list of models (GET /models) and the address, which mostly ends with /v1"
            text = f"the endpoint has no such model or address ({message})"
            return UserError(text, where=self.base_url, given=self.model, hint=hint)
        if status in RETRYABLE_STATUSES or status >= 500:
            return RetryableError(str(status), message, _retry_after(error.headers))
        if 300 <= status < 400:
            return UserError("the endpoint redirects to another address", where=self.base_url, given=f"status {status}")
        return RequestRejected(f"{status}: {message}")

    def clean(self, text: str, limit: int | None = 200) -> str:
        """``text`` without the key, which some servers repeat, cut at ``limit`` characters."""
        text = self.redactor.text(text)
        return text if limit is None or len(text) <= limit else text[:limit] + "…"


def max_cost(request: Query) -> Cost:
    """Upper bound of a request's cost: no token is shorter than a byte, and each message has a frame."""
    size = sum(len(text.encode("utf-8", "replace")) + 16 for text in request.texts)
    return Cost(size + 16, request.max_tokens)


def read_key(name: str | None, base_url: str, *, needed: bool = True) -> str | None:
    """The key in the environment variable ``name``. ``UserError`` where the value is no key, or is ``needed`` and
    missing."""
    if name is None:
        return None
    secret = os.environ.get(name, "").strip()
    if not secret and needed:
        hint = f"export {name}=…, or key: null for a server without keys"
        raise UserError("there is no key for this endpoint", where=base_url, given=f"{name} unset", hint=hint)
    if not secret.isascii() or (secret and not secret.isprintable()) or " " in secret:
        raise UserError("this environment variable does not hold a key", where=base_url, given=name)
    return secret or None


def _retry_after(headers: Any) -> float | None:
    """The seconds of ``retry-after-ms`` or ``retry-after``; None where the headers hold neither."""
    value = str(headers.get("retry-after", "")).strip()
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def check_address(base_url: str) -> None:
    """``RecipeError`` for a text that is no address, or an address that holds a secret."""
    allowed = "https://HOST/v1, without a user, a password or a query"
    try:
        url = urlsplit(base_url)
        complete = url.scheme in ("http", "https") and url.hostname and not url.query and not url.fragment
        valid = bool(complete) and base_url.isprintable() and " " not in base_url
        secret = "@" in url.netloc or bool(url.query)
        _ = url.port  # raises ``ValueError`` for an invalid port
    except ValueError:
        valid, secret = False, "@" in base_url
    if secret:
        raise RecipeError("the address must not contain secrets", where="teacher.base_url", allowed=allowed)
    if not valid or not is_address(base_url):
        raise RecipeError("this is no address", where="teacher.base_url", given=base_url, allowed=allowed)


def load_package(base_url: str) -> Any:
    """The package ``openai``; ``UserError`` with the command that installs it where it is missing."""
    try:
        import openai
    except ImportError as error:
        hint = "pip install 'gradatim[api]'"
        raise UserError("requests to endpoints need the package 'openai'", where=base_url, hint=hint) from error
    return openai


INITIAL_RETRIES = 2
"""Most retries before the first reply, so that a mistyped address is reported soon."""


@dataclass(frozen=True)
class RetryPolicy:
    """Number of retries per request, and the pauses in seconds: ``first_wait``, doubled with every retry, at most
    ``longest_wait``."""

    retries: int
    first_wait: float
    longest_wait: float


class RequestCounts:
    """Counts of replies, retries and failures over all calls of a chat. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last_received: float | None = None
        self._counts: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def received(self, reply: Reply, with_usage: bool) -> None:
        """Count a reply; ``with_usage``: with the server's token counts."""
        with self._lock:
            self.last_received = time.monotonic()
            self._counts.update(requests=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)
            self._counts["without_usage"] += not with_usage

    def retried(self, cause: str) -> None:
        """Count a retry."""
        with self._lock:
            self._retried[cause] += 1

    def failed(self, cause: str) -> None:
        """Count a request without a reply."""
        with self._lock:
            self._failed[cause] += 1

    def facts(self, price: Callable[[Cost], float | None]) -> dict[str, Any]:
        """See ``ApiChat.facts``."""
        with self._lock:
            counts, used = self._counts, Cost(self._counts["prompt"], self._counts["completion"])
            return {
                "requests": counts["requests"],
                "cached": 0,
                "prompt_tokens": used.prompt,
                "completion_tokens": used.completion,
                "cost": price(used),
                "retries": self._retried.total(),
                "retried": dict(sorted(self._retried.items())),
                "failed": dict(sorted(self._failed.items())),
                "without_usage": counts["without_usage"],
            }


class RequestBatch:
    """The requests of one call and the state that its threads share. ``received`` is called for every reply, by one
    thread at a time.

    A ``RequestBatch`` sends the requests of one call from several threads, within ``Rates`` and a ``Budget``. A
    ``RetryableError`` leads to another attempt, after the server's ``retry-after`` or an exponential pause. A
    request that is rejected, or fails while others succeed, has no reply and is counted; an endpoint that fails for
    all requests ends the call. Requests in flight at the end of a call are completed and their replies handed on,
    so that no reply that was paid for is lost.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Sequence[Query],
        received: Received,
        *,
        policy: RetryPolicy,
        rates: Rates,
        budget: Budget,
        counts: RequestCounts,
        label: str = "query the teacher",
    ) -> None:
        self.endpoint, self.requests, self.received = endpoint, requests, received
        self.policy, self.rates, self.budget, self.counts = policy, rates, budget, counts
        self.label = label
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.fatal: BaseException | None = None
        self.replies: list[Reply | None] = [None] * len(requests)
        self.rejections: list[str] = []

    def run(self, concurrency: int, events: Events) -> list[Reply | None]:
        """Send all, so many at a time. When ``events`` raises, requests in flight are completed first."""
        # Imported here because ``plan`` creates teachers and sends no request.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(concurrency, len(self.requests))) as pool:
            try:
                self._watch(pool, events)
            finally:
                self.stop.set()
        return self._result()

    def _watch(self, pool: ThreadPoolExecutor, events: Events) -> None:
        from concurrent.futures import FIRST_COMPLETED, wait

        total = len(self.requests)
        events(Event("start", self.label, 0, total))
        pending: set[Future[None]] = {pool.submit(self._run_one, index) for index in range(total)}
        while pending:
            # The timeout lets a listener stop the work while no request ends.
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for note in self.endpoint.parameters.take_notes():
                events(Event("note", self.label, text=note))
            if not self.stop.is_set():
                events(Event("advance", self.label, total - len(pending), total))
        if self.fatal is None:
            events(Event("finish", self.label, total, total))

    def _result(self) -> list[Reply | None]:
        if self.fatal is not None:
            raise self.fatal
        if self.rejections and self.counts.last_received is None:
            raise TeacherFailed(
                "the endpoint refuses every request",
                where=self.endpoint.base_url,
                given=self.rejections[0],
                hint="check whether the server supports the options (seeded, send_temperature, limit_name, extra)",
            )
        return self.replies

    def _run_one(self, index: int) -> None:
        """Send one request; an error of any kind stops the call and is raised by ``run``."""
        try:
            self._send(index)
        except BaseException as error:
            with self.lock:
                self.fatal = self.fatal or error
            self.stop.set()

    def _send(self, index: int) -> None:
        """Send one request until there is a reply, the retries are exhausted, or the call is stopped."""
        request = self.requests[index]
        maximum, start = max_cost(request), time.monotonic()
        for attempt in range(self.policy.retries + 1):
            if self.stop.is_set() or not self.budget.reserve(maximum, self.stop.is_set):
                return
            used = Cost(0, 0)
            try:
                if not self._wait_for_slot(maximum):
                    return
                reply, with_usage = self.endpoint.send(request)
                used = Cost(reply.prompt_tokens, reply.completion_tokens)
                self.counts.received(reply, with_usage)
                with self.lock:
                    self.replies[index] = reply
                    self.received(index, reply)
                return
            except RequestRejected as rejection:
                self.counts.failed("rejected")
                with self.lock:
                    self.rejections.append(str(rejection))
                return
            except RetryableError as retryable:
                error = retryable
            finally:
                self.budget.settle(maximum, used)
                self.rates.give_back(max(0, maximum.tokens - used.tokens))
            if self._give_up(error, attempt, start):
                return
            self._pause(error, request, attempt)

    def _wait_for_slot(self, maximum: Cost) -> bool:
        """Wait for a slot of the rate limits; False when the call was stopped meanwhile."""
        while not self.stop.wait(self.rates.reserve(maximum.tokens)):
            if not self.rates.held():
                return True
            self.rates.give_back(maximum.tokens)  # a hold has begun meanwhile: reserve a slot after it
        return False

    def _give_up(self, error: RetryableError, attempt: int, start: float) -> bool:
        """Whether this request remains without a reply; raises when the endpoint fails for all requests."""
        last = self.counts.last_received
        retries = self.policy.retries if last is not None else min(self.policy.retries, INITIAL_RETRIES)
        if error.after is not None and error.after > self.policy.longest_wait:
            raise self._failure(f"the endpoint requests a wait of {error.after:.0f} seconds", error)
        if attempt < retries:
            return False
        if error.cause != "429" and last is not None and last > start:
            self.counts.failed(error.cause)
            return True
        text = "the endpoint does not answer" if last is None else "the endpoint does not answer any more"
        raise self._failure(f"{text} ({attempt + 1} attempts)", error)

    def _failure(self, text: str, error: RetryableError) -> TeacherFailed:
        count = sum(reply is not None for reply in self.replies)
        hint = f"check the server, then run the same command again: the replies received ({count} just now) are stored"
        if error.cause == "429":
            hint = f"set requests_per_minute or a smaller concurrency; {hint}"
        return TeacherFailed(text, where=self.endpoint.base_url, given=f"{error.cause}: {error.message}", hint=hint)

    def _pause(self, error: RetryableError, request: Query, attempt: int) -> None:
        self.counts.retried(error.cause)
        if error.after:
            self.rates.hold(error.after)
            return
        # A jitter that depends on the request, so that requests that failed together are not retried together.
        jitter = 0.5 + request_number(request, attempt) / 2**32
        self.stop.wait(min(self.policy.first_wait * 2**attempt, self.policy.longest_wait) * jitter)
