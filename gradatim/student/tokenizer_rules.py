"""The rules of a tokenizer of the ``tokenizers`` library: what they do to a text's edges, and a copy without that.

Rules are read as the JSON that the library itself writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tokenizers import Tokenizer

__all__ = ["marks_words", "parts_of_rules", "prefix_of", "renamed_copy", "spares_spaces"]


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
