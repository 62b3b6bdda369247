"""Edits of Python source that introduce one mistake, found in its syntax tree.

Positions come from Python's own syntax tree, edits are spans of the text, so that all other layout stays. Strings,
annotations and the inside of f-strings (which has no positions in Python 3.11) are left alone. A name is only replaced
by another one bound before it in the same function, so that the mistake is one of logic and not a ``NameError``. No
code is run; ``mutations`` checks that an edited text parses.

Single edits of source code that introduce one mistake.

An ``Edit`` replaces one span of bytes and names its kind of mistake; layout and comments of the text stay. The tables
list which operators are commonly confused. ``python_mutations`` (Python's syntax tree) and ``treesitter_mutations``
find edits, ``mutations`` chooses among them.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from ..programs.interpret import SYMBOLS

Kind = Literal["operator", "constant", "boundary", "variable", "branch"]
KINDS: tuple[Kind, ...] = get_args(Kind)

OPERATORS: dict[str, tuple[str, ...]] = {
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+",),
    "/": ("*",),
    "//": ("/", "*"),
    "%": ("*",),
    "**": ("*",),
    "==": ("!=",),
    "!=": ("==",),
    "===": ("!==",),
    "!==": ("===",),
    "<": (">",),
    ">": ("<",),
    "<=": (">=",),
    ">=": ("<=",),
    "&": ("|",),
    "|": ("&",),
    "^": ("|",),
    "&&": ("||",),
    "||": ("&&",),
    "and": ("or",),
    "or": ("and",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
    "+=": ("-=",),
    "-=": ("+=",),
    "*=": ("+=",),
    "/=": ("*=",),
    "//=": ("/=",),
    "%=": ("/=",),
}
"""Wrong operators by correct operator. Shifts are left out: in C++ they are mostly streams."""

BOUNDARIES: dict[str, str] = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclass(frozen=True)
class Edit:
    """Bytes ``start`` to ``end`` of a source become ``text``: one mistake of its ``kind``."""

    start: int
    end: int
    text: bytes
    kind: Kind


def apply(source: bytes, edit: Edit) -> bytes:
    """Apply one edit to ``source``."""
    return source[: edit.start] + edit.text + source[edit.end :]


def swaps(start: int, end: int, operator: str) -> Iterator[Edit]:
    """Edits that replace the operator at this span by each one of the tables."""
    if operator in BOUNDARIES:
        yield Edit(start, end, BOUNDARIES[operator].encode(), "boundary")
    for replacement in OPERATORS.get(operator, ()):
        yield Edit(start, end, replacement.encode(), "operator")


def numbers(start: int, end: int, values: Iterable[int | float], kind: Kind) -> Iterator[Edit]:
    """Edits that replace the number at this span by each of ``values``."""
    for value in values:
        yield Edit(start, end, repr(value).encode(), kind)


_SYMBOLS: dict[type[ast.AST], str] = {
    **SYMBOLS,
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
_COMMENT = re.compile(rb"#[^\n]*")
_ELSE = re.compile(rb"^[ \t]*else\s*:", re.MULTILINE)
_SIMPLE = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.BinOp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_Scope = dict[str, int]
"""Names bound in one function or module, with the byte of the first binding."""


def python_edits(source: str) -> list[Edit]:
    """All edits, in the order of the text.

    Raises ``SyntaxError``, ``ValueError`` or ``RecursionError`` for text that Python does not parse.
    """
    return sorted(_Finder(source).edits(), key=lambda edit: (edit.start, edit.end, edit.kind, edit.text))


class _Finder:
    """One parsed source; all positions are bytes of its UTF-8."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.source = source.encode()
        self.starts = [0]
        for line in self.source.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.bounds: set[ast.AST] = set()  # numbers that are limits: they are only changed by one

    def edits(self) -> Iterator[Edit]:
        # A lone carriage return ends a line for Python, but not in ``self.starts``.
        if b"\r" not in self.source.replace(b"\r\n", b"\n"):
            yield from self.visit(self.tree, self.scope(self.tree))

    def visit(self, node: ast.AST, scope: _Scope) -> Iterator[Edit]:
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, _FUNCTIONS):
            scope = self.scope(node)
        yield from self.of_node(node, scope)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.AST):
                    yield from self.visit(child, scope)

    def of_node(self, node: ast.AST, scope: _Scope) -> Iterator[Edit]:
        """The edits of this node, without its children."""
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                yield from self.between(left, right, op)
            case ast.BoolOp(op=op, values=values):
                for left, right in pairwise(values):
                    yield from self.between(left, right, op)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                for compared, a, b in zip(ops, [left, *rights], rights, strict=False):
                    yield from self.between(a, b, compared)
            case ast.AugAssign(target=target, op=op, value=value):
                yield from self.between(target, value, op, "=")
            case ast.UnaryOp(op=ast.Not()):
                start = self.start(node)
                word = re.match(rb"not\b\s*", self.source[start:])
                yield Edit(start, start + len(word[0]) if word else start, b"", "operator")
            case ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]):
                yield from self.limits(arguments[:2])
            case ast.Slice(lower=lower, upper=upper):
                yield from self.limits([bound for bound in (lower, upper) if bound is not None])
            case ast.Subscript(slice=index) if _integer(index) is not None or _step(index) is not None:
                yield from self.limits([index])
            case ast.Constant(value=value) if node not in self.bounds:
                yield from self.constant(node, value)
            case ast.Name(id=name, ctx=ast.Load()) if name in scope:
                start = self.start(node)
                for variable in sorted(scope):
                    if variable != name and scope[variable] < start:
                        yield Edit(start, self.end(node), variable.encode(), "variable")
            case ast.IfExp(body=body, orelse=otherwise):
                for branch in (body, otherwise):
                    text = self.text(branch)
                    text = text if isinstance(branch, ast.Constant) else b"(" + text + b")"
                    yield Edit(self.start(node), self.end(node), text, "branch")
            case ast.If():
                yield from self.branches(node)

    def between(self, left: ast.expr, right: ast.expr, op: ast.AST, suffix: str = "") -> Iterator[Edit]:
        """Edits of the operator between two operands."""
        symbol = _SYMBOLS.get(type(op))
        if symbol is None:
            return
        start = self.end(left)
        gap = _COMMENT.sub(lambda match: b" " * len(match[0]), self.source[start : self.start(right)])
        pattern = re.escape(symbol + suffix).replace(r"\ ", r"\s+").encode()
        if match := re.search(pattern, gap):
            yield from swaps(start + match.start(), start + match.end(), symbol + suffix)

    def limits(self, limits: Sequence[ast.expr]) -> Iterator[Edit]:
        """Edits that change a bound by one."""
        for node in limits:
            start, end, value = self.start(node), self.end(node), _integer(node)
            if value is not None:
                self.bounds.update(ast.walk(node))
                yield from numbers(start, end, [v for v in (value - 1, value + 1) if value or v > 0], "boundary")
            elif isinstance(node, ast.BinOp) and (step := _step(node)) is not None:
                self.bounds.add(node.right)
                yield from numbers(self.start(node.right), self.end(node.right), [step + 1], "boundary")
                if step == 1:
                    yield Edit(self.end(node.left), end, b"", "boundary")
            elif not isinstance(node, ast.Starred):
                text = self.text(node) if isinstance(node, _SIMPLE) else b"(" + self.text(node) + b")"
                for step_text in (b" + 1", b" - 1"):
                    yield Edit(start, end, text + step_text, "boundary")

    def constant(self, node: ast.expr, value: object) -> Iterator[Edit]:
        start, end = self.start(node), self.end(node)
        if isinstance(value, bool):
            yield Edit(start, end, repr(not value).encode(), "constant")
        elif isinstance(value, int):
            yield from numbers(start, end, [v for v in (value - 1, value + 1) if v >= 0], "constant")
        elif isinstance(value, float) and math.isfinite(value):
            yield from numbers(start, end, [value + 1], "constant")

    def branches(self, node: ast.If) -> Iterator[Edit]:
        """Edits that remove an else, an elif, or a whole if."""
        start, end = self.start(node), self.end(node)
        inner = node.orelse[0] if node.orelse else None
        first = self.source[start : start + 4]
        if isinstance(inner, ast.If) and self.source[self.start(inner) : self.start(inner) + 4] == b"elif":
            # The next branch replaces this one, and takes over its keyword.
            yield Edit(start, self.start(inner) + (0 if first == b"elif" else len("el")), b"", "branch")
        elif inner is not None:
            body_end = self.end(node.body[-1])
            if word := _ELSE.search(self.source, body_end, self.start(inner)):
                yield Edit(word.start(), self.line_end(end), b"", "branch")
                if first == b"elif":
                    yield Edit(self.line_start(start), word.start(), b"", "branch")
        elif first == b"elif":
            yield Edit(self.line_start(start), self.line_end(end), b"", "branch")
        else:
            yield Edit(start, end, b"pass", "branch")

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr) -> bytes:
        return self.source[self.start(node) : self.end(node)]

    def line_start(self, position: int) -> int:
        return self.source.rfind(b"\n", 0, position) + 1

    def line_end(self, position: int) -> int:
        newline = self.source.find(b"\n", position)
        return len(self.source) if newline < 0 else newline + 1

    def scope(self, owner: ast.AST) -> _Scope:
        """Names bound in ``owner`` itself: its parameters and the targets of its statements."""
        names: _Scope = {}
        if isinstance(owner, _FUNCTIONS):
            arguments = owner.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if argument.arg not in ("self", "cls"):
                    names[argument.arg] = self.start(owner)
        stack: list[tuple[ast.AST, int]] = [(child, 0) for child in ast.iter_child_nodes(owner)]
        while stack:
            node, bound = stack.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                position = max(bound, self.end(node))
                names[node.id] = min(position, names.get(node.id, position))
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.For):  # bound after its value
                bound = self.end(node.iter if isinstance(node, ast.For) else node)
            elif isinstance(node, ast.stmt):
                bound = 0
            if not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef, ast.Lambda, ast.JoinedStr)):
                stack.extend((child, bound) for child in ast.iter_child_nodes(node))
        return names


def _integer(node: ast.expr) -> int | None:
    """The value of an integer literal, with its minus sign."""
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)) if not isinstance(value, bool):
            return -value
    return None


def _step(node: ast.expr) -> int | None:
    """The integer literal that ``node`` adds or subtracts."""
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub(), right=ast.Constant() as right):
            return _integer(right)
    return None
