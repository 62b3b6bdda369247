"""How unfamiliar are a program's constructs?

A construct is one edge of the syntax tree ("an If that holds a Compare", "a BinOp by Div") or a call of a function
by its name. Its surprisal is -log2 of its share among all constructs of the table that is scored, so the figure
is about this corpus: the same program is less surprising where there are more like it. One pass counts, and the
figures follow from the counts. Names of variables and values of constants are no constructs.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ..options import strict
from ..stage import Events, ignore_events
from .program import Rows, chunk_map, trees

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["constructs", "rarity"]


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
