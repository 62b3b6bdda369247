"""What is said to an OpenAI-compatible server, and what does its answer mean?

``Endpoint.send`` is one attempt at one request, through the package ``openai`` (extra ``api``). It gives the reply, or
raises what became of it: a ``Stumble`` may go better next time (too many requests, a server's fault, a timeout, a cut
connection, a body that is no chat completion), ``Rejected`` will not for this request, and a ``UserError`` (a refused
key, an unknown model) or ``TeacherFailed`` (an account used up) for none. The key is taken out of every text that the
server sends. Whether something is sent again is ``sending``'s to say, and nothing is counted here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import RecipeError, TeacherFailed, UserError
from ..parsing import is_address
from .allowance import Cost
from .teacher import Reply, Request

__all__ = ["Endpoint", "Rejected", "Stumble", "check_address", "load_package", "most_of", "number_of"]

AGAIN = (408, 409, 425, 429)
MOST_OF_A_WORD = 40
"""Characters of the word by which a server says why it stopped."""


class Stumble(Exception):
    """Something that may go better next time: its cause in a word, what was said, and how long to wait, if told."""

    def __init__(self, cause: str, said: str, after: float | None = None) -> None:
        super().__init__(said)
        self.cause, self.said, self.after = cause, said, after


class Rejected(Exception):
    """The server does not take this request, however often."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One model of one server, for one call of ``ask``. ``key`` is the variable that holds ``secret``, ``client`` what
    sends; the others are those of ``ApiChat``."""

    base_url: str
    model: str
    key: str | None
    secret: str | None = field(repr=False)
    client: Any = field(repr=False)
    seconds: float
    seeded: bool
    limit_name: str
    extra: Mapping[str, Any]

    def send(self, request: Request) -> tuple[Reply, bool]:
        """One attempt: the reply, and whether the server told its tokens. ``Stumble``, ``Rejected`` or a last error."""
        openai = load_package(self.base_url)
        body: dict[str, Any] = {self.limit_name: request.max_tokens, "temperature": request.temperature}
        if self.seeded:
            body["seed"] = number_of(request) % 2**31
        messages = [{"role": role, "content": text} for role, text in request.messages]
        try:
            answer = self.client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, extra_body=dict(self.extra) or None, **body
            )
            return self.read(answer.http_response.text, most_of(request))
        # The causes are left out of what is raised: their requests hold the key.
        except openai.APITimeoutError:
            raise Stumble("timeout", f"no reply within {self.seconds:g} seconds") from None
        except openai.APIStatusError as error:
            raise self.told(error) from None
        except openai.APIConnectionError as error:
            raise Stumble("connection", self.clean(str(error.__cause__ or error))) from None

    def read(self, body: str, most: Cost) -> tuple[Reply, bool]:
        """The reply in a body, and whether it tells its tokens; else it counts as ``most``. ``Stumble`` without one."""
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
        text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair could be sent to nobody again
        finish = str(choice.get("finish_reason") or "stop")[:MOST_OF_A_WORD]
        if refusal:
            text, finish = str(refusal), "refusal"
        elif not text.strip() and finish in ("stop", "length"):
            finish = "empty"
        used = _used(answer.get("usage"))
        cost = used or most
        return Reply(text, finish, cost.prompt, cost.completion, raw), used is not None

    def told(self, error: Any) -> Exception:
        """What a server's refusal means."""
        status, said = error.status_code, self.clean(str(error.message))
        code = str(getattr(error, "code", "") or "")
        if status in (401, 403):
            given = f"the key in {self.key}" if self.key else "no key"
            return UserError(f"the endpoint refuses the key ({said})", where=self.base_url, given=given)
        if status == 402 or code == "insufficient_quota":
            hint = "fill it up, then run the same command again: the replies received are kept"
            return TeacherFailed("the account at the endpoint is used up", where=self.base_url, given=said, hint=hint)
        if status == 404 or code == "model_not_found":
            hint = "see the server's list of models (GET /models) and the address, which mostly ends with /v1"
            what = f"the endpoint has no such model or address ({said})"
            return UserError(what, where=self.base_url, given=self.model, hint=hint)
        if status in AGAIN or status >= 500:
            return Stumble(str(status), said, _after(error.response.headers))
        return Rejected(f"{status}: {said}")

    def clean(self, text: str, most: int | None = 200) -> str:
        """Without the key, which some servers repeat; at most so many characters."""
        text = text.replace(self.secret, "***") if self.secret else text
        return text if most is None or len(text) <= most else text[:most] + "…"


def most_of(request: Request) -> Cost:
    """The most that a request can cost: no token is shorter than a byte, and each message has a frame."""
    return Cost(sum(len(text.encode()) + 16 for _, text in request.messages) + 16, request.max_tokens)


def _used(usage: Any) -> Cost | None:
    """The tokens that a server says it counted; None when it does not say."""
    names = ("prompt_tokens", "completion_tokens")
    if not isinstance(usage, dict) or not all(isinstance(usage.get(name), int) and usage[name] >= 0 for name in names):
        return None
    return Cost(*(usage[name] for name in names))


def number_of(request: Request, attempt: int = 0) -> int:
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


def check_address(base_url: str) -> None:
    """``RecipeError`` for what is no address, or holds a secret."""
    allowed = "https://HOST/v1, without a user, a password or a query"
    try:
        parts = urlsplit(base_url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        secret = "@" in parts.netloc or parts.query
    except ValueError:
        plain, secret = None, "?"
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
