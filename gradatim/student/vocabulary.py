"""How do prompts become tokens and tokens become texts, quickly, while a student writes?

A thin face over any Hugging Face tokenizer for the decoding loop: it encodes prompts without special tokens, and
says after each token whether the text has ended and how. It trains no tokenizer and encodes no tables
(``tokenizer`` does).
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
from .tokenizer import character_codes, spelt

__all__ = ["Vocabulary"]

_REACH = 8
"""The most tokens at the end of a prompt that are looked at for being the beginning of one longer token."""


class Vocabulary:
    """One tokenizer and the strings at which a text stops, with what every step needs worked out once."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._codes = character_codes(tokenizer)
        self._spelt = None if self._codes is not None else spelt(tokenizer)
        self._stop = tuple(stop)
        self._eos: int | None = tokenizer.eos_token_id
        self._pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._may_stop = self._tokens_that_may_end_a_stop()

    def encode(self, text: str) -> npt.NDArray[np.int64] | None:
        """Tokens of ``text``, shape (tokens,); None when the tokenizer does not know one of its characters."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64] | None]:
        """``encode`` of every text, in one call to the tokenizer, three times as fast as a call for each."""
        if self._codes is not None:
            found = [self._codes.encode(text).astype(np.int64) for text in texts]
            return [None if (tokens == self._codes.unknown).any() else tokens for tokens in found]
        known = [self._spelt is None or self._spelt.issuperset(text) for text in texts]
        asked = [text for text, may in zip(texts, known, strict=True) if may]
        numbers = iter(self._tokenizer(asked, add_special_tokens=False)["input_ids"] if asked else [])
        return [np.array(next(numbers), dtype=np.int64) if may else None for may in known]

    def prompts(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64] | None]:
        """``encode`` of what stands before: as ``encode_all``, but an empty text is the ``start`` of a sample."""
        return [tokens if text else self.start() for text, tokens in zip(texts, self.encode_all(texts), strict=True)]

    def start(self) -> npt.NDArray[np.int64]:
        """What stands before the first sample, one ``<eos>``. ``DataError`` when the tokenizer has none."""
        if self._eos is None:
            raise DataError("an empty prompt needs a tokenizer with an end-of-text token")
        return np.array([self._eos], dtype=np.int64)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``; special tokens are spelt out, so that writing one is seen to be wrong."""
        if self._codes is None:
            return str(self._tokenizer.decode(tokens, skip_special_tokens=False))
        # A model may have more embeddings than the tokenizer has tokens (padded to a round number).
        return "".join(self._pieces[token] if token < len(self._pieces) else "\ufffd" for token in tokens)

    def cut(self, tokens: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], str]:
        """``tokens`` without those at the end that could be the beginning of one longer token, and their text.

        A text that ends with a line's end ends where many tokenizers never cut: ``"\\n    "`` is one token to them, and
        a model has hardly seen ``"\\n"`` alone before an indented line. The first token is never taken away.
        """
        if self._codes is not None:  # a token is a character
            return tokens, ""
        numbers = tokens.tolist()
        for start in range(max(1, len(numbers) - _REACH), len(numbers)):
            text = self.text(numbers[start:])
            after = bisect_right(self._in_order, (text, len(self._pieces)))
            if after < len(self._in_order) and self._in_order[after][0].startswith(text):
                return tokens[:start], text
        return tokens, ""

    def beginning(self, text: str) -> npt.NDArray[np.int64]:
        """The tokens that begin with ``text`` or are it."""
        order = self._in_order
        places = range(bisect_left(order, (text, -1)), len(order))
        found = takewhile(lambda place: order[place][0].startswith(text), places)
        return np.array([order[place][1] for place in found], dtype=np.int64)

    def ending(
        self, tokens: Sequence[int], limit: int, begins: str = ""
    ) -> tuple[str, Literal["eos", "stop", "limit"]] | None:
        """The text after ``begins``, which it begins with, and why it ended; None while it has not."""
        eos = tokens.index(self._eos) if self._eos in tokens else None
        body = tokens[:eos]
        given = len(begins)
        if not self._may_stop.isdisjoint(body):
            text = self.text(body)
            found = [place for place in (text.find(stop, given) for stop in self._stop) if place >= 0]
            if found:
                return text[given : min(found)], "stop"
        if eos is not None:
            return self.text(body)[given:], "eos"
        return (self.text(tokens)[given:], "limit") if len(tokens) >= limit else None

    @cached_property
    def _in_order(self) -> list[tuple[str, int]]:
        """Every token's text and number, by text: what goes on from a text stands right behind it."""
        return sorted((self.text([number]), number) for number in range(len(self._pieces)))

    def _tokens_that_may_end_a_stop(self) -> frozenset[int]:
        """Tokens that hold the last character of a stop: only after one of these is the text looked at."""
        if not self._stop:
            return frozenset()
        everything = range(len(self._pieces))
        lasts = {stop[-1] for stop in self._stop}
        if self._codes is not None:
            return frozenset(number for number in everything if not lasts.isdisjoint(self._pieces[number]))
        if not "".join(lasts).isascii():
            return frozenset(everything)  # such a character may be spread over several tokens
        return frozenset(number for number in everything if not lasts.isdisjoint(self.text([number])))
