"""One attempt at one request to an OpenAI-compatible server.

``Endpoint.send`` sends through the package ``openai`` (extra ``api``), within an ``Exchange``. It returns the reply or
raises: ``RetryableError``, which a later attempt may avoid (429, 5xx, a timeout, a lost connection, a body that is no
completion or is too large); ``RequestRejected``, final for this request; ``UserError`` (a refused key, an unknown
model, a redirection) or ``TeacherFailed`` (an exhausted account), final for all requests. The key is removed from every
text of the server. Retries and counts are in ``requests``.

Newer servers refuse ``max_tokens`` in favour of ``max_completion_tokens``, or ``seed``, or any ``temperature`` but
their own. ``Parameters.adapt`` detects this at the first refusal, once for all requests of a chat; a refusal changes a
parameter only when it names the parameter and calls it unsupported.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from ..errors import RecipeError, TeacherFailed, UserError
from ..parsing import is_address
from .exchange import BadBody, Exchange, Redactor, TooLarge, reply_limit
from .messages import Cost, Query, Reply
from .replies import UnreadableBody, decode, error_of, parse, reply_of

__all__ = [
    "Endpoint",
    "LimitName",
    "Parameters",
    "RequestRejected",
    "RetryableError",
    "check_address",
    "load_package",
    "max_cost",
    "read_key",
]


LimitName: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
ALTERNATIVE_NAME: dict[LimitName, LimitName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|not (permitted|allowed)|unexpected"
    r"|extra (input|field)|only the default",
    re.IGNORECASE,
)


class Parameters:
    """The optional parameters that are sent, and the name of the token limit. Shared by threads."""

    def __init__(self, limit_name: LimitName = "max_tokens", *, temperature: bool = True, seed: bool = True) -> None:
        self.limit_name = limit_name
        self.sent = {"temperature": temperature, "seed": seed}
        self.notes: list[str] = []
        self._lock = threading.Lock()

    def fields(self, request: Query) -> dict[str, Any]:
        """The optional parameters of a request's body. Only chat requests have a newer name for the limit."""
        fields: dict[str, Any] = {self.limit_name if request.chat else "max_tokens": request.max_tokens}
        values = {"temperature": request.temperature, "seed": request.seed}
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
ADAPTATIONS = 3
"""Parameters that a server can refuse: the limit's name, the temperature, the seed."""


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
    ``replies.reply_of``.
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
