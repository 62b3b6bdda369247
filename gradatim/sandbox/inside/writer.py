"""Encoding of values for the other process, in the format of ``serializer``."""

from __future__ import annotations

import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from . import exceptions, extended_types
from .serializer import (
    COMPLEX,
    F64,
    I64,
    MAX_BYTES,
    MAX_DEPTH,
    U32,
    Handle,
    Links,
    Unsendable,
    deep_recursion,
    type_name,
)

if TYPE_CHECKING:
    from datetime import datetime, time, timedelta


INT64_RANGE = 1 << 63


def refuse_export(value: object) -> Handle:
    """Default ``export``: no other type crosses."""
    raise Unsendable(f"a value of type {type(value).__name__} cannot cross")


def encode(
    value: object,
    *,
    numbered: Sequence[Any] = (),
    export: Callable[[Any], Handle] = refuse_export,
    links: Links | None = None,
) -> tuple[bytes, list[Any]]:
    """Encode ``value``; the bytes, and the numbered containers: ``numbered`` followed by the new ones.

    Raises ``Unsendable``.
    """
    writer = _Writer(numbered, export, links)
    try:
        writer.put(value)
    except RecursionError:
        writer = _Writer(numbered, export, links)
        with deep_recursion():
            writer.put(value)
    return writer.done(), writer.containers


def encode_contents(
    containers: Sequence[Any],
    *,
    numbered: Sequence[Any] = (),
    export: Callable[[Any], Handle] = refuse_export,
    links: Links | None = None,
) -> bytes:
    """Encode the current contents of ``containers``, all of which are in ``numbered``."""
    writer = _Writer(numbered, export, links)
    try:
        writer.contents(containers)
    except RecursionError:
        writer = _Writer(numbered, export, links)
        with deep_recursion():
            writer.contents(containers)
    return writer.done()


def is_plain(value: Any) -> bool:
    """Whether a value can be encoded without lending an object."""
    try:
        encode(value)
        return True
    except (Unsendable, RecursionError, MemoryError):
        return False


class _Writer:
    """State of one encoding: output, numbered containers, depth."""

    def __init__(self, numbered: Sequence[Any], export: Callable[[Any], Handle], links: Links | None) -> None:
        self.out: list[bytes] = []
        self.containers = list(numbered)
        self._links = links
        self._numbers = {id(container): number for number, container in enumerate(self.containers)}
        self._export = export
        self._depth = 0

    def put(self, value: Any) -> None:
        kind: Any = type(value)
        writer = WRITERS.get(kind)
        if kind is FunctionType:  # first, because the reply to ``load`` consists of functions
            self._lend(value)
            return
        if writer is None:
            if isinstance(value, type) and (name := type_name(value)):
                self.out.append(b"x")
                self.text(name)
                return
            handle = self._links.held(value) if self._links is not None else None
            if handle is not None:
                self._handle(handle)
                return
            kind = plain_type(value)
            if self._member(value, kind):
                return
            writer = WRITERS.get(kind)
            if writer is None and self._links is not None and (record := self._links.record_name(value)):
                self._record(record, value)
                return
            if writer is None:
                self._numpy_or_lend(value)
                return
        tag, put = writer
        if kind in _SCALARS:
            self.out.append(tag)
            put(self, value)
            return
        if kind in _CONTAINERS and self._reference(value):
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsendable(f"nested more than {MAX_DEPTH} deep")
        self.out.append(tag)
        put(self, value)
        self._depth -= 1

    def contents(self, containers: Sequence[Any]) -> None:
        for container in containers:
            kind = plain_type(container)
            if kind in WRITERS:
                tag, put = WRITERS[kind]
                self.out.append(tag)
                put(self, container)
            elif extended_types.is_array(container):
                self.out.append(b"u")
                extended_types.put_array(self, container)
            else:
                self.out.append(b"o")
                self.text(type(container).__name__)
                self.pairs(extended_types.state_of(container))

    def _reference(self, value: Any) -> bool:
        """Write a reference to a container that has a number and return True; otherwise give it the next number."""
        number = self._numbers.get(id(value))
        if number is not None:
            self.out.append(b"R" + U32.pack(number))
            return True
        self._numbers[id(value)] = len(self.containers)
        self.containers.append(value)
        return False

    def _member(self, value: Any, kind: type | None) -> bool:
        """Write a member of an enumeration that both sides have; False for any other value."""
        if (
            self._links is None
            or not extended_types.is_member(value)
            or (name := self._links.record_name(value)) is None
        ):
            return False
        self.out.append(b"I")
        self.text(name)
        self.text(value.name or "")
        self.put_plain(value.value, kind)
        return True

    def put_plain(self, value: Any, kind: type | None) -> None:
        """Write a scalar; None in place of a value of any other type."""
        self.put(value if type(value) in _SCALARS else None)

    def _record(self, name: str, value: Any) -> None:
        if self._reference(value):
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsendable(f"nested more than {MAX_DEPTH} deep")
        self.out.append(b"o")
        self.text(name)
        self.pairs(extended_types.state_of(value))
        self._depth -= 1

    def _numpy_or_lend(self, value: Any) -> None:
        if extended_types.is_numpy(value) and self._numpy(value):
            return
        self._lend(value)

    def _numpy(self, value: Any) -> bool:
        scalar = _numpy_scalar(value)
        if scalar is not None:
            self.put(scalar)
            return True
        if not extended_types.is_plain_array(value):
            return False
        if extended_types.is_array(value) and self._reference(value):
            return True
        self.out.append(b"u")
        extended_types.put_array(self, value)
        return True

    def _lend(self, value: Any) -> None:
        self._handle(self._export(value))

    def _handle(self, handle: Handle) -> None:
        self.out.append(b"p" if handle.mine else b"P")
        self.out.append(U32.pack(handle.number))
        self.text(handle.kind)
        self.text(handle.name)

    def size(self, size: int) -> None:
        if size > MAX_BYTES:
            raise Unsendable(f"longer than {MAX_BYTES} bytes")
        self.out.append(U32.pack(size))

    def raw(self, data: bytes | bytearray) -> None:
        plain = memoryview(data).tobytes()
        self.size(len(plain))
        self.out.append(plain)

    def text(self, text: str) -> None:
        self.raw(str.encode(text, "utf-8", "surrogatepass"))

    def items(self, size: int, items: Iterable[Any]) -> None:
        self.size(size)
        for item in items:
            self.put(item)

    def row(self, *items: Any) -> None:
        for item in items:
            self.put(item)

    def pairs(self, value: dict[Any, Any], items: Callable[[Any], Iterable[Any]] = dict.items) -> None:
        self.size(dict.__len__(value))
        for key, item in items(value):
            self.put(key)
            self.put(item)

    def done(self) -> bytes:
        data = b"".join(self.out)
        if len(data) > MAX_BYTES:
            raise Unsendable(f"longer than {MAX_BYTES} bytes")
        return data


def _numpy_scalar(value: Any) -> Any:
    """Builtin value of a numpy scalar, None for everything else."""
    kind = type(value)
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(kind, "dtype"):
        item = value.item()
        return item if type(item) in (bool, int, float, complex, str, bytes) else None
    return None


def plain_type(value: Any) -> type | None:
    """Most specific type of ``WRITERS`` that ``value`` is an instance of."""
    if type(value) in WRITERS:
        return type(value)
    for kind in type.mro(type(value)):
        if kind is tuple and isinstance(getattr(type(value), "_fields", None), tuple):
            return _NamedTuple
        if kind in WRITERS or _register_type(kind):
            return kind
    return None


def _register_type(kind: Any) -> bool:
    """Add ``kind`` to ``WRITERS`` if it is a type of a module that this process has imported since; whether it was."""
    key = (kind.__module__, kind.__name__)
    writer = _OPTIONAL.get(key) or extended_types.WRITERS.get(key)
    if writer is None or getattr(sys.modules.get(key[0]), key[1], None) is not kind:
        return False
    WRITERS[kind] = writer
    return True


class _NamedTuple:
    """Placeholder for all named tuple types in ``WRITERS``."""


def _put_list(writer: _Writer, value: list[Any]) -> None:
    size = list.__len__(value)
    if size >= 16:
        kinds = set(map(type, list.__iter__(value)))
        for kind, tag, code in ((int, b"\x01", "q"), (float, b"\x02", "d")):
            if kinds == {kind}:
                try:
                    packed = array(code, value)
                except OverflowError:
                    break
                writer.out.append(tag)
                writer.raw(packed.tobytes())
                return
    writer.out.append(b"\x00")
    writer.items(size, list.__iter__(value))


def _put_int(writer: _Writer, value: int) -> None:
    if -INT64_RANGE <= value < INT64_RANGE:
        writer.out.append(b"\x08" + I64.pack(value))
    else:
        writer.out.append(b"\x00")
        writer.raw(value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _put_named(writer: _Writer, value: Any) -> None:
    kind = type(value)
    writer.text(kind.__name__)
    fields = kind._fields
    writer.size(tuple.__len__(value))
    for name, item in zip(fields, tuple.__iter__(value), strict=True):
        writer.text(name)
        writer.put(item)


def _put_defaultdict(writer: _Writer, value: defaultdict[Any, Any]) -> None:
    factory = value.default_factory
    name = type_name(factory) if isinstance(factory, type) else ""
    writer.text(name)
    if not name:
        try:
            writer.put(factory)
        except Unsendable:
            writer.put(None)
    writer.pairs(value)


def _put_deque(writer: _Writer, value: deque[Any]) -> None:
    writer.put(value.maxlen)
    writer.items(deque.__len__(value), deque.__iter__(value))


def _put_array(writer: _Writer, value: array[Any]) -> None:
    writer.text(value.typecode)
    writer.items(len(value), value)


def _put_zone(writer: _Writer, value: datetime | time) -> None:
    offset: timedelta | None = value.utcoffset()
    writer.put(None if offset is None else (offset.days, offset.seconds, offset.microseconds, value.tzname()))


def _put_datetime(writer: _Writer, v: datetime) -> None:
    writer.row(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold)
    _put_zone(writer, v)


def _put_time(writer: _Writer, v: time) -> None:
    writer.row(v.hour, v.minute, v.second, v.microsecond, v.fold)
    _put_zone(writer, v)


def _put_exception(writer: _Writer, value: BaseException) -> None:
    writer.put(exceptions.describe(value, is_plain))


def _put_view(writer: _Writer, value: memoryview) -> None:
    plain = value.ndim == 1 and value.contiguous
    writer.text(value.format if plain else "B")
    writer.raw(value.tobytes())


Put = Callable[[_Writer, Any], None]
WRITERS: dict[Any, tuple[bytes, Put]] = {
    type(None): (b"N", lambda w, v: None),
    bool: (b"T", lambda w, v: w.out.append(b"\x01" if v else b"\x00")),
    int: (b"i", lambda w, v: _put_int(w, int.__pos__(v))),
    float: (b"f", lambda w, v: w.out.append(F64.pack(float.__pos__(v)))),
    complex: (b"c", lambda w, v: w.out.append(COMPLEX.pack(complex.__pos__(v).real, complex.__pos__(v).imag))),
    str: (b"s", lambda w, v: w.text(v)),
    bytes: (b"b", lambda w, v: w.raw(v)),
    bytearray: (b"B", lambda w, v: w.raw(v)),
    memoryview: (b"w", _put_view),
    type(...): (b".", lambda w, v: None),
    type(NotImplemented): (b"!", lambda w, v: None),
    list: (b"l", _put_list),
    tuple: (b"t", lambda w, v: w.items(tuple.__len__(v), tuple.__iter__(v))),
    set: (b"e", lambda w, v: w.items(set.__len__(v), set.__iter__(v))),
    frozenset: (b"z", lambda w, v: w.items(frozenset.__len__(v), frozenset.__iter__(v))),
    dict: (b"d", lambda w, v: w.pairs(v)),
    OrderedDict: (b"O", lambda w, v: w.pairs(v, OrderedDict.items)),
    Counter: (b"C", lambda w, v: w.pairs(v)),
    defaultdict: (b"D", _put_defaultdict),
    deque: (b"q", _put_deque),
    type({}.keys()): (b"k", lambda w, v: w.items(len(v), v)),
    type({}.values()): (b"v", lambda w, v: w.items(len(v), v)),
    type({}.items()): (b"m", lambda w, v: w.items(len(v), v)),
    range: (b"r", lambda w, v: w.row(v.start, v.stop, v.step)),
    slice: (b"S", lambda w, v: w.row(v.start, v.stop, v.step)),
    array: (b"j", _put_array),
    _NamedTuple: (b"n", _put_named),
    BaseException: (b"X", _put_exception),
    type(type.__dict__): extended_types.WRITERS["types", "MappingProxyType"],
}
_OPTIONAL: dict[tuple[str, str], tuple[bytes, Put]] = {
    ("fractions", "Fraction"): (b"Q", lambda w, v: w.row(v.numerator, v.denominator)),
    ("decimal", "Decimal"): (b"M", lambda w, v: w.text(sys.modules["decimal"].Decimal.__str__(v))),
    ("datetime", "datetime"): (b"A", _put_datetime),
    ("datetime", "date"): (b"a", lambda w, v: w.row(v.year, v.month, v.day)),
    ("datetime", "time"): (b"h", _put_time),
    ("datetime", "timedelta"): (b"y", lambda w, v: w.row(v.days, v.seconds, v.microseconds)),
}
"""Types of large modules that few programs need: each module that the fork server imports makes every fork slower."""

_SCALARS = {type(None), bool, int, float, complex, str, bytes, memoryview, type(...), type(NotImplemented)}
_CONTAINERS = {list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict, array}
