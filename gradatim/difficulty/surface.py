"""How long is a program?

Its characters, its tokens or its lines. Characters work in any language and are what a character-level student has
to read; tokens and lines do not grow with long names. A student's own tokenizer is not asked.

How deep do blocks stand inside blocks?

The greatest number of compound statements around any statement: 0 for straight code, 1 for the body of one ``if``,
2 for a loop in it. ``elif`` is at the depth of its ``if``. Brackets inside expressions are not counted.

How little does a program repeat itself?

Raw DEFLATE (no header, level 9) on its UTF-8 bytes. ``ratio`` is compressed over original size, the static signal
that arXiv 2506.11300 found among the best for web text. A compressor needs a few hundred bytes before it finds
anything to share, so on TinyPy programs (about 60 bytes) the ratio mostly says how short they are, the shorter the
"harder": there, choose ``bytes``, the compressed size itself, which grows with what a program has to say.

How unfamiliar are a program's constructs?

A construct is one edge of the syntax tree ("an If that holds a Compare", "a BinOp by Div") or a call of a function
by its name. Its surprisal is -log2 of its share among all constructs of the table that is scored, so the figure
is about this corpus: the same program is less surprising where there are more like it. One pass counts, and the
figures follow from the counts. Names of variables and values of constants are no constructs.

How hard does the data itself say that a sample is?

A number that stands in a column already: TinyPy's level, a label by hand, a score from another tool. What is no
number (empty, "unknown") has no score, as elsewhere.
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
from ..options import strict
from ..stage import Events, ignore_events
from .complexity import lexemes
from .python_source import PerText, PerTree, Rows, chunk_map, parse, trees

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["compression", "constructs", "depth", "given", "nesting", "rarity", "size"]


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
    # The tree writes `elif` as an `if` inside `else`; only its column tells the two apart.
    return (
        block == "orelse"
        and isinstance(node, ast.If)
        and isinstance(statement, ast.If)
        and statement.col_offset == node.col_offset
    )


@strict("the difficulty 'nesting'")
def nesting() -> PerTree:
    """How deep blocks stand inside blocks."""
    return PerTree(depth)


def _bytes(text: str) -> float:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return float(len(deflate.compress(text.encode("utf-8", "surrogatepass"))) + len(deflate.flush()))


def _ratio(text: str) -> float:
    return _bytes(text) / max(1, len(text.encode("utf-8", "surrogatepass")))


@strict("the difficulty 'compression'")
def compression(*, unit: Literal["ratio", "bytes"] = "ratio") -> PerText:
    """How little a program can be compressed: compressed size over its size, or the compressed size alone."""
    return PerText(_ratio if unit == "ratio" else _bytes)


class _Counted(NamedTuple):
    """The constructs of a chunk: their spellings, one number per occurrence, and how many each program has.

    ``lengths`` is -1 where there is no tree.
    """

    spellings: list[str]
    numbers: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]


def constructs(tree: ast.Module) -> list[str]:
    """Every construct of the program, repeated as often as it occurs, in no meaningful order."""
    found: list[str] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        above = node.__class__.__name__
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.append("call " + node.func.id)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                found.append(above + " " + child.__class__.__name__)
                stack.append(child)
    return found


def _count(rows: Rows) -> _Counted:
    import numpy as np

    spellings: dict[str, int] = {}
    numbers: list[int] = []
    lengths: list[int] = []
    for tree in trees(rows):
        found = None if tree is None else constructs(tree)
        lengths.append(-1 if found is None else len(found))
        numbers.extend([spellings.setdefault(spelling, len(spellings)) for spelling in found or ()])
    return _Counted(list(spellings), np.array(numbers, np.int32), np.array(lengths, np.int32))


@dataclass(frozen=True)
class Rarity:
    """Surprisal of each program's constructs among those of all the programs it is scored with."""

    reads_programs: ClassVar[bool] = True

    of: Literal["mean", "sum"]

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        import numpy as np

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


def _merged(chunks: Sequence[_Counted]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Every occurrence numbered alike in all chunks, and the surprisal in bits of each number."""
    import numpy as np

    known: dict[str, int] = {}
    parts = []
    for chunk in chunks:
        renumber = np.array([known.setdefault(spelling, len(known)) for spelling in chunk.spellings], np.int64)
        parts.append(renumber[chunk.numbers])
    numbers = np.concatenate(parts)
    counts = np.bincount(numbers, minlength=len(known))
    return numbers, np.log2(max(1, numbers.size)) - np.log2(counts)


@strict("the difficulty 'rarity'")
def rarity(*, of: Literal["mean", "sum"] = "mean") -> Rarity:
    """How unfamiliar a program's constructs are, in bits: on average, or all of them together."""
    return Rarity(of)


@dataclass(frozen=True)
class Given:
    """The numbers of one column of the samples."""

    column: str

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        """``RecipeError`` when the samples have no such column; a mapping leaves only those that it names."""
        if self.column not in samples.column_names:
            raise RecipeError(
                "the data has no such column",
                where="difficulty.column",
                given=repr(self.column),
                allowed=f"a column of numbers among {', '.join(samples.column_names)}",
                hint=f"name it in the column mapping: data.columns.{self.column}: {self.column}",
            )
        import numpy as np

        return np.array([_number(value) for value in samples.column(self.column).to_pylist()], np.float64)


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
    return number if math.isfinite(number) else float("nan")


@strict("the difficulty 'given'")
def given(*, column: str = "level") -> Given:
    """The number that stands in a column of the data: a label of your own, or TinyPy's level."""
    return Given(column)
