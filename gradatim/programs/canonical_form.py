"""Are two programs the same but for the names of their variables?

``canonical`` rewrites a program so that its variables are called a, b, c, … in order of appearance; two programs
are *twins* exactly when their canonical forms are equal. ``table.split`` keys on it, so that no test program has a
renamed twin in training. The work is lexical: comments, strings, numbers, attributes, keywords and builtins stay
as they are, and nothing is parsed, so text that is not a program goes through too. It does not look further than
names: ``a + b`` and ``b + a`` (with the same values) are different programs.
"""

from __future__ import annotations

import builtins
import keyword
import re
from string import ascii_lowercase

__all__ = ["canonical"]


# What must be seen whole, so that a name is not found inside it. Blanks and operators lie between the pieces.
_PIECE = re.compile(
    r"""([^\W\d]\w*+(?!['"])             # a name or keyword
    |\d[\w.]*+                         # a number with its fraction and exponent
    |\#[^\n]*+                         # a comment
    |\.\s*+\w*+                        # an attribute with its dot, or a fraction that starts with the dot
    # a string with the word right before it: its prefix, a keyword, or what under another name might become its prefix
    |(?:[^\W\d]\w*+)?(?:'''[\s\S]*?'''|"{3}[\s\S]*?"{3}|'(?:\\[\s\S]|[^'\\\n])*+'?|"(?:\\[\s\S]|[^"\\\n])*+"?)
    )
    """,
    re.VERBOSE,
)
_KEPT = frozenset(keyword.kwlist) | (frozenset(dir(builtins)) - {"_"})  # `_` is there in interactive use only


def canonical(text: str) -> str:
    """``text`` with its variables renamed to a, b, …, z, v26, v27, … in order of appearance.

    Applying it twice changes nothing, and any one-to-one renaming of the variables gives the same result.
    Keywords, builtins, comments, strings and attributes are left alone, and so is what stands right before a string.
    Never raises.

    >>> canonical("k = 4\\nx = k + 3\\nprint(x)\\n# output\\n")
    'a = 4\\nb = a + 3\\nprint(b)\\n# output\\n'
    """
    pieces = _PIECE.split(text)
    found = pieces[1::2]
    renamed: dict[str, str] = {}
    names = 0
    for piece in dict.fromkeys(found):  # each distinct piece once: programs repeat few of them many times
        if piece in _KEPT or not piece.isidentifier():
            renamed[piece] = piece
        else:
            renamed[piece] = ascii_lowercase[names] if names < 26 else f"v{names}"
            names += 1
    pieces[1::2] = [renamed[piece] for piece in found]
    return "".join(pieces)
