"""Decoding of values that the other process has sent, in the format of ``serializer``.

Every message is untrusted: a malformed one raises ``Malformed``, and no code of the sender is run.
"""

from __future__ import annotations

import functools
import importlib
import math
import struct
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import exceptions, extended_types
from .serializer import COMPLEX, F64, I64, MAX_DEPTH, U32, Handle, Links, Malformed, deep_recursion, type_of
from .writer import WRITERS, plain_type

if TYPE_CHECKING:
    from datetime import datetime, time


def refuse_handle(handle: Handle) -> Any:
    """Default ``resolve``: no handle is allowed."""
    raise Malformed("a handle where plain data must be")


def decode(
    data: bytes,
    *,
    numbered: Sequence[Any] = (),
    resolve: Callable[[Handle], Any] = refuse_handle,
    links: Links | None = None,
) -> tuple[Any, list[Any]]:
    """Decode a message of ``encode``; the value and the numbered containers. Raises ``Malformed``."""
    reader = _Reader(data, numbered, resolve, links)
    try:
        value = reader.read_all(reader.get)
    except RecursionError:
        reader = _Reader(data, numbered, resolve, links)
        with deep_recursion():
            value = reader.read_all(reader.get)
    return value, reader.containers


def decode_contents(
    data: bytes,
    containers: Sequence[Any],
    *,
    numbered: Sequence[Any] = (),
    resolve: Callable[[Handle], Any] = refuse_handle,
    links: Links | None = None,
) -> None:
    """Update ``containers`` from a message of ``encode_contents``; it is read in full before the first one changes."""
    reader = _Reader(data, numbered, resolve, links)
    try:
        contents = reader.read_all(lambda: [reader.contents(container) for container in containers])
    except RecursionError:
        reader = _Reader(data, numbered, resolve, links)
        with deep_recursion():
            contents = reader.read_all(lambda: [reader.contents(container) for container in containers])
    for container, new in zip(containers, contents, strict=True):
        refill(container, new)


def refill(container: Any, new: Any) -> None:
    """Replace the contents of ``container`` by those of ``new``."""
    if isinstance(container, (dict, set)):
        container.clear()
        container.update(new)
    elif isinstance(container, (list, bytearray, deque)):
        container.clear()
        container.extend(new)
    elif isinstance(container, array):
        container[:] = new
    elif extended_types.is_array(container):
        container[...] = new
    else:
        extended_types.set_state(container, new)


class _Reader:
    """State of one decoding: position, numbered containers, depth."""

    def __init__(
        self, data: bytes, numbered: Sequence[Any], resolve: Callable[[Handle], Any], links: Links | None
    ) -> None:
        self.links = links
        self._data = data
        self._position = 0
        self.containers = list(numbered)
        self._resolve = resolve
        self._depth = 0
        self._unnumbered = False

    def read_all(self, read: Callable[[], Any]) -> Any:
        """Result of ``read``, which must consume all bytes; any error while reading becomes ``Malformed``."""
        try:
            value = read()
        except (Malformed, RecursionError):
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, struct.error) as error:
            raise Malformed(f"{type(error).__name__} in a message: {str(error)[:200]}") from error
        if self._position != len(self._data):
            raise Malformed("a message with bytes left over")
        return value

    def get(self) -> Any:
        tag = self.take(1)
        self._depth += 1
        if self._depth > MAX_DEPTH + 2:
            raise Malformed(f"nested more than {MAX_DEPTH} deep")
        reader = _READERS.get(tag)
        if reader is None:
            raise Malformed("an unknown tag in a message")
        value = reader(self)
        self._depth -= 1
        return value

    def contents(self, container: Any) -> Any:
        """Contents of the next container, which must be of the same type as ``container``."""
        kind = plain_type(container)
        tag = WRITERS[kind][0] if kind in WRITERS else b"u" if extended_types.is_array(container) else b"o"
        if self.take(1) != tag:
            raise Malformed("an argument came back as another type")
        if tag == b"o":
            self.text()
            return {self.get(): self.get() for _ in range(self.size())}
        self._unnumbered = True  # the copy itself has no number: ``container`` has it
        return _READERS[tag](self)

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise Malformed("a message that ends too early")
        data = self._data[self._position : end]
        self._position = end
        return data

    def size(self) -> int:
        (size,) = U32.unpack(self.take(4))
        if size > len(self._data) - self._position:
            raise Malformed("a message that promises more than it holds")
        return int(size)

    def raw(self) -> bytes:
        return self.take(self.size())

    def text(self) -> str:
        return self.raw().decode("utf-8", "surrogatepass")

    def items(self) -> list[Any]:
        return [self.get() for _ in range(self.size())]

    def keep(self, container: Any) -> Any:
        if self._unnumbered:
            self._unnumbered = False
        else:
            self.containers.append(container)
        return container

    def fill(self, mapping: Any) -> Any:
        self.keep(mapping)
        for _ in range(self.size()):
            key = self.get()
            dict.__setitem__(mapping, key, self.get())
        return mapping

    def reference(self) -> Any:
        (number,) = U32.unpack(self.take(4))
        return self.containers[number]

    def record(self) -> Any:
        """Read an instance of a class that both sides have, from its state."""
        kind = self._type()
        instance = self.keep(object.__new__(kind))
        state = {self.get(): self.get() for _ in range(self.size())}
        extended_types.set_state(instance, state)
        return instance

    def member(self) -> Any:
        """Read a member of an enumeration that both sides have, or a combination of flags."""
        kind, name, value = self._type(), self.text(), self.get()
        return kind[name] if name in kind.__members__ else kind(value)  # type: ignore[attr-defined, index, call-arg]

    def named(self, name: str, fields: Sequence[str], values: list[Any]) -> Any:
        """Named tuple, of this side's class if there is one of that name and those fields."""
        kind = self.links.record_type(name) if self.links is not None else None
        if kind is None or not issubclass(kind, tuple) or getattr(kind, "_fields", None) != fields:
            kind = _named_type(name, tuple(fields))
        return tuple.__new__(kind, values)

    def _type(self) -> type:
        name = self.text()
        kind = self.links.record_type(name) if self.links is not None else None
        if kind is None:
            raise Malformed(f"no class of the name {name[:100]!r} is shared")
        return kind

    def handle(self, mine: bool) -> Any:
        (number,) = U32.unpack(self.take(4))
        return self._resolve(Handle(mine, number, self.text(), self.text()))


def _get_list(reader: _Reader) -> list[Any]:
    result: list[Any] = reader.keep([])
    code = reader.take(1)
    if code in (b"\x01", b"\x02"):
        packed = array("q" if code == b"\x01" else "d")
        packed.frombytes(reader.raw())
        result.extend(packed)
        if code == b"\x02" and math.isnan(math.fsum(packed) if math.inf not in packed else math.nan):
            result[:] = map(_to_float, map(F64.pack, packed))
    else:
        for _ in range(reader.size()):
            result.append(reader.get())
    return result


def _get_set(reader: _Reader) -> set[Any]:
    result: set[Any] = reader.keep(set())
    for _ in range(reader.size()):
        result.add(reader.get())
    return result


def _get_int(reader: _Reader) -> int:
    if reader.take(1) == b"\x08":
        return int(I64.unpack(reader.take(8))[0])
    return int.from_bytes(reader.raw(), "little", signed=True)


def _get_ordered(reader: _Reader) -> OrderedDict[Any, Any]:
    result: OrderedDict[Any, Any] = reader.keep(OrderedDict())
    for _ in range(reader.size()):
        key = reader.get()
        result[key] = reader.get()
    return result


def _get_defaultdict(reader: _Reader) -> defaultdict[Any, Any]:
    name = reader.text()
    return reader.fill(defaultdict(type_of(name) if name else reader.get()))  # type: ignore[no-any-return]


def _get_deque(reader: _Reader) -> deque[Any]:
    maxlen = reader.get()
    result: deque[Any] = reader.keep(deque(maxlen=maxlen))
    for _ in range(reader.size()):
        result.append(reader.get())
    return result


def _get_named(reader: _Reader) -> Any:
    name = reader.text()
    entries = [(reader.text(), reader.get()) for _ in range(reader.size())]
    if len(entries) > MAX_FIELDS or not name.isidentifier():
        raise Malformed("a named tuple with impossible names")
    return reader.named(name, tuple(field for field, _ in entries), [value for _, value in entries])


@functools.lru_cache(256)
def _named_type(name: str, fields: tuple[str, ...]) -> Any:
    """Named tuple class of this process with the methods of the original's base."""
    return namedtuple(name, fields, rename=True)  # type: ignore[misc]


MAX_FIELDS = 255


def _to_float(data: bytes) -> float:
    """Decode a float; the default NaN becomes ``math.nan`` itself, so that identity holds as in one process."""
    (value,) = F64.unpack(data)
    return math.nan if data == _NAN else float(value)


_NAN = F64.pack(math.nan)


def _get_float(reader: _Reader) -> float:
    return _to_float(reader.take(8))


def _get_array(reader: _Reader) -> array[Any]:
    kind = reader.text()
    result = reader.keep(array(kind))
    result.extend(reader.items())
    return result  # type: ignore[no-any-return]


def _construct(module: str, name: str, *arguments: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments)


def _get_zone(reader: _Reader) -> Any:
    zone = reader.get()
    return None if zone is None else extended_types.make_zone(*zone)


def _get_datetime(reader: _Reader) -> datetime:
    from datetime import datetime

    year, month, day, hour, minute, second, microsecond, fold = (reader.get() for _ in range(8))
    return datetime(year, month, day, hour, minute, second, microsecond, _get_zone(reader), fold=fold)


def _get_time(reader: _Reader) -> time:
    from datetime import time

    hour, minute, second, microsecond, fold = (reader.get() for _ in range(5))
    return time(hour, minute, second, microsecond, _get_zone(reader), fold=fold)


def _get_exception(reader: _Reader) -> BaseException:
    links = reader.links
    error = exceptions.make(description_of(reader.get()), links.exception_type if links is not None else lambda _: None)
    if not isinstance(error, Exception):
        raise Malformed("an exception that cannot be a value")
    return error


def description_of(value: Any) -> exceptions.Description:
    """Validate the description of an exception. Raises ``Malformed``."""
    match value:
        case (tuple(kinds), tuple(arguments), str(text), dict(attributes), cause) if all(
            type(kind) is str for kind in kinds
        ):
            nested = None if cause is None else description_of(cause)
            return exceptions.Description(kinds, arguments, text, attributes, nested)
    raise Malformed("an invalid exception")


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda r: None,
    b"T": lambda r: r.take(1) != b"\x00",
    b"i": _get_int,
    b"f": _get_float,
    b"c": lambda r: complex(*COMPLEX.unpack(r.take(16))),
    b"s": _Reader.text,
    b"b": _Reader.raw,
    b"B": lambda r: r.keep(bytearray(r.raw())),
    b"w": lambda r: extended_types.make_view(r.text(), r.raw()),
    b".": lambda r: ...,
    b"!": lambda r: NotImplemented,
    b"o": _Reader.record,
    b"I": _Reader.member,
    b"u": extended_types.get_array,
    b"g": extended_types.get_value,
    b"l": _get_list,
    b"t": lambda r: tuple(r.items()),
    b"e": _get_set,
    b"z": lambda r: frozenset(r.items()),
    b"d": lambda r: r.fill({}),
    b"O": _get_ordered,
    b"C": lambda r: r.fill(Counter()),
    b"D": _get_defaultdict,
    b"q": _get_deque,
    b"k": lambda r: dict.fromkeys(r.items()).keys(),
    b"v": lambda r: dict(enumerate(r.items())).values(),
    b"m": lambda r: dict(r.items()).items(),
    b"r": lambda r: range(r.get(), r.get(), r.get()),
    b"S": lambda r: slice(r.get(), r.get(), r.get()),
    b"j": _get_array,
    b"Q": lambda r: _construct("fractions", "Fraction", r.get(), r.get()),
    b"M": lambda r: _construct("decimal", "Decimal", r.text()),
    b"A": _get_datetime,
    b"a": lambda r: _construct("datetime", "date", r.get(), r.get(), r.get()),
    b"h": _get_time,
    b"y": lambda r: _construct("datetime", "timedelta", r.get(), r.get(), r.get()),
    b"n": _get_named,
    b"X": _get_exception,
    b"x": lambda r: type_of(r.text()),
    b"R": _Reader.reference,
    b"p": lambda r: r.handle(True),
    b"P": lambda r: r.handle(False),
}
