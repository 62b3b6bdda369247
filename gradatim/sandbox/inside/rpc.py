"""Remote procedure calls in both directions over a socket whose other end may be hostile.

Both ends of a socket are a ``Peer``. ``request`` sends a request and waits for the reply; meanwhile it serves requests
of the other side, so that a function passed as an argument can be called back. A request names an operation in the
table of the other side: the program serves ``load``, ``call``, ``get`` …, the tests serve operations on functions and
objects that they have passed themselves.

A request carries containers; the reply contains their new contents if the call has changed them, so that the caller's
lists, dicts and sets change in place. Values without a plain form are lent: the other side holds a proxy
(``make_proxy``), and sending the proxy back gives the owner its object.

Trust: no received data is trusted. A message that is too long or malformed raises ``Broken``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .exceptions import Description, describe, kinds_of
from .reader import decode, decode_contents, description_of
from .serializer import MAX_BYTES, Handle, Malformed, Unsendable
from .writer import encode, encode_contents, is_plain

_HEAD = struct.Struct("<cII")
"""Message header: kind, length of the body, length of the changed contents."""

REQUEST, VALUE, RAISED, REFUSED = b"Q", b"V", b"E", b"U"
KINDS = (REQUEST, VALUE, RAISED, REFUSED)
MAX_LENT = 100_000
EXCEPTION = "exception"
"""Kind of a lent exception class; the handle's name then contains the names of its base classes as well."""
FIRST, PORTION = 4096, 1 << 20
"""Bytes per read: most messages are short, and short reads touch little memory in a new fork."""


def message(kind: bytes, body: bytes, contents: bytes = b"") -> bytes:
    """Bytes on the socket for one request or reply."""
    return _HEAD.pack(kind, len(body), len(contents)) + body + contents


class Broken(Exception):
    """The other side has closed the connection or violated the protocol."""


class Gone(Broken):
    """The other side has closed the connection."""

    def __init__(self) -> None:
        super().__init__("the other side has closed the connection")


class Raised(Exception):
    """The call raised the described exception on the other side."""

    def __init__(self, description: Description) -> None:
        super().__init__(description.summary)
        self.description = description


class AnswerRefused(Exception):
    """The other side reports that its answer cannot cross."""


class Unsent(Exception):
    """This side could not encode its request. No message of the other side can raise this."""


class Classes(Protocol):
    """Classes that both sides share by name; see ``serializer.Links`` for the methods."""

    def record_name(self, value: Any) -> str | None: ...

    def record_type(self, name: str) -> type | None: ...

    def exception_type(self, name: str) -> type | None: ...


class Peer:
    """One end of the socket ``connection``, a descriptor.

    ``operations``: name -> function of the request's arguments. ``lend(value)`` returns the kind under which a value is
    lent and raises ``Unsendable`` for one that is not. ``make_proxy(peer, handle)`` returns the proxy of an object of
    the other side. ``classes`` are the shared classes.
    """

    def __init__(
        self,
        connection: int,
        operations: Mapping[str, Callable[..., Any]],
        lend: Callable[[Any], str],
        make_proxy: Callable[[Peer, Handle], Any],
        classes: Classes,
    ) -> None:
        self._connection = connection
        self._operations = operations
        self._lend = lend
        self._make_proxy = make_proxy
        self.record_name, self.record_type = classes.record_name, classes.record_type
        self.exception_type = classes.exception_type
        self._forced: dict[int, Any] = {}
        self._lent: list[Any] = []
        self._lent_numbers: dict[int, int] = {}
        self._proxies: dict[int, Any] = {}
        self._proxy_numbers: dict[int, int] = {}
        self._buffer = b""

    def request(self, operation: str, *arguments: Any) -> Any:
        """Send a request and return the reply's value. Raises ``Unsent``, ``Raised``, ``Refused`` or ``Broken``."""
        try:
            data, containers = encode((operation, *arguments), export=self._export, links=self)
        except (Unsendable, RecursionError, MemoryError) as error:
            raise Unsent(str(error) or type(error).__name__) from None
        self._send(REQUEST, data)
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
                raise Broken("a reply without a request")
            self._serve(body)

    def hold(self, value: Any) -> None:
        """Lend ``value`` from now on, although it extends a plain type and could cross as that type."""
        self._forced[id(value)] = value

    def held(self, value: Any) -> Handle | None:
        """Handle of a value that is lent although it could cross as a plain one."""
        return self._export(value, "plain") if id(value) in self._forced else None

    def lent(self, number: int) -> Any:
        """Object lent under ``number``."""
        return self._lent[number]

    def _answer(self, kind: bytes, body: bytes, contents: bytes, containers: list[Any]) -> Any:
        try:
            value, numbered = decode(body, numbered=containers, resolve=self._resolve, links=self)
            if contents:
                decode_contents(contents, containers, numbered=numbered, resolve=self._resolve, links=self)
            if kind == VALUE:
                return value
            if kind == REFUSED:
                raise AnswerRefused(str(value))
            raise Raised(description_of(value))
        except (Malformed, ValueError, TypeError, OverflowError) as error:
            raise Broken(f"a malformed reply: {error}") from None

    def _serve(self, body: bytes) -> None:
        try:
            (operation, *arguments), containers = decode(body, resolve=self._resolve, links=self)
            function = self._operations[operation]
        except (Malformed, LookupError, TypeError, ValueError) as error:
            raise Broken(f"a malformed request: {error}") from None
        before = (
            encode_contents(containers, numbered=containers, export=self._export, links=self) if containers else b""
        )
        try:
            kind, value = VALUE, function(*arguments)
        except BaseException as error:
            kind, value = RAISED, describe(error, is_plain)
        try:
            body, numbered = encode(value, numbered=containers, export=self._export, links=self)
            after = (
                encode_contents(containers, numbered=numbered, export=self._export, links=self) if containers else b""
            )
        except Exception as error:
            kind, after = REFUSED, before
            body, _ = encode(str(error) or type(error).__name__, numbered=containers)
        self._send(kind, body, b"" if after == before else after)

    def _export(self, value: Any, kind: str = "") -> Handle:
        name = type(value).__name__
        number = self._proxy_numbers.get(id(value))
        if number is not None:
            return Handle(False, number, "", name)
        kind = kind or self._lend(value)
        if kind == EXCEPTION:
            name = " ".join(kinds_of(value))
        elif kind == "function" and type(function_name := getattr(value, "__name__", None)) is str:
            name = function_name
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
        data = self._buffer
        while len(data) < _HEAD.size:
            data += self._read(FIRST)
        kind, length, extra = _HEAD.unpack_from(data)
        if kind not in KINDS or length > MAX_BYTES or extra > MAX_BYTES:
            raise Broken("an invalid message header")
        middle, end = _HEAD.size + length, _HEAD.size + length + extra
        if len(data) < end:
            data = self._read_until(data, end)
        self._buffer = data[end:]
        return kind, data[_HEAD.size : middle], data[middle:end]

    def _read_until(self, data: bytes, size: int) -> bytes:
        """Read on until ``data`` has ``size`` bytes."""
        chunks, missing = [data], size - len(data)
        while missing:
            chunks.append(self._read(min(missing, PORTION)))
            missing -= len(chunks[-1])
        return b"".join(chunks)

    def _read(self, limit: int) -> bytes:
        try:
            chunk = os.read(self._connection, limit)
        except OSError as error:
            raise Gone from error
        if not chunk:
            raise Gone
        return chunk
