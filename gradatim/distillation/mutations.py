"""Mutations: the correct answer with one small mistake. Edits of languages but Python are found by tree-sitter.

Two kinds of answers have mutations. An *output* answer (the prompt is a TinyPy program up to and including
``# output``) is the output of a program: the program is mutated and run, and its output is the mutation where it
differs. It is the answer of a reader who misread one operator, number, limit, name or branch. A *code* answer is
edited itself: Python by its syntax tree, the other languages by tree-sitter. It may be a whole program, continue its
prompt (HumanEval), or stand in a fence of a reply; only the answer is edited. A mutation of code may still be correct
(``a + b`` is ``b + a``); ``rejected`` verifies it.

Only TinyPy programs are run here, by the project's interpreter.
"""

from __future__ import annotations

import ast
import functools
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UnknownPart
from ..languages import Language, named
from ..programs import commented, run_program
from ..table.rows import asks_for_output
from .python_mutations import KINDS, Edit, Kind, apply, numbers, python_edits, swaps

if TYPE_CHECKING:
    from ..languages import Language


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
    """All edits, in the order of the text. Raises ``ToolchainMissing`` without the grammar.

    The grammars agree on most names of nodes, so one set of rules serves all languages; the tables list the
    differences. A name is only replaced by another one of the same declared type that is declared before it in an
    enclosing block. Nothing is compiled: a compiler may refuse an edited text, which is a wrong answer too.
    ``mutations`` checks that it parses.
    """
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


_TRIED = 500
"""Edits of one answer that are tried; each reads the whole text, so a long text would take quadratic time."""
_STEPS = 1_000
"""Most statements of a mutated program: a mistake in a ``while`` often makes it endless."""


@dataclass(frozen=True)
class Mutant:
    """A rejected answer, and its kind of mistake."""

    text: str
    kind: Kind


def mutants(prompt: str, answer: str, language: str | None, *, seed: int) -> Iterator[Mutant]:
    """Distinct rejected answers, none equal to the correct one; deterministic.

    The kinds alternate, in an order drawn by ``seed``, so that the many numbers of a program do not crowd out its few
    branches. The result is empty for text that is not code, an unsupported language, or a program outside TinyPy.
    Raises ``ToolchainMissing`` when a language's grammar is not installed.
    """
    texts = {_plain(answer)}
    for kind, text in _candidates(prompt, answer, language, random.Random(seed)):
        if _plain(text) not in texts:
            texts.add(_plain(text))
            yield Mutant(text, kind)


def same_text(left: str, right: str) -> bool:
    """Whether two answers are equal but for white space at the ends of lines and of the text."""
    return _plain(left) == _plain(right)


def _plain(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.split("\n")]).rstrip()


def _candidates(prompt: str, answer: str, language: str | None, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    if asks_for_output(prompt):
        yield from _outputs(prompt, generator)
    elif language is not None and (grammar := _language(language)) is not None:
        yield from _codes(prompt, answer, grammar, generator)


def _language(name: str) -> Language | None:
    try:
        return named(name)
    except UnknownPart:
        return None


def _outputs(prompt: str, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """Outputs of mutated programs."""
    try:
        run_program(prompt)
    except DataError:
        return  # not TinyPy, or a program without output
    source = prompt.encode()
    for edit in islice(_in_turns(_edits(named("python"), prompt), generator), _TRIED):
        try:
            output = run_program(apply(source, edit).decode(), max_steps=_STEPS)
        except DataError:
            continue  # it raises or does not end, so it has no output
        if output:
            yield edit.kind, commented(output)


def _codes(prompt: str, answer: str, language: Language, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """Mutations of the answer's code."""
    for before, code, after, outside in _readings(prompt, answer, language):
        parsed = _parser(language)
        tree = parsed(before + code)
        if tree is None:
            continue
        source, first = (before + code).encode(), len(before.encode())
        edits = [edit for edit in _edits(language, before + code) if edit.start >= first]
        for edit in islice(_in_turns(edits, generator), _TRIED):
            changed = apply(source, edit)
            # Equal Python trees mean an edit without effect; other languages are only parsed.
            if parsed(changed.decode()) not in (None, tree):
                yield edit.kind, outside + changed[first:].decode() + after
        return


def _readings(prompt: str, answer: str, language: Language) -> Iterator[tuple[str, str, str, str]]:
    """Possible code of an answer: (code before it, the code, the reply's text after it, and before it)."""
    extracted = language.extract(answer)
    if extracted.state == "fenced" and extracted.code.strip() and answer.count(extracted.code) == 1:
        outside, _, after = answer.partition(extracted.code)
        yield "", extracted.code, after, outside
        yield prompt, extracted.code, after, outside
    else:
        yield "", answer, "", ""
        yield prompt, answer, "", ""


def _parser(language: Language) -> Callable[[str], str | None]:
    """A function that returns the syntax of a code (Python) or the code itself, None where it does not parse."""
    if language.name == "python":
        return _python_tree
    return lambda code: code if code.strip() and language.parses(code) is None else None


def _python_tree(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as a literal compared by `is`, which a mutation may contain
            tree = ast.parse(code)
        # Dumping may fail too: a tree too deep for recursion, an integer of too many digits.
        return ast.dump(tree) if tree.body else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _edits(language: Language, code: str) -> Sequence[Edit]:
    """The edits of a code; empty for one that is nested too deeply."""
    try:
        return python_edits(code) if language.name == "python" else tree_edits(language, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _in_turns(edits: Sequence[Edit], generator: random.Random) -> Iterator[Edit]:
    """The edits in random order, one of each remaining kind in turn."""
    groups = [group for kind in KINDS if (group := [edit for edit in edits if edit.kind == kind])]
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    while groups:
        for group in groups:
            yield group.pop()
        groups = [group for group in groups if group]
