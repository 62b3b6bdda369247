"""What does a model write for each question?

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
from dataclasses import dataclass, replace
from typing import Any

from ..client.messages import Generation, Reply
from ..errors import UserError
from ..stage import Event, Events, ignore_events
from .remote import Endpoint, endpoint, generate, server_options
from .samples import Sample

__all__ = ["Endpoint", "Question", "Writing", "endpoint", "identity", "write"]

AT_ONCE = {"cpu": 64, "cuda": 256}
"""Texts that a local model writes before they are handed on, unless ``batch`` says: what a stop may lose."""
DRAWS = 1 << 20
"""Places kept apart for the draws of one problem."""


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
    from ..student.learner import weights_digest

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
    from ..student.decode import complete
    from ..student.form import form_of, is_taught, plainly, templated
    from ..student.open_thinking import opening

    tokenizer = student.tokenizer
    # A student is asked as it was taught, behind any thinking; a model of others may think first.
    system, thinking = form_of(tokenizer).system, not is_taught(tokenizer)
    shape = templated(tokenizer, system, thinking=thinking) if how.chat else plainly(tokenizer)
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
                places=[question.number * DRAWS + question.draw for question in some],
                batch=how.batch,
            )
            # With the tag that the prompt opened, readers tell thinking that was cut off from an answer.
            begun = [opening(prompt) if how.chat else "" for prompt in prompts]
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
