"""Difficulties from a program's surface: length, depth, redundancy, rarity, and a number from the data.

``size``: characters, tokens or lines. Characters work in any language and are the input of a character-level model;
tokens and lines do not grow with long names.

``nesting``: the greatest number of compound statements around any statement: 0 for straight code, 1 for the body of one
``if``, 2 for a loop in it. ``elif`` is at the depth of its ``if``. Brackets inside expressions do not count.

``compression``: raw DEFLATE (no header, level 9) of the UTF-8 bytes. ``ratio`` is compressed over original size, among
the best static signals for web text in arXiv 2506.11300. A compressor needs a few hundred bytes before it finds
redundancy, so on TinyPy programs (about 60 bytes) the ratio mostly reflects how short they are; there, prefer
``bytes``, the compressed size, which grows with the content of a program.

``rarity``: surprisal of a program's constructs. A construct is one edge of the syntax tree ("an If that holds a
Compare", "a BinOp by Div") or a call of a function by its name; its surprisal is -log2 of its share among all
constructs of the scored table, so that the score is relative to that corpus. Names of variables and values of constants
are no constructs.

``given``: a number in a column of the data: TinyPy's level, a manual label, a score from another tool. A value that is
no number (empty, "unknown") gives no score.
"""

from __future__ import annotations

import ast
import math
import tokenize
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..errors import RecipeError
from ..lazy import np
from ..options import strict
from ..stage import Events, ignore_events
from .complexity import lexemes
from .python_source import PerText, PerTree, Rows, chunk_map, parse, trees

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


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


_BLOCKS = ("body", "orelse", "finalbody")


def depth(tree: ast.Module) -> float:
    """The greatest depth of any statement of ``tree``."""
    deepest = 0
    stack: list[tuple[ast.AST, int]] = [(statement, 0) for statement in tree.body]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        for arm in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            stack.extend((statement, level + 1) for statement in arm.body)
        for block in _BLOCKS:
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                stack.extend((statement, level + (not _is_elif(node, block, statement))) for statement in inner)
    return float(deepest)


def _is_elif(node: ast.AST, block: str, statement: ast.stmt) -> bool:
    # In the tree `elif` is an `if` inside `else`; only its column differs.
    return (
        block == "orelse"
        and isinstance(node, ast.If)
        and isinstance(statement, ast.If)
        and statement.col_offset == node.col_offset
    )


@strict("the difficulty 'nesting'")
def nesting() -> PerTree:
    """Depth of nested blocks."""
    return PerTree(depth)


def _bytes(text: str) -> float:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return float(len(deflate.compress(text.encode("utf-8", "surrogatepass"))) + len(deflate.flush()))


def _ratio(text: str) -> float:
    return _bytes(text) / max(1, len(text.encode("utf-8", "surrogatepass")))


@strict("the difficulty 'compression'")
def compression(*, unit: Literal["ratio", "bytes"] = "ratio") -> PerText:
    """Incompressibility of a program: compressed size over its size, or the compressed size alone."""
    return PerText(_ratio if unit == "ratio" else _bytes)


class _ConstructCounts(NamedTuple):
    """The constructs of a chunk: their spellings, one number per occurrence, and their number in each program.

    ``lengths`` is -1 where there is no tree.
    """

    spellings: list[str]
    numbers: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]


def constructs(tree: ast.Module) -> list[str]:
    """All constructs of the program with repetitions, in no meaningful order."""
    spellings: list[str] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        parent = node.__class__.__name__
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            spellings.append("call " + node.func.id)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                spellings.append(parent + " " + child.__class__.__name__)
                stack.append(child)
    return spellings


def _count(rows: Rows) -> _ConstructCounts:
    spellings: dict[str, int] = {}
    numbers: list[int] = []
    lengths: list[int] = []
    for tree in trees(rows):
        program = None if tree is None else constructs(tree)
        lengths.append(-1 if program is None else len(program))
        numbers.extend([spellings.setdefault(spelling, len(spellings)) for spelling in program or ()])
    return _ConstructCounts(list(spellings), np.array(numbers, np.int32), np.array(lengths, np.int32))


@dataclass(frozen=True)
class Rarity:
    """Surprisal of each program's constructs among those of all programs of the table."""

    reads_programs: ClassVar[bool] = True

    of: Literal["mean", "sum"]

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        chunks = list(chunk_map(_count, samples, workers, events))
        if not chunks:
            return np.empty(0)
        numbers, surprisal = _merged(chunks)
        lengths = np.concatenate([chunk.lengths for chunk in chunks])
        counts = np.maximum(lengths, 0)
        rows = np.repeat(np.arange(lengths.size), counts)
        sums = np.bincount(rows, weights=surprisal[numbers], minlength=lengths.size)
        scores = sums if self.of == "sum" else sums / np.maximum(counts, 1)
        return np.where(lengths < 0, np.nan, scores)


def _merged(chunks: Sequence[_ConstructCounts]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """All occurrences with one numbering for all chunks, and the surprisal in bits of each number."""
    numbering: dict[str, int] = {}
    renumbered = []
    for chunk in chunks:
        renumber = np.array([numbering.setdefault(spelling, len(numbering)) for spelling in chunk.spellings], np.int64)
        renumbered.append(renumber[chunk.numbers])
    numbers = np.concatenate(renumbered)
    counts = np.bincount(numbers, minlength=len(numbering))
    return numbers, np.log2(max(1, numbers.size)) - np.log2(counts)


@strict("the difficulty 'rarity'")
def rarity(*, of: Literal["mean", "sum"] = "mean") -> Rarity:
    """Surprisal of a program's constructs in bits: their mean, or their sum."""
    return Rarity(of)


@dataclass(frozen=True)
class ColumnValue:
    """The numbers of one column of the samples."""

    column: str

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        """Raises ``RecipeError`` when the samples have no such column; a column mapping drops the columns it omits."""
        if self.column not in samples.column_names:
            raise RecipeError(
                "the data has no such column",
                where="difficulty.column",
                given=repr(self.column),
                allowed=f"a column of numbers among {', '.join(samples.column_names)}",
                hint=f"name it in the column mapping: data.columns.{self.column}: {self.column}",
            )

        return np.array([_number(value) for value in samples.column(self.column).to_pylist()], np.float64)


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
    return number if math.isfinite(number) else float("nan")


@strict("the difficulty 'given'")
def given(*, column: str = "level") -> ColumnValue:
    """The number in a column of the data: a label of your own, or TinyPy's level."""
    return ColumnValue(column)
