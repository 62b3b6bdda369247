"""Edits of C, C++, Go, Java, JavaScript and TypeScript source that introduce one mistake, found by tree-sitter.

The grammars agree on most names of nodes, so one set of rules serves all languages; the tables list the differences. A
name is only replaced by another one of the same declared type that is declared before it in an enclosing block. Nothing
is compiled: a compiler may refuse an edited text, which is a wrong answer too. ``mutations`` checks that it parses.
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
class _Declaration:
    """One declared name: the first byte, the scope, and the type in the source's spelling."""

    name: str
    start: int
    scope: tuple[int, int]
    kind: str


def tree_edits(language: Language, source: str) -> list[Edit]:
    """All edits, in the order of the text. Raises ``ToolchainMissing`` without the grammar."""
    from tree_sitter import Parser

    code = source.encode()
    tree = Parser(_grammar(language.name, language.grammar)).parse(code)  # the tree must outlive its nodes
    nodes = list(_nodes(tree.root_node))
    declarations = [declaration for node in nodes if (declaration := _declaration(node)) is not None]
    edits = {edit for node in nodes for edit in (*_of_node(node), *_names(node, declarations))}
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


def _of_node(node: Any) -> Iterator[Edit]:
    """The edits of this node, without those of names and children."""
    kind = node.type
    if kind == "binary_expression" or kind in _COMPOUND:
        yield from _operator(node)
    elif kind in _NUMBERS:
        limit = node.parent.type in _INDEXES or _limit_of(node.parent) == node
        for value in _wrong_numbers(node.text.decode()):
            yield from numbers(node.start_byte, node.end_byte, [value], "boundary" if limit else "constant")
    elif kind in ("true", "false"):
        yield Edit(node.start_byte, node.end_byte, b"false" if kind == "true" else b"true", "constant")
    elif kind in _CHOICES:
        for field in ("consequence", "alternative"):
            if branch := node.child_by_field_name(field):
                yield Edit(node.start_byte, node.end_byte, b"(" + branch.text + b")", "branch")
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


def _wrong_numbers(text: str) -> list[int | float]:
    """Replacements of a plain number; none for the rarer notations."""
    if re.fullmatch(r"0|[1-9]\d*", text):
        return [value for value in (int(text) - 1, int(text) + 1) if value >= 0]
    return [float(text) + 1] if re.fullmatch(r"\d+\.\d+", text) else []


def _limit_of(node: Any) -> Any:
    """Limit of a loop: the right side of the comparison in the head of a for."""
    if node.type != "binary_expression":
        return None
    operator, loop = node.child_by_field_name("operator"), node.parent
    if loop is not None and loop.type == "expression_statement":
        loop = loop.parent
    head = loop is not None and loop.type in ("for_statement", "for_clause")
    compares = operator is not None and operator.text in (b"<", b"<=", b">", b">=")
    return node.child_by_field_name("right") if head and compares else None


def _branches(node: Any) -> Iterator[Edit]:
    """Edits that remove an else, a branch, or a whole if."""
    then, otherwise = node.child_by_field_name("consequence"), node.child_by_field_name("alternative")
    if then is None:
        return
    if otherwise is not None:
        yield Edit(then.end_byte, otherwise.end_byte, b"", "branch")
        body = otherwise.named_children[-1] if otherwise.type == "else_clause" else otherwise
        yield Edit(node.start_byte, body.start_byte, b"", "branch")
    elif node.parent is not None and node.parent.type in _BLOCKS:
        yield Edit(node.start_byte, node.end_byte, b"", "branch")


def _names(node: Any, declarations: list[_Declaration]) -> Iterator[Edit]:
    """Edits that replace the use of a declared name by another name in scope."""
    if node.type != "identifier" or _declaration(node) is not None or _is_called(node):
        return
    variables = {
        variable.name: variable
        for variable in declarations
        if variable.start < node.start_byte and _holds(variable.scope, node)
    }
    current = variables.get(node.text.decode())
    for variable in variables.values() if current else ():
        if current and variable.name != current.name and variable.kind == current.kind:
            yield Edit(node.start_byte, node.end_byte, variable.name.encode(), "variable")


def _holds(scope: tuple[int, int], node: Any) -> bool:
    start, end = scope
    return bool(start <= node.start_byte and node.end_byte <= end)


def _is_called(node: Any) -> bool:
    field = _CALLED.get(node.parent.type)
    return field is not None and node.parent.child_by_field_name(field) == node


def _declaration(node: Any) -> _Declaration | None:
    """The declaration of a variable or parameter whose name is ``node``; None for another node."""
    if node.type != "identifier":
        return None
    child, parent, shape = node, node.parent, ""
    while parent is not None and parent.type in _WRAPPERS:
        if parent.child_by_field_name("declarator") not in (child, None):
            return None  # an initial value, or the size of an array
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
    return _Declaration(node.text.decode(), node.start_byte, (scope.start_byte, scope.end_byte), _type(parent) + shape)


def _type(declaration: Any) -> str:
    """The type in the source's spelling, empty without one."""
    for node in (declaration, declaration.parent):
        if node is not None and (spelling := node.child_by_field_name("type")) is not None:
            return " ".join(spelling.text.decode().split())
    return ""
