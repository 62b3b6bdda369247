"""The tests of one problem: compiled once, and what they take from the program."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import linecache
import symtable
import sys
import types
from collections import Counter
from dataclasses import dataclass
from typing import Any

from .objects import REPORTING
from .program import TESTS, Fault, Program

__all__ = ["Suite", "compiled"]

_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Suite:
    """The tests of one problem, compiled. ``wanted``: the names that they take from the program.

    ``modules``: those of the standard library that they use without importing them. ``named``: names of classes that
    the tests are about.
    """

    tests: str
    code: types.CodeType
    helpers: types.CodeType
    begun: str
    calls_check: bool
    wanted: frozenset[str]
    modules: frozenset[str]
    named: frozenset[str]

    def run(self, program: Program, source: str, entry_point: str | None) -> None:
        """Load the program and run the tests. Whatever they raise comes out."""
        linecache.cache["<tests>"] = (len(self.tests), None, self.tests.splitlines(keepends=True), "<tests>")
        names: dict[str, Any] = {"__name__": TESTS, "__builtins__": builtins}
        try:
            exec(self.helpers, names)
        except Fault:
            raise
        except BaseException as error:
            raise Fault(b"u", f"the prompt cannot be run: {type(error).__name__}: {error}") from None
        records = {
            name: each
            for name, each in names.items()
            if isinstance(each, type) and each.__module__ == TESTS and name not in self.wanted
        }
        found = program.load(source, self.wanted, self.named, records)
        if entry_point is None:
            names.pop(self.begun, None)  # what a prompt defines last is what the program is to finish
        elif entry_point not in found:
            raise Fault(b"f", f"the program does not define {entry_point}")
        for name in self.modules - names.keys():
            names[name] = importlib.import_module(name)
        names |= {name: value for name, value in found.items() if name == entry_point or name not in names}
        exec(self.code, names)
        if self.calls_check and entry_point is not None:
            names["check"](names[entry_point])


@functools.lru_cache(64)
def compiled(prompt: str, tests: str, entry_point: str | None) -> Suite:
    """The suite; a fault of the tests or the prompt is ``unjudged``."""
    try:
        tree = ast.parse(tests, "<tests>")
        code = compile(tree, "<tests>", "exec", dont_inherit=True)
        used, bound = _globals(symtable.symtable(tests, "<tests>", "exec"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Fault(b"u", f"the tests are not Python: {error}") from None
    helpers = _helpers(prompt)
    begun = [node.name for node in helpers.body if isinstance(node, _DEFINITIONS)]
    called = any(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value.func) == "check"
        for node in tree.body
    )
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    modules = _modules(tree) - bound - {entry_point}
    complete = set(begun[:-1]) if entry_point is None else set(begun) - {entry_point}
    wanted = _wanted(used - bound - modules - complete, entry_point)
    return Suite(
        tests,
        code,
        compile(helpers, "<prompt>", "exec", dont_inherit=True),
        begun[-1] if begun else "",
        defined and not called,
        frozenset(wanted),
        frozenset(modules),
        _classes(tree, wanted, entry_point, {node.name for node in helpers.body if isinstance(node, ast.ClassDef)}),
    )


def _wanted(names: set[str], entry_point: str | None) -> set[str]:
    """Which of the names that the tests use and do not define are to come from the program.

    A builtin's name counts only when there is no other: a program may be asked to write ``sum``, but must not put its
    own ``all`` between the tests and their answer.
    """
    plain = names - set(dir(builtins)) - {"__name__", "__file__"}
    if entry_point is not None:
        return plain | {entry_point}
    return plain or names


def _modules(tree: ast.Module) -> set[str]:
    """Modules of the standard library that the tests use by their attributes only.

    Some tests count on the program to import ``math``. What they then use is Python's: a program's own ``math`` would
    see the right answer and say that it is close.
    """
    used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    bases = Counter(_name(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {name for name in used if name in sys.stdlib_module_names and used[name] == bases[name]}


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _globals(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """The global names that the code reads, and those that it gives a value."""
    top = table.get_type() == "module"
    symbols = [each for each in table.get_symbols() if top or each.is_global()]
    used = {each.get_name() for each in symbols if each.is_referenced()}
    bound = {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
    for inner in table.get_children():
        more_used, more_bound = _globals(inner)
        used, bound = used | more_used, bound | more_bound
    return used, bound


def _helpers(prompt: str) -> ast.Module:
    """The prompt as code. It may end in the middle of a function: that function is then the program's to finish."""
    lines = prompt.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith(("def ", "async def ", "class ", "@"))]
    attempts = [prompt, prompt.rstrip() + "\n    pass\n", *("\n".join(lines[:at]) for at in reversed(starts))]
    error: SyntaxError | ValueError | None = None
    for text in attempts:
        try:
            return ast.parse(text, "<prompt>")
        except (SyntaxError, ValueError) as fault:
            error = error or fault
    raise Fault(b"u", f"the prompt is not Python: {error}")


def _classes(tree: ast.Module, wanted: set[str], entry_point: str | None, defined: set[str]) -> frozenset[str]:
    """Those of ``wanted`` that are classes by the words of the problem, not by what the program says.

    The prompt begins a class of the name; or it is written like a class's (``CapWords``) and the tests use what it
    makes as an object: attributes, ``with``, ``isinstance``, ``except``.
    """
    alias = {}
    for top in tree.body:
        if isinstance(top, ast.FunctionDef) and top.name == "check" and top.args.args and entry_point is not None:
            alias[top.args.args[0].arg] = entry_point
    made: dict[str, set[str]] = {}  # variable -> names of what was called for its value
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        made.setdefault(name.id, set()).update(_called(node.value))
    used: set[str] = set()
    for node in ast.walk(tree):
        used |= _used_as_object(node, made)
    used = {alias.get(name, name) for name in used}
    return frozenset(name for name in wanted if name in defined or (name in used and _like_a_class(name)))


def _used_as_object(node: ast.AST, made: dict[str, set[str]]) -> set[str]:
    """Names of what makes the objects that one node of the tests uses as such."""
    match node:
        case ast.Attribute(attr=attribute) if attribute in REPORTING:
            return set()  # a plain answer has it too
        case ast.Attribute(value=ast.Name(id=name)):
            return {name} | made.get(name, set())
        case ast.Attribute(value=value) | ast.withitem(context_expr=value):
            return _called(value)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kind]):
            return {each.id for each in ast.walk(kind) if isinstance(each, ast.Name)}
    return set()


def _called(node: ast.AST) -> set[str]:
    """Names that are called in an expression."""
    return {_name(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)} - {""}


def _like_a_class(name: str) -> bool:
    return name[:1].isupper() and "_" not in name
