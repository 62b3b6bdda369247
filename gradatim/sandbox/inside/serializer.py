"""Message format of the calls between tests and candidate: limits, errors, handles and type names.

A value crosses as plain bytes: one tag byte, then the content. ``writer`` encodes, ``reader`` decodes. Decoding runs no
code of the sender and builds only builtin types and a fixed list of standard value types. A subclass crosses as the
builtin that it extends, so an overridden ``__eq__`` stays behind. Message length and depth are bounded, and a count is
checked against the bytes that are present.

Mutable containers (list, dict, set, bytearray, deque and their standard subclasses) are numbered in order of
occurrence, alike on both sides. A second occurrence is a reference to that number, so that shared references and cycles
survive and the changed contents of arguments can be sent back (``encode_contents``, ``decode_contents``).

Instances of classes that both sides have under one name (``Links``) cross as their state and are containers too. A
value of any other type is passed to ``export``, which may lend it as a ``Handle``. Values nested deeper than the
default recursion limit are written and read with a higher limit.

Bounds on kernel memory that no resource limit of a process counts.

The module uses no Linux function, so that it can be imported on every system.
"""

from __future__ import annotations

import _socket
import builtins
import contextlib
import functools
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from . import extended_types

MAX_BYTES = 32 << 20
"""Maximum length of a message."""

MAX_DEPTH = 10_000
"""Maximum nesting depth of containers; a linked list of this many nodes is one answer."""

FRAMES = 6 * MAX_DEPTH
"""Python frames for a value of maximum depth. They are on the heap, not on the stack of the process."""

U32, I64, F64, COMPLEX = struct.Struct("<I"), struct.Struct("<q"), struct.Struct("<d"), struct.Struct("<dd")

_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object)
}
_TYPES["NoneType"] = type(None)
_TYPES |= {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
}
"""Types that cross by name, as values and as factories of defaultdicts; ``extended_types`` has those of modules."""


class Malformed(Exception):
    """Bytes that are not a valid message."""


class Unsendable(Exception):
    """A value that cannot cross: too deep, too long, or of a type that is not lent."""


class Handle(NamedTuple):
    """Reference to an object that stays with its owner. ``mine``: the sender owns it; otherwise the receiver does."""

    mine: bool
    number: int
    kind: str
    name: str


class Links(Protocol):
    """Objects that both sides refer to by a name or a number."""

    def held(self, value: Any) -> Handle | None:
        """Handle of an object that is lent although it extends a plain type."""

    def record_name(self, value: Any) -> str | None:
        """Name of the value's class, if its instances cross as their state."""

    def record_type(self, name: str) -> type | None:
        """Class of that name on this side."""

    def exception_type(self, name: str) -> type | None:
        """Exception class of the program or the tests with that name."""


@contextlib.contextmanager
def deep_recursion() -> Iterator[None]:
    """Raise the recursion limit for deeply nested values."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, FRAMES + 2000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def type_name(kind: type) -> str:
    """Name under which a type crosses; empty if it does not."""
    name: str = kind.__name__
    if _TYPES.get(name) is kind:
        return name
    dotted = f"{kind.__module__}.{name}"
    return dotted if extended_types.named_type(dotted, load=False) is kind else ""


def type_of(name: str) -> Any:
    """Type of that name. Raises ``LookupError``."""
    return _TYPES[name] if "." not in name else extended_types.named_type(name, load=True)


SIGNALS = 1024
"""Maximum of queued signals and timers in a sandbox; each takes kernel memory that is counted per user only."""


@functools.cache
def socket_bytes() -> int:
    """Bytes that one socket can hold: its buffer, which a sandboxed program cannot enlarge, and one more message."""
    one, peer = _socket.socketpair()
    size: int = one.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
    one.close()
    peer.close()
    return 2 * size
