"""Encoding of prompts and decoding of completions for the decoding loop, with any Hugging Face tokenizer.

``Vocabulary`` encodes prompts without special tokens and determines after each token whether the completion has ended.
Continuations neither gain nor lose a character (``text_codec``). ``tokenizer`` trains tokenizers and encodes tables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .prompt_format import PromptText
from .text_codec import LOOK_BACK, codec_of
from .tokenizer import character_codes, vocabulary_characters

Numbers = npt.NDArray[np.int64]

_MAX_CUT = 8
"""Maximal number of tokens at the end of a prompt that token healing removes."""


class Vocabulary:
    """One tokenizer and the stop strings, with precomputed tables for the decoding steps."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._codec = codec_of(tokenizer)
        self._codes = character_codes(tokenizer)
        self._spelt = None if self._codes is not None else vocabulary_characters(tokenizer)
        self._stop = tuple(stop)
        self._eos: int | None = tokenizer.eos_token_id
        self._pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._stop_tokens = self._stop_ending_tokens()

    def encode(self, text: str) -> Numbers | None:
        """Tokens of ``text``, shape (tokens,); None when a character is not in the vocabulary."""
        return self.encode_all([text])[0]

    def unknown_characters(self, text: str) -> list[str]:
        """The distinct characters of ``text`` that are not in the vocabulary, in their order."""
        return [character for character in dict.fromkeys(text) if self.encode(character) is None]

    def encode_all(self, texts: Sequence[str]) -> list[Numbers | None]:
        """``encode`` of all texts in one call to the tokenizer, three times as fast as one call per text."""
        if self._codes is not None and not any(isinstance(text, PromptText) for text in texts):
            rows = [self._codes.encode(text).astype(np.int64) for text in texts]
            return [None if (tokens == self._codes.unknown).any() else tokens for tokens in rows]
        encodable = [self._can_encode(text) for text in texts]
        numbers = iter(self._codec.encode([text for text, possible in zip(texts, encodable, strict=True) if possible]))
        return [np.array(next(numbers), dtype=np.int64) if possible else None for possible in encodable]

    def pairs(self, before: Sequence[str], texts: Sequence[str]) -> list[tuple[Numbers, int] | None]:
        """The tokens of each context with its text, and the index of the text's first token; None as in ``encode``.

        An empty context is the ``start`` of a sample, so the index is at least 1.
        """
        if self._codes is not None:
            encodings = zip(self.prompts(before), self.encode_all(texts), strict=True)
            return [
                None if prompt is None or text is None else (np.concatenate([prompt, text]), len(prompt))
                for prompt, text in encodings
            ]
        encodable = [
            self._can_encode(prompt) and self._can_encode(text) for prompt, text in zip(before, texts, strict=True)
        ]
        inputs = [pair for pair, possible in zip(zip(before, texts, strict=True), encodable, strict=True) if possible]
        results = iter(self._codec.pairs([prompt for prompt, _ in inputs], [text for _, text in inputs]))
        return [self._with_start(*next(results)) if possible else None for possible in encodable]

    def joined(self, before: str, text: str) -> tuple[Numbers, int] | None:
        """Both encoded as one text, as in ``pairs``; a token across the boundary belongs to ``text``."""
        if self._codes is not None:
            return self.pairs([before], [text])[0]
        if not self._can_encode(before + text):
            return None
        tokens, start = self._codec.joined(before, text)
        return np.array(tokens, dtype=np.int64), start

    def continuations(self, before: Sequence[Numbers], texts: Sequence[str]) -> list[Numbers | None]:
        """The tokens of each text as the continuation of the tokens before it; None as in ``encode``."""
        if self._codes is not None:
            return self.encode_all(texts)
        encodable = [self._can_encode(text) for text in texts]
        inputs = [pair for pair, possible in zip(zip(before, texts, strict=True), encodable, strict=True) if possible]
        # Only the last two tokens, and whether there are any before them, affect the encoding.
        results = iter(
            self._codec.continuations([context[-2:].tolist() for context, _ in inputs], [text for _, text in inputs])
        )
        return [np.array(next(results), dtype=np.int64) if possible else None for possible in encodable]

    def _can_encode(self, text: str) -> bool:
        if self._codes is not None:
            return self._codes.unknown not in self._codes.encode(_spelt_characters(text))
        return self._spelt is None or self._spelt.issuperset(_spelt_characters(text))

    def _with_start(self, tokens: Sequence[int], start: int) -> tuple[Numbers, int]:
        numbers = np.array(tokens, dtype=np.int64)
        return (numbers, start) if start else (np.concatenate([self.start(), numbers]), 1)

    def prompts(self, texts: Sequence[str]) -> list[Numbers | None]:
        """``encode_all`` of prompts, where an empty prompt is the ``start`` of a sample."""
        return [tokens if text else self.start() for text, tokens in zip(texts, self.encode_all(texts), strict=True)]

    def start(self) -> Numbers:
        """The context of the first token of a sample: one ``<eos>``. ``DataError`` when the tokenizer has none."""
        if self._eos is None:
            raise DataError("an empty prompt needs a tokenizer with an end-of-text token")
        return np.array([self._eos], dtype=np.int64)

    def text(self, tokens: Sequence[int], before: Sequence[int] | Numbers | None = None) -> str:
        """The text of ``tokens`` as the continuation of ``before``; None: as the beginning of a text.

        Special tokens are spelt out, so that a completion with one does not match the expected text.
        """
        if self._codes is None:
            return self._codec.text(tokens) if before is None else self._codec.text_after(before[-LOOK_BACK:], tokens)
        # A model may have more embeddings than the tokenizer has tokens (padded to a round number).
        return "".join(self._pieces[token] if token < len(self._pieces) else "\ufffd" for token in tokens)

    def cut(self, tokens: Numbers, fixed: int = 1) -> tuple[Numbers, str]:
        """Token healing: ``tokens`` without those at the end that may be a prefix of a longer token, and their text.

        A prompt that ends with a newline ends at an unusual token boundary: for many tokenizers ``"\\n    "`` is one
        token, and ``"\\n"`` alone before an indented line hardly occurs in training. The first ``fixed`` tokens are
        never removed, nor are control tokens, parts of a character, or the first word of a text.
        """
        if self._codes is not None:  # a token is a character
            return tokens, ""
        numbers = tokens.tolist()
        for start in range(max(1, fixed, len(numbers) - _MAX_CUT), len(numbers)):
            if self._codec.begins_anew(numbers[:start]) or not self._codec.controls.isdisjoint(numbers[start:]):
                continue
            text = self.text(numbers[start:], numbers[:start])
            after = bisect_right(self._in_order, (text, len(self._pieces)))
            if "\ufffd" in text or after == len(self._in_order):
                continue
            if self._in_order[after][0].startswith(text):
                return tokens[:start], text
        return tokens, ""

    def beginning(self, text: str) -> Numbers:
        """The tokens whose text begins with ``text``."""
        order = self._in_order
        positions = range(bisect_left(order, (text, -1)), len(order))
        matches = takewhile(lambda position: order[position][0].startswith(text), positions)
        return np.array([order[position][1] for position in matches], dtype=np.int64)

    def ending(
        self, tokens: Sequence[int], limit: int, begins: str = "", before: Numbers | None = None
    ) -> tuple[str, Literal["eos", "stop", "limit"]] | None:
        """The completion without its prefix ``begins``, and the reason of its end; None while it is incomplete.

        ``before``: the tokens before ``tokens``.
        """
        eos = tokens.index(self._eos) if self._eos in tokens else None
        body = tokens[:eos]
        skipped = len(begins)
        if not self._stop_tokens.isdisjoint(body):
            text = self.text(body, before)
            stops = [index for index in (text.find(stop, skipped) for stop in self._stop) if index >= 0]
            if stops:
                return text[skipped : min(stops)], "stop"
        if eos is not None:
            return self.text(body, before)[skipped:], "eos"
        return (self.text(tokens, before)[skipped:], "limit") if len(tokens) >= limit else None

    @cached_property
    def _in_order(self) -> list[tuple[str, int]]:
        """(text, token) pairs sorted by text, so that the tokens with a common prefix are adjacent."""
        return sorted((text, number) for number, text in enumerate(self._texts))

    @property
    def _texts(self) -> list[str]:
        """The text of each token as the continuation of a word."""
        return self._pieces if self._codes is not None else self._codec.pieces

    def _stop_ending_tokens(self) -> frozenset[int]:
        """Tokens that contain the last character of a stop string: stop strings are searched only after one of them."""
        if not self._stop:
            return frozenset()
        token_ids = range(len(self._pieces))
        lasts = {stop[-1] for stop in self._stop}
        if self._codes is not None:
            return frozenset(number for number in token_ids if not lasts.isdisjoint(self._pieces[number]))
        if not "".join(lasts).isascii():
            return frozenset(token_ids)  # such a character may be spread over several tokens
        return frozenset(number for number, text in enumerate(self._texts) if not lasts.isdisjoint(text))


def _spelt_characters(text: str) -> str:
    """The characters of a text that must be in the vocabulary, without control tokens."""
    return text.characters() if isinstance(text, PromptText) else text
