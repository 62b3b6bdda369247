"""The capabilities of an OpenAI-compatible server, measured by a few small requests.

``capabilities`` lists the models, requests a chat reply and a completion, and requests log-probabilities, those of the
prompt (``echo``) included. A server may accept a field and ignore it, so that the values in its replies count, not the
status. Every request has a few tokens and no retries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..errors import TeacherFailed, UserError
from .endpoint import (
    Endpoint,
    KeyVariable,
    RequestRejected,
    RetryableError,
    check_address,
    load_package,
    read_key,
)
from .exchange import BadBody, Exchange, TooLarge, open_client
from .messages import Generation, Reply, UnreadableBody, decode, parse

PROMPT = "1 + 1 = 2\n2 + 2 = "
QUESTION = "Reply with the word yes."
LIST_LIMIT = 4_000_000
"""Largest list of models in bytes."""
SHOWN = 5
"""Models that a finding names."""


@dataclass(frozen=True)
class Capability:
    """One check of a server: ``detail`` says what was seen, or the server's reason."""

    name: str
    supported: bool
    detail: str


def capabilities(
    base_url: str, model: str | None = None, key: KeyVariable = "OPENAI_API_KEY", seconds: float = 60.0
) -> Iterator[Capability]:
    """The checks in sequence: models, chat, completion, parameters, log-probabilities, echo, token counts.

    ``model``: default the first that the server lists. ``key``: environment variable with the key, where the server
    needs one. ``seconds``: deadline of each request. Raises ``UserError`` for an invalid address, a refused key and a
    model that the server lacks, ``TeacherFailed`` for a server that does not answer.
    """
    endpoint = _endpoint(base_url, model or "", key, seconds)
    names, reason = _models(endpoint)
    yield _listed(names, reason, model)
    if model is None and not names:
        raise UserError("the server lists no models", where=base_url, given=reason, hint="--model NAME")
    endpoint = replace(endpoint, model=model or names[0])
    yield from _requests(endpoint)


def model_names(base_url: str, key: str | None = None, seconds: float = 60.0) -> list[str]:
    """The models that a server lists, none while it refuses. Raises ``TeacherFailed`` when it does not answer."""
    return _models(_endpoint(base_url, "", key, seconds))[0]


def _endpoint(base_url: str, model: str, key: str | None, seconds: float) -> Endpoint:
    check_address(base_url)
    secret = read_key(key, base_url, needed=False)
    client = open_client(load_package(base_url), base_url, secret, seconds)
    return Endpoint(base_url, model, client, key, secret, seconds, strict=True)


def _listed(names: list[str], reason: str, model: str | None) -> Capability:
    if not names:
        return Capability("models", False, reason or "the list is empty")
    detail = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    missing = model is not None and model not in names
    return Capability("models", not missing, f"{detail}; not {model}" if missing else detail)


def _models(endpoint: Endpoint) -> tuple[list[str], str]:
    """The ids of GET /models, or an empty list with the reason."""
    package = load_package(endpoint.base_url)
    with Exchange(endpoint.seconds, LIST_LIMIT) as exchange:
        try:
            response = endpoint.client.models.with_raw_response.list().http_response
        except package.APITimeoutError:
            raise _no_answer(endpoint, f"no answer within {endpoint.seconds:g} seconds") from None
        except package.APIStatusError as error:
            if error.status_code in (401, 403):
                raise UserError("the endpoint refuses the key", where=endpoint.base_url, given=_key(endpoint)) from None
            return [], f"status {error.status_code}"
        except (TooLarge, BadBody, package.APIConnectionError) as error:
            cause = error.__cause__ or error
            if exchange.expired or not isinstance(cause, TooLarge | BadBody):
                raise _no_answer(endpoint, endpoint.clean(str(cause) or type(cause).__name__)) from None
            return [], endpoint.clean(str(cause))
    try:
        value = parse(endpoint.redactor.text(decode(response.content, response.headers.get("content-type", ""))))
    except UnreadableBody as error:
        return [], endpoint.clean(str(error))
    rows = value.get("data") if isinstance(value, Mapping) else None
    names = [row.get("id") for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    return [endpoint.clean(name) for name in names if isinstance(name, str)], "no list of models"


def _key(endpoint: Endpoint) -> str:
    return f"the key in {endpoint.key}" if endpoint.secret else f"no key in {endpoint.key}"


def _no_answer(endpoint: Endpoint, reason: str) -> TeacherFailed:
    hint = "check the address and whether the server has loaded its model"
    return TeacherFailed("the endpoint does not answer", where=endpoint.base_url, given=reason, hint=hint)


def _requests(endpoint: Endpoint) -> Iterator[Capability]:
    """Generations of both kinds. The error of the chat is raised where neither kind has a reply."""
    chat = _attempt(endpoint, Generation(QUESTION, True, 1, 0.0, 8))
    plain = _attempt(endpoint, Generation(PROMPT, False, 1, 0.0, 4))
    if isinstance(chat, UserError) and isinstance(plain, Exception):
        raise chat
    yield _replied("chat", chat)
    yield _replied("completion", plain)
    if isinstance(chat, Exception) and isinstance(plain, Exception):
        raise _no_answer(endpoint, str(chat))
    notes = endpoint.parameters.take_notes()
    accepted = f"{endpoint.parameters.limit_name}, " + ", ".join(
        name for name, sent in endpoint.parameters.sent.items() if sent
    )
    yield Capability("parameters", not notes, "; ".join(notes) or f"{accepted.rstrip(', ')} accepted")
    kinds = []
    if not isinstance(plain, Exception):
        reply = _attempt(replace(endpoint, extra={"logprobs": 1}), Generation(PROMPT, False, 1, 0.0, 4))
        kinds += ["completions"] if not isinstance(reply, Exception) and log_probabilities(reply) else []
    if not isinstance(chat, Exception):
        fields = {"logprobs": True, "top_logprobs": 1}
        reply = _attempt(replace(endpoint, extra=fields), Generation(QUESTION, True, 1, 0.0, 8))
        kinds += ["chat replies"] if not isinstance(reply, Exception) and log_probabilities(reply) else []
    yield Capability("log-probabilities", bool(kinds), f"of {' and '.join(kinds)}" if kinds else "none in the replies")
    yield _echo(endpoint)
    counted = [reply for reply in (chat, plain) if not isinstance(reply, Exception) and '"usage"' in reply.raw]
    yield Capability("token counts", bool(counted), "in the replies" if counted else "none; an upper bound is counted")


def _replied(name: str, reply: Reply | Exception) -> Capability:
    if isinstance(reply, Exception):
        return Capability(name, False, getattr(reply, "message", None) or str(reply))
    text = " ".join(reply.text.split())[:40]
    return Capability(name, True, f"reply {text!r}")


def _echo(endpoint: Endpoint) -> Capability:
    """Log-probabilities of the prompt, which log-likelihoods of given answers need."""
    fields = {"echo": True, "logprobs": 1}
    reply = _attempt(replace(endpoint, extra=fields), Generation(PROMPT, False, 1, 0.0, 1))
    if isinstance(reply, Exception):
        return Capability("echo", False, getattr(reply, "message", None) or str(reply))
    if reply.text.startswith(PROMPT) and len(log_probabilities(reply)) > 2:
        return Capability("echo", True, "log-probabilities of the prompt's tokens")
    return Capability("echo", False, "the server ignores it: no log-probabilities of a prompt")


def _attempt(endpoint: Endpoint, request: Generation) -> Reply | Exception:
    """The reply, or the reason for none. Raises ``UserError`` for a refused key."""
    try:
        return endpoint.send(request)[0]
    except UserError as error:
        if "refuses the key" in error.message:
            raise
        return error
    except (RequestRejected, RetryableError, TeacherFailed) as error:
        return error


def log_probabilities(reply: Reply) -> list[float]:
    """The log-probabilities (nats) in a completion or a chat reply, empty without any.

    Completions have ``token_logprobs``, chat replies ``content``; some servers use the latter for both.
    """
    try:
        logprobs = parse(reply.raw)["choices"][0]["logprobs"]
        if "token_logprobs" in logprobs:
            values = logprobs["token_logprobs"]
        else:
            values = [row["logprob"] for row in logprobs["content"]]
        return [float(value) for value in values if value is not None and math.isfinite(value)]
    except (UnreadableBody, LookupError, TypeError, ValueError):
        return []
