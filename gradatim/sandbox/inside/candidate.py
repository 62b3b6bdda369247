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
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from .codec import Handle, make_exception
from .peer import Broken, Peer, Raised

__all__ = ["MODULE", "Program"]

MODULE = "candidate"


class Program:
    """What answers the tests over the descriptor ``connection``; made in the nest, used in a fork of it.

    The operations are its methods; ``target`` is the number of an object that was lent.
    """

    def __init__(self, connection: int) -> None:
        self._module = types.ModuleType(MODULE)
        self._raised: dict[int, Exception] = {}
        names = ("load", "call", "get", "set", "next", "special", "truth")
        self._peer = Peer(connection, {name: getattr(self, name) for name in names}, _kind, _proxy)

    def serve(self) -> None:
        """Answer until the tests hang up."""
        sys.modules[MODULE] = self._module
        with contextlib.suppress(Broken):
            self._peer.serve_forever()

    def load(self, source: str, names: tuple[str, ...]) -> tuple[str, Any]:
        """("ready", what the program has under ``names``), ("invalid", why) or ("failed", why)."""
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
        """What a function returns."""
        return self._find(target)(*arguments, **dict(named))

    def get(self, target: int, name: str) -> Any:
        """An attribute."""
        return getattr(self._find(target), name)

    def set(self, target: int, name: str, value: Any) -> None:
        """Give an attribute a value."""
        setattr(self._find(target), name, value)

    def special(self, target: int, name: str, arguments: tuple[Any, ...]) -> Any:
        """What a special method returns, looked up as Python does, on the type."""
        owner = self._find(target)
        return getattr(type(owner), name)(owner, *arguments)

    def truth(self, target: int) -> bool:
        """Whether an object counts as true."""
        return bool(self._find(target))

    def next(self, target: int, count: int) -> tuple[tuple[Any, ...], bool]:
        """The next ``count`` items of an iterator, and whether that was all."""
        if target in self._raised:
            raise self._raised.pop(target)
        items = []
        try:
            for item in islice(self._find(target), count):
                items.append(item)
        except Exception as error:
            if not items:
                raise
            self._raised[target] = error  # it comes after the items before it
            return tuple(items), False
        return tuple(items), len(items) < count

    def _find(self, target: int) -> Any:
        return self._peer.lent(target)


def _kind(value: Any) -> str:
    kind = type(value)
    if hasattr(kind, "__next__"):
        return "iterator"
    return "function" if callable(value) else "object"


def _proxy(peer: Peer, handle: Handle) -> Callable[..., Any]:
    """The tests' function, as the program sees it."""

    def function(*arguments: Any, **named: Any) -> Any:
        try:
            return peer.ask("call", handle.number, arguments, tuple(named.items()))
        except Raised as error:
            raise make_exception(error.name, error.arguments) from None

    return function


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
