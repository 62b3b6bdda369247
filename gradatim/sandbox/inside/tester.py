"""Does the program do what the tests say? The one place where that is decided.

A process of its own, in walls of its own, that holds the tests and never runs the candidate's code. For each job it
runs the problem's trusted prompt (helper functions), binds the entry point to a proxy, and runs the tests. A call
through the proxy goes to the candidate's process; what comes back is plain data rebuilt here (``codec``), so the tests
compare builtin values with builtin methods. An object without a plain form can be held, called and asked for
attributes, but never compared: that ends the check, and no ``except`` of the tests can undo it.

The tests are code somebody wrote, so they too have walls and limits; but they are trusted not to spoil each other:
one process runs those of many jobs, each in a namespace of its own. This module answers ``passed`` only after the
last line of the tests has run.
"""

from __future__ import annotations

import _socket
import ast
import builtins
import functools
import gc
import importlib
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from .codec import Handle, Unsendable, decode, make_exception
from .nest import ANCILLARY, receive_control, receive_settings
from .peer import Broken, Gone, Peer, Raised, Refused, Unsent

__all__ = ["ANSWER", "Fault", "Job", "main"]

Job = tuple[str, str, str, str | None]
"""Prompt, completion, tests, entry point."""

ANSWER = struct.Struct("<c?I")
"""The verdict (``p`` passed, ``f`` failed, ``i`` invalid, ``u`` unjudged, ``t`` the tests were too slow, ``l`` the
program was lost), whether the tester should be replaced, and the length of the reason."""

LENGTH = struct.Struct("<I")
PORTION = 1 << 16
PAGE = resource.getpagesize()
LARGE = 256 << 20
"""Bytes; a tester that still holds more after a job is worn: they would be missing to the tests of the next program."""

WARM = ("collections", "copy", "itertools", "math", "re", "string", "typing")


class Fault(BaseException):
    """The check is over; ``except Exception`` in the tests does not hold it up."""

    def __init__(self, verdict: bytes, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


def main() -> None:
    """Take jobs until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    if settings["packages"]:
        sys.path.append(settings["packages"])
    for name in WARM:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (settings["tests_memory_bytes"],) * 2)
    signal.signal(signal.SIGPROF, _time_is_up)
    held = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    _answer(control, held, settings["cpu_seconds"])


def _answer(control: _socket.socket, held: int, cpu_seconds: float) -> None:
    """Take jobs, one after another."""
    connection = -1
    while True:
        data, ancillary, _, _ = control.recvmsg(PORTION, ANCILLARY)
        if not data or not ancillary:
            return
        if connection >= 0:  # not before: a program that is killed while it waits is cheaper than one that hears of it
            os.close(connection)
        connection = int.from_bytes(ancillary[0][2], sys.byteorder)
        data += _exactly(control, LENGTH.size - len(data))
        (length,) = LENGTH.unpack_from(data)
        job = decode(data[LENGTH.size :] + _exactly(control, LENGTH.size + length - len(data)))[0]
        verdict, reason = _timed(job, connection, cpu_seconds)
        text = reason[:2000].encode("utf-8", "backslashreplace")
        worn = int(os.pread(held, 100, 0).split()[1]) * PAGE > LARGE
        control.sendall(ANSWER.pack(verdict, worn, len(text)) + text)


def _exactly(control: _socket.socket, length: int) -> bytes:
    parts = []
    while length > 0:
        part = control.recv(min(length, 1 << 20))
        if not part:
            sys.exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _timed(job: Job, connection: int, cpu_seconds: float) -> tuple[bytes, str]:
    """``check``, started from the same state each time and ended when it has used up its CPU time.

    The signal ends Python code; a single long operation of the interpreter does not hear it. For that the kernel's
    own limit stands behind, which ends the whole tester; it is then replaced.
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
    except Fault as fault:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return fault.verdict, fault.reason


def _time_is_up(*_: object) -> NoReturn:
    raise Fault(b"t", "")


def check(job: Job, connection: int) -> tuple[bytes, str]:
    """The verdict's letter and the reason."""
    prompt, completion, tests, entry_point = job
    program = Program(connection)
    try:
        compiled(prompt, tests, entry_point).run(program, prompt + completion, entry_point)
    except Fault as fault:
        program.fault = program.fault or fault
    except BaseException as error:
        if program.fault is None:
            if isinstance(error, MemoryError) and not _of_program(error):
                return b"f", "the answers are larger than the tests can hold"
            return b"f", _described(error)
    if program.fault is not None:  # also when the tests have swallowed it
        return program.fault.verdict, program.fault.reason
    return b"p", "all tests passed"


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Suite:
    """The tests of one problem, compiled. ``wanted``: the names that they take from the program.

    ``modules``: those of the standard library that they use without importing them.
    """

    tests: str
    code: types.CodeType
    helpers: types.CodeType
    begun: str
    calls_check: bool
    wanted: frozenset[str]
    modules: frozenset[str]

    def run(self, program: Program, source: str, entry_point: str | None) -> None:
        """Load the program and run the tests. Whatever they raise comes out."""
        linecache.cache["<tests>"] = (len(self.tests), None, self.tests.splitlines(keepends=True), "<tests>")
        names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        try:
            exec(self.helpers, names)
        except Fault:
            raise
        except BaseException as error:
            raise Fault(b"u", f"the prompt cannot be run: {type(error).__name__}: {error}") from None
        found = program.load(source, self.wanted)
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
    wanted = _wanted(used - bound - modules - set(begun[:-1]), entry_point)
    return Suite(
        tests,
        code,
        compile(helpers, "<prompt>", "exec", dont_inherit=True),
        begun[-1] if begun else "",
        defined and not called,
        frozenset(wanted),
        frozenset(modules),
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


def _of_program(error: BaseException) -> bool:
    return getattr(error, "_of_program", False) is True


def _described(error: BaseException) -> str:
    """Which line of the tests, and what it met."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        said = str(error)[:500]
    except BaseException:
        said = ""
    source = linecache.getline("<tests>", line).strip() if line else ""
    parts = [f"{type(error).__name__}{': ' + said if said else ''}"]
    if _of_program(error):
        parts.append("raised by the program")
    if source:
        parts.append(f"tests, line {line}: {source}")
    return " · ".join(parts)


class Program:
    """The candidate, seen from the tests. ``fault`` is what ended its part, once something has.

    ``_informed``: whether anything that the program chose has reached the tests. Until then an argument that cannot be
    encoded is the tests' own fault (``unjudged``). Afterwards the argument may be of the program's making, so the
    program fails: no program may choose to be left out of the score.
    """

    def __init__(self, connection: int) -> None:
        self.fault: Fault | None = None
        self._informed = False
        self._functions: dict[int, Callable[..., Any]] = {}
        self._peer = Peer(connection, {"call": self._called_back}, _kind, self._proxy)

    def load(self, source: str, names: frozenset[str]) -> dict[str, Any]:
        """Run the program; those of ``names`` that it defines, as plain values or proxies."""
        match self.ask("load", source, tuple(sorted(names))):
            case ("ready", dict(values)):
                found = {name: values[name] for name in names if name in values}
                self._informed = len(found) < len(names) or any(type(each) is not _Object for each in found.values())
                return found
            case ("invalid", str(reason)):
                raise Fault(b"i", f"the program does not compile: {reason}")
            case ("failed", str(reason)):
                raise Fault(b"f", f"the program ends while it is loaded: {reason}")
        raise self.over(b"f", "the program broke the protocol: no answer to its loading")

    def ask(self, operation: str, *arguments: Any) -> Any:
        """One question; an exception of the program is raised here as the builtin one of its name."""
        if self.fault is not None:
            raise self.fault
        try:
            answer = self._peer.ask(operation, *arguments)
        except Gone as error:
            raise self.over(b"l", f"the program broke the protocol: {error}") from None
        except Broken as error:
            raise self.over(b"f", f"the program broke the protocol: {error}") from None
        except Unsent as error:
            reason = f"an argument cannot be handed to the program: {error}"
            raise self.over(b"f" if self._informed else b"u", reason) from None
        except Refused as error:
            raise self.over(b"f", f"the answer cannot cross: {error}") from None
        except Raised as error:
            self._informed = True
            raise self._exception(error) from None
        self._informed = True
        return answer

    def over(self, verdict: bytes, reason: str) -> Fault:
        """Remember why the check is over."""
        self.fault = self.fault or Fault(verdict, reason)
        return self.fault

    def _exception(self, error: Raised) -> BaseException:
        try:
            made = make_exception(error.name, error.arguments)
        except Exception:  # SystemExit, KeyboardInterrupt and what else ends a program
            return self.over(b"f", f"the program raises {error.text}")
        if isinstance(made, StopIteration | StopAsyncIteration):
            # Out of a function these would end a loop of the tests as if all its turns were done.
            made = RuntimeError(f"the program raises {error.text}")
        made._of_program = True  # type: ignore[attr-defined]
        return made

    def _called_back(self, number: int, arguments: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        """The program calls a function that the tests have handed over."""
        self._informed = True
        return self._peer.lent(number)(*arguments, **dict(named))

    def _proxy(self, peer: Peer, handle: Handle) -> Any:
        if handle.kind == "iterator":
            return _Iterator(self, handle)
        return _Object(self, handle)


def _kind(value: Any) -> str:
    """Of the tests' own objects only functions are lent: attributes of anything else could tell too much."""
    if callable(value):
        return "function"
    raise Unsendable(f"{type(value).__name__} is not plain data")


class _Iterator:
    """An iterator of the program's, fetched in growing portions."""

    def __init__(self, program: Program, handle: Handle) -> None:
        self._program, self._number = program, handle.number
        self._ahead: list[Any] = []
        self._done = False
        self._portion = 1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._ahead and not self._done:
            match self._program.ask("next", self._number, self._portion):
                case (tuple(items), bool(done)):
                    self._ahead, self._done = list(reversed(items)), done or not items
                case _:
                    raise self._program.over(b"f", "the program broke the protocol: items that are none")
            self._portion = min(2 * self._portion, 1024)
        if not self._ahead:
            raise StopIteration
        return self._ahead.pop()


class _Object:
    """Any other object of the program's. What would compare it ends the check; the rest asks the program."""

    __slots__ = ("_name", "_number", "_program")

    def __init__(self, program: Program, handle: Handle) -> None:
        for name, value in (("_program", program), ("_number", handle.number), ("_name", handle.name)):
            object.__setattr__(self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._program.ask("call", self._number, arguments, tuple(named.items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._program.ask("get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self._number, name, value)

    def __bool__(self) -> bool:
        return self._program.ask("truth", self._number) is True

    def _incomparable(self, *_: object) -> NoReturn:
        raise self._program.over(b"f", f"the answer is of a type that cannot be compared: {self._name}")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _incomparable  # type: ignore[assignment]
    # Comparisons too: an object could say that it holds whatever it is asked for, or be another number each time.
    __contains__ = __float__ = __int__ = __index__ = __complex__ = _incomparable


def _special(name: str, kind: type) -> Callable[..., Any]:
    """A special method that the program answers, with a plain value of the type that Python wants."""

    def method(self: _Object, *arguments: Any) -> Any:
        answer = self._program.ask("special", self._number, name, arguments)
        if not isinstance(answer, kind):
            raise TypeError(f"{name} of {self._name} gives {type(answer).__name__}")
        return answer

    return method


for _each, _type in {
    "__len__": int, "__getitem__": object, "__setitem__": object, "__iter__": _Iterator, "__str__": str,
    "__repr__": str,
}.items():  # fmt: skip
    setattr(_Object, _each, _special(_each, _type))
