"""The chat with a Hugging Face model in this process.

The model folder is opened at the first request; completions come in batches from ``inference.decode``. Messages go
through the tokenizer's chat template, or without one are joined as plain text by blank lines. A reply depends on the
seed, the request and its draw, not on its batch. ``release`` frees the model's memory for the student that is trained
between two calls; the next request opens the folder again. Replies cost time, so ``Cached`` stores them too.
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
from typing import Annotated, Any

from pydantic import Field

from ..client.messages import Received, Reply, Request, ignore_reply
from ..errors import DataError
from ..inference import decode
from ..lazy import torch
from ..model import hardware, load, prompt_format, vocabulary
from ..model.hub import is_model_folder
from ..options import strict
from ..stage import Event, Events, ignore_events
from ..training import trainer
from .llm_teacher import (
    LanguageTeacher,
    MaxTokens,
    PromptFolder,
    QuestionLanguage,
    ReplyCache,
    Temperature,
)
from .reply_store import Cached
from .teacher import Chat, Teacher

FINISH = {"eos": "stop", "stop": "stop", "limit": "length", "context": "length"}


class LocalChat(Chat):
    """The model in ``folder``, on the accelerator where there is one. ``batch``: requests per batch."""

    def __init__(self, folder: str | Path, *, batch: int = 16, seed: int = 0) -> None:
        if not is_model_folder(Path(folder)):
            raise DataError("this is no model folder", where="teacher", given=folder, hint="a Hugging Face folder")
        self.folder, self.batch, self.seed = Path(folder), batch, seed
        self._student: Any = None
        self._counts: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    @property
    def student(self) -> Any:
        """The model with its tokenizer, opened at the first use."""
        if self._student is None:
            self._student = load.load_student(self.folder, hardware.device())
        return self._student

    def release(self) -> None:
        """Free the model's memory. The next request opens it again, with the same replies. Safe to call twice."""
        if self._student is not None:
            self._student = None
            gc.collect()  # a model may be part of a reference cycle
            if torch.accelerator.is_available():
                torch.accelerator.memory.empty_cache()  # torch's cached memory is blocked for other processes

    @cached_property
    def identity(self) -> str:
        """A digest of the weights, independent of the folder's path, and the seed."""
        return f"local:{trainer.weights_digest(self.student.model)}:{self.seed}"

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Chat.facts``. A prompt longer than the model's context, or with characters that its tokenizer cannot
        encode, has no reply and is counted in ``failed``."""
        counts = {name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        return {**counts, "cost": 0.0, "retries": 0, "failed": dict(sorted(self._failed.items()))}

    def cost(self, reply: Reply) -> float:
        """0: a local model is free."""
        return 0.0

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask``."""
        replies: list[Reply | None] = [None] * len(requests)
        events(Event("start", "query the teacher", 0, len(requests)))
        done = 0
        for batch in self._batches(requests):
            for index, reply in zip(batch, self._complete([requests[index] for index in batch]), strict=True):
                replies[index] = reply
                if reply is not None:
                    received(index, reply)
            done += len(batch)
            events(Event("advance", "query the teacher", done, len(requests)))
        events(Event("finish", "query the teacher", done, len(requests)))
        return replies

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Indices of requests in batches of one temperature: the decoder has one temperature per call."""
        for temperature in sorted({request.temperature for request in requests}):
            indices = [index for index, request in enumerate(requests) if request.temperature == temperature]
            yield from (indices[first : first + self.batch] for first in range(0, len(indices), self.batch))

    def _complete(self, requests: Sequence[Request]) -> list[Reply | None]:
        model, tokenizer = self.student.model, self.student.tokenizer
        vocab = vocabulary.Vocabulary(tokenizer)
        prompts = self._prompts(requests)
        temperature = requests[0].temperature
        completions = decode.complete(
            model,
            tokenizer,
            prompts,
            limits=[request.max_tokens for request in requests],
            greedy=temperature == 0,
            temperature=temperature,
            seed=self.seed,
            indices=[_stream_number(request) for request in requests],
            batch=self.batch,
        )
        texts = [completion.text for completion in completions]
        prompt_tokens = map(_length, vocab.prompts(prompts))
        completion_tokens = map(_length, vocab.encode_all(texts))
        rows = zip(completions, prompt_tokens, completion_tokens, strict=True)
        return [self._reply(completion, prompt, tokens) for completion, prompt, tokens in rows]

    def _prompts(self, requests: Sequence[Request]) -> list[str]:
        """The texts of the requests, by the chat template where there is one; control tokens in messages stay text."""
        tokenizer = self.student.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return ["\n\n".join(text for _, text in request.messages) for request in requests]
        render = prompt_format.renderer(tokenizer)
        return [render([{"role": role, "content": text} for role, text in request.messages]) for request in requests]

    def _reply(self, completion: Any, prompt_tokens: int, completion_tokens: int) -> Reply | None:
        if completion.finish not in FINISH:
            self._failed[completion.finish] += 1
            return None
        self._counts.update(requests=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        finish = FINISH[completion.finish] if completion.text.strip() else "empty"
        return Reply(completion.text, finish, prompt_tokens, completion_tokens)


def _length(tokens: Any) -> int:
    return 0 if tokens is None else len(tokens)


def _stream_number(request: Request) -> int:
    """The random stream of a completion: a 63-bit hash of the request, including its draw."""
    text = json.dumps(asdict(request), sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@strict("teacher 'local'")
def local(
    *,
    model: Annotated[str | Path, Field(description="Folder of the model.")],
    prompts: PromptFolder = None,
    temperature: Temperature = 0.7,
    max_tokens: MaxTokens = 512,
    language: QuestionLanguage = "python",
    batch: Annotated[int, Field(description="Number of requests per batch.")] = 16,
    seed: int = 0,
    cache: ReplyCache = None,
    account: str = "",
    keep_replies: bool = False,
    events: Events = ignore_events,
) -> Teacher:
    """A Hugging Face model in this process"""
    chat = Cached(LocalChat(model, batch=batch, seed=seed), cache, account=account)
    return LanguageTeacher(
        chat,
        prompts,
        temperature=temperature,
        max_tokens=max_tokens,
        language=language,
        keep_replies=keep_replies,
        events=events,
    )
