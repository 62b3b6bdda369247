"""How does a model in this process teach?

A Hugging Face folder is opened at the first question and asked in batches by ``student.decode``: through the
tokenizer's chat template where it has one, else with the messages as plain text, a blank line between them (a student
that has no template reads nothing else than text). What it writes hangs on the seed, the request and its draw, not on
what else is asked with it. A model costs time and no money; ``Cached`` remembers its replies all the same. It also
costs memory, which the student that is trained between two pieces of work may need: ``release`` gives it back, and the
next question opens the folder again.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..options import strict
from ..stage import Event, Events, ignore_events
from .teacher import Received, Reply, Request, Teacher, ignore_reply

__all__ = ["LocalChat", "local"]

FINISH = {"eos": "stop", "stop": "stop", "limit": "length", "context": "length"}


class LocalChat:
    """The model in ``folder``, on the accelerator where there is one. ``batch``: requests at work at a time."""

    def __init__(self, folder: str | Path, *, batch: int = 16, seed: int = 0) -> None:
        if not (Path(folder) / "config.json").is_file():
            raise DataError("this is no model folder", where="teacher", given=folder, hint="a Hugging Face folder")
        self.folder, self.batch, self.seed = Path(folder), batch, seed
        self._opened: Any = None
        self._counts: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    @property
    def student(self) -> Any:
        """The model with its tokenizer, opened when it is not."""
        if self._opened is None:
            from ..model.hardware import device
            from ..model.load import load_student

            self._opened = load_student(self.folder, device())
        return self._opened

    def release(self) -> None:
        """Give the model's memory back; the next question opens it again, to the same replies. Safe to call twice."""
        if self._opened is not None:
            import torch

            self._opened = None
            gc.collect()  # a model may hold itself in a circle
            if torch.accelerator.is_available():
                torch.accelerator.memory.empty_cache()  # what torch keeps for itself is no use to other processes

    @cached_property
    def identity(self) -> str:
        """By the weights, wherever they lie, and the seed."""
        from ..training.trainer import weights_digest

        return f"local:{weights_digest(self.student.model)}:{self.seed}"

    @property
    def facts(self) -> dict[str, Any]:
        """As every chat tells them; a prompt longer than the model's context, or with characters that its tokenizer
        does not know, has no reply and is counted in ``failed``."""
        counts = {name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        return {**counts, "cost": 0.0, "retries": 0, "failed": dict(sorted(self._failed.items()))}

    def cost(self, reply: Reply) -> float:
        """Nothing."""
        return 0.0

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask``."""
        replies: list[Reply | None] = [None] * len(requests)
        events(Event("start", "ask the teacher", 0, len(requests)))
        done = 0
        for places in self._groups(requests):
            for place, reply in zip(places, self._write([requests[place] for place in places]), strict=True):
                replies[place] = reply
                if reply is not None:
                    received(place, reply)
            done += len(places)
            events(Event("advance", "ask the teacher", done, len(requests)))
        events(Event("finish", "ask the teacher", done, len(requests)))
        return replies

    def _groups(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Places of requests at one temperature, a batch at a time: the decoder has one for all."""
        for temperature in sorted({request.temperature for request in requests}):
            places = [place for place, request in enumerate(requests) if request.temperature == temperature]
            yield from (places[first : first + self.batch] for first in range(0, len(places), self.batch))

    def _write(self, requests: Sequence[Request]) -> list[Reply | None]:
        from ..evaluation.generation import _at_temperature
        from ..inference.decode import complete
        from ..model.vocabulary import Vocabulary

        model, tokenizer = self.student.model, self.student.tokenizer
        vocabulary = Vocabulary(tokenizer)
        prompts = self._prompts(requests)
        temperature = requests[0].temperature
        with _at_temperature(model, temperature):
            done = complete(
                model,
                tokenizer,
                prompts,
                limits=[request.max_tokens for request in requests],
                greedy=temperature == 0,
                seed=self.seed,
                indices=[_place(request) for request in requests],
                batch=self.batch,
            )
        written = [each.text for each in done]
        asked, answered = (
            map(_length, texts) for texts in (vocabulary.prompts(prompts), vocabulary.encode_all(written))
        )
        return [self._reply(*each) for each in zip(done, asked, answered, strict=True)]

    def _prompts(self, requests: Sequence[Request]) -> list[str]:
        """Through the chat template where there is one; what a message spells of its control tokens stays text."""
        from ..model.prompt_format import renderer

        tokenizer = self.student.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return ["\n\n".join(text for _, text in request.messages) for request in requests]
        render = renderer(tokenizer)
        return [render([{"role": role, "content": text} for role, text in each.messages]) for each in requests]

    def _reply(self, written: Any, asked: int, answered: int) -> Reply | None:
        if written.finish not in FINISH:
            self._failed[written.finish] += 1
            return None
        self._counts.update(requests=1, prompt_tokens=asked, completion_tokens=answered)
        finish = FINISH[written.finish] if written.text.strip() else "empty"
        return Reply(written.text, finish, asked, answered)


def _length(tokens: Any) -> int:
    return 0 if tokens is None else len(tokens)


def _place(request: Request) -> int:
    """Which random numbers a request is written with: 63 bits that hang on all of it, its draw too."""
    told = json.dumps(asdict(request), sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1


@strict("teacher 'local'")
def local(
    *,
    model: str | Path,
    prompts: str | Path | None = None,
    temperature: float = 0.7,
    max_tokens: int = 512,
    language: str = "python",
    batch: int = 16,
    seed: int = 0,
    cache: str | Path | None = None,
    account: str = "",
    events: Events = ignore_events,
) -> Teacher:
    """A Hugging Face model in this process"""
    from .llm_teacher import LanguageTeacher
    from .reply_store import Cached

    chat = Cached(LocalChat(model, batch=batch, seed=seed), cache, account=account)
    return LanguageTeacher(
        chat, prompts, temperature=temperature, max_tokens=max_tokens, language=language, events=events
    )
