"""Functions, iterators and objects of the tests, as the program sees them.

Each operation is a request to the tests' side, which decides what it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import exceptions
from .codec import Handle
from .operations import READINGS
from .peer import Peer, Raised

__all__ = ["proxy"]

SINGLE = 32
"""So many items are fetched one by one: tests may look at what is left of a short iterator."""
PORTION = 64


def proxy(peer: Peer, handle: Handle) -> Any:
    """What stands for the tests' function, iterator or object."""
    if handle.kind == "iterator":
        return _Items(peer, handle.number)
    if handle.kind == "object":
        return _Remote(peer, handle)
    return _function(peer, handle)


def _function(peer: Peer, handle: Handle) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        return _ask(peer, "call", handle.number, arguments, tuple(named.items()))

    function.__name__ = function.__qualname__ = handle.name
    return function


def _ask(peer: Peer, *request: Any) -> Any:
    try:
        return peer.ask(*request)
    except Raised as error:
        raise exceptions.make(error.description, peer.exception_type) from None


class _Items:
    """An iterator of the tests'."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer, self._number = peer, number
        self._ahead: list[Any] = []
        self._fetched = 0
        self._done = False

    def __iter__(self) -> _Items:
        return self

    def __next__(self) -> Any:
        if not self._ahead and not self._done:
            count = 1 if self._fetched < SINGLE else PORTION
            items, self._done = _ask(self._peer, "next", self._number, count)
            self._ahead = list(reversed(items))
            self._fetched += len(items)
        if not self._ahead:
            raise StopIteration
        return self._ahead.pop()


class _Remote:
    """An object of the tests': attributes, calls and operators are theirs."""

    def __init__(self, peer: Peer, handle: Handle) -> None:
        vars(self).update(_peer=peer, _number=handle.number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self._peer, "get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self._peer, "set", self._number, name, value)


def _operation(name: str) -> Callable[..., Any]:
    def operation(self: _Remote, *arguments: Any) -> Any:
        return _ask(self._peer, "apply", name, (self, *arguments))

    return operation


for _name in READINGS:
    setattr(_Remote, f"__{_name}__", _operation(_name))
