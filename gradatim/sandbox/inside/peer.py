"""How do two processes call each other when one of them may be hostile?

Both ends of a socket are a ``Peer``. ``ask`` sends a request and waits; while it waits it serves the other side's
requests, so that a function handed over as an argument can be called back. A request names an operation; what is
served is the table each side gives: the program serves ``load``, ``call``, ``get`` …; the tests serve ``call`` alone,
of functions that they have handed over themselves.

A request carries containers; the reply brings their new contents back when the call has changed them, so that the
caller's own lists, dicts and sets change in place. Values without a plain form are lent: the other side holds a proxy
(``make_proxy``), and sending the proxy back gives the owner its object.

Trust: everything that arrives is a claim. A message that is too long or malformed raises ``Broken``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .codec import (
    MAX_BYTES,
    Handle,
    Malformed,
    Unsendable,
    decode,
    decode_contents,
    description_of,
    encode,
    encode_contents,
    is_plain,
)
from .exceptions import Description, describe, kinds_of

__all__ = ["EXCEPTION", "REQUEST", "Broken", "Gone", "Peer", "Raised", "Refused", "Unsent", "message"]

_HEAD = struct.Struct("<cII")
"""Kind, length of the body, length of the changed contents."""

REQUEST, VALUE, RAISED, REFUSED = b"Q", b"V", b"E", b"U"
KINDS = (REQUEST, VALUE, RAISED, REFUSED)
MAX_LENT = 100_000
EXCEPTION = "exception"
"""The kind of an exception class that is lent; its name then holds those of the classes it extends."""
FIRST, MORE = 4096, 1 << 20
"""Bytes read at a time: most messages are short, and short reads touch little memory in a fresh fork."""


def message(kind: bytes, body: bytes, contents: bytes = b"") -> bytes:
    """What crosses the socket for one request or reply."""
    return _HEAD.pack(kind, len(body), len(contents)) + body + contents


class Broken(Exception):
    """The other side is gone, or what it sends makes no sense."""


class Gone(Broken):
    """The other side has closed the connection."""

    def __init__(self) -> None:
        super().__init__("the other side has gone")


class Raised(Exception):
    """The other side's call raised the exception described."""

    def __init__(self, description: Description) -> None:
        super().__init__(description.told)
        self.description = description


class Refused(Exception):
    """The other side says that its answer cannot cross."""


class Unsent(Exception):
    """This side could not encode its own request. No message of the other side raises it."""


class Classes(Protocol):
    """Classes that both sides know by name; ``codec.Links`` has the meaning of each method."""

    def record_name(self, value: Any) -> str | None: ...

    def record_type(self, name: str) -> type | None: ...

    def exception_type(self, name: str) -> type | None: ...


class Peer:
    """One end, behind the descriptor ``connection``. ``serves``: operation -> function of the request's arguments.

    ``lend(value)`` tells the kind under which a value is lent and raises ``Unsendable`` for one that is not;
    ``make_proxy(peer, handle)`` gives what stands for the other side's object; ``classes`` are those that both know.
    """

    def __init__(
        self,
        connection: int,
        serves: Mapping[str, Callable[..., Any]],
        lend: Callable[[Any], str],
        make_proxy: Callable[[Peer, Handle], Any],
        classes: Classes,
    ) -> None:
        self._connection = connection
        self._serves = serves
        self._lend = lend
        self._make_proxy = make_proxy
        self.record_name, self.record_type = classes.record_name, classes.record_type
        self.exception_type = classes.exception_type
        self._held: dict[int, Any] = {}
        self._lent: list[Any] = []
        self._lent_numbers: dict[int, int] = {}
        self._proxies: dict[int, Any] = {}
        self._proxy_numbers: dict[int, int] = {}
        self._ahead = b""

    def ask(self, operation: str, *arguments: Any) -> Any:
        """What the other side answers. Raises ``Unsent``, ``Raised``, ``Refused`` or ``Broken``."""
        try:
            request, containers = encode((operation, *arguments), export=self._export, links=self)
        except (Unsendable, RecursionError, MemoryError) as error:
            raise Unsent(str(error) or type(error).__name__) from None
        self._send(REQUEST, request)
        while True:
            kind, body, contents = self._receive()
            if kind == REQUEST:
                self._serve(body)
                continue
            return self._answer(kind, body, contents, containers)

    def serve_forever(self) -> None:
        """Serve requests until the other side closes."""
        while True:
            kind, body, _ = self._receive()
            if kind != REQUEST:
                raise Broken("a reply that nobody waits for")
            self._serve(body)

    def hold(self, value: Any) -> None:
        """Lend ``value`` from now on, although it extends a plain type and could cross as that."""
        self._held[id(value)] = value

    def held(self, value: Any) -> Handle | None:
        """The handle of a value that is lent although it could cross as a plain one."""
        return self._export(value, "plain") if id(value) in self._held else None

    def lent(self, number: int) -> Any:
        """The object lent under ``number``."""
        return self._lent[number]

    def _answer(self, kind: bytes, body: bytes, contents: bytes, containers: list[Any]) -> Any:
        try:
            value, known = decode(body, known=containers, resolve=self._resolve, links=self)
            if contents:
                decode_contents(contents, containers, known=known, resolve=self._resolve, links=self)
            if kind == VALUE:
                return value
            if kind == REFUSED:
                raise Refused(str(value))
            raise Raised(description_of(value))
        except (Malformed, ValueError, TypeError, OverflowError) as error:
            raise Broken(f"a malformed reply: {error}") from None

    def _serve(self, body: bytes) -> None:
        try:
            (operation, *arguments), containers = decode(body, resolve=self._resolve, links=self)
            serve = self._serves[operation]
        except (Malformed, LookupError, TypeError, ValueError) as error:
            raise Broken(f"a malformed request: {error}") from None
        before = encode_contents(containers, known=containers, export=self._export, links=self) if containers else b""
        try:
            kind, value = VALUE, serve(*arguments)
        except BaseException as error:
            kind, value = RAISED, describe(error, is_plain)
        try:
            body, known = encode(value, known=containers, export=self._export, links=self)
            after = encode_contents(containers, known=known, export=self._export, links=self) if containers else b""
        except Exception as error:
            kind, after = REFUSED, before
            body, _ = encode(str(error) or type(error).__name__, known=containers)
        self._send(kind, body, b"" if after == before else after)

    def _export(self, value: Any, kind: str = "") -> Handle:
        name = type(value).__name__
        number = self._proxy_numbers.get(id(value))
        if number is not None:
            return Handle(False, number, "", name)
        kind = kind or self._lend(value)
        if kind == EXCEPTION:
            name = " ".join(kinds_of(value))
        elif kind == "function" and type(own := getattr(value, "__name__", None)) is str:
            name = own
        number = self._lent_numbers.get(id(value))
        if number is None:
            if len(self._lent) >= MAX_LENT:
                raise Unsendable("too many objects")
            number = self._lent_numbers[id(value)] = len(self._lent)
            self._lent.append(value)
        return Handle(True, number, kind, name)

    def _resolve(self, handle: Handle) -> Any:
        if not handle.mine:
            return self._lent[handle.number]
        if handle.number not in self._proxies:
            if len(self._proxies) >= MAX_LENT:
                raise Malformed("too many objects")
            proxy = self._proxies[handle.number] = self._make_proxy(self, handle)
            self._proxy_numbers[id(proxy)] = handle.number
        return self._proxies[handle.number]

    def _send(self, kind: bytes, body: bytes, contents: bytes = b"") -> None:
        data = message(kind, body, contents)
        try:
            sent = os.write(self._connection, data)
            while sent < len(data):
                data = data[sent:]
                sent = os.write(self._connection, data)
        except OSError as error:
            raise Gone from error

    def _receive(self) -> tuple[bytes, bytes, bytes]:
        data = self._ahead
        while len(data) < _HEAD.size:
            data += self._read(FIRST)
        kind, length, extra = _HEAD.unpack_from(data)
        if kind not in KINDS or length > MAX_BYTES or extra > MAX_BYTES:
            raise Broken("a message that is none")
        middle, end = _HEAD.size + length, _HEAD.size + length + extra
        if len(data) < end:
            data = self._rest(data, end)
        self._ahead = data[end:]
        return kind, data[_HEAD.size : middle], data[middle:end]

    def _rest(self, data: bytes, size: int) -> bytes:
        """``data`` and what follows, ``size`` bytes together."""
        parts, missing = [data], size - len(data)
        while missing:
            parts.append(self._read(min(missing, MORE)))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _read(self, most: int) -> bytes:
        try:
            part = os.read(self._connection, most)
        except OSError as error:
            raise Gone from error
        if not part:
            raise Gone
        return part
