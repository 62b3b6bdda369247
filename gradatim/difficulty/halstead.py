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
import re
import token
import tokenize
from collections.abc import Iterator

from ..options import strict
from .program import PerText, parse

__all__ = ["halstead", "lexemes", "token_difficulty"]

_OPERANDS_IN_WORDS = frozenset(["True", "False", "None"])
_KEYWORDS = frozenset(keyword.kwlist) - _OPERANDS_IN_WORDS
_CLOSING = frozenset([")", "]", "}"])
_SIGNS = frozenset(token.EXACT_TOKEN_TYPES) - _CLOSING
_OPERATORS = _KEYWORDS | _SIGNS
_LITERALS = frozenset(
    getattr(tokenize, kind) for kind in ("NUMBER", "STRING", "FSTRING_MIDDLE") if hasattr(tokenize, kind)
)

# One expression reads a program whose text has nothing that needs the standard reader: it is several times as fast,
# and the text of every TinyPy program is so. Without strings and joined lines, what is a name, a number, a comment or a
# sign does not depend on what came before.
_UNUSUAL = ("'", '"', "\\", "\r", "\f")
_PLAIN = re.compile(
    rf"""([A-Za-z_]\w*
    |0[xX][_\da-fA-F]+|0[oO][_0-7]+|0[bB][_01]+
    |(?:\d[_\d]*\.?(?:\d[_\d]*)?|\.\d[_\d]*)(?:[eE][-+]?\d[_\d]*)?[jJ]?
    |{"|".join(map(re.escape, sorted(_SIGNS, key=len, reverse=True)))})
    |\#.*""",
    re.VERBOSE | re.ASCII,
)


def lexemes(text: str) -> list[tuple[bool, str]]:
    """(is an operator, spelling) of each token that counts; layout and comments do not.

    Words that are keywords in some places only (``match``, ``type``) count as names. ``text`` is a program that
    parses; of other texts some raise ``TokenError`` or ``SyntaxError``.
    """
    if text.isascii() and not any(sign in text for sign in _UNUSUAL):
        return [(spelling in _OPERATORS, spelling) for spelling in _PLAIN.findall(text) if spelling]
    return list(_read(text))


def _read(text: str) -> Iterator[tuple[bool, str]]:
    """The lexemes of any program, by the standard reader."""
    for each in tokenize.generate_tokens(io.StringIO(text).readline):
        if each.type == tokenize.OP:
            if each.string not in _CLOSING:
                yield True, each.string
        elif each.type == tokenize.NAME:
            yield each.string in _KEYWORDS, each.string
        elif each.type in _LITERALS:
            yield False, each.string


def token_difficulty(text: str) -> float:
    """(n1 / 2)(N2 / n2); 0 without operands, NaN for what is not Python."""
    if parse(text) is None:
        return math.nan
    try:
        read = lexemes(text)
    except (tokenize.TokenError, SyntaxError):  # the two readers of Python differ on some odd endings
        return math.nan
    operators = {spelling for is_operator, spelling in read if is_operator}
    operands = [spelling for is_operator, spelling in read if not is_operator]
    return len(operators) / 2 * len(operands) / len(set(operands)) if operands else 0.0


@strict("the difficulty 'halstead'")
def halstead() -> PerText:
    """Halstead difficulty over tokens: keywords, calls and assignments count as operators."""
    return PerText(token_difficulty, python=True)
