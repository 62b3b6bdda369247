"""Canonical form of a program up to renaming of its variables (alpha-equivalence).

``canonical`` renames the variables of a program to a, b, c, … in order of appearance; two programs are equivalent
exactly when their canonical forms are equal. ``table.split`` keys on it, so that the test set contains no training
program up to variable renaming. The work is lexical: comments, strings, numbers, attributes, keywords and builtins stay
unchanged and nothing is parsed, so that any text is accepted. Only names are normalised: ``a + b`` and ``b + a`` (with
the same values) are different programs.
"""

from __future__ import annotations

import builtins
import keyword
import re
from string import ascii_lowercase

__all__ = ["canonical"]


# Pieces that are matched as a whole, so that no name matches inside them; blanks and operators lie between them.
_PIECE = re.compile(
    r"""([^\W\d]\w*+(?!['"])             # a name or keyword
    |\d[\w.]*+                         # a number with its fraction and exponent
    |\#[^\n]*+                         # a comment
    |\.\s*+\w*+                        # an attribute with its dot, or a fraction that starts with the dot
    # a string with the word right before it: its prefix, a keyword, or a name whose replacement might become its prefix
    |(?:[^\W\d]\w*+)?(?:'''[\s\S]*?'''|"{3}[\s\S]*?"{3}|'(?:\\[\s\S]|[^'\\\n])*+'?|"(?:\\[\s\S]|[^"\\\n])*+"?)
    )
    """,
    re.VERBOSE,
)
_RESERVED = frozenset(keyword.kwlist) | (frozenset(dir(builtins)) - {"_"})  # `_` exists in interactive use only


def canonical(text: str) -> str:
    """``text`` with its variables renamed to a, b, …, z, v26, v27, … in order of appearance.

    Applying it twice changes nothing, and any one-to-one renaming of the variables gives the same result.
    Keywords, builtins, comments, strings, attributes and the word right before a string are unchanged.
    Never raises.

    >>> canonical("k = 4\\nx = k + 3\\nprint(x)\\n# output\\n")
    'a = 4\\nb = a + 3\\nprint(b)\\n# output\\n'
    """
    pieces = _PIECE.split(text)
    matches = pieces[1::2]
    renamed: dict[str, str] = {}
    names = 0
    for piece in dict.fromkeys(matches):  # distinct pieces only: a program repeats few pieces many times
        if piece in _RESERVED or not piece.isidentifier():
            renamed[piece] = piece
        else:
            renamed[piece] = ascii_lowercase[names] if names < 26 else f"v{names}"
            names += 1
    pieces[1::2] = [renamed[piece] for piece in matches]
    return "".join(pieces)
