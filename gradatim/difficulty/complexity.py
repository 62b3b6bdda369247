"""Metrics of a program's text: complexity, executed steps, length, depth, rarity; and a number from the data.

``cyclomatic`` is McCabe's complexity of a whole file, 1 + its decisions, counted exactly as radon's
``ComplexityVisitor.total_complexity`` counts them. ``om`` is the Overall Metric of arXiv 2407.10194, OM = (CC + HD) /
2, with CC the cyclomatic complexity and HD = (n1 / 2)(N2 / n2) the Halstead difficulty, both exactly as in radon: the
paper's levels (easy < 2 <= medium < 4 <= hard) are defined on radon's scale. That scale counts no assignment, call or
keyword as an operator, so a program of plain loops has HD = 0 and counts as easy.

``size``: characters, tokens or lines. Characters work in any language and are the input of a character-level model;
tokens and lines do not grow with long names.

``compression``: raw DEFLATE (no header, level 9) of the UTF-8 bytes. ``ratio`` is compressed over original size, among
the best static signals for web text in arXiv 2506.11300. A compressor needs a few hundred bytes before it finds
redundancy, so on TinyPy programs (about 60 bytes) the ratio mostly reflects how short they are; there, prefer
``bytes``, the compressed size, which grows with the content of a program.
"""

from __future__ import annotations

import ast
import functools
import io
import keyword
import math
import re
import token
import tokenize
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from ..errors import DataError, RecipeError
from ..lazy import np
from ..options import strict
from ..programs import run_program
from ..stage import Difficulty, Events, ignore_events
from ..table import slices
from .python_source import PerText, PerTree, Rows, chunk_map, parse, trees

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


def total_complexity(tree: ast.Module) -> float:
    """1 + the decisions of the module, its functions, classes and methods."""
    return float(radon_scores(tree)[0])


@strict("the difficulty 'cyclomatic'")
def cyclomatic() -> PerTree:
    """Independent paths: 1 + the decisions of the whole file, as radon counts them."""
    return PerTree(total_complexity)


_OPERANDS_IN_WORDS = frozenset(["True", "False", "None"])
_KEYWORDS = frozenset(keyword.kwlist) - _OPERANDS_IN_WORDS
_CLOSING = frozenset([")", "]", "}"])
_SIGNS = frozenset(token.EXACT_TOKEN_TYPES) - _CLOSING
_OPERATORS = _KEYWORDS | _SIGNS
_LITERALS = frozenset(
    getattr(tokenize, kind) for kind in ("NUMBER", "STRING", "FSTRING_MIDDLE") if hasattr(tokenize, kind)
)

# A program without strings and joined lines, such as any TinyPy program, is tokenized by one expression, several times
# as fast as the standard tokenizer: without them the kind of a token does not depend on the text before it.
_UNUSUAL = ("'", '"', "\\", "\r", "\f")
_PLAIN_OPERATORS = re.compile(
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
        return [(spelling in _OPERATORS, spelling) for spelling in _PLAIN_OPERATORS.findall(text) if spelling]
    return list(_read(text))


def _read(text: str) -> Iterator[tuple[bool, str]]:
    """The lexemes of any program, by the standard tokenizer."""
    for item in tokenize.generate_tokens(io.StringIO(text).readline):
        if item.type == tokenize.OP:
            if item.string not in _CLOSING:
                yield True, item.string
        elif item.type == tokenize.NAME:
            yield item.string in _KEYWORDS, item.string
        elif item.type in _LITERALS:
            yield False, item.string


def token_difficulty(text: str) -> float:
    """(n1 / 2)(N2 / n2); 0 without operands, NaN for what is not Python.

    ``halstead`` counts tokens instead (Elements of Software Science, 1977): n1 distinct operators, n2 distinct and
    N2 total operands, where an operator is any keyword, delimiter or sign (a pair of brackets is one), an operand
    any name, number or string. It is the better default outside the paper's protocol.
    """
    if parse(text) is None:
        return math.nan
    try:
        tokens = lexemes(text)
    except (tokenize.TokenError, SyntaxError):  # tokenizer and parser differ on some odd endings
        return math.nan
    operators = {spelling for is_operator, spelling in tokens if is_operator}
    operands = [spelling for is_operator, spelling in tokens if not is_operator]
    return len(operators) / 2 * len(operands) / len(set(operands)) if operands else 0.0


@strict("the difficulty 'halstead'")
def halstead() -> PerText:
    """Halstead difficulty over tokens: keywords, calls and assignments count as operators."""
    return PerText(token_difficulty, python=True)


# Peculiarities of radon that are reproduced. Of CC:
# - a module-level function adds its decisions, a method its decisions + 1, a class those of its body; a function or
#   class inside a function adds nothing, nor does a class inside a class;
# - decorators, default values, annotations, base classes and the test of an assert are not visited;
# - `try … except*` and `with` are no decisions; a bare name or `_` among its cases makes a match one path less.
# Of HD:
# - only the five kinds of `_operation` are operations: no assignment, call, subscript or keyword is;
# - operands are distinguished within the name of the innermost function, so an `x` in `f` and one in `g` are two, but
#   two functions of one name share theirs; a name, an attribute and a string constant spelt alike are one operand,
#   as are 1, 1.0 and True; any other operand (a call, a sum) is unlike every other;
# - decorators, default values and annotations of functions are not visited, those of classes are.

_UNCOUNTED, _MODULE, _CLASS, _FUNCTION = range(4)  # the scope of a walk as CC distinguishes it
Scope = tuple[list[Any], int, str | None]  # nodes, their scope for CC, the innermost function's name for HD

_PLAIN = (type(None), bool, int, str)
_BARE = tuple(kind for kind in vars(ast).values() if isinstance(kind, type) and not getattr(kind, "_fields", True))
_INERT = frozenset(
    (ast.Name, ast.Constant, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.alias, *_BARE, *_PLAIN)
)  # values of a node's fields that have no nodes below them
_SCOPES = frozenset((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assert))
_OPERATIONS = frozenset((ast.BinOp, ast.Compare, ast.BoolOp, ast.AugAssign, ast.UnaryOp))
_DECISIONS = frozenset((ast.AsyncFor, ast.For, ast.If, ast.IfExp, ast.Match, ast.Try, ast.While, ast.comprehension))


def radon_scores(tree: ast.Module) -> tuple[int, float]:
    """(CC, HD) of a whole file, as radon 6 counts them; HD is 0 for a program without operations.

    The loop is long because it is hot: a call for each node and each operation costs a quarter of the time.
    """
    complexity, used = 1, 0
    operators: set[type] = set()
    operands: dict[str | None, set[object]] = {}
    scopes: list[Scope] = [(tree.body, _MODULE, None)]
    for nodes, inside, function in scopes:  # grows while it is walked
        spellings = operands.setdefault(function, set())
        stack = list(nodes)
        while stack:
            node = stack.pop()
            kind = node.__class__
            if kind in _INERT:
                continue
            if kind is ast.Assign:
                stack.append(node.value)
                stack.extend(node.targets)
            elif kind is ast.Expr:
                stack.append(node.value)
            elif kind in _OPERATIONS:
                if kind is ast.BinOp:
                    operators.add(node.op.__class__)
                    terms: Any = (node.left, node.right)
                else:
                    signs, terms = _operation(node, kind)
                    operators.update([sign.__class__ for sign in signs])
                    complexity += len(terms) - 1 if inside and kind is ast.BoolOp else 0
                used += len(terms)
                for term in terms:  # names, constants, attributes: distinct by spelling; others by identity
                    inner = term.__class__
                    if inner is ast.Name:
                        spellings.add(term.id)
                    elif inner is ast.Constant:
                        spellings.add(term.value)
                    else:
                        spellings.add(term.attr if inner is ast.Attribute else term)
                        stack.append(term)
            elif kind in _SCOPES:
                scopes.extend(_inner(node, kind, inside, function))
                complexity += (kind is ast.Assert and inside > 0) or (inside == _CLASS and kind is not ast.ClassDef)
            else:
                if inside and kind in _DECISIONS:
                    complexity += _decisions(node, kind)
                for value in _READERS[kind](node):
                    if value.__class__ is list:
                        stack.extend(value)
                    else:
                        stack.append(value)
    distinct = sum(map(len, operands.values()))
    return complexity, len(operators) * used / float(2 * distinct) if distinct else 0.0


def _operation(node: Any, kind: type) -> tuple[list[Any], list[Any]]:
    """Operators and operands of an operation; the node has no other children."""
    if kind is ast.BinOp:
        return [node.op], [node.left, node.right]
    if kind is ast.Compare:
        return node.ops, [node.left, *node.comparators]
    if kind is ast.BoolOp:
        return [node.op], node.values
    if kind is ast.AugAssign:
        return [node.op], [node.target, node.value]
    return [node.op], [node.operand]


def _decisions(node: Any, kind: type) -> int:
    if kind is ast.If or kind is ast.IfExp:
        return 1
    if kind is ast.comprehension:
        return 1 + len(node.ifs)
    if kind is ast.Try:
        return len(node.handlers) + bool(node.orelse)
    if kind is ast.Match:
        catches_all = any(getattr(case.pattern, "pattern", False) is None for case in node.cases)
        return max(0, len(node.cases) - catches_all)
    return 1 + bool(node.orelse)


def _inner(node: Any, kind: type, inside: int, function: str | None) -> list[Scope]:
    """The scopes that a definition opens, or an assert, whose test does not count for CC."""
    if kind is ast.Assert:
        return [([node.test, node.msg] if node.msg else [node.test], _UNCOUNTED, function)]
    if kind is ast.ClassDef:
        body = (node.body, _CLASS if inside == _MODULE else _UNCOUNTED, function)
        return [body, ([*node.bases, *node.keywords, *node.decorator_list], _UNCOUNTED, function)]
    return [(node.body, _FUNCTION if inside in (_MODULE, _CLASS) else _UNCOUNTED, node.name)]


class _Readers(dict[type, Callable[[Any], tuple[Any, ...]]]):
    """By class of node, a function that reads all fields that may hold nodes; made when the class first occurs."""

    def __missing__(self, kind: type) -> Callable[[Any], tuple[Any, ...]]:
        fields = [name for name in getattr(kind, "_fields", ()) if name not in ("ctx", "type_comment")]
        if len(fields) > 1:
            self[kind] = attrgetter(*fields)
        else:  # an attrgetter of one name returns no tuple
            self[kind] = lambda node: tuple(getattr(node, name) for name in fields)
        return self[kind]


_READERS = _Readers()


def overall_metric(tree: ast.Module) -> float:
    """(CC + HD) / 2 of a whole file; the least value is 0.5."""
    return sum(radon_scores(tree)) / 2


@strict("the difficulty 'om'")
def om() -> PerTree:
    """The paper's Overall Metric: mean of cyclomatic complexity and Halstead difficulty, as radon counts them."""
    return PerTree(overall_metric)


_COUNTER = "steps_taken_so_far"  # longer than any name a TinyPy program has
_START, _TICK, _PRINT = ast.parse(f"{_COUNTER} = 0\n{_COUNTER} = {_COUNTER} + 1\nprint({_COUNTER})\n").body


def steps(tree: ast.Module, limit: int) -> float:
    """Statements executed plus loop iterations; NaN when the program does not run to its end within ``limit``.

    ``tree`` is modified.

    ``trace`` counts executed steps: a step is one executed statement or one iteration of a loop. A counter is added
    to the program, and the TinyPy interpreter of ``programs`` runs it, which has no access to the machine and
    always ends; Python itself executes nothing. A program that is not TinyPy, fails, or does not end within
    ``limit`` steps has no score (NaN).
    """
    try:
        tree.body = [_START, *_with_ticks(tree.body), _PRINT]
        # The statements of the counter run as well: one for each step, the first and the last.
        printed = run_program(ast.unparse(tree), max_steps=2 * limit + 2 + limit)
    except (DataError, RecursionError, ValueError):
        return math.nan
    count = int(printed.splitlines()[-1])
    return float(count) if count <= limit else math.nan


def _with_ticks(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements, each with a tick before it, and one more at the head of each loop's body."""
    statements = []
    for statement in body:
        if isinstance(statement, (ast.If, ast.For, ast.While)):
            tick = [] if isinstance(statement, ast.If) else [_TICK]
            statement.body = [*tick, *_with_ticks(statement.body)]
            statement.orelse = _with_ticks(statement.orelse)
        statements += [_TICK, statement]
    return statements


@strict("the difficulty 'trace'")
def trace(
    *,
    limit: Annotated[
        int, Field(description="Maximum number of executed steps; a program that exceeds it has no score.")
    ] = 10_000,
) -> PerTree:
    """Steps executed when a TinyPy program runs; no score past ``limit`` of them."""
    if limit < 1:
        raise RecipeError("a program takes at least 1 step", where="trace.limit", given=limit)
    return PerTree(functools.partial(steps, limit=limit))


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
def size(
    *, unit: Annotated[Literal["characters", "tokens", "lines"], Field(description="Unit of length.")] = "characters"
) -> PerText:
    """Length in characters, tokens (of Python; brackets count as pairs, comments do not) or lines (not blank)."""
    if unit == "tokens":
        return PerText(_tokens, python=True)
    return PerText(_characters if unit == "characters" else _lines)


_BLOCKS = ("body", "orelse", "finalbody")


def depth(tree: ast.Module) -> float:
    """The greatest depth of any statement of ``tree``.

    ``nesting``: the greatest number of compound statements around any statement: 0 for straight code, 1 for the
    body of one ``if``, 2 for a loop in it. ``elif`` is at the depth of its ``if``. Brackets inside expressions do
    not count.
    """
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
def compression(
    *,
    unit: Annotated[
        Literal["ratio", "bytes"],
        Field(description="Compressed size over the program's size (`ratio`), or the compressed size (`bytes`)."),
    ] = "ratio",
) -> PerText:
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
class Rarity(Difficulty):
    """Surprisal of each program's constructs among those of all programs of the table.

    ``rarity``: surprisal of a program's constructs. A construct is one edge of the syntax tree ("an If that holds a
    Compare", "a BinOp by Div") or a call of a function by its name; its surprisal is -log2 of its share among all
    constructs of the scored table, so that the score is relative to that corpus. Names of variables and values of
    constants are no constructs.
    """

    reads_programs = True

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
def rarity(
    *,
    of: Annotated[Literal["mean", "sum"], Field(description="Mean or sum over the constructs of a program.")] = "mean",
) -> Rarity:
    """Surprisal of a program's constructs in bits: their mean, or their sum."""
    return Rarity(of)


@dataclass(frozen=True)
class ColumnValue(Difficulty):
    """The numbers of one column of the samples.

    The metric ``column``: a number in a column of the data, such as TinyPy's level, a manual label or a score from
    another tool. A value that is no number (empty, "unknown") gives no score.
    """

    column: str

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """Raises ``RecipeError`` when the samples have no such column; a column mapping drops the columns it omits."""
        if self.column not in samples.column_names:
            raise RecipeError(
                "the data has no such column",
                where="difficulty.column",
                given=repr(self.column),
                allowed=f"a column of numbers among {', '.join(samples.column_names)}",
                hint=f"name it in the column mapping: data.columns.{self.column}: {self.column}",
            )

        values = (value for part in slices(samples.column(self.column)) for value in part.to_pylist())
        return np.fromiter(map(_number, values), np.float64, samples.num_rows)


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
    return number if math.isfinite(number) else float("nan")


@strict("the difficulty 'column'")
def column(*, column: Annotated[str, Field(description="Name of the column with the score.")] = "level") -> ColumnValue:
    """The number in a column of the data: a label of your own, or TinyPy's level."""
    return ColumnValue(column)
