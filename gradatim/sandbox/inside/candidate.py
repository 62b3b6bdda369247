"""How does a program answer the tests without ever seeing them?

In the fork of the nest that is the candidate's own: the source arrives as the first request, is compiled and run as
the module ``candidate``, and from then on its functions are called. Nothing that the tests expect is here,
nor has it ever been in this process: a program that takes this module over can choose its answers, but that is all
any program does.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from itertools import islice
from typing import Any

from . import further
from .operations import FUNCTIONS
from .peer import EXCEPTION, Broken, Peer
from .remote import proxy

__all__ = ["MODULE", "Program"]

MODULE = "candidate"
EXTENDED: tuple[Any, ...] = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex)
"""Plain types that classes extend."""

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))
"""Types of items that cannot change after an iterator has given them."""


class Program:
    """What answers the tests over the descriptor ``connection``; made in the nest, used in a fork of it.

    The operations are its methods; ``target`` is the number of an object that was lent.
    """

    def __init__(self, connection: int) -> None:
        self._module = types.ModuleType(MODULE)
        self._raised: dict[int, Exception] = {}
        self._latest: dict[int, Any] = {}
        self._records: frozenset[str] = frozenset()
        self._copies: dict[str, type] = {}
        self._loop: Any = None
        names = ("load", "call", "get", "set", "next", "apply", "plain", "state", "wait", "advance")
        self._peer = Peer(connection, {name: getattr(self, name) for name in names}, _kind, proxy, self)

    def serve(self) -> None:
        """Answer until the tests hang up."""
        sys.modules[MODULE] = self._module
        with contextlib.suppress(Broken):
            self._peer.serve_forever()

    def load(self, source: str, names: tuple[str, ...], records: tuple[str, ...] = ()) -> tuple[str, Any]:
        """("ready", what the program has under ``names``), ("invalid", why) or ("failed", why).

        ``records`` are classes of the prompt: their instances cross as their state.
        """
        self._records = frozenset(records)
        try:
            code = compile(source, "<candidate>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, UnicodeError, RecursionError, MemoryError, OverflowError) as error:
            return "invalid", _told(error)
        try:
            exec(code, vars(self._module))
        except BaseException as error:
            return "failed", _told(error)
        return "ready", {name: vars(self._module)[name] for name in names if name in vars(self._module)}

    def call(self, target: int, arguments: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        """What a function returns. An instance of a class with methods of its own is lent, whatever it extends."""
        function = self._find(target)
        answer = function(*arguments, **dict(named))
        if isinstance(function, type) and isinstance(answer, EXTENDED) and _has_methods(function):
            self._peer.hold(answer)
        return answer

    def get(self, target: int, name: str) -> Any:
        """An attribute."""
        return getattr(self._find(target), name)

    def set(self, target: int, name: str, value: Any) -> None:
        """Give an attribute a value."""
        setattr(self._find(target), name, value)

    def apply(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What a builtin function or an operator makes of an object."""
        return FUNCTIONS[name](*arguments)

    def plain(self, target: int) -> Any:
        """An object that extends a plain type, as that type."""
        owner = self._find(target)
        return next((base(owner) for base in EXTENDED if isinstance(owner, base)), None)

    def state(self, target: int, other: Any) -> tuple[str, type, dict[str, Any], bool]:
        """How an object compares (``identity``, by its ``fields``, by a method of its ``own``), its class and state.

        The last is what its own method says of ``other``.
        """
        owner = self._find(target)
        kind = type(owner)
        method: Any = kind.__eq__
        if method is object.__eq__ or isinstance(owner, type) or further.is_member(owner):
            return "identity", kind, {}, False
        fields = getattr(kind, "__dataclass_fields__", None)
        if fields is not None and getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>":
            return "fields", kind, {name: getattr(owner, name) for name, each in fields.items() if each.compare}, False
        return "own", kind, further.state_of(owner), bool(owner == other)

    def next(self, target: int, count: int) -> tuple[tuple[Any, ...], bool, bool]:
        """Up to ``count`` items of an iterator, whether that was all, and whether the last one is the one before again.

        An item that may change later is the last of its portion: the iterator goes on only when it is asked to.
        """
        if target in self._raised:
            raise self._raised.pop(target)
        items: list[Any] = []
        done = True
        try:
            for item in islice(self._find(target), count):
                items.append(item)
                if type(item) not in ATOMS and not (type(item) is tuple and ATOMS.issuperset(map(type, item))):
                    done = False
                    break
            done = done and len(items) < count
        except Exception as error:
            if not items:
                raise
            self._raised[target] = error  # it comes after the items before it
            return tuple(items), False, False
        if not items or type(items[-1]) in ATOMS:
            return tuple(items), done, False
        again = items[-1] is self._latest.get(target)
        self._latest[target] = items[-1]
        return tuple(items), done, again

    def wait(self, target: int) -> Any:
        """What a coroutine comes to."""
        return self._finish(self._find(target))

    def advance(self, target: int) -> tuple[Any, ...]:
        """The next item of an asynchronous iterator, in a tuple that is empty at its end."""
        try:
            return (self._finish(type(self._find(target)).__anext__(self._find(target))),)
        except StopAsyncIteration:
            return ()

    def record_name(self, value: Any) -> str | None:
        """The name of an instance's class, where it is one of the prompt's or stands for one of the tests'."""
        kind = type(value)
        name = kind.__name__
        known = vars(self._module).get(name) if name in self._records else self._copies.get(name)
        return name if known is kind else None

    def record_type(self, name: str) -> type | None:
        """The program's class of that name, or one without methods that stands for the tests'."""
        known = vars(self._module).get(name)
        if isinstance(known, type):
            return known
        if name not in self._copies:
            self._copies[name] = type(name, (), {"__module__": MODULE})
        return self._copies[name]

    def exception_type(self, name: str) -> type | None:
        """The program's exception of that name."""
        return vars(self._module).get(name)

    def _find(self, target: int) -> Any:
        return self._peer.lent(target)

    def _finish(self, awaitable: Any) -> Any:
        """Run to its end what the program awaits; one that never waits needs no event loop."""
        if "asyncio" not in sys.modules:
            try:
                step = awaitable.__await__()
                while True:
                    next(step)
            except StopIteration as end:
                return end.value
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)

        async def run() -> Any:
            return await awaitable

        return self._loop.run_until_complete(run())


def _has_methods(kind: type) -> bool:
    """Whether a class that extends a plain type has methods of its own, so that its instances are more than that."""
    if further.is_enumeration(kind):
        return False
    own = [each for each in type.mro(kind) if each.__module__ == MODULE]
    plain = ("__new__", "__init__", "__eq__", "__ne__", "__hash__")
    named = {"_make", "_replace", "_asdict", "_fields", "_field_defaults", "__getnewargs__", "__repr__"}
    skipped = {*plain, *(named if hasattr(kind, "_fields") else ())}
    return any(callable(member) and name not in skipped for each in own for name, member in vars(each).items())


def _kind(value: Any) -> str:
    kind = type(value)
    if isinstance(value, type):
        return EXCEPTION if issubclass(value, BaseException) else "class"
    if hasattr(kind, "__next__"):
        return "iterator"
    if hasattr(kind, "__await__"):
        return "coroutine"
    if hasattr(kind, "__anext__"):
        return "stream"
    return "function" if callable(value) else "object"


def _told(error: BaseException) -> str:
    """An exception and the line of the program that it comes from."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in _frames(error):
        if frame.f_code.co_filename == "<candidate>":
            line = frame.f_lineno
    try:
        said = str(error.msg if isinstance(error, SyntaxError) else error)[:500]
    except BaseException:
        said = ""
    place = f" (line {line})" if line else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


def _frames(error: BaseException) -> Iterator[Any]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
