"""Which small mistakes fit into this source in C, C++, Go, Java, JavaScript or TypeScript?

tree-sitter reads all of them alike, and their grammars agree on most names of nodes, so one set of rules serves; what
differs is in the tables below. A name is only replaced by another of the same written type that is declared before it
in a block around it. Nothing is compiled: an edit may still be refused by a compiler, which is a fault too. Whether an
edited text parses is asked by ``mutate``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .edits import Edit, numbers, swaps

if TYPE_CHECKING:
    from ..languages import Language

__all__ = ["tree_edits"]


_NUMBERS = frozenset(
    [
        "number_literal",
        "decimal_integer_literal",
        "decimal_floating_point_literal",
        "number",
        "int_literal",
        "float_literal",
    ]
)
_COMPOUND = frozenset(["assignment_expression", "augmented_assignment_expression", "assignment_statement"])
_INDEXES = frozenset(["subscript_expression", "subscript_argument_list", "array_access", "index_expression"])
_CHOICES = frozenset(["conditional_expression", "ternary_expression"])
_BLOCKS = frozenset(["compound_statement", "block", "statement_block", "statement_list", "program"])
_SIMPLE = (
    frozenset(["identifier", "call_expression", "method_invocation", "field_expression", "field_access"]) | _INDEXES
)
_SCOPES = _BLOCKS | frozenset(
    [
        "translation_unit",
        "source_file",
        "for_statement",
        "for_range_loop",
        "for_in_statement",
        "enhanced_for_statement",
        "if_statement",
        "function_definition",
        "function_declaration",
        "method_declaration",
        "constructor_declaration",
        "method_definition",
        "arrow_function",
        "function_expression",
        "func_literal",
        "lambda_expression",
        "lambda_literal",
        "catch_clause",
    ]
)
_WRAPPERS = frozenset(["init_declarator", "pointer_declarator", "reference_declarator", "array_declarator"])
_DECLARING = {  # parent's type -> the fields that hold the name
    "declaration": ("declarator",),
    "parameter_declaration": ("declarator", "name"),
    "optional_parameter_declaration": ("declarator",),
    "for_range_loop": ("declarator",),
    "variable_declarator": ("name",),
    "formal_parameter": ("name",),
    "required_parameter": ("pattern",),
    "optional_parameter": ("pattern",),
    "enhanced_for_statement": ("name",),
    "for_in_statement": ("left",),
    "var_spec": ("name",),
    "arrow_function": ("parameter",),
}
_CALLED = {"call_expression": "function", "method_invocation": "name", "field_access": "field"}


@dataclass(frozen=True)
class _Declared:
    """One declared name: where it is in scope, from which byte on, and its type as it is written."""

    name: str
    start: int
    scope: tuple[int, int]
    kind: str


def tree_edits(language: Language, source: str) -> list[Edit]:
    """Every edit that these rules know, in the order of the text. Raises ``ToolchainMissing`` without the grammar."""
    from tree_sitter import Parser

    code = source.encode()
    tree = Parser(_grammar(language.name, language.grammar)).parse(code)  # it must outlive its nodes
    nodes = list(_nodes(tree.root_node))
    declared = [found for node in nodes if (found := _declared(node)) is not None]
    edits = {edit for node in nodes for edit in (*_here(node), *_names(node, declared))}
    return sorted(edits, key=lambda edit: (edit.start, edit.end, edit.kind, edit.text))


@functools.cache
def _grammar(name: str, load: Any) -> Any:
    from tree_sitter import Language as Grammar

    return Grammar(load())


def _nodes(root: Any) -> Iterator[Any]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _here(node: Any) -> Iterator[Edit]:
    """The edits of this very node, names apart."""
    kind = node.type
    if kind == "binary_expression" or kind in _COMPOUND:
        yield from _operator(node)
    elif kind in _NUMBERS:
        limit = node.parent.type in _INDEXES or _limit_of(node.parent) == node
        for value in _others(node.text.decode()):
            yield from numbers(node.start_byte, node.end_byte, [value], "boundary" if limit else "constant")
    elif kind in ("true", "false"):
        yield Edit(node.start_byte, node.end_byte, b"false" if kind == "true" else b"true", "constant")
    elif kind in _CHOICES:
        for field in ("consequence", "alternative"):
            if part := node.child_by_field_name(field):
                yield Edit(node.start_byte, node.end_byte, b"(" + part.text + b")", "branch")
    elif kind == "if_statement":
        yield from _branches(node)
    if (limit := _limit_of(node)) is not None and limit.type not in _NUMBERS:
        text = limit.text if limit.type in _SIMPLE else b"(" + limit.text + b")"
        for step in (b" + 1", b" - 1"):
            yield Edit(limit.start_byte, limit.end_byte, text + step, "boundary")


def _operator(node: Any) -> Iterator[Edit]:
    operator = node.child_by_field_name("operator")
    sides = (node.child_by_field_name("left"), node.child_by_field_name("right"))
    if operator is not None and not any(side is None or "string" in side.type for side in sides):
        yield from swaps(operator.start_byte, operator.end_byte, operator.text.decode())


def _others(text: str) -> list[int | float]:
    """What is written for a plain number by mistake; nothing for the rarer notations."""
    if re.fullmatch(r"0|[1-9]\d*", text):
        return [value for value in (int(text) - 1, int(text) + 1) if value >= 0]
    return [float(text) + 1] if re.fullmatch(r"\d+\.\d+", text) else []


def _limit_of(node: Any) -> Any:
    """What a loop counts up or down to: the right side of the comparison in a for's head."""
    if node.type != "binary_expression":
        return None
    operator, loop = node.child_by_field_name("operator"), node.parent
    if loop is not None and loop.type == "expression_statement":
        loop = loop.parent
    head = loop is not None and loop.type in ("for_statement", "for_clause")
    compares = operator is not None and operator.text in (b"<", b"<=", b">", b">=")
    return node.child_by_field_name("right") if head and compares else None


def _branches(node: Any) -> Iterator[Edit]:
    """An if without its else, a branch left out, a whole if left out."""
    then, otherwise = node.child_by_field_name("consequence"), node.child_by_field_name("alternative")
    if then is None:
        return
    if otherwise is not None:
        yield Edit(then.end_byte, otherwise.end_byte, b"", "branch")
        what = otherwise.named_children[-1] if otherwise.type == "else_clause" else otherwise
        yield Edit(node.start_byte, what.start_byte, b"", "branch")
    elif node.parent is not None and node.parent.type in _BLOCKS:
        yield Edit(node.start_byte, node.end_byte, b"", "branch")


def _names(node: Any, declared: list[_Declared]) -> Iterator[Edit]:
    """A use of a declared name, and the other names that could stand there."""
    if node.type != "identifier" or _declared(node) is not None or _is_called(node):
        return
    seen = {each.name: each for each in declared if each.start < node.start_byte and _holds(each.scope, node)}
    own = seen.get(node.text.decode())
    for other in seen.values() if own else ():
        if own and other.name != own.name and other.kind == own.kind:
            yield Edit(node.start_byte, node.end_byte, other.name.encode(), "variable")


def _holds(scope: tuple[int, int], node: Any) -> bool:
    start, end = scope
    return bool(start <= node.start_byte and node.end_byte <= end)


def _is_called(node: Any) -> bool:
    field = _CALLED.get(node.parent.type)
    return field is not None and node.parent.child_by_field_name(field) == node


def _declared(node: Any) -> _Declared | None:
    """What ``node`` declares when it is the name of a variable or parameter in its declaration."""
    if node.type != "identifier":
        return None
    child, parent, shape = node, node.parent, ""
    while parent is not None and parent.type in _WRAPPERS:
        if parent.child_by_field_name("declarator") not in (child, None):
            return None  # a first value, or the size of an array
        shape += "" if parent.type == "init_declarator" else parent.type
        child, parent = parent, parent.parent
    if parent is None:
        return None
    if parent.type == "expression_list" and parent.parent.type in ("short_var_declaration", "range_clause"):
        inside = parent.parent.child_by_field_name("left") == parent
    elif parent.type == "formal_parameters":
        inside = True
    else:
        fields = _DECLARING.get(parent.type, ())
        inside = any(child in parent.children_by_field_name(field) for field in fields)
    if not inside:
        return None
    scope = parent
    while scope.parent is not None and scope.type not in _SCOPES:
        scope = scope.parent
    return _Declared(node.text.decode(), node.start_byte, (scope.start_byte, scope.end_byte), _type(parent) + shape)


def _type(declaration: Any) -> str:
    """The type as it is written, empty where none is."""
    for node in (declaration, declaration.parent):
        if node is not None and (written := node.child_by_field_name("type")) is not None:
            return " ".join(written.text.decode().split())
    return ""
