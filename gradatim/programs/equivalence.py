"""Forms shared by equivalent programs.

``canonical`` renames the variables (alpha-equivalence). ``sliced`` also drops the assignments that no printed value
depends on (the static backward slice of Weiser, 1981, from the print statements), so that an unused assignment does not
make a program new.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase
from typing import NamedTuple

from ..table.rows import OUTPUT_LINE

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


_NAME = re.compile(r"[^\W\d]\w*")
_EXPRESSION = r"(?:[\w\s+\-*/().%]|[<>=!]=|[<>])+"
_STATEMENT = re.compile(
    rf"""(?P<indent>\t*)(?:
    (?P<target>[^\W\d]\w*)\ =\ (?P<value>{_EXPRESSION})
    |print\((?P<printed>{_EXPRESSION})\)
    |for\ (?P<counter>[^\W\d]\w*)\ in\ range\((?P<range>[\w\s,+\-*/()]+)\)\ ?:
    |(?P<head>if|elif|while)\ (?P<condition>{_EXPRESSION}?)\ ?:
    |(?P<otherwise>else)\ ?:
    )""",
    re.VERBOSE,
)
_CALL = re.compile(r"(?<!\w)(?!(?:and|or|not|if|elif|while|in|print|range)\b)[^\W\d]\w*\(")


@dataclass(frozen=True)
class _Line:
    """A parsed line: ``text``, its indentation in tabs, the variables it reads, and the one it assigns."""

    text: str
    depth: int
    kind: str
    reads: frozenset[str]
    target: str | None


class _Statement(NamedTuple):
    """A line and the statements indented below it."""

    line: _Line
    body: list[_Statement]


def sliced(text: str) -> str:
    """``canonical`` form of the backward slice of a TinyPy program: without assignments that no output depends on.

    ``text`` may continue with the line ``# output`` and the output. Slicing keeps the output. Other Python programs are
    only renamed, and text that is no Python is unchanged. Never raises.

    >>> sliced("k = 4\\nu = 9\\nx = k + 3\\nprint(x)\\n# output\\n")
    'a = 4\\nb = a + 3\\nprint(b)\\n# output\\n'
    """
    end = text.find(OUTPUT_LINE)
    program, rest = (text, "") if end < 0 or (end and text[end - 1] != "\n") else (text[:end], text[end:])
    statements = _parse(program)
    if statements is None:
        return canonical(text) if _is_python(text) else text
    lines, _ = _needed(statements, frozenset())
    if not lines:  # nothing is printed, so the text is a fragment
        return canonical(text)
    return canonical("".join(f"{line}\n" for line in lines) + rest)


def _is_python(text: str) -> bool:
    """Whether ``text`` is a Python program with a statement or a call, not only words that parse as names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = [node.value if isinstance(node, ast.Expr) else node for node in tree.body]
    return any(isinstance(node, ast.stmt | ast.Call) for node in nodes)


def _parse(program: str) -> list[_Statement] | None:
    """Statements of a TinyPy program, nested by indentation; None for any other text."""
    bodies: list[list[_Statement]] = [[]]
    for text in program.splitlines():
        line = _line(text)
        if line is None or line.depth >= len(bodies):
            return None
        del bodies[line.depth + 1 :]
        body = bodies[line.depth]
        if line.kind in ("elif", "else") and not (body and body[-1].line.kind in ("if", "elif")):
            return None
        body.append(_Statement(line, []))
        if line.kind not in ("assign", "print"):
            bodies.append(body[-1].body)
    return bodies[0] or None


@lru_cache(maxsize=1 << 16)  # a million TinyPy programs have some ten thousand different lines
def _line(text: str) -> _Line | None:
    """The parsed line; None for a line that the grammar does not generate."""
    match = _STATEMENT.fullmatch(text)
    if match is None or _CALL.search(text) or not _RESERVED.isdisjoint((match["target"], match["counter"])):
        return None
    expression = match["value"] or match["printed"] or match["range"] or match["condition"] or ""
    kind = (
        match["head"] or match["otherwise"] or ("assign" if match["target"] else "for" if match["counter"] else "print")
    )
    reads = frozenset(_NAME.findall(expression)).difference(keyword.kwlist)
    return _Line(text, len(match["indent"]), kind, reads, match["target"] or match["counter"])


def _needed(statements: Sequence[_Statement], live: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Lines of ``statements`` that an output or a variable of ``live`` depends on, and the variables live before."""
    blocks: list[list[str]] = []
    branches: list[_Statement] = []
    for statement in reversed(statements):
        line = statement.line
        if line.kind in ("elif", "else"):
            branches.insert(0, statement)
            continue
        if line.kind == "if":
            lines, live = _needed_branches([statement, *branches], live)
            branches = []
        elif line.kind in ("for", "while"):
            lines, live = _needed_loop(statement, live)
        elif line.kind == "assign" and line.target not in live:
            continue
        else:
            lines, live = [line.text], live - {line.target} | line.reads
        blocks.append(lines)
    return [line for block in reversed(blocks) for line in block], live


def _needed_branches(branches: list[_Statement], live: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """See ``_needed``, for the branches of one ``if``. Empty branches at the end are dropped."""
    bodies = [_needed(branch.body, live) for branch in branches]
    while bodies and not bodies[-1][0]:
        bodies.pop()
    if not bodies:
        return [], live
    before = frozenset() if len(bodies) == len(branches) and branches[-1].line.kind == "else" else live
    lines = []
    for branch, (body, live_in_branch) in zip(branches, bodies, strict=False):
        lines += [branch.line.text, *(body or [_pass(branch.line)])]
        before |= live_in_branch | branch.line.reads
    return lines, before


def _needed_loop(loop: _Statement, live: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """See ``_needed``, for a loop: what its next iteration reads is live at the end of its body."""
    body, before = _repeated(loop, live)
    if not body and loop.line.target not in live:
        return [], live
    if loop.line.kind == "while":
        body, before = _repeated(loop, live | loop.line.reads)
    return [loop.line.text, *(body or [_pass(loop.line)])], live | before - {loop.line.target} | loop.line.reads


def _repeated(loop: _Statement, live: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Fixed point of the body's needed lines."""
    at_end = live
    while True:
        body, before = _needed(loop.body, at_end)
        wider = live | before - {loop.line.target}
        if wider <= at_end:
            return body, before
        at_end |= wider


def _pass(parent: _Line) -> str:
    """Placeholder of an empty body."""
    return "\t" * (parent.depth + 1) + "pass"
