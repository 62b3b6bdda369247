"""The rules of a tokenizer of the ``tokenizers`` library: what they do to a text's edges, and a copy without that.

Rules are read as the JSON that the library itself writes.

Text to tokens and back without the loss or gain of a character.

Three properties of other people's tokenizers stand in the way:

- A *prefix*. Llama's tokenizers put a space before a text (a normalizer ``Prepend``, a pre-tokenizer ``Metaspace`` or
  ``ByteLevel`` with a prefix space) and take it away when they decode. A completion that is encoded or decoded alone
  gains or loses one. A text that goes on after another is encoded by a copy of the tokenizer without the prefix, and
  decoded behind the last tokens of what is before it, whose characters are then cut off.
- *Marks inside words* (``##`` of WordPiece, ``</w>``). A token depends on its neighbours, so both texts are encoded as
  one and parted by character offsets.
- *Control tokens*. ``</s>`` in a data file is four characters. Most tokenizers read it as text when they are asked to;
  some (Unigram, WordPiece) have it in their vocabulary all the same. A copy with the control tokens under random names
  encodes such a text, and prompts in which both kinds occur (``prompt_text``).

The copies are made when they are first needed. Tokenizers without any of this, which are Gradatim's own and byte-level
BPE, keep their one call for many texts and their token numbers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from string import ascii_letters, digits
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .prompt_format import PromptText, control_tokens

__all__ = [
    "LOOK_BACK",
    "TextCodec",
    "Tokens",
    "codec_of",
    "marks_words",
    "parts_of_rules",
    "prefix_of",
    "renamed_copy",
    "spares_spaces",
]


def parts_of_rules(component: Any) -> Iterator[dict[str, Any]]:
    """A component of a tokenizer and those that it is made of, as they are written to a file."""
    if component is None:
        return
    yield from _nested(json.loads(component.__getstate__()))


def _nested(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "type" in part:
            yield part
        for value in part.values():
            yield from _nested(value)
    elif isinstance(part, list):
        for value in part:
            yield from _nested(value)


def prefix_of(backend: Tokenizer | None) -> Literal["", "first", "always"]:
    """Whether a space is put before a text: before its beginning only, or also after each control token."""
    if backend is None:
        return ""
    schemes = {_scheme(part) for each in (backend.normalizer, backend.pre_tokenizer) for part in parts_of_rules(each)}
    return "always" if "always" in schemes else "first" if "first" in schemes else ""


def spares_spaces(backend: Tokenizer | None) -> bool:
    """Whether a text that begins with a space gets no other one: the two are one to the tokenizer."""
    parts = [] if backend is None else [*parts_of_rules(backend.normalizer), *parts_of_rules(backend.pre_tokenizer)]
    return all(part["type"] != "Prepend" for part in parts)


def _scheme(part: Mapping[str, Any]) -> str:
    if part["type"] == "Prepend":
        return "always"
    if part["type"] == "Metaspace":
        return str(part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never"))
    return "always" if part["type"] == "ByteLevel" and part.get("add_prefix_space") else "never"


def marks_words(backend: Tokenizer | None) -> bool:
    if backend is None:
        return True
    marks = ("continuing_subword_prefix", "end_of_word_suffix")
    return any(getattr(backend.model, name, None) for name in marks)


def renamed_copy(backend: Any, aliases: Mapping[str, str], *, prefix: bool) -> Tokenizer:
    """The tokenizer with its control tokens under other names, without its prefix unless ``prefix``."""
    rules = json.loads(backend.to_str())
    rules |= {"post_processor": None, "truncation": None, "padding": None}
    for each in rules["added_tokens"]:
        each["content"] = aliases.get(each["content"], each["content"])
    _rename(rules["model"], aliases)
    if not prefix:
        rules["normalizer"] = _without_prepend(rules["normalizer"])
        for part in _nested(rules["pre_tokenizer"]):
            if part["type"] == "Metaspace":
                part.pop("add_prefix_space", None)
                part["prepend_scheme"] = "never"
            elif part["type"] == "ByteLevel":
                part["add_prefix_space"] = False
    return Tokenizer.from_str(json.dumps(rules))


def _rename(model: dict[str, Any], aliases: Mapping[str, str]) -> None:
    """The control tokens among a model's pieces under other names, so that no text is spelt with them."""
    pieces = model["vocab"]
    if isinstance(pieces, dict):
        model["vocab"] = {aliases.get(piece, piece): number for piece, number in pieces.items()}
    else:
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in pieces]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    if model.get("merges"):
        halves = ((each, each.split(" ") if isinstance(each, str) else each) for each in model["merges"])
        model["merges"] = [each for each, parts in halves if aliases.keys().isdisjoint([*parts, "".join(parts)])]


def _without_prepend(normalizer: Any) -> Any:
    if not isinstance(normalizer, dict) or normalizer["type"] == "Prepend":
        return None
    if normalizer["type"] != "Sequence":
        return normalizer
    parts = [_without_prepend(each) for each in normalizer["normalizers"]]
    return {**normalizer, "normalizers": [each for each in parts if each is not None]}


Tokens = list[int]
_TAIL = 4
"""Tokens of the text before that a text is decoded behind."""
LOOK_BACK = 32
"""The most, where the last ones are parts of a character."""
_SPACED = frozenset(("WordPiece", "BPEDecoder", "CTC"))
"""Decoders that put the spaces between words themselves."""


class TextCodec:
    """One tokenizer. ``controls`` are the numbers of its control tokens, without that of unknown characters."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._names = control_tokens(tokenizer)
        self._unknown = (tokenizer.unk_token_id, tokenizer.unk_token)
        self.controls = frozenset(self._names.values()) - {tokenizer.unk_token_id}
        self._backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        self.prefix = prefix_of(self._backend)
        self._spares = bool(self.prefix) and spares_spaces(self._backend)
        decoders = {each["type"] for each in parts_of_rules(getattr(self._backend, "decoder", None))}
        self._joint = marks_words(self._backend) or not decoders or not decoders.isdisjoint(_SPACED)
        self._direct = not (self._joint or decoders & {"Strip", "Metaspace"})
        self._tail = lru_cache(maxsize=4096)(self._whole_tail)

    @property
    def bound(self) -> bool:
        """Whether the tokens of a text depend on the text before it."""
        return self._joint or bool(self.prefix)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Each text alone, from its beginning; an empty one has no token."""
        if not any(isinstance(text, PromptText) for text in texts):
            return self._beginnings(texts)
        mixed = [_controls_inside(text) > 0 for text in texts]
        plain = [_body(text) for text, controls in zip(texts, mixed, strict=True) if not controls]
        both = (iter(self._beginnings(plain)), iter(self._mixed([text for text in texts if _controls_inside(text)])))
        made = [next(both[controls]) for controls in mixed]
        return [[*self._start_of(text), *tokens] for text, tokens in zip(texts, made, strict=True)]

    def continuations(self, before: Sequence[Sequence[int]], texts: Sequence[str]) -> list[Tokens]:
        """Each text as it goes on after the tokens ``before`` it; without marks inside words this is exact."""
        if not self.prefix or self._backend is None:
            return self._plain(texts)
        fresh = [self.begins_anew(tokens) for tokens in before]
        alone = iter(self._beginnings([text for text, anew in zip(texts, fresh, strict=True) if anew]))
        others = [text for text, anew in zip(texts, fresh, strict=True) if not anew]
        after = iter(_numbers(self._continuing, others))
        return [next(alone) if anew else next(after) for anew in fresh]

    def pairs(self, prompts: Sequence[str], texts: Sequence[str]) -> list[tuple[Tokens, int]]:
        """The tokens of each prompt and text together, and where those of the text begin."""
        if self._joint:
            return [self._together(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        before = self.encode(prompts)
        after = self.continuations(before, texts)
        return [([*first, *second], len(first)) for first, second in zip(before, after, strict=True)]

    def joined(self, prompt: str, text: str) -> tuple[Tokens, int]:
        """Both encoded as one text. A token over the seam belongs to ``text``."""
        before, whole = self.encode([prompt, prompt + text])
        if whole[: len(before)] == before:
            return whole, len(before)
        return self._together(prompt, text)

    def begins_anew(self, before: Sequence[int]) -> bool:
        """Whether a text after these tokens has the prefix of a text's beginning."""
        if not self.prefix or not len(before):
            return bool(self.prefix)
        return before[-1] in self.controls and (self.prefix == "always" or len(before) == 1)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens`` from its beginning; control tokens are spelt out."""
        text = self._decoded(tokens)
        return text[len(self._leftover) :] if self._leftover and text.startswith(self._leftover) else text

    def text_after(self, before: Sequence[int] | npt.NDArray[np.int64], tokens: Sequence[int]) -> str:
        """The text of ``tokens`` as it goes on after the tokens ``before``; the last ``LOOK_BACK`` of these will do."""
        if self._direct and not self._leftover:
            return self._decoded(tokens)
        last = [int(number) for number in before[-LOOK_BACK:]]
        if self.begins_anew(last):
            return self.text(tokens)
        tail = self._tail(tuple(last))
        return self._decoded([*tail, *tokens])[len(self._decoded(tail)) :]

    @cached_property
    def pieces(self) -> list[str]:
        """The text of every token as it goes on after a word."""
        anchor = [] if self._direct else self._letter[1]
        given = len(self._decoded(anchor)) if anchor else 0
        rows = [[*anchor, number] for number in range(len(self._tokenizer))]
        if self._backend is None:
            return [self._decoded(row)[given:] for row in rows]
        return [text[given:] for text in self._backend.decode_batch(rows, skip_special_tokens=False)]

    @cached_property
    def _leftover(self) -> str:
        """What decoding leaves of the prefix at the beginning of a text."""
        letter, tokens = self._letter
        return self._decoded(tokens).removesuffix(letter) if self.prefix else ""

    @cached_property
    def _letter(self) -> tuple[str, Tokens]:
        """A letter that the tokenizer can spell, with its tokens; none where it spells no letter."""
        for letter in (*ascii_letters, *digits):
            (tokens,) = self._plain([letter])
            if tokens and self._unknown[0] not in tokens and self._decoded(tokens).endswith(letter):
                return letter, tokens
        return "", []

    def _decoded(self, tokens: Sequence[int]) -> str:
        # Clean-up would join "a , b" to "a, b", which is another program.
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _whole_tail(self, before: tuple[int, ...]) -> Tokens:
        """The last tokens of ``before`` that begin with a whole character."""
        size = _TAIL
        while size < len(before) and "\ufffd" in self._decoded(before[-size:]):
            size *= 2
        return list(before[-size:])

    def _start_of(self, text: str) -> Tokens:
        if not isinstance(text, PromptText):
            return []
        return [self._names[str(text[first:end])] for first, end in text.controls if end <= text.start]

    def _beginnings(self, texts: Sequence[str]) -> list[Tokens]:
        """Plain texts from their beginning; a space there is kept beside the one that a tokenizer puts before it."""
        made = self._plain(texts)
        if not self._spares:
            return made
        spaced = [number for number, text in enumerate(texts) if text.startswith(" ")]
        for number, tokens in zip(spaced, _numbers(self._continuing, [" " + texts[n] for n in spaced]), strict=True):
            made[number] = tokens
        return made

    def _plain(self, texts: Sequence[str]) -> list[Tokens]:
        """Texts in which nothing is a control token."""
        if not texts:
            return []
        made = self._call(texts, split=True)
        if self.controls or self._unknown[1]:
            spelt = [number for number, tokens in enumerate(made) if self._misread(texts[number], tokens)]
            for number, tokens in zip(spelt, self._copied([texts[number] for number in spelt]), strict=True):
                made[number] = tokens
        return made

    def _misread(self, text: str, tokens: Tokens) -> bool:
        """Whether the tokenizer found a control token in a text without one."""
        number, name = self._unknown
        return not self.controls.isdisjoint(tokens) or (name is not None and name in text and number in tokens)

    def _mixed(self, texts: Sequence[str]) -> list[Tokens]:
        """Prompts with control tokens of their own: by the tokenizer itself unless it finds others too."""
        if not texts:
            return []
        made = self._call([_body(text) for text in texts], split=False)
        counts = [len([None for each in tokens if each in self.controls]) for tokens in made]
        spelt = [number for number, text in enumerate(texts) if counts[number] != _controls_inside(text)]
        for number, tokens in zip(spelt, self._copied([texts[number] for number in spelt]), strict=True):
            made[number] = tokens
        return made

    def _call(self, texts: Sequence[str], *, split: bool) -> list[Tokens]:
        made = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=split,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(made["input_ids"])

    def _copied(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        if self._backend is None:  # nothing to copy: as the tokenizer reads it
            return self._call(texts, split=False)
        return _numbers(self._renamed, map(self._respelt, texts))

    def _respelt(self, text: str) -> str:
        return text.respelt(self._aliases) if isinstance(text, PromptText) else text

    def _together(self, prompt: str, text: str) -> tuple[Tokens, int]:
        """Both as one text, parted by offsets; without offsets where the whole departs from the prompt alone."""
        start = self._start_of(prompt)
        if self._backend is None:
            before, whole = self.encode([prompt, prompt + text])
            same = [one == other for one, other in zip(before, whole, strict=False)]
            return whole, same.index(False) if False in same else len(same)
        given = self._respelt(prompt)
        found = self._renamed.encode(given + text, add_special_tokens=False)
        ends = [end for _, end in found.offsets]
        parted = next((number for number, end in enumerate(ends) if end > len(given)), len(ends))
        return [*start, *found.ids], len(start) + parted

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """Names for the control tokens that no text contains."""
        nonce = secrets.token_hex(8)
        return {name: f"{nonce}x{number}x" for number, name in enumerate(self._names)}

    @cached_property
    def _renamed(self) -> Tokenizer:
        return renamed_copy(self._backend, self._aliases, prefix=True)

    @cached_property
    def _continuing(self) -> Tokenizer:
        return renamed_copy(self._backend, self._aliases, prefix=False)


def codec_of(tokenizer: Any) -> TextCodec:
    """The codec of ``tokenizer``, made once as long as its special tokens and its template stay the same."""
    return _made(tokenizer, (len(tokenizer), *map(str, tokenizer.all_special_tokens)), str(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _made(tokenizer: Any, *state: Any) -> TextCodec:
    return TextCodec(tokenizer)


def _body(text: str) -> str:
    """A text without the control tokens that precede it."""
    return text[text.start :] if isinstance(text, PromptText) else text


def _controls_inside(text: str) -> int:
    """Control tokens of a prompt after those that precede its text."""
    return sum(first >= text.start for first, _ in text.controls) if isinstance(text, PromptText) else 0


def _numbers(backend: Tokenizer, texts: Iterable[str]) -> list[Tokens]:
    """The tokens that a copy makes of texts."""
    return [each.ids for each in backend.encode_batch(list(texts), add_special_tokens=False)]
