"""The tester: the sandboxed process that runs the tests and decides the verdict of a Python candidate.

It never runs the candidate's code. For each job it runs the problem's trusted prompt (helper functions), binds the
entry point to a proxy, and runs the tests (``suite``). A call through the proxy goes to the candidate's process
(``program``); the result is plain data rebuilt here (``reader``), so that the tests compare builtin values with builtin
methods. An object without a plain form (``objects``) can be stored and called and its attributes read, but a comparison
with a value ends the check, and no ``except`` of the tests can undo that.

Tests come from a dataset, so they are sandboxed and limited too, but they are trusted not to disturb each other: one
process runs the tests of many jobs, each in its own namespace. ``passed`` is returned only after the last line of the
tests has run.
"""

from __future__ import annotations

import _socket
import ast
import builtins
import functools
import gc
import importlib
import itertools
import linecache
import os
import random
import resource
import signal
import struct
import symtable
import sys
import time
import types
from collections import Counter
from dataclasses import dataclass
from typing import Any, NoReturn

from .fork_server import ANCILLARY, receive_control, receive_settings
from .objects import ARGUMENT_DEPENDENT, label_of
from .program import TESTS, CheckEnded, RemoteProgram
from .reader import decode

_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Suite:
    """The compiled tests of one problem. ``required``: names that they take from the program.

    ``modules``: standard library modules that they use without importing them. ``tested``: names of classes under test.
    ``unfinished``: the last definition of the prompt, which the program completes.
    """

    tests: str
    code: types.CodeType
    helpers: types.CodeType
    unfinished: str
    calls_check: bool
    required: frozenset[str]
    modules: frozenset[str]
    tested: frozenset[str]

    def run(self, program: RemoteProgram, source: str, entry_point: str | None) -> None:
        """Load the program and run the tests. Their exceptions propagate."""
        linecache.cache["<tests>"] = (len(self.tests), None, self.tests.splitlines(keepends=True), "<tests>")
        names: dict[str, Any] = {"__name__": TESTS, "__builtins__": builtins}
        try:
            exec(self.helpers, names)
        except CheckEnded:
            raise
        except BaseException as error:
            raise CheckEnded(b"u", f"the prompt cannot be run: {type(error).__name__}: {error}") from None
        records = {
            name: kind
            for name, kind in names.items()
            if isinstance(kind, type) and kind.__module__ == TESTS and name not in self.required
        }
        values = program.load(source, self.required, self.tested, records)
        if entry_point is None:
            names.pop(self.unfinished, None)  # the program completes the last definition of the prompt
        elif entry_point not in values:
            raise CheckEnded(b"f", f"the program does not define {entry_point}")
        for name in self.modules - names.keys():
            names[name] = importlib.import_module(name)
        names |= {name: value for name, value in values.items() if name == entry_point or name not in names}
        exec(self.code, names)
        if self.calls_check and entry_point is not None:
            names["check"](names[entry_point])


@functools.lru_cache(64)
def compile_suite(prompt: str, tests: str, entry_point: str | None) -> Suite:
    """Compile a suite; an error of the tests or the prompt is ``unjudged``."""
    try:
        tree = ast.parse(tests, "<tests>")
        code = compile(tree, "<tests>", "exec", dont_inherit=True)
        used, bound = _globals(symtable.symtable(tests, "<tests>", "exec"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckEnded(b"u", f"the tests are not Python: {error}") from None
    helpers = _helpers(prompt)
    definitions = [node.name for node in helpers.body if isinstance(node, _DEFINITIONS)]
    is_called = any(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value.func) == "check"
        for node in tree.body
    )
    is_defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    modules = _modules(tree) - bound - {entry_point}
    complete = set(definitions[:-1]) if entry_point is None else set(definitions) - {entry_point}
    required = _required(used - bound - modules - complete, entry_point)
    return Suite(
        tests,
        code,
        compile(helpers, "<prompt>", "exec", dont_inherit=True),
        definitions[-1] if definitions else "",
        is_defined and not is_called,
        frozenset(required),
        frozenset(modules),
        _classes(tree, required, entry_point, {node.name for node in helpers.body if isinstance(node, ast.ClassDef)}),
    )


def _required(names: set[str], entry_point: str | None) -> set[str]:
    """Names that the program must define, among those that the tests use without defining them.

    Names of builtins count only if there are no others: a problem may require ``sum``, but a program must not replace
    the ``all`` that the tests evaluate their result with.
    """
    plain = names - set(dir(builtins)) - {"__name__", "__file__"}
    if entry_point is not None:
        return plain | {entry_point}
    return plain or names


def _modules(tree: ast.Module) -> set[str]:
    """Standard library modules of which the tests only use attributes.

    Some tests rely on the program to import ``math``. They get Python's module: a program's own ``math`` would receive
    the expected answer and could report that it is close.
    """
    used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    bases = Counter(_name(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {name for name in used if name in sys.stdlib_module_names and used[name] == bases[name]}


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _globals(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that the code reads, and those that it binds."""
    top = table.get_type() == "module"
    symbols = [symbol for symbol in table.get_symbols() if top or symbol.is_global()]
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    for inner in table.get_children():
        inner_used, inner_bound = _globals(inner)
        used, bound = used | inner_used, bound | inner_bound
    return used, bound


def _helpers(prompt: str) -> ast.Module:
    """Parsed prompt. It may end in the middle of a function, which the program then completes."""
    lines = prompt.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith(("def ", "async def ", "class ", "@"))]
    attempts = [prompt, prompt.rstrip() + "\n    pass\n", *("\n".join(lines[:index]) for index in reversed(starts))]
    error: SyntaxError | ValueError | None = None
    for text in attempts:
        try:
            return ast.parse(text, "<prompt>")
        except (SyntaxError, ValueError) as attempt_error:
            error = error or attempt_error
    raise CheckEnded(b"u", f"the prompt is not Python: {error}")


def _classes(tree: ast.Module, required: set[str], entry_point: str | None, class_names: set[str]) -> frozenset[str]:
    """Names of ``required`` that are classes according to the problem, independent of the program.

    Either the prompt begins a class of that name, or the name is in ``CapWords`` and the tests use its result as an
    object: attributes, ``with``, ``isinstance``, ``except``.
    """
    alias = {}
    for top in tree.body:
        if isinstance(top, ast.FunctionDef) and top.name == "check" and top.args.args and entry_point is not None:
            alias[top.args.args[0].arg] = entry_point
    calls: dict[str, set[str]] = {}  # variable -> names of functions called in its value
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        calls.setdefault(name.id, set()).update(_called(node.value))
    used: set[str] = set()
    for node in ast.walk(tree):
        used |= _used_as_object(node, calls)
    used = {alias.get(name, name) for name in used}
    return frozenset(name for name in required if name in class_names or (name in used and _like_a_class(name)))


def _used_as_object(node: ast.AST, calls: dict[str, set[str]]) -> set[str]:
    """Names of the callables whose results one node of the tests uses as objects."""
    match node:
        case ast.Attribute(attr=attribute) if attribute in ARGUMENT_DEPENDENT:
            return set()  # a plain answer has this attribute too
        case ast.Attribute(value=ast.Name(id=name)):
            return {name} | calls.get(name, set())
        case ast.Attribute(value=value) | ast.withitem(context_expr=value):
            return _called(value)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kind]):
            return {name_node.id for name_node in ast.walk(kind) if isinstance(name_node, ast.Name)}
    return set()


def _called(node: ast.AST) -> set[str]:
    """Names of the functions called in an expression."""
    return {_name(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)} - {""}


def _like_a_class(name: str) -> bool:
    return name[:1].isupper() and "_" not in name


Job = tuple[str, str, str, str | None]
"""Prompt, completion, tests, entry point."""

ANSWER = struct.Struct("<c?I")
"""Verdict (``p`` passed, ``f`` failed, ``i`` invalid, ``u`` unjudged, ``t`` tests too slow, ``l`` connection to the
program lost), whether the tester must be replaced, and the length of the reason."""

LENGTH = struct.Struct("<I")
PORTION = 1 << 16
PAGE = resource.getpagesize()
MAX_RESIDENT = 256 << 20
"""Bytes; a tester with more resident memory after a job is replaced, because the next tests would have less."""

WARM = ("collections", "copy", "itertools", "math", "re", "string", "typing")


def main() -> None:
    """Run jobs until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    if settings["packages"]:
        sys.path.append(settings["packages"])
    for name in WARM:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (settings["tests_memory_bytes"],) * 2)
    signal.signal(signal.SIGPROF, _time_is_up)
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    _serve(control, statm, settings["cpu_seconds"])


def _serve(control: _socket.socket, statm: int, cpu_seconds: float) -> None:
    """Run jobs one after another."""
    connection = -1
    while True:
        data, ancillary, _, _ = control.recvmsg(PORTION, ANCILLARY)
        if not data or not ancillary:
            return
        if connection >= 0:  # not earlier: killing a waiting program is cheaper than letting it notice
            os.close(connection)
        connection = int.from_bytes(ancillary[0][2], sys.byteorder)
        data += _receive_exactly(control, LENGTH.size - len(data))
        (length,) = LENGTH.unpack_from(data)
        job = decode(data[LENGTH.size :] + _receive_exactly(control, LENGTH.size + length - len(data)))[0]
        verdict, reason = _timed(job, connection, cpu_seconds)
        text = reason[:2000].encode("utf-8", "backslashreplace")
        exhausted = int(os.pread(statm, 100, 0).split()[1]) * PAGE > MAX_RESIDENT
        control.sendall(ANSWER.pack(verdict, exhausted, len(text)) + text)


def _receive_exactly(control: _socket.socket, length: int) -> bytes:
    chunks = []
    while length > 0:
        chunk = control.recv(min(length, 1 << 20))
        if not chunk:
            sys.exit(0)
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _timed(job: Job, connection: int, cpu_seconds: float) -> tuple[bytes, str]:
    """Run ``check`` from the same initial state each time and end it when its CPU time is used up.

    The signal ends Python code, but not a single long operation of the interpreter. For that case the kernel's CPU
    limit ends the whole tester, which is then replaced.
    """
    random.seed(0)
    sys.setrecursionlimit(1000)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + int(cpu_seconds) + 3, resource.RLIM_INFINITY))
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds + 0.05, 0.1)
        result = check(job, connection)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return result
    except CheckEnded as ended:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return ended.verdict, ended.reason


def _time_is_up(*_: object) -> NoReturn:
    raise CheckEnded(b"t", "")


def check(job: Job, connection: int) -> tuple[bytes, str]:
    """Run the tests of one job; the verdict's letter and the reason."""
    prompt, completion, tests, entry_point = job
    program = RemoteProgram(connection)
    try:
        compile_suite(prompt, tests, entry_point).run(program, prompt + completion, entry_point)
    except CheckEnded as ended:
        program.ending = program.ending or ended
    except BaseException as error:
        if program.ending is None:
            if isinstance(error, MemoryError) and not _of_program(error):
                return b"f", "the answers are larger than the tests can hold"
            return b"f", _failure(error, program.returned)
    if program.ending is not None:  # also when the tests have suppressed it
        return program.ending.verdict, program.ending.reason
    return b"p", "all tests passed"


def _of_program(error: BaseException) -> bool:
    return getattr(error, "_of_program", False) is True


def _failure(error: BaseException, returned: tuple[Any, ...]) -> str:
    """Exception and line of the tests that failed, and the result of the last call; ``returned``: this, or empty."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error)[:500]
    except BaseException:
        text = ""
    source = linecache.getline("<tests>", line).strip() if line else ""
    segments = [f"{type(error).__name__}{': ' + text if text else ''}"]
    if _of_program(error):
        segments.append("raised by the program")
    if source:
        segments.append(f"tests, line {line}: {source if len(source) <= MAX_LINE else source[: MAX_LINE - 1] + '…'}")
    if returned and not _of_program(error):
        segments.append(f"the last call returned {excerpt(returned[0])}")
    return " · ".join(segments)


MAX_LINE = 200
"""Characters of a line of the tests in a reason, so that what was returned has room in it."""
MAX_VALUE = 100
"""Characters of a value in a reason."""
MAX_ITEMS = 10
MAX_BITS = 1024
"""Bits of an integer in a reason; the digits of larger ones take long."""
BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def excerpt(value: Any, depth: int = 3) -> str:
    """The beginning of a value in at most ``MAX_VALUE`` characters.

    Only values of builtin types are shown, by the methods of these types; of any other the name of the type. So no code
    of the program or the tests runs, and the time does not depend on the size of the value.
    """
    kind = type(value)
    if value is None or kind in (bool, float, complex):
        text = repr(value)
    elif kind is int:
        text = repr(value) if value.bit_length() <= MAX_BITS else f"an integer of {value.bit_length()} bits"
    elif kind in (str, bytes):
        text = repr(value[:MAX_VALUE])
    elif kind in BRACKETS and depth:
        shown = list(itertools.islice(value.items() if kind is dict else value, MAX_ITEMS))
        if kind is dict:
            items = [f"{excerpt(key, depth - 1)}: {excerpt(item, depth - 1)}" for key, item in shown]
        else:
            items = [excerpt(item, depth - 1) for item in shown]
        opening, closing = BRACKETS[kind]
        comma = "," if kind is tuple and len(value) == 1 else ""
        text = opening + ", ".join(items) + (", …" if len(value) > MAX_ITEMS else comma) + closing
        text = text if value or kind not in (set, frozenset) else f"{kind.__name__}()"
    else:
        text = f"a value of the type {label_of(value) or kind.__name__}"
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"
