"""What does a model write for each question?

A *question* is one text to be written: a problem's prompt and the number of the draw. It is answered by a local model
(``student.decode.complete``, many at a time) or by an ``Endpoint``, any server that speaks OpenAI's protocol, through
the package ``openai`` (extra ``api``). Samples come back raw, a handful at a time, in the order of the questions, so
that they can be kept before the next are asked for; ``functional`` keeps them. What a local model writes
depends on the seed and the question's place, not on which others are asked with it, so an evaluation that is gone on
with writes what it would have written. Whether a server keeps to the seed is the server's affair.

Without a chat template a prompt ends where the problem's text ends, which for many tokenizers is inside a token (a
line's end and the indentation behind it): ``heal`` in ``student.decode``.

Nothing is judged here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, WorkFailed
from ..parsing import is_address
from ..stage import Event, Events, ignore_events
from .samples import Sample

__all__ = ["Endpoint", "Question", "Writing", "endpoint", "identity", "write"]

AT_ONCE = {"cpu": 64, "cuda": 256}
"""Texts that a local model writes before they are handed on, unless ``batch`` says: what a stop may lose."""
DRAWS = 1 << 20
"""Places kept apart for the draws of one problem."""
KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Question:
    """One text to be written: what the model is shown, for which problem, and the how-manieth time.

    ``number`` is the problem's among all of its file: the random numbers of a draw hang on it. ``closing`` is put back
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
    at a time (requests, for an endpoint).
    """

    tokens: int = 512
    temperature: float = 0.0
    chat: bool = False
    seed: int = 0
    batch: int | None = None


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible server. The key comes from the environment only (``OPENAI_API_KEY``).

    ``retries`` and ``seconds`` (of one request) are the client's.
    """

    base_url: str
    model: str
    concurrency: int = 8
    retries: int = 5
    seconds: float = 600.0


def endpoint(address: str) -> Endpoint | None:
    """The endpoint that ``http://HOST/v1#MODEL`` means; None for what is no address. ``UserError`` without a model."""
    if not address.startswith(("http://", "https://")):
        return None
    base, _, model = address.partition("#")
    if not model or not is_address(base):
        raise UserError("an endpoint is written with its model", given=address, allowed="http://HOST:PORT/v1#MODEL")
    return Endpoint(base, model)


def identity(student: Any) -> str:
    """What tells this model from others: an endpoint's address and name, a local model's weights."""
    if isinstance(student, Endpoint):
        return f"{student.base_url}#{student.model}"
    from ..student.learner import weights_digest

    return weights_digest(student.model)


def write(
    student: Any, questions: Sequence[Question], how: Writing, events: Events = ignore_events
) -> Iterator[list[Sample]]:
    """The samples of ``questions``, in their order, some at a time.

    ``student`` has ``model`` and ``tokenizer``, or is an ``Endpoint``. Raises ``DataError`` for a chat without a
    template, ``UserError`` when the package ``openai`` is missing, ``WorkFailed`` when the server does not answer.
    """
    texts = _asked(student, questions, how) if isinstance(student, Endpoint) else _written(student, questions, how)
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
    from ..student.decode import complete
    from ..student.form import form_of, plainly, templated

    tokenizer = student.tokenizer
    shape = templated(tokenizer, form_of(tokenizer).system) if how.chat else plainly(tokenizer)
    with _at_temperature(student.model, how.temperature):
        for some in _alike(questions, how.batch or AT_ONCE.get(student.model.device.type, 64)):
            done = complete(
                student.model,
                tokenizer,
                [shape(question.prompt) for question in some],
                limits=how.tokens,
                greedy=how.temperature == 0,
                seed=how.seed,
                stop=() if how.chat else some[0].stop,
                heal=not how.chat,
                places=[question.number * DRAWS + question.draw for question in some],
                batch=how.batch,
            )
            yield [_sample(each, text.text, text.finish, how.chat) for each, text in zip(some, done, strict=True)]


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


def _asked(place: Endpoint, questions: Sequence[Question], how: Writing) -> Iterator[list[Sample]]:
    """By a server, several requests at a time."""
    try:
        import openai
    except ImportError as error:
        raise UserError(
            "endpoints are asked through the package 'openai'", where=place.base_url, hint="pip install 'gradatim[api]'"
        ) from error
    # Servers of one's own mostly want no key, but the client wants one.
    key = os.environ.get(KEY) or "none"
    at_once = how.batch or place.concurrency
    with (
        openai.OpenAI(base_url=place.base_url, api_key=key, max_retries=place.retries, timeout=place.seconds) as client,
        ThreadPoolExecutor(at_once) as pool,
    ):
        for first in range(0, len(questions), at_once):
            some = questions[first : first + at_once]
            try:
                yield list(pool.map(lambda question: _request(client, place.model, question, how), some))
            except openai.AuthenticationError as error:
                raise UserError("the server refuses the key", where=place.base_url, hint=f"set {KEY}") from error
            except openai.APIError as error:
                raise WorkFailed(
                    "the server does not answer as it should",
                    where=place.base_url,
                    given=error.message,
                    hint="see to the server, then run the same command again",
                ) from error


def _request(client: Any, model: str, question: Question, how: Writing) -> Sample:
    same = {"model": model, "temperature": how.temperature, "max_tokens": how.tokens}
    # Every draw a seed of its own; many servers keep to it, some ignore it.
    same["seed"] = (how.seed * 1_000_003 + question.number * 1009 + question.draw) % (1 << 31)
    if how.chat:
        answer = client.chat.completions.create(messages=[{"role": "user", "content": question.prompt}], **same)
        text = answer.choices[0].message.content if answer.choices else None
    else:
        # OpenAI's own server takes four; the others are looked for here.
        answer = client.completions.create(prompt=question.prompt, stop=list(question.stop[:4]) or None, **same)
        text = _cut(answer.choices[0].text, question.stop) if answer.choices else None
    finish = answer.choices[0].finish_reason if answer.choices else ""
    return _sample(question, text or "", {"length": "limit"}.get(finish, finish or ""), how.chat)


def _cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the ``stop`` strings."""
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]
