"""Lossless conversion between text and tokens for any tokenizer.

Three properties of pretrained tokenizers need care:

- A *prefix*. Llama's tokenizers put a space before a text (normalizer ``Prepend``, pre-tokenizer ``Metaspace`` or
  ``ByteLevel`` with a prefix space) and remove it in decoding, so a completion alone would gain or lose one. A text
  after another one is encoded by a copy of the tokenizer without the prefix, and decoded after the last tokens before
  it, whose characters are then removed.
- *Markers inside words* (``##`` of WordPiece, ``</w>``). A token depends on its neighbours, so both texts are encoded
  jointly and split by character offsets.
- *Control tokens*. ``</s>`` in a data file is four characters, but some tokenizers (Unigram, WordPiece) have it in
  their vocabulary. A copy whose control tokens have random names encodes such texts (and ``PromptText``).

Copies are created lazily from the JSON serialisation of the tokenizer. Tokenizers with none of these properties
(Gradatim's and byte-level BPE) use one batch call.
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


def rule_objects(component: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a tokenizer component and of its nested components."""
    if component is None:
        return
    yield from _nested(json.loads(component.__getstate__()))


def _nested(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "type" in node:
            yield node
        for value in node.values():
            yield from _nested(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nested(value)


def prefix_space(backend: Tokenizer | None) -> Literal["", "first", "always"]:
    """The prefix space of a tokenizer: none, before the beginning of a text only, or also after control tokens."""
    if backend is None:
        return ""
    schemes = {
        _scheme(rule) for component in (backend.normalizer, backend.pre_tokenizer) for rule in rule_objects(component)
    }
    return "always" if "always" in schemes else "first" if "first" in schemes else ""


def merges_leading_space(backend: Tokenizer | None) -> bool:
    """Whether a text that begins with a space gets no second one as prefix."""
    rules = [] if backend is None else [*rule_objects(backend.normalizer), *rule_objects(backend.pre_tokenizer)]
    return all(rule["type"] != "Prepend" for rule in rules)


def _scheme(rule: Mapping[str, Any]) -> str:
    if rule["type"] == "Prepend":
        return "always"
    if rule["type"] == "Metaspace":
        return str(rule.get("prepend_scheme") or ("always" if rule.get("add_prefix_space", True) else "never"))
    return "always" if rule["type"] == "ByteLevel" and rule.get("add_prefix_space") else "never"


def has_word_markers(backend: Tokenizer | None) -> bool:
    """Whether tokens carry markers for the inside or the end of a word; assumed without a ``tokenizers`` backend."""
    if backend is None:
        return True
    marks = ("continuing_subword_prefix", "end_of_word_suffix")
    return any(getattr(backend.model, name, None) for name in marks)


def renamed_copy(backend: Any, aliases: Mapping[str, str], *, prefix: bool) -> Tokenizer:
    """A copy of the tokenizer with renamed control tokens, and without prefix space unless ``prefix``."""
    rules = json.loads(backend.to_str())
    rules |= {"post_processor": None, "truncation": None, "padding": None}
    for token in rules["added_tokens"]:
        token["content"] = aliases.get(token["content"], token["content"])
    _rename(rules["model"], aliases)
    if not prefix:
        rules["normalizer"] = _without_prepend(rules["normalizer"])
        for rule in _nested(rules["pre_tokenizer"]):
            if rule["type"] == "Metaspace":
                rule.pop("add_prefix_space", None)
                rule["prepend_scheme"] = "never"
            elif rule["type"] == "ByteLevel":
                rule["add_prefix_space"] = False
    return Tokenizer.from_str(json.dumps(rules))


def _rename(model: dict[str, Any], aliases: Mapping[str, str]) -> None:
    """Rename the control tokens in a model's vocabulary, so that no text is encoded with them."""
    pieces = model["vocab"]
    if isinstance(pieces, dict):
        model["vocab"] = {aliases.get(piece, piece): number for piece, number in pieces.items()}
    else:
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in pieces]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    if model.get("merges"):
        halves = ((merge, merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"])
        model["merges"] = [merge for merge, pair in halves if aliases.keys().isdisjoint([*pair, "".join(pair)])]


def _without_prepend(normalizer: Any) -> Any:
    if not isinstance(normalizer, dict) or normalizer["type"] == "Prepend":
        return None
    if normalizer["type"] != "Sequence":
        return normalizer
    normalizers = [_without_prepend(part) for part in normalizer["normalizers"]]
    return {**normalizer, "normalizers": [part for part in normalizers if part is not None]}


Tokens = list[int]
_TAIL = 4
"""Number of preceding tokens that a text is decoded with."""
LOOK_BACK = 32
"""Its maximum, for the case that the last tokens are parts of a character."""
_SPACING_DECODERS = frozenset(("WordPiece", "BPEDecoder", "CTC"))
"""Decoders that insert the spaces between words."""


class TextCodec:
    """Encoder and decoder of one tokenizer. ``controls``: the ids of its control tokens except the unknown token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._names = control_tokens(tokenizer)
        self._unknown = (tokenizer.unk_token_id, tokenizer.unk_token)
        self.controls = frozenset(self._names.values()) - {tokenizer.unk_token_id}
        self._backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        self.prefix = prefix_space(self._backend)
        self._keeps_one_space = bool(self.prefix) and merges_leading_space(self._backend)
        decoders = {rule["type"] for rule in rule_objects(getattr(self._backend, "decoder", None))}
        self._joint = has_word_markers(self._backend) or not decoders or not decoders.isdisjoint(_SPACING_DECODERS)
        self._direct = not (self._joint or decoders & {"Strip", "Metaspace"})
        self._tail = lru_cache(maxsize=4096)(self._complete_tail)

    @property
    def bound(self) -> bool:
        """Whether the tokens of a text depend on the text before it."""
        return self._joint or bool(self.prefix)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text on its own; an empty text has no token."""
        if not any(isinstance(text, PromptText) for text in texts):
            return self._encode_beginnings(texts)
        mixed = [_controls_inside(text) > 0 for text in texts]
        plain = [_body(text) for text, controls in zip(texts, mixed, strict=True) if not controls]
        encodings = (
            iter(self._encode_beginnings(plain)),
            iter(self._encode_mixed([text for text in texts if _controls_inside(text)])),
        )
        rows = [next(encodings[controls]) for controls in mixed]
        return [[*self._start_of(text), *tokens] for text, tokens in zip(texts, rows, strict=True)]

    def continuations(self, before: Sequence[Sequence[int]], texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text as the continuation of the tokens ``before``; exact without markers in words."""
        if not self.prefix or self._backend is None:
            return self._encode_plain(texts)
        at_start = [self.begins_anew(tokens) for tokens in before]
        beginnings = iter(
            self._encode_beginnings([text for text, initial in zip(texts, at_start, strict=True) if initial])
        )
        later_texts = [text for text, initial in zip(texts, at_start, strict=True) if not initial]
        continued = iter(_token_ids(self._continuing, later_texts))
        return [next(beginnings) if initial else next(continued) for initial in at_start]

    def pairs(self, prompts: Sequence[str], texts: Sequence[str]) -> list[tuple[Tokens, int]]:
        """The tokens of each prompt with its text, and the index of the text's first token."""
        if self._joint:
            return [self._encode_jointly(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        before = self.encode(prompts)
        after = self.continuations(before, texts)
        return [([*first, *second], len(first)) for first, second in zip(before, after, strict=True)]

    def joined(self, prompt: str, text: str) -> tuple[Tokens, int]:
        """The tokens of the concatenation. A token across the boundary belongs to ``text``."""
        before, tokens = self.encode([prompt, prompt + text])
        if tokens[: len(before)] == before:
            return tokens, len(before)
        return self._encode_jointly(prompt, text)

    def begins_anew(self, before: Sequence[int]) -> bool:
        """Whether a text after these tokens has the prefix space of the beginning of a text."""
        if not self.prefix or not len(before):
            return bool(self.prefix)
        return before[-1] in self.controls and (self.prefix == "always" or len(before) == 1)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens`` as the beginning of a text; control tokens are spelt out."""
        text = self._decoded(tokens)
        return text[len(self._leftover) :] if self._leftover and text.startswith(self._leftover) else text

    def text_after(self, before: Sequence[int] | npt.NDArray[np.int64], tokens: Sequence[int]) -> str:
        """The text of ``tokens`` as the continuation of ``before``, of which the last ``LOOK_BACK`` tokens matter."""
        if self._direct and not self._leftover:
            return self._decoded(tokens)
        last = [int(number) for number in before[-LOOK_BACK:]]
        if self.begins_anew(last):
            return self.text(tokens)
        tail = self._tail(tuple(last))
        return self._decoded([*tail, *tokens])[len(self._decoded(tail)) :]

    @cached_property
    def pieces(self) -> list[str]:
        """The text of all tokens as the continuation of a word."""
        anchor = [] if self._direct else self._letter[1]
        skipped = len(self._decoded(anchor)) if anchor else 0
        rows = [[*anchor, number] for number in range(len(self._tokenizer))]
        if self._backend is None:
            return [self._decoded(row)[skipped:] for row in rows]
        return [text[skipped:] for text in self._backend.decode_batch(rows, skip_special_tokens=False)]

    @cached_property
    def _leftover(self) -> str:
        """The part of the prefix that decoding leaves at the beginning of a text."""
        letter, tokens = self._letter
        return self._decoded(tokens).removesuffix(letter) if self.prefix else ""

    @cached_property
    def _letter(self) -> tuple[str, Tokens]:
        """A letter or digit in the vocabulary with its tokens; empty when there is none."""
        for letter in (*ascii_letters, *digits):
            (tokens,) = self._encode_plain([letter])
            if tokens and self._unknown[0] not in tokens and self._decoded(tokens).endswith(letter):
                return letter, tokens
        return "", []

    def _decoded(self, tokens: Sequence[int]) -> str:
        # Clean-up would change "a , b" to "a, b", which changes the program.
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _complete_tail(self, before: tuple[int, ...]) -> Tokens:
        """The last tokens of ``before``, from the start of a character."""
        size = _TAIL
        while size < len(before) and "\ufffd" in self._decoded(before[-size:]):
            size *= 2
        return list(before[-size:])

    def _start_of(self, text: str) -> Tokens:
        if not isinstance(text, PromptText):
            return []
        return [self._names[str(text[first:end])] for first, end in text.controls if end <= text.start]

    def _encode_beginnings(self, texts: Sequence[str]) -> list[Tokens]:
        """Plain texts as the beginning of a text; a leading space stays distinct from the prefix space."""
        rows = self._encode_plain(texts)
        if not self._keeps_one_space:
            return rows
        spaced = [index for index, text in enumerate(texts) if text.startswith(" ")]
        for index, tokens in zip(
            spaced, _token_ids(self._continuing, [" " + texts[index] for index in spaced]), strict=True
        ):
            rows[index] = tokens
        return rows

    def _encode_plain(self, texts: Sequence[str]) -> list[Tokens]:
        """Texts without control tokens."""
        if not texts:
            return []
        rows = self._encode_batch(texts, split=True)
        if self.controls or self._unknown[1]:
            misread = [index for index, tokens in enumerate(rows) if self._misread(texts[index], tokens)]
            for index, tokens in zip(misread, self._encode_renamed([texts[index] for index in misread]), strict=True):
                rows[index] = tokens
        return rows

    def _misread(self, text: str, tokens: Tokens) -> bool:
        """Whether the tokenizer encoded a control token in a text without one."""
        number, name = self._unknown
        return not self.controls.isdisjoint(tokens) or (name is not None and name in text and number in tokens)

    def _encode_mixed(self, texts: Sequence[str]) -> list[Tokens]:
        """Prompts with control tokens: by the tokenizer itself unless it also encodes spurious ones."""
        if not texts:
            return []
        rows = self._encode_batch([_body(text) for text in texts], split=False)
        counts = [len([None for token in tokens if token in self.controls]) for tokens in rows]
        misread = [index for index, text in enumerate(texts) if counts[index] != _controls_inside(text)]
        for index, tokens in zip(misread, self._encode_renamed([texts[index] for index in misread]), strict=True):
            rows[index] = tokens
        return rows

    def _encode_batch(self, texts: Sequence[str], *, split: bool) -> list[Tokens]:
        encoding = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=split,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(encoding["input_ids"])

    def _encode_renamed(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        if self._backend is None:  # no copy is possible
            return self._encode_batch(texts, split=False)
        return _token_ids(self._renamed, map(self._with_aliases, texts))

    def _with_aliases(self, text: str) -> str:
        return text.respelt(self._aliases) if isinstance(text, PromptText) else text

    def _encode_jointly(self, prompt: str, text: str) -> tuple[Tokens, int]:
        """Both as one text, split by offsets; without offsets, where it first differs from the prompt alone."""
        start = self._start_of(prompt)
        if self._backend is None:
            before, tokens = self.encode([prompt, prompt + text])
            matches = [token == joint_token for token, joint_token in zip(before, tokens, strict=False)]
            return tokens, matches.index(False) if False in matches else len(matches)
        prefix = self._with_aliases(prompt)
        encoding = self._renamed.encode(prefix + text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        seam = next((index for index, end in enumerate(ends) if end > len(prefix)), len(ends))
        return [*start, *encoding.ids], len(start) + seam

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """Random names of the control tokens, which no text contains."""
        nonce = secrets.token_hex(8)
        return {name: f"{nonce}x{number}x" for number, name in enumerate(self._names)}

    @cached_property
    def _renamed(self) -> Tokenizer:
        return renamed_copy(self._backend, self._aliases, prefix=True)

    @cached_property
    def _continuing(self) -> Tokenizer:
        return renamed_copy(self._backend, self._aliases, prefix=False)


def codec_of(tokenizer: Any) -> TextCodec:
    """The codec of ``tokenizer``, cached until its vocabulary size, special tokens or template change."""
    return _cached_codec(
        tokenizer, (len(tokenizer), *map(str, tokenizer.all_special_tokens)), str(tokenizer.chat_template)
    )


@lru_cache(maxsize=8)
def _cached_codec(tokenizer: Any, *state: Any) -> TextCodec:
    return TextCodec(tokenizer)


def _body(text: str) -> str:
    """A text without the control tokens before it."""
    return text[text.start :] if isinstance(text, PromptText) else text


def _controls_inside(text: str) -> int:
    """The number of control tokens of a prompt, not counting those before its text."""
    return sum(first >= text.start for first, _ in text.controls) if isinstance(text, PromptText) else 0


def _token_ids(backend: Tokenizer, texts: Iterable[str]) -> list[Tokens]:
    """The token ids of texts by a copy of the tokenizer."""
    return [encoding.ids for encoding in backend.encode_batch(list(texts), add_special_tokens=False)]
