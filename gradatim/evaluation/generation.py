"""Completions of a model for the problems of an evaluation.

A *question* is one generation request: a prompt and the number of the sample. A local model (``inference.decode``, in
batches) or an ``Endpoint``, any server with OpenAI's protocol, answers it. Samples are returned raw, in groups, in the
order of the questions, so that they can be stored before the next requests; ``functional`` stores them. A local model's
text depends on the seed and the question's index, not on the batch, so a resumed evaluation has the texts of an
uninterrupted one; a server may ignore the seed.

The client is the teacher's (``client``): the same deadline, retries, strict reading and protection of the key. An
unreadable reply is requested again; a missing reply is no wrong answer: the evaluation ends with ``WorkFailed`` and
without a score, after returning every text that arrived.

Without a chat template a prompt ends at the end of the problem's text, for many tokenizers inside a token (a line's end
and the indentation after it): token healing in ``inference.decode``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from ..client import endpoint as client_endpoint
from ..client import exchange
from ..client.endpoint import (
    Concurrency,
    ExtraFields,
    KeyVariable,
    LimitName,
    Parameters,
    RequestTimeout,
    Retries,
    SendSeed,
    SendTemperature,
)
from ..client.messages import Budget, Generation, Rates, Reply
from ..errors import TeacherFailed, UserError, WorkFailed
from ..inference import decode
from ..model import prompt_format, vocabulary
from ..options import is_address, strict
from ..random_streams import endpoint_seed, text_index
from ..stage import Event, Events, Model, ignore_events
from ..training import trainer
from .model_server import ServedModel
from .problems import Sample

ServerOptions = Annotated[
    dict[str, Any] | None,
    Field(
        description="Options of a model given as `http://HOST/v1#NAME`: `concurrency`, `retries`, "
        "`seconds`, `key`, `limit_name`, `seeded`, `send_temperature` and `extra`, as of the "
        "teacher `api`."
    ),
]
AGAIN = "check the server, then run the same command again; with keep, texts that arrived are not requested again"
GROUP = 8
"""Requests of one group, as a multiple of the concurrency."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible server.

    ``key`` is the environment variable that holds the key, where the server needs one. ``seconds`` is the deadline of a
    request, ``retries`` follow after ``first_wait`` seconds, twice that, …. ``limit_name``, ``seeded``,
    ``send_temperature`` and ``extra`` as for the teacher ``api``.
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
    concurrency: Concurrency = 8,
    retries: Retries = 5,
    seconds: RequestTimeout = 600.0,
    key: KeyVariable = "OPENAI_API_KEY",
    limit_name: LimitName = "max_tokens",
    seeded: SendSeed = True,
    send_temperature: SendTemperature = True,
    extra: ExtraFields = None,
) -> dict[str, Any]:
    """Fields of an ``Endpoint`` that an evaluation may set. ``RecipeError`` for others."""
    if concurrency < 1 or retries < 0 or seconds <= 0:
        raise UserError(
            "an option of the server is out of range",
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
    """The endpoint ``http://HOST/v1#MODEL``; None for another text. ``UserError`` without a model."""
    if not address.startswith(("http://", "https://")):
        return None
    base, _, model = address.partition("#")
    try:
        url = urlsplit(base)
        host, secret = url.hostname, "@" in url.netloc or url.query
    except ValueError:
        host, secret = None, ""
    if secret:
        raise UserError("an address must not contain secrets", where="model", allowed="http://HOST:PORT/v1#MODEL")
    if not model or not host or not address.isprintable() or not is_address(base):
        raise UserError("an endpoint needs its model's name", given=repr(address), allowed="http://HOST:PORT/v1#MODEL")
    return Endpoint(base.rstrip("/"), model)


def generate(
    server: Endpoint, requests: Sequence[Generation], group: int | None, events: Events
) -> Iterator[list[tuple[int, Reply]]]:
    """The replies with the indices of their requests, in groups.

    When a request fails or ``events`` raises, the replies that arrived are returned first. ``UserError`` for a missing
    package, a refused key and an unknown model; ``WorkFailed`` when the server does not answer, or not all requests.
    """
    sender, missing = _Sender(server if group is None else replace(server, concurrency=group)), _Missing()
    size = group or GROUP * server.concurrency
    for first in range(0, len(requests), size):
        batch = requests[first : first + size]
        received: dict[int, Reply] = {}
        failure: BaseException | None = None
        try:
            missing.reasons += sender.send(batch, received, _shifted(events, first, len(requests)))
        except BaseException as error:
            failure = error
        missing.number += len(batch) - len(received)
        yield [(first + number, reply) for number, reply in sorted(received.items())]
        if isinstance(failure, TeacherFailed):
            raise WorkFailed(failure.message, where=failure.where, given=failure.given, hint=AGAIN) from None
        if failure is not None:
            raise failure
    missing.check(server, len(requests))


def _shifted(events: Events, before: int, total: int) -> Events:
    """A listener to one group that reports its progress as that of all requests."""

    def listen(event: Event) -> None:
        if event.kind == "note":
            events(event)
        elif event.kind == "advance":
            events(Event("advance", "write", before + event.done, total))

    return listen


class _Sender:
    """The client of all groups of one evaluation."""

    def __init__(self, server: Endpoint) -> None:
        client_endpoint.check_address(server.base_url)
        package = client_endpoint.load_package(server.base_url)
        # Local servers mostly need no key.
        secret = client_endpoint.read_key(server.key, server.base_url, needed=False)
        self.server = client_endpoint.Endpoint(
            server.base_url,
            server.model,
            exchange.open_client(package, server.base_url, secret, server.seconds),
            server.key,
            secret,
            server.seconds,
            Parameters(server.limit_name, temperature=server.send_temperature, seed=server.seeded),
            server.extra,
            strict=True,
        )
        self.concurrency = server.concurrency
        self.policy, self.counts = (
            client_endpoint.RetryPolicy(server.retries, server.first_wait, 120.0),
            client_endpoint.RequestCounts(),
        )

    def send(self, requests: Sequence[Generation], received: dict[int, Reply], events: Events) -> list[str]:
        """Send one group; replies go into ``received``. Return the server's reasons for rejected requests."""
        shared: dict[str, Any] = {"rates": Rates(), "budget": Budget(), "counts": self.counts}
        batch = client_endpoint.RequestBatch(
            self.server, requests, received.__setitem__, policy=self.policy, label="write", **shared
        )
        batch.run(self.concurrency, events)
        return batch.rejections


class _Missing:
    """Requests without a reply, and the server's reasons."""

    def __init__(self) -> None:
        self.number = 0
        self.reasons: list[str] = []

    def check(self, server: Endpoint, total: int) -> None:
        """Raise ``WorkFailed`` where a reply is missing: a score over the others would be another one."""
        if self.number:
            raise WorkFailed(
                f"{self.number} of {total} texts did not arrive, so there is no score",
                where=server.base_url,
                given=self.reasons[0] if self.reasons else "no readable reply",
                hint=AGAIN,
            )


BATCHES = 4
"""Texts of one group of a local model, as a multiple of the batch size: the most that an interruption loses."""


@dataclass(frozen=True)
class Question:
    """One generation request: prompt, problem id, sample index.

    ``number`` is the problem's index in its file, which seeds the random numbers. ``closing`` is appended to a text
    that ended at a stop string (a brace, where a language's function ends with one).
    """

    task: str
    prompt: str
    number: int
    draw: int = 0
    stop: tuple[str, ...] = ()
    closing: str = ""


@dataclass(frozen=True)
class Writing:
    """Settings of generation: at most ``tokens`` each; ``temperature`` 0 is greedy decoding.

    ``chat`` applies the chat template and makes samples *replies*. ``batch`` is the batch size (for an endpoint the
    number of concurrent requests, by default its ``concurrency``). ``server``: options of an endpoint.
    """

    tokens: int = 512
    temperature: float = 0.0
    chat: bool = False
    seed: int = 0
    batch: int | None = None
    server: Mapping[str, Any] | None = None


def identity(student: Model | Endpoint) -> str:
    """Identity of a model: an endpoint's address and name, the digest of a local model's weights."""
    if isinstance(student, Endpoint):
        return f"{student.base_url}#{student.model}"

    return trainer.weights_digest(student.model)


def write(
    student: Model | Endpoint | ServedModel,
    questions: Sequence[Question],
    settings: Writing,
    events: Events = ignore_events,
) -> Iterator[list[Sample]]:
    """The samples of ``questions``, in order, in groups.

    ``student`` has ``model`` and ``tokenizer``, or is an ``Endpoint`` or a ``ServedModel``. Raises ``DataError`` for
    ``chat`` without a template, ``UserError`` when the package ``openai`` is missing, ``WorkFailed`` for missing
    replies.
    """
    if isinstance(student, Endpoint):
        groups = _from_server(student, questions, settings, events)
    elif settings.server is not None:
        hint = "leave it out, or name a model as http://HOST/v1#NAME"
        raise UserError("the model is no endpoint", where="the option 'server'", hint=hint)
    elif isinstance(student, ServedModel):
        groups = _from_served(student, questions, settings, events)
    else:
        groups = _from_model(student, questions, settings, events)
    events(Event("start", "write", 0, len(questions)))
    done = 0
    for group in groups:
        yield group
        done += len(group)
        events(Event("advance", "write", done, len(questions)))
    events(Event("finish", "write", done, len(questions)))


def _sample(question: Question, text: str, finish: str, chat: bool) -> Sample:
    if chat:
        return Sample(question.task, text, "reply", question.draw, finish)
    code = text + question.closing if finish == "stop" else text
    return Sample(question.task, code, "completion", question.draw, finish)


def _from_model(
    student: Model, questions: Sequence[Question], settings: Writing, events: Events
) -> Iterator[list[Sample]]:
    """Samples of a local model. Questions of one group have equal stop strings, as the decoder needs."""
    tokenizer = student.tokenizer
    template = _formatter(tokenizer, settings.chat)
    done = 0
    for group in _groups(questions, BATCHES * (settings.batch or decode.default_batch_size(student.model))):
        prompts = [template(question.prompt) for question in group]
        completions = decode.complete(
            student.model,
            tokenizer,
            prompts,
            limits=settings.tokens,
            greedy=settings.temperature == 0,
            temperature=settings.temperature,
            seed=settings.seed,
            stop=() if settings.chat else group[0].stop,
            heal=not settings.chat,
            indices=[text_index(question.number, question.draw) for question in group],
            batch=settings.batch,
            events=_shifted(events, done, len(questions)),
        )
        done += len(group)
        # With the tag that the prompt opened, truncated thinking differs from an answer.
        tags = [prompt_format.thinking_open(prompt) if settings.chat else "" for prompt in prompts]
        yield [
            _sample(question, tag + completion.text, completion.finish, settings.chat)
            for question, tag, completion in zip(group, tags, completions, strict=True)
        ]


def _formatter(tokenizer: Any, chat: bool) -> Callable[[str], str]:
    """The format of prompts for a model whose tokenizer is known."""
    if not chat:
        return prompt_format.plain_formatter(tokenizer)
    # Our students get the prompt of their training, after any thinking; other models may think first.
    system, thinking = prompt_format.prompt_format_of(tokenizer).system, not prompt_format.has_prompt_format(tokenizer)
    return prompt_format.chat_formatter(tokenizer, system, thinking=thinking)


SERVED_REQUESTS = 64
"""Concurrent requests to a server that a run has started for itself."""


def _from_served(
    student: ServedModel, questions: Sequence[Question], settings: Writing, events: Events
) -> Iterator[list[Sample]]:
    """Samples of a served model: prompts are formatted here, and those that do not fit are not sent.

    There is no token healing: a prompt that ends inside a token is continued after it.
    """
    template, encode = _formatter(student.tokenizer, settings.chat), vocabulary.Vocabulary(student.tokenizer).encode
    samples: dict[int, Sample] = {}
    sent: list[int] = []
    requests: list[Generation] = []
    prompts = [template(question.prompt) for question in questions]
    for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
        tokens = encode(prompt)
        room = 0 if tokens is None else student.context - len(tokens)
        if room < 1:
            finish = "unknown_character" if tokens is None else "too_long"
            samples[number] = _sample(question, "", finish, settings.chat)
            continue
        seed = endpoint_seed(settings.seed, question.number, question.draw)
        stop = () if settings.chat else question.stop
        limit = min(settings.tokens, room)
        requests.append(Generation(prompt, False, seed, settings.temperature, limit, stop))
        sent.append(number)
    if requests:
        base_url, model = student.server.address(student.folder)
        # The prompts are complete: the server must not put a first token before them.
        server = Endpoint(base_url, model, SERVED_REQUESTS, key=None, extra={"add_special_tokens": False})
        for group in generate(server, requests, settings.batch, events):
            for index, reply in group:
                question = questions[sent[index]]
                tag = prompt_format.thinking_open(prompts[sent[index]]) if settings.chat else ""
                text = reply.text if settings.chat else _cut(reply.text, question.stop)
                stopped = "stop" if requests[index].stop else "eos"
                finish = {"length": "limit", "empty": stopped, "stop": stopped}.get(reply.finish, reply.finish)
                samples[sent[index]] = _sample(question, tag + text, finish, settings.chat)
    yield [samples[number] for number in range(len(questions))]


def _groups(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Consecutive groups of at most ``size`` questions with equal stop strings."""
    group: list[Question] = []
    for question in questions:
        if group and (len(group) == size or group[0].stop != question.stop):
            yield group
            group = []
        group.append(question)
    if group:
        yield group


def _from_server(
    server: Endpoint, questions: Sequence[Question], settings: Writing, events: Events
) -> Iterator[list[Sample]]:
    """Samples of a server, by concurrent requests."""
    server = replace(server, **server_options(**settings.server)) if settings.server else server
    requests = [_request(question, settings) for question in questions]
    for group in generate(server, requests, settings.batch, events):
        yield [_received(questions[number], reply, settings) for number, reply in group]


def _request(question: Question, settings: Writing) -> Generation:
    # One seed for each draw; many servers use it, some ignore it.
    seed = endpoint_seed(settings.seed, question.number, question.draw)
    stop = () if settings.chat else question.stop
    return Generation(question.prompt, settings.chat, seed, settings.temperature, settings.tokens, stop)


def _received(question: Question, reply: Reply, settings: Writing) -> Sample:
    text = reply.text if settings.chat else _cut(reply.text, question.stop)
    finish = {"length": "limit", "empty": "stop"}.get(reply.finish, reply.finish)
    return _sample(question, text, finish, settings.chat)


def _cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the ``stop`` strings."""
    return text[: min((index for index in map(text.find, stop) if index >= 0), default=len(text))]
