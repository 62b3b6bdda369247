"""How much must a reader keep in mind, counted over tokens?

Halstead's difficulty (Elements of Software Science, 1977) is D = (n1 / 2)(N2 / n2): n1 distinct operators, n2
distinct and N2 total operands. Here an operator is any keyword, delimiter or sign, an operand any name, number or
string, so loops, calls and assignments count, which radon's figure leaves out (see ``om``). A pair of brackets is
one operator. It reads tokens only and does not know what a name stands for.
"""

from __future__ import annotations

import io
import keyword
import math
import tokenize
from collections.abc import Iterator

from ..options import strict
from .program import PerText, parse

__all__ = ["halstead", "lexemes", "token_difficulty"]

_OPERANDS_IN_WORDS = frozenset(["True", "False", "None"])
_CLOSING = frozenset([")", "]", "}"])
_LITERALS = frozenset(
    getattr(tokenize, kind) for kind in ("NUMBER", "STRING", "FSTRING_MIDDLE") if hasattr(tokenize, kind)
)


def lexemes(text: str) -> Iterator[tuple[bool, str]]:
    """(is an operator, spelling) of each token that counts; layout and comments do not.

    Words that are keywords in some places only (``match``, ``type``) count as names.
    """
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP:
            if token.string not in _CLOSING:
                yield True, token.string
        elif token.type == tokenize.NAME:
            yield keyword.iskeyword(token.string) and token.string not in _OPERANDS_IN_WORDS, token.string
        elif token.type in _LITERALS:
            yield False, token.string


def token_difficulty(text: str) -> float:
    """(n1 / 2)(N2 / n2); 0 without operands, NaN for what is not Python."""
    if parse(text) is None:
        return math.nan
    operators: set[str] = set()
    operands: list[str] = []
    try:
        for is_operator, spelling in lexemes(text):
            if is_operator:
                operators.add(spelling)
            else:
                operands.append(spelling)
    except (tokenize.TokenError, SyntaxError):  # the two readers of Python differ on some odd endings
        return math.nan
    return len(operators) / 2 * len(operands) / len(set(operands)) if operands else 0.0


@strict("the difficulty 'halstead'")
def halstead() -> PerText:
    """Halstead difficulty over tokens: keywords, calls and assignments count as operators."""
    return PerText(token_difficulty, python=True)
