"""Texts of a model behind an OpenAI-compatible server, for evaluations.

The client is the teacher's (``client``): the same deadline, retries, strict reading and care for the key. A reply that
cannot be read is asked for again, and one that never comes is no wrong answer: the evaluation ends with ``WorkFailed``
and no score, after handing on every text that did come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from ..client.allowance import Budget, Rates
from ..client.messages import Generation, Reply
from ..client.parameters import LimitName, Parameters
from ..errors import TeacherFailed, UserError, WorkFailed
from ..options import strict
from ..stage import Event, Events

__all__ = ["Endpoint", "endpoint", "generate", "server_options"]

AGAIN = "see to the server, then run the same command again; with keep, what came is not asked for again"
GROUP = 8
"""Requests of one group, as a multiple of those at a time."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible server.

    ``key`` is the environment variable that holds the key, where the server wants one. ``seconds`` is the deadline of a
    request, ``retries`` come after ``first_wait`` seconds, twice that, …. ``limit_name``, ``seeded``,
    ``send_temperature`` and ``extra`` as of the teacher ``api``.
    """

    base_url: str
    model: str
    concurrency: int = 8
    retries: int = 5
    seconds: float = 600.0
    key: str | None = "OPENAI_API_KEY"
    limit_name: LimitName = "max_tokens"
    seeded: bool = True
    send_temperature: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    first_wait: float = 1.0


@strict("the option 'server'")
def server_options(
    *,
    concurrency: int = 8,
    retries: int = 5,
    seconds: float = 600.0,
    key: str | None = "OPENAI_API_KEY",
    limit_name: LimitName = "max_tokens",
    seeded: bool = True,
    send_temperature: bool = True,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of an ``Endpoint`` that an evaluation may set. ``RecipeError`` for others."""
    if concurrency < 1 or retries < 0 or seconds <= 0:
        raise UserError(
            "the server cannot be asked that way",
            where="server",
            given=f"concurrency {concurrency}, retries {retries}, seconds {seconds}",
            allowed="concurrency from 1, retries from 0, seconds above 0",
        )
    return {
        "concurrency": concurrency,
        "retries": retries,
        "seconds": seconds,
        "key": key,
        "limit_name": limit_name,
        "seeded": seeded,
        "send_temperature": send_temperature,
        "extra": extra or {},
    }


def endpoint(address: str) -> Endpoint | None:
    """The endpoint that ``http://HOST/v1#MODEL`` means; None for what is no address. ``UserError`` without a model."""
    if not address.startswith(("http://", "https://")):
        return None
    base, _, model = address.partition("#")
    try:
        parts = urlsplit(base)
        host, secret = parts.hostname, "@" in parts.netloc or parts.query
    except ValueError:
        host, secret = None, ""
    if secret:
        raise UserError(
            "an address with secrets in it is not taken", where="model", allowed="http://HOST:PORT/v1#MODEL"
        )
    if not model or not host or not address.isprintable():
        raise UserError(
            "an endpoint is written with its model", given=repr(address), allowed="http://HOST:PORT/v1#MODEL"
        )
    return Endpoint(base.rstrip("/"), model)


def generate(
    place: Endpoint, requests: Sequence[Generation], group: int | None, events: Events
) -> Iterator[list[tuple[int, Reply]]]:
    """The replies with the places of their requests, a group at a time.

    When something fails or ``events`` raises, what was received is handed on first. ``UserError`` for a missing
    package, a refused key and an unknown model; ``WorkFailed`` when the server does not answer, or not all requests.
    """
    sender, missing = _Sender(place if group is None else replace(place, concurrency=group)), _Missing()
    size = group or GROUP * place.concurrency
    for first in range(0, len(requests), size):
        some = requests[first : first + size]
        received: dict[int, Reply] = {}
        failure: BaseException | None = None
        try:
            missing.reasons += sender.send(some, received, _shifted(events, first, len(requests)))
        except BaseException as error:
            failure = error
        missing.number += len(some) - len(received)
        yield [(first + number, reply) for number, reply in sorted(received.items())]
        if isinstance(failure, TeacherFailed):
            raise WorkFailed(failure.what, where=failure.where, given=failure.given, hint=AGAIN) from None
        if failure is not None:
            raise failure
    missing.check(place, len(requests))


def _shifted(events: Events, before: int, total: int) -> Events:
    """A listener to one group that reports its progress as that of all requests."""

    def listen(event: Event) -> None:
        if event.kind == "note":
            events(event)
        elif event.kind == "advance":
            events(Event("advance", "write", before + event.done, total))

    return listen


class _Sender:
    """What the groups of one evaluation share."""

    def __init__(self, place: Endpoint) -> None:
        from ..client.endpoint import Endpoint as Server
        from ..client.endpoint import check_address, load_package, read_key
        from ..client.exchange import open_client
        from ..client.sending import Patience, Tally

        check_address(place.base_url)
        package = load_package(place.base_url)
        # Servers of one's own mostly want no key.
        secret = read_key(place.key, place.base_url, needed=False)
        self.server = Server(
            place.base_url,
            place.model,
            open_client(package, place.base_url, secret, place.seconds),
            place.key,
            secret,
            place.seconds,
            Parameters(place.limit_name, temperature=place.send_temperature, seed=place.seeded),
            place.extra,
            strict=True,
        )
        self.concurrency = place.concurrency
        self.patience, self.tally = Patience(place.retries, place.first_wait, 120.0), Tally()

    def send(self, requests: Sequence[Generation], received: dict[int, Reply], events: Events) -> list[str]:
        """Send one group; replies go into ``received``. The server's reasons for requests that it rejected."""
        from ..client.sending import Sending

        shared: dict[str, Any] = {"rates": Rates(), "budget": Budget(), "tally": self.tally}
        sending = Sending(self.server, requests, received.__setitem__, patience=self.patience, label="write", **shared)
        sending.run(self.concurrency, events)
        return sending.rejections


class _Missing:
    """Requests without a reply, and the reasons that the server gave."""

    def __init__(self) -> None:
        self.number = 0
        self.reasons: list[str] = []

    def check(self, place: Endpoint, total: int) -> None:
        """``WorkFailed`` where a reply is missing: a score over the others would say something else."""
        if self.number:
            raise WorkFailed(
                f"{self.number} of {total} texts did not come, so there is no score",
                where=place.base_url,
                given=self.reasons[0] if self.reasons else "no reply that can be read",
                hint=AGAIN,
            )
