"""Texts of a model behind an OpenAI-compatible server, for evaluations.

The client is the teacher's (``client``): the same deadline, retries, strict reading and care for the key. A reply that
cannot be read is asked for again, and one that never comes is no wrong answer: the evaluation ends with ``WorkFailed``
and no score, after handing on every text that did come.

What does a model write for each question?

A *question* is one text to be written: a problem's prompt and the number of the draw. It is answered by a local model
(``student.decode.complete``, many at a time) or by an ``Endpoint``, any server that speaks OpenAI's protocol
(``remote``). Samples come back raw, a handful at a time, in the order of the questions, so
that they can be kept before the next are asked for; ``functional`` keeps them. What a local model writes
depends on the seed and the question's place, not on which others are asked with it, so an evaluation that is gone on
with writes what it would have written. Whether a server keeps to the seed is the server's affair.

Without a chat template a prompt ends where the problem's text ends, which for many tokenizers is inside a token (a
line's end and the indentation behind it): ``heal`` in ``student.decode``.

Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from ..client.endpoint import LimitName, Parameters
from ..client.messages import Budget, Generation, Rates, Reply
from ..errors import TeacherFailed, UserError, WorkFailed
from ..options import strict
from ..parsing import is_address
from ..stage import Event, Events, ignore_events
from .samples import Sample

__all__ = ["Endpoint", "Question", "Writing", "endpoint", "generate", "identity", "server_options", "write"]


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
    if not model or not host or not address.isprintable() or not is_address(base):
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
            raise WorkFailed(failure.message, where=failure.where, given=failure.given, hint=AGAIN) from None
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
        from ..client.requests import RequestCounts, RetryPolicy

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
        self.policy, self.counts = RetryPolicy(place.retries, place.first_wait, 120.0), RequestCounts()

    def send(self, requests: Sequence[Generation], received: dict[int, Reply], events: Events) -> list[str]:
        """Send one group; replies go into ``received``. The server's reasons for requests that it rejected."""
        from ..client.requests import RequestBatch

        shared: dict[str, Any] = {"rates": Rates(), "budget": Budget(), "counts": self.counts}
        batch = RequestBatch(self.server, requests, received.__setitem__, policy=self.policy, label="write", **shared)
        batch.run(self.concurrency, events)
        return batch.rejections


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


AT_ONCE = {"cpu": 64, "cuda": 256}
"""Texts that a local model writes before they are handed on, unless ``batch`` says: what a stop may lose."""
DRAWS = 1 << 20
"""Places kept apart for the draws of one problem."""


@dataclass(frozen=True)
class Question:
    """One text to be written: what the model is shown, for which problem, and the how-manieth time.

    ``number`` is the problem's among all of its file: the random numbers of a draw hang on it. ``opening`` is put back
    at the end of a text that was stopped (a brace, where a language's function ends with one).
    """

    task: str
    prompt: str
    number: int
    draw: int = 0
    stop: tuple[str, ...] = ()
    closing: str = ""


@dataclass(frozen=True)
class Writing:
    """How texts are written: at most ``tokens`` each; ``temperature`` 0 takes the likeliest token each time.

    ``chat`` puts the question through the chat template and makes samples *replies*. ``batch`` is how many are written
    at a time (requests, for an endpoint; left out: its ``concurrency``). ``server``: options of an endpoint.
    """

    tokens: int = 512
    temperature: float = 0.0
    chat: bool = False
    seed: int = 0
    batch: int | None = None
    server: Mapping[str, Any] | None = None


def identity(student: Any) -> str:
    """What tells this model from others: an endpoint's address and name, a local model's weights."""
    if isinstance(student, Endpoint):
        return f"{student.base_url}#{student.model}"
    from ..training.trainer import weights_digest

    return weights_digest(student.model)


def write(
    student: Any, questions: Sequence[Question], how: Writing, events: Events = ignore_events
) -> Iterator[list[Sample]]:
    """The samples of ``questions``, in their order, some at a time.

    ``student`` has ``model`` and ``tokenizer``, or is an ``Endpoint``. Raises ``DataError`` for a chat without a
    template, ``UserError`` when the package ``openai`` is missing, ``WorkFailed`` when the server does not answer all.
    """
    if isinstance(student, Endpoint):
        texts = _asked(student, questions, how, events)
    elif how.server is not None:
        hint = "leave it out, or name a model as http://HOST/v1#NAME"
        raise UserError("the model is no endpoint", where="the option 'server'", hint=hint)
    else:
        texts = _written(student, questions, how)
    events(Event("start", "write", 0, len(questions)))
    done = 0
    for some in texts:
        yield some
        done += len(some)
        events(Event("advance", "write", done, len(questions)))
    events(Event("finish", "write", done, len(questions)))


def _sample(question: Question, text: str, finish: str, chat: bool) -> Sample:
    if chat:
        return Sample(question.task, text, "reply", question.draw, finish)
    closed = text + question.closing if finish == "stop" else text
    return Sample(question.task, closed, "completion", question.draw, finish)


def _written(student: Any, questions: Sequence[Question], how: Writing) -> Iterator[list[Sample]]:
    """By a local model. Questions of one way to stop go together, as the decoder takes one for all."""
    from ..inference.decode import complete
    from ..model.prompt_format import (
        chat_formatter,
        has_prompt_format,
        plain_formatter,
        prompt_format_of,
        thinking_open,
    )

    tokenizer = student.tokenizer
    # A student is asked as it was taught, behind any thinking; a model of others may think first.
    system, thinking = prompt_format_of(tokenizer).system, not has_prompt_format(tokenizer)
    shape = chat_formatter(tokenizer, system, thinking=thinking) if how.chat else plain_formatter(tokenizer)
    with _at_temperature(student.model, how.temperature):
        for some in _alike(questions, how.batch or AT_ONCE.get(student.model.device.type, 64)):
            prompts = [shape(question.prompt) for question in some]
            done = complete(
                student.model,
                tokenizer,
                prompts,
                limits=how.tokens,
                greedy=how.temperature == 0,
                seed=how.seed,
                stop=() if how.chat else some[0].stop,
                heal=not how.chat,
                indices=[question.number * DRAWS + question.draw for question in some],
                batch=how.batch,
            )
            # With the tag that the prompt opened, readers tell thinking that was cut off from an answer.
            begun = [thinking_open(prompt) if how.chat else "" for prompt in prompts]
            yield [
                _sample(each, before + text.text, text.finish, how.chat)
                for each, before, text in zip(some, begun, done, strict=True)
            ]


def _alike(questions: Iterable[Question], most: int) -> Iterator[list[Question]]:
    """Runs of at most ``most`` questions that stop at the same strings."""
    held: list[Question] = []
    for question in questions:
        if held and (len(held) == most or held[0].stop != question.stop):
            yield held
            held = []
        held.append(question)
    if held:
        yield held


@contextmanager
def _at_temperature(model: Any, temperature: float) -> Iterator[None]:
    """Inside, the model's logits are divided by ``temperature``: the decoder samples what it is given."""
    if temperature in (0, 1):
        yield
        return

    def cool(module: Any, given: Any, output: Any) -> Any:
        output.logits = output.logits / temperature
        return output

    hook = model.register_forward_hook(cool)
    try:
        yield
    finally:
        hook.remove()


def _asked(place: Endpoint, questions: Sequence[Question], how: Writing, events: Events) -> Iterator[list[Sample]]:
    """By a server, several requests at a time."""
    place = replace(place, **server_options(**how.server)) if how.server else place
    requests = [_request(question, how) for question in questions]
    for some in generate(place, requests, how.batch, events):
        yield [_received(questions[number], reply, how) for number, reply in some]


def _request(question: Question, how: Writing) -> Generation:
    # Every draw a seed of its own; many servers keep to it, some ignore it.
    seed = (how.seed * 1_000_003 + question.number * 1009 + question.draw) % (1 << 31)
    stop = () if how.chat else question.stop
    return Generation(question.prompt, how.chat, seed, how.temperature, how.tokens, stop)


def _received(question: Question, reply: Reply, how: Writing) -> Sample:
    text = reply.text if how.chat else _cut(reply.text, question.stop)
    finish = {"length": "limit", "empty": "stop"}.get(reply.finish, reply.finish)
    return _sample(question, text, finish, how.chat)


def _cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the ``stop`` strings."""
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]
