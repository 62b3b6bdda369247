"""How do prompts become tokens and tokens become texts, quickly, while a student writes?

A thin face over any Hugging Face tokenizer for the decoding loop: it encodes prompts without special tokens, and
says after each token whether the text has ended and how. Texts that go on after others neither gain nor lose a
character (``text_codec``). It trains no tokenizer and encodes no tables (``tokenizer`` does).
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
from .tokenizer import character_codes, spelt

__all__ = ["Vocabulary"]


Numbers = npt.NDArray[np.int64]

_REACH = 8
"""The most tokens at the end of a prompt that are looked at for being the beginning of one longer token."""


class Vocabulary:
    """One tokenizer and the strings at which a text stops, with what every step needs worked out once."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._codec = codec_of(tokenizer)
        self._codes = character_codes(tokenizer)
        self._spelt = None if self._codes is not None else spelt(tokenizer)
        self._stop = tuple(stop)
        self._eos: int | None = tokenizer.eos_token_id
        self._pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._may_stop = self._tokens_that_may_end_a_stop()

    def encode(self, text: str) -> Numbers | None:
        """Tokens of ``text``, shape (tokens,); None when the tokenizer does not know one of its characters."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Numbers | None]:
        """``encode`` of every text, in one call to the tokenizer, three times as fast as a call for each."""
        if self._codes is not None and not any(isinstance(text, PromptText) for text in texts):
            found = [self._codes.encode(text).astype(np.int64) for text in texts]
            return [None if (tokens == self._codes.unknown).any() else tokens for tokens in found]
        known = [self._knows(text) for text in texts]
        numbers = iter(self._codec.encode([text for text, may in zip(texts, known, strict=True) if may]))
        return [np.array(next(numbers), dtype=np.int64) if may else None for may in known]

    def pairs(self, before: Sequence[str], texts: Sequence[str]) -> list[tuple[Numbers, int] | None]:
        """The tokens of each text after what stands before it, and where its own begin; None as in ``encode``.

        An empty text before is the ``start`` of a sample, so the first token is never the text's own.
        """
        if self._codes is not None:
            both = zip(self.prompts(before), self.encode_all(texts), strict=True)
            return [None if one is None or two is None else (np.concatenate([one, two]), len(one)) for one, two in both]
        known = [self._knows(one) and self._knows(two) for one, two in zip(before, texts, strict=True)]
        asked = [pair for pair, may in zip(zip(before, texts, strict=True), known, strict=True) if may]
        made = iter(self._codec.pairs([one for one, _ in asked], [two for _, two in asked]))
        return [self._started(*next(made)) if may else None for may in known]

    def joined(self, before: str, text: str) -> tuple[Numbers, int] | None:
        """Both encoded as one text, as in ``pairs``; a token over the seam counts as the text's own."""
        if self._codes is not None:
            return self.pairs([before], [text])[0]
        if not self._knows(before + text):
            return None
        tokens, start = self._codec.joined(before, text)
        return np.array(tokens, dtype=np.int64), start

    def continuations(self, before: Sequence[Numbers], texts: Sequence[str]) -> list[Numbers | None]:
        """Each text as it goes on after the tokens before it; None as in ``encode``."""
        if self._codes is not None:
            return self.encode_all(texts)
        known = [self._knows(text) for text in texts]
        asked = [pair for pair, may in zip(zip(before, texts, strict=True), known, strict=True) if may]
        # The last tokens decide how a text goes on, and whether there are any before them.
        made = iter(self._codec.continuations([one[-2:].tolist() for one, _ in asked], [two for _, two in asked]))
        return [np.array(next(made), dtype=np.int64) if may else None for may in known]

    def _knows(self, text: str) -> bool:
        if self._codes is not None:
            return self._codes.unknown not in self._codes.encode(_characters(text))
        return self._spelt is None or self._spelt.issuperset(_characters(text))

    def _started(self, tokens: Sequence[int], start: int) -> tuple[Numbers, int]:
        numbers = np.array(tokens, dtype=np.int64)
        return (numbers, start) if start else (np.concatenate([self.start(), numbers]), 1)

    def prompts(self, texts: Sequence[str]) -> list[Numbers | None]:
        """``encode`` of what stands before: as ``encode_all``, but an empty text is the ``start`` of a sample."""
        return [tokens if text else self.start() for text, tokens in zip(texts, self.encode_all(texts), strict=True)]

    def start(self) -> Numbers:
        """What stands before the first sample, one ``<eos>``. ``DataError`` when the tokenizer has none."""
        if self._eos is None:
            raise DataError("an empty prompt needs a tokenizer with an end-of-text token")
        return np.array([self._eos], dtype=np.int64)

    def text(self, tokens: Sequence[int], before: Sequence[int] | Numbers | None = None) -> str:
        """The text of ``tokens``, which go on after the tokens ``before``; None: they are the beginning of a text.

        Special tokens are spelt out, so that writing one is seen to be wrong.
        """
        if self._codes is None:
            return self._codec.text(tokens) if before is None else self._codec.text_after(before[-LOOK_BACK:], tokens)
        # A model may have more embeddings than the tokenizer has tokens (padded to a round number).
        return "".join(self._pieces[token] if token < len(self._pieces) else "\ufffd" for token in tokens)

    def cut(self, tokens: Numbers, fixed: int = 1) -> tuple[Numbers, str]:
        """``tokens`` without those at the end that could be the beginning of one longer token, and their text.

        A text that ends with a line's end ends where many tokenizers never cut: ``"\\n    "`` is one token to them, and
        a model has hardly seen ``"\\n"`` alone before an indented line. The first ``fixed`` tokens are never taken
        away, nor are control tokens, a part of a character, or the first word of a text.
        """
        if self._codes is not None:  # a token is a character
            return tokens, ""
        numbers = tokens.tolist()
        for start in range(max(1, fixed, len(numbers) - _REACH), len(numbers)):
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
        """The tokens that begin with ``text`` or are it."""
        order = self._in_order
        places = range(bisect_left(order, (text, -1)), len(order))
        found = takewhile(lambda place: order[place][0].startswith(text), places)
        return np.array([order[place][1] for place in found], dtype=np.int64)

    def ending(
        self, tokens: Sequence[int], limit: int, begins: str = "", before: Numbers | None = None
    ) -> tuple[str, Literal["eos", "stop", "limit"]] | None:
        """The text after ``begins``, which it begins with, and why it ended; None while it has not.

        ``before``: the tokens that ``tokens`` go on after.
        """
        eos = tokens.index(self._eos) if self._eos in tokens else None
        body = tokens[:eos]
        given = len(begins)
        if not self._may_stop.isdisjoint(body):
            text = self.text(body, before)
            found = [place for place in (text.find(stop, given) for stop in self._stop) if place >= 0]
            if found:
                return text[given : min(found)], "stop"
        if eos is not None:
            return self.text(body, before)[given:], "eos"
        return (self.text(tokens, before)[given:], "limit") if len(tokens) >= limit else None

    @cached_property
    def _in_order(self) -> list[tuple[str, int]]:
        """Every token's text and number, by text: what goes on from a text stands right behind it."""
        return sorted((text, number) for number, text in enumerate(self._texts))

    @property
    def _texts(self) -> list[str]:
        """The text of each token as it goes on after a word."""
        return self._pieces if self._codes is not None else self._codec.pieces

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
        return frozenset(number for number, text in enumerate(self._texts) if not lasts.isdisjoint(text))


def _characters(text: str) -> str:
    """The characters that a tokenizer must be able to spell."""
    return text.characters() if isinstance(text, PromptText) else text
