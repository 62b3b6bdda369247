"""The candidate's process, a fork of the fork server: execution of the program and service of the tests' requests.

The source arrives as the first request and is compiled and run as the module ``candidate``; its functions are then
called. No expected value is ever in this process: a program that takes control of this module can choose its answers,
as every program can. ``_TestIterator`` and ``_TestObject`` are the proxies of iterators and objects of the tests; their
operations are requests to the tester.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from . import exceptions, extended_types
from .objects import FUNCTIONS, READ_OPERATIONS
from .rpc import EXCEPTION, Broken, Peer, Raised
from .serializer import Handle

MODULE = "candidate"
EXTENDED: tuple[Any, ...] = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex)
"""Plain types that a program's classes may extend."""

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))
"""Types of items that cannot change after an iterator has returned them."""


SINGLE = 32
"""Number of items fetched one by one: tests may examine the remaining items of a short iterator."""
PORTION = 64


class CandidateServer:
    """Service for the tests over the descriptor ``connection``; created in the fork server, used in a fork of it.

    The operations are its methods; ``target`` is the number of a lent object.
    """

    def __init__(self, connection: int) -> None:
        self._module = types.ModuleType(MODULE)
        self._raised: dict[int, Exception] = {}
        self._latest: dict[int, Any] = {}
        self._records: frozenset[str] = frozenset()
        self._copies: dict[str, type] = {}
        self._loop: Any = None
        names = ("load", "call", "get", "set", "next", "apply", "plain", "state", "wait", "advance")
        self._peer = Peer(connection, {name: getattr(self, name) for name in names}, _kind, _proxy, self)

    def serve(self) -> None:
        """Serve requests until the tests close the connection."""
        sys.modules[MODULE] = self._module
        with contextlib.suppress(Broken):
            self._peer.serve_forever()

    def load(self, source: str, names: tuple[str, ...], records: tuple[str, ...] = ()) -> tuple[str, Any]:
        """Run the program; ("ready", its values of ``names``), ("invalid", reason) or ("failed", reason).

        ``records`` are classes of the prompt: their instances cross as their state.
        """
        self._records = frozenset(records)
        try:
            code = compile(source, "<candidate>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, UnicodeError, RecursionError, MemoryError, OverflowError) as error:
            return "invalid", _summary(error)
        try:
            exec(code, vars(self._module))
        except BaseException as error:
            return "failed", _summary(error)
        return "ready", {name: vars(self._module)[name] for name in names if name in vars(self._module)}

    def call(self, target: int, arguments: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        """Call a function. An instance of a class that defines methods is lent, whatever type it extends."""
        function = self._find(target)
        answer = function(*arguments, **dict(named))
        if isinstance(function, type) and isinstance(answer, EXTENDED) and _has_methods(function):
            self._peer.hold(answer)
        return answer

    def get(self, target: int, name: str) -> Any:
        """Return an attribute."""
        return getattr(self._find(target), name)

    def set(self, target: int, name: str, value: Any) -> None:
        """Set an attribute."""
        setattr(self._find(target), name, value)

    def apply(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Apply a builtin function or an operator to an object."""
        return FUNCTIONS[name](*arguments)

    def plain(self, target: int) -> Any:
        """Convert an object that extends a plain type to that type; None for others."""
        owner = self._find(target)
        return next((base(owner) for base in EXTENDED if isinstance(owner, base)), None)

    def state(self, target: int, other: Any) -> tuple[str, type, dict[str, Any], bool]:
        """Kind of comparison (``identity``, ``fields``, ``own`` method), class, state, and result of ``== other``.

        The result is that of the object's own method, and False for the other kinds.
        """
        owner = self._find(target)
        kind = type(owner)
        method: Any = kind.__eq__
        if method is object.__eq__ or isinstance(owner, type) or extended_types.is_member(owner):
            return "identity", kind, {}, False
        fields = getattr(kind, "__dataclass_fields__", None)
        if fields is not None and getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>":
            return (
                "fields",
                kind,
                {name: getattr(owner, name) for name, field in fields.items() if field.compare},
                False,
            )
        return "own", kind, extended_types.state_of(owner), bool(owner == other)

    def next(self, target: int, count: int) -> tuple[tuple[Any, ...], bool, bool]:
        """Up to ``count`` items of an iterator, whether it is exhausted, and whether the last is the previous object.

        An item that may change later ends its portion: the iterator advances only on the next request.
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
            self._raised[target] = error  # raised after the items before it are delivered
            return tuple(items), False, False
        if not items or type(items[-1]) in ATOMS:
            return tuple(items), done, False
        again = items[-1] is self._latest.get(target)
        self._latest[target] = items[-1]
        return tuple(items), done, again

    def wait(self, target: int) -> Any:
        """Run a coroutine and return its result."""
        return self._finish(self._find(target))

    def advance(self, target: int) -> tuple[Any, ...]:
        """Next item of an asynchronous iterator, in a tuple that is empty at its end."""
        try:
            return (self._finish(type(self._find(target)).__anext__(self._find(target))),)
        except StopAsyncIteration:
            return ()

    def record_name(self, value: Any) -> str | None:
        """Name of an instance's class, if it is a class of the prompt or a substitute for one of the tests."""
        kind = type(value)
        name = kind.__name__
        shared = vars(self._module).get(name) if name in self._records else self._copies.get(name)
        return name if shared is kind else None

    def record_type(self, name: str) -> type | None:
        """The program's class of that name, or an empty substitute for the tests' class."""
        defined = vars(self._module).get(name)
        if isinstance(defined, type):
            return defined
        if name not in self._copies:
            self._copies[name] = type(name, (), {"__module__": MODULE})
        return self._copies[name]

    def exception_type(self, name: str) -> type | None:
        """The program's exception of that name."""
        return vars(self._module).get(name)

    def _find(self, target: int) -> Any:
        return self._peer.lent(target)

    def _finish(self, awaitable: Any) -> Any:
        """Run an awaitable to its end; one that never suspends needs no event loop."""
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
    """Whether a class that extends a plain type defines methods, so that its instances are more than plain values."""
    if extended_types.is_enumeration(kind):
        return False
    classes = [base for base in type.mro(kind) if base.__module__ == MODULE]
    overridable = ("__new__", "__init__", "__eq__", "__ne__", "__hash__")
    namedtuple_members = {"_make", "_replace", "_asdict", "_fields", "_field_defaults", "__getnewargs__", "__repr__"}
    skipped = {*overridable, *(namedtuple_members if hasattr(kind, "_fields") else ())}
    return any(callable(member) and name not in skipped for base in classes for name, member in vars(base).items())


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


def _summary(error: BaseException) -> str:
    """Class and text of an exception, and the line of the program that raised it."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in _frames(error):
        if frame.f_code.co_filename == "<candidate>":
            line = frame.f_lineno
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)[:500]
    except BaseException:
        text = ""
    location = f" (line {line})" if line else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{location}"


def _frames(error: BaseException) -> Iterator[Any]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _proxy(peer: Peer, handle: Handle) -> Any:
    """Proxy for a function, iterator or object of the tests."""
    if handle.kind == "iterator":
        return _TestIterator(peer, handle.number)
    if handle.kind == "object":
        return _TestObject(peer, handle)
    return _function(peer, handle)


def _function(peer: Peer, handle: Handle) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        return _request(peer, "call", handle.number, arguments, tuple(named.items()))

    function.__name__ = function.__qualname__ = handle.name
    return function


def _request(peer: Peer, *arguments: Any) -> Any:
    try:
        return peer.request(*arguments)
    except Raised as error:
        raise exceptions.make(error.description, peer.exception_type) from None


class _TestIterator:
    """Proxy of an iterator of the tests."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer, self._number = peer, number
        self._buffer: list[Any] = []
        self._fetched = 0
        self._done = False

    def __iter__(self) -> _TestIterator:
        return self

    def __next__(self) -> Any:
        if not self._buffer and not self._done:
            count = 1 if self._fetched < SINGLE else PORTION
            items, self._done = _request(self._peer, "next", self._number, count)
            self._buffer = list(reversed(items))
            self._fetched += len(items)
        if not self._buffer:
            raise StopIteration
        return self._buffer.pop()


class _TestObject:
    """Proxy of an object of the tests; attributes, calls and operators are evaluated there."""

    def __init__(self, peer: Peer, handle: Handle) -> None:
        vars(self).update(_peer=peer, _number=handle.number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _request(self._peer, "get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _request(self._peer, "set", self._number, name, value)


def _operation(name: str) -> Callable[..., Any]:
    def operation(self: _TestObject, *arguments: Any) -> Any:
        return _request(self._peer, "apply", name, (self, *arguments))

    return operation


for _name in READ_OPERATIONS:
    setattr(_TestObject, f"__{_name}__", _operation(_name))
