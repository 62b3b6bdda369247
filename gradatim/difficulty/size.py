"""How long is a program?

Its characters, its tokens or its lines. Characters work in any language and are what a character-level student has
to read; tokens and lines do not grow with long names. A student's own tokenizer is not asked.
"""

from __future__ import annotations

import math
import tokenize
from typing import Literal

from ..options import strict
from .halstead import lexemes
from .program import PerText, parse

__all__ = ["size"]


def _characters(text: str) -> float:
    return float(len(text))


def _lines(text: str) -> float:
    return float(sum(1 for line in text.splitlines() if line.strip()))


def _tokens(text: str) -> float:
    if parse(text) is None:
        return math.nan
    try:
        return float(len(lexemes(text)))
    except (tokenize.TokenError, SyntaxError):
        return math.nan


@strict("the difficulty 'size'")
def size(*, unit: Literal["characters", "tokens", "lines"] = "characters") -> PerText:
    """Length in characters, tokens (of Python; brackets count as pairs, comments do not) or lines (not blank)."""
    if unit == "tokens":
        return PerText(_tokens, python=True)
    return PerText(_characters if unit == "characters" else _lines)
