"""Does the code parse, and if not, where does it stop?

tree-sitter reads every language the same way and never gives up, so the first node that it marks as wrong or missing
is the place to tell. A grammar is a little more lenient than a compiler; what it refuses no compiler takes. Code is
read, never run. Grammars come as one wheel per language and are loaded at first use.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import ToolchainMissing
from .language import Fault

if TYPE_CHECKING:
    from .language import Language

__all__ = ["LONGEST", "first_fault"]

LONGEST = 1 << 20
"""Bytes of code that are parsed: more is a fault. Programs that answer a question are a thousand times shorter."""
STEPS = 20_000
"""Reports of progress after which the parser is stopped; a program of ``LONGEST`` bytes needs fewer. Recovery from
errors takes far longer for a byte than a program does, and grows faster than the text."""


def first_fault(language: Language, code: str) -> Fault | None:
    """The first place that the grammar does not take; None when it takes the whole code."""
    try:
        source = code.encode()
    except UnicodeEncodeError as error:
        return _at(code, error.start, "a lone surrogate is not a character")
    if "\0" in code:
        return _at(code, code.index("\0"), "a NUL byte is not code")
    if len(source) > LONGEST:
        return Fault(0, 0, f"{len(source)} bytes of code; at most {LONGEST} are read")
    tree = _tree(language, source)
    if tree is None:
        return Fault(0, 0, "the grammar needs too many steps to recover from its errors", "steps")
    node = _first_wrong(tree.root_node, frozenset(language.refused))
    if node is None:
        return None
    line, column = node.start_point
    if node.is_missing:
        return Fault(line + 1, column + 1, f"syntax error: {node.type!r} is missing", "missing")
    text = source[node.start_byte : node.end_byte].decode("utf-8", "replace").strip().split("\n")[0][:40]
    return Fault(line + 1, column + 1, f"syntax error near {text!r}", "syntax")


def _at(code: str, index: int, message: str) -> Fault:
    line = code.count("\n", 0, index)
    return Fault(line + 1, index - (code.rfind("\n", 0, index) + 1) + 1, message, "character")


def _first_wrong(root: Any, refused: frozenset[str]) -> Any:
    """The first node in reading order that is an error, missing, or of a refused type."""
    if not root.has_error and not refused:
        return None
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing or node.type in refused:
            return node
        if node.has_error or refused:
            stack.extend(reversed(node.children))
    return None


@functools.cache
def _grammar(name: str, load: Any) -> Any:
    try:
        import tree_sitter

        return tree_sitter.Language(load())
    except ImportError as error:
        raise ToolchainMissing(
            f"the grammar of {name} is not installed", given=error, hint="pip install 'gradatim[languages]'"
        ) from error


def _tree(language: Language, source: bytes) -> Any:
    """The tree of ``source``; None when it needs more than ``STEPS``. Counted, not timed: the same on any machine."""
    grammar = _grammar(language.name, language.grammar)
    import tree_sitter

    steps = 0

    def stop(*progress: object) -> bool:
        nonlocal steps
        steps += 1
        return steps > STEPS

    # A parser holds state: one each time, because checks run in several threads and making one costs microseconds.
    parser = tree_sitter.Parser(grammar)
    try:
        return parser.parse(lambda offset, point: source[offset : offset + 4096], progress_callback=stop)
    except ValueError:  # the parser was stopped
        return None
    except TypeError:  # tree-sitter 0.24 reports no progress
        return parser.parse(source)
