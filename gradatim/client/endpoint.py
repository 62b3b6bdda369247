"""The optional parameters of a request, as a server accepts them.

Newer servers refuse ``max_tokens`` (they call it ``max_completion_tokens``), any ``temperature`` but their own, or
``seed``. Settings say so in advance; ``Parameters.adapt`` finds it out from the server's refusal, once for all requests
of a chat. A refusal changes a parameter only when it names the parameter and says that the server does not support it.

One attempt at one request to an OpenAI-compatible server.

``Endpoint.send`` sends through the package ``openai`` (extra ``api``), within an ``Exchange``. It returns the reply or
raises one of these: ``Stumble``, which a later attempt may avoid (too many requests, a server's fault, a timeout, a cut
connection, a body that is no completion or too large); ``Rejected``, which is final for this request; ``UserError`` (a
refused key, an unknown model, a redirection) or ``TeacherFailed`` (an account used up), which are final for all. The
key is removed from every text of the server. Retries belong to ``sending``, and nothing is counted here.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from ..errors import RecipeError, TeacherFailed, UserError
from ..parsing import is_address
from .exchange import BadBody, Exchange, Redactor, TooLarge, reply_limit
from .messages import Cost, Query, Reply
from .replies import Unreadable, decode, error_of, parse, reply_of

__all__ = [
    "Endpoint",
    "LimitName",
    "Parameters",
    "Rejected",
    "Stumble",
    "check_address",
    "load_package",
    "most_of",
    "read_key",
]


LimitName: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
OTHER: dict[LimitName, LimitName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|not (permitted|allowed)|unexpected"
    r"|extra (input|field)|only the default",
    re.IGNORECASE,
)


class Parameters:
    """Which parameters are sent, and under which name. Shared by threads."""

    def __init__(self, limit_name: LimitName = "max_tokens", *, temperature: bool = True, seed: bool = True) -> None:
        self.limit_name = limit_name
        self.sent = {"temperature": temperature, "seed": seed}
        self.notes: list[str] = []
        self._lock = threading.Lock()

    def fields(self, request: Query) -> dict[str, Any]:
        """The parameters of a request's body. Only conversations have a newer name for the limit."""
        fields: dict[str, Any] = {self.limit_name if request.chat else "max_tokens": request.max_tokens}
        values = {"temperature": request.temperature, "seed": request.seed}
        return fields | {name: value for name, value in values.items() if self.sent[name]}

    def adapt(self, fields: dict[str, Any], message: str, code: str, parameter: str) -> bool:
        """Whether a refused request with these ``fields`` is worth another attempt with other parameters."""
        if not _UNSUPPORTED.search(f"{message} {code.replace('_', ' ')}"):
            return False
        # Without a parameter's name in the error, the first word of the message that is one counts.
        named = [parameter] if parameter in fields else re.findall(r"\w+", message)
        name = next((word for word in named if word in fields), None)
        with self._lock:
            if name in OTHER:
                if self.limit_name == name and "messages" in fields:
                    self.limit_name = OTHER[self.limit_name]
                    self.notes.append(f"the server does not take {name!r}; {self.limit_name!r} is sent")
                return "messages" in fields
            if name in self.sent:
                if self.sent[name]:
                    self.sent[name] = False
                    self.notes.append(f"the server does not take {name!r}; it is left out")
                return True
        return False

    def take_notes(self) -> list[str]:
        """Notes that were not taken before."""
        with self._lock:
            notes, self.notes = self.notes, []
        return notes


AGAIN = (408, 409, 425, 429)
ADAPTATIONS = 3
"""Parameters that a server can refuse: the limit's name, the temperature, the seed."""


class Stumble(Exception):
    """Something that may go better next time: its cause in a word, what was said, and how long to wait, if told."""

    def __init__(self, cause: str, said: str, after: float | None = None) -> None:
        super().__init__(said)
        self.cause, self.said, self.after = cause, said, after


class Rejected(Exception):
    """The server does not take this request, however often."""


class _Refused(Exception):
    """A response with an error's status."""

    def __init__(self, status: int, headers: Any, message: str, code: str, parameter: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.message, self.code, self.parameter = message, code, parameter


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One model of one server. ``key`` is the environment variable that holds ``secret``; ``client`` comes from
    ``exchange.open_client``; ``seconds`` is the deadline of an attempt; ``extra`` goes into every request's body;
    ``strict`` as in ``reading.reply_of``."""

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
        return Redactor(self.secret)

    def send(self, request: Query) -> tuple[Reply, bool]:
        """The reply, and whether the server counted its tokens. ``Stumble``, ``Rejected`` or a final error."""
        openai = load_package(self.base_url)
        for left in reversed(range(ADAPTATIONS + 1)):
            fields = {**request.content, **self.parameters.fields(request)}
            try:
                return self._attempt(openai, request, fields)
            except _Refused as refused:
                told = refused.message, refused.code, refused.parameter
                if refused.status not in (400, 422) or not left or not self.parameters.adapt(fields, *told):
                    raise self._meaning(refused) from None
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, openai: Any, request: Query, fields: dict[str, Any]) -> tuple[Reply, bool]:
        kind = self.client.chat.completions if request.chat else self.client.completions
        with Exchange(self.seconds, reply_limit(request.max_tokens)) as exchange:
            try:
                answer = kind.with_raw_response.create(
                    model=self.model, extra_body=dict(self.extra) or None, **fields
                ).http_response
                refused = None
            # The causes are left out of what is raised: their requests hold the key.
            except openai.APITimeoutError:
                raise self._timeout() from None
            except openai.APIStatusError as error:
                answer, refused = error.response, error.status_code
            except (TooLarge, BadBody, openai.APIConnectionError) as error:
                raise self._timeout() if exchange.expired else self._broken(error.__cause__ or error) from None
            if exchange.expired:  # a body that ends with its connection looks whole
                raise self._timeout()
        content_type = answer.headers.get("content-type", "")
        if refused is not None:
            raise _Refused(refused, answer.headers, *self._error(answer.content, content_type, refused))
        return self.read(answer.content, content_type, request)

    def read(self, body: bytes, content_type: str, request: Query) -> tuple[Reply, bool]:
        """The reply in a body, and whether it counts its tokens. ``Stumble`` without one."""
        try:
            raw = self.redactor.text(decode(body, content_type))
            value = parse(raw)
            # A form of the key that only shows after decoding: the reply's own texts are cleaned, the body is not kept.
            kept = raw if self.redactor.is_clean(value) else ""
            return reply_of(value, kept, self.redactor, chat=request.chat, most=most_of(request), strict=self.strict)
        except Unreadable as error:
            raise Stumble("broken reply", self.clean(str(error))) from None

    def _error(self, body: bytes, content_type: str, status: int) -> tuple[str, str, str]:
        """Message, code and parameter of an error response, clean."""
        try:
            text = decode(body, content_type)
            try:
                message, code, parameter = error_of(parse(text))
            except Unreadable:
                message, code, parameter = text.strip(), "", ""
        except Unreadable as error:
            message, code, parameter = str(error), "", ""
        return self.clean(message or f"status {status}"), self.clean(code), self.clean(parameter)

    def _timeout(self) -> Stumble:
        return Stumble("timeout", f"no whole reply within {self.seconds:g} seconds")

    def _broken(self, cause: BaseException) -> Stumble:
        said = self.clean(str(cause) or type(cause).__name__)
        if isinstance(cause, TooLarge):
            return Stumble("too large", said)
        return Stumble("broken reply" if isinstance(cause, BadBody) else "connection", said)

    def _meaning(self, refused: _Refused) -> Exception:
        """The error that a server's refusal amounts to."""
        status, said, code = refused.status, refused.message, refused.code
        if status in (401, 403):
            given = f"the key in {self.key}" if self.secret else f"no key in {self.key}" if self.key else "no key"
            hint = f"export {self.key}=…" if self.key and not self.secret else None
            return UserError(f"the endpoint refuses the key ({said})", where=self.base_url, given=given, hint=hint)
        if status == 402 or code == "insufficient_quota":
            hint = "fill it up, then run the same command again: the replies received are kept"
            return TeacherFailed("the account at the endpoint is used up", where=self.base_url, given=said, hint=hint)
        if status == 404 or code == "model_not_found":
            hint = "see the server's list of models (GET /models) and the address, which mostly ends with /v1"
            what = f"the endpoint has no such model or address ({said})"
            return UserError(what, where=self.base_url, given=self.model, hint=hint)
        if status in AGAIN or status >= 500:
            return Stumble(str(status), said, _after(refused.headers))
        if 300 <= status < 400:
            return UserError("the endpoint redirects elsewhere", where=self.base_url, given=f"status {status}")
        return Rejected(f"{status}: {said}")

    def clean(self, text: str, most: int | None = 200) -> str:
        """Without the key, which some servers repeat; at most so many characters."""
        text = self.redactor.text(text)
        return text if most is None or len(text) <= most else text[:most] + "…"


def most_of(request: Query) -> Cost:
    """The most that a request can cost: no token is shorter than a byte, and each message has a frame."""
    size = sum(len(text.encode("utf-8", "replace")) + 16 for text in request.texts)
    return Cost(size + 16, request.max_tokens)


def read_key(name: str | None, base_url: str, *, needed: bool = True) -> str | None:
    """The key in the environment variable ``name``. ``UserError`` for what is no key, and where it is needed and
    missing."""
    if name is None:
        return None
    secret = os.environ.get(name, "").strip()
    if not secret and needed:
        hint = f"export {name}=…, or key: null for a server that wants none"
        raise UserError("there is no key for this endpoint", where=base_url, given=f"{name} unset", hint=hint)
    if not secret.isascii() or (secret and not secret.isprintable()) or " " in secret:
        raise UserError("this environment variable does not hold a key", where=base_url, given=name)
    return secret or None


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
    except (ValueError, TypeError, OverflowError):
        return None


def check_address(base_url: str) -> None:
    """``RecipeError`` for what is no address, or holds a secret."""
    allowed = "https://HOST/v1, without a user, a password or a query"
    try:
        parts = urlsplit(base_url)
        whole = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        plain = bool(whole) and base_url.isprintable() and " " not in base_url
        secret = "@" in parts.netloc or bool(parts.query)
        _ = parts.port  # raises for what is no port
    except ValueError:
        plain, secret = False, "@" in base_url
    if secret:
        raise RecipeError("an address with secrets in it is not taken", where="teacher.base_url", allowed=allowed)
    if not plain or not is_address(base_url):
        raise RecipeError("this is no address", where="teacher.base_url", given=base_url, allowed=allowed)


def load_package(base_url: str) -> Any:
    """``openai``; ``UserError`` with the command that installs it."""
    try:
        import openai
    except ImportError as error:
        hint = "pip install 'gradatim[api]'"
        raise UserError("endpoints are asked through the package 'openai'", where=base_url, hint=hint) from error
    return openai
