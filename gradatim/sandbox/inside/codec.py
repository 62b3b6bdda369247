"""How do values cross between the tests and the program, when the program may be hostile?

As plain bytes that say what they are: one tag byte, then the content. Decoding executes nothing of the sender's and
builds only builtin types and a short list of standard value types. A subclass crosses as the builtin it extends, so
an overridden ``__eq__`` stays behind. Everything is bounded: the length of a message, the depth, and no count is
believed before its bytes are there.

Mutable containers (list, dict, set, bytearray, deque and their standard subclasses) are numbered in the order they
are met, on both sides alike. A second meeting is a reference to that number: shared references and cycles survive,
and a callee can send back what became of its arguments (``encode_contents``), which ``decode_contents`` pours into
the caller's own objects.

A value of any other type is handed to ``export``, which may lend it out as a ``Handle``; the type's name is all that
crosses. This module does not know sockets.
"""

from __future__ import annotations

import builtins
import importlib
import struct
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime, time, timedelta, timezone

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Handle", "Malformed", "Unsendable", "decode", "decode_contents", "encode"]
__all__ += ["encode_contents"]

MAX_BYTES = 32 << 20
"""The longest message."""

MAX_DEPTH = 150
"""How deeply containers may nest."""

_U32, _I64, _F64, _COMPLEX = struct.Struct("<I"), struct.Struct("<q"), struct.Struct("<d"), struct.Struct("<dd")
_SMALL = 1 << 63

_TYPES: dict[str, Any] = {
    each.__name__: each
    for each in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object)
}
_TYPES["NoneType"] = type(None)
_TYPES |= {
    name: each
    for name, each in vars(builtins).items()
    if isinstance(each, type) and issubclass(each, Exception) and "Warning" not in name
}
"""Types that cross by name, as values and as the factories of defaultdicts."""


class Malformed(Exception):
    """Bytes that are no message of this codec."""


class Unsendable(Exception):
    """A value that cannot cross: too deep, too long, or of a type that is not lent out."""


class Handle(NamedTuple):
    """An object that stays with its owner. ``mine``: the sender owns it; otherwise it comes back to its owner."""

    mine: bool
    number: int
    kind: str
    name: str


def refuse_export(value: object) -> Handle:
    """The default ``export``: no other type crosses."""
    raise Unsendable(f"a value of type {type(value).__name__} cannot cross")


def refuse_handle(handle: Handle) -> Any:
    """The default ``resolve``: no handle is expected."""
    raise Malformed("a handle where plain data must be")


def encode(
    value: object, *, known: Sequence[Any] = (), export: Callable[[Any], Handle] = refuse_export
) -> tuple[bytes, list[Any]]:
    """``value`` as bytes, and the numbered containers: ``known`` followed by those met here.

    Raises ``Unsendable``.
    """
    writer = _Writer(known, export)
    writer.put(value)
    return writer.done(), writer.met


def decode(
    data: bytes, *, known: Sequence[Any] = (), resolve: Callable[[Handle], Any] = refuse_handle
) -> tuple[Any, list[Any]]:
    """The value that ``encode`` was given, and the numbered containers. Raises ``Malformed``."""
    reader = _Reader(data, known, resolve)
    value = reader.whole(reader.get)
    return value, reader.met


def encode_contents(
    containers: Sequence[Any], *, known: Sequence[Any] = (), export: Callable[[Any], Handle] = refuse_export
) -> bytes:
    """What ``containers``, all among ``known``, hold now."""
    writer = _Writer(known, export)
    for each in containers:
        tag, put = _WRITERS[_plain_type(each)]
        writer.out.append(tag)
        put(writer, each)
    return writer.done()


def decode_contents(
    data: bytes,
    containers: Sequence[Any],
    *,
    known: Sequence[Any] = (),
    resolve: Callable[[Handle], Any] = refuse_handle,
) -> None:
    """Give ``containers`` the contents that ``encode_contents`` told; all are read before the first is changed."""
    reader = _Reader(data, known, resolve)
    read = reader.whole(lambda: [reader.contents(each) for each in containers])
    for mine, new in zip(containers, read, strict=True):
        mine.clear()
        if isinstance(mine, (dict, set)):
            mine.update(new)
        else:
            mine.extend(new)


class _Writer:
    def __init__(self, known: Sequence[Any], export: Callable[[Any], Handle]) -> None:
        self.out: list[bytes] = []
        self.met = list(known)
        self._numbers = {id(each): number for number, each in enumerate(self.met)}
        self._export = export
        self._depth = 0

    def put(self, value: Any) -> None:
        kind: Any = type(value)
        writer = _WRITERS.get(kind)
        if kind is FunctionType:  # what a program's answer to its loading is made of
            self._lend(value)
            return
        if writer is None:
            name = value.__name__ if isinstance(value, type) else None
            if name is not None and _TYPES.get(name) is value:
                self.out.append(b"x")
                self.text(name)
                return
            kind = _plain_type(value)
            writer = _WRITERS.get(kind)
            if writer is None:
                self._other(value)
                return
        tag, put = writer
        if kind in _SCALARS:
            self.out.append(tag)
            put(self, value)
            return
        if kind in _CONTAINERS:
            number = self._numbers.get(id(value))
            if number is not None:
                self.out.append(b"R" + _U32.pack(number))
                return
            self._numbers[id(value)] = len(self.met)
            self.met.append(value)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsendable(f"nested more than {MAX_DEPTH} deep")
        self.out.append(tag)
        put(self, value)
        self._depth -= 1

    def _other(self, value: Any) -> None:
        scalar = _numpy_scalar(value)
        if scalar is not None:
            self.put(scalar)
            return
        self._lend(value)

    def _lend(self, value: Any) -> None:
        handle = self._export(value)
        self.out.append(b"p" if handle.mine else b"P")
        self.out.append(_U32.pack(handle.number))
        self.text(handle.kind)
        self.text(handle.name)

    def size(self, size: int) -> None:
        if size > MAX_BYTES:
            raise Unsendable(f"longer than {MAX_BYTES} bytes")
        self.out.append(_U32.pack(size))

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
    """The builtin number behind a numpy scalar, None for everything else."""
    kind = type(value)
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(kind, "dtype"):
        item = value.item()
        return item if type(item) in (bool, int, float, complex, str, bytes) else None
    return None


def _plain_type(value: Any) -> type | None:
    """The most special type of this codec that ``value`` is an instance of."""
    if isinstance(value, BaseException):
        return BaseException
    for kind in type.mro(type(value)) if type(value) not in _WRITERS else (type(value),):
        if kind is tuple and isinstance(getattr(type(value), "_fields", None), tuple):
            return _Named
        if kind in _WRITERS or _met_later(kind):
            return kind
    return None


def _met_later(kind: Any) -> bool:
    """Whether ``kind`` is a type of ``_LATER`` whose module this process has imported by now."""
    for (module, name), writer in _LATER.items():
        if getattr(sys.modules.get(module), name, None) is kind:
            _WRITERS[kind] = writer
            return True
    return False


class _Named:
    """Stands for every named tuple in the tables of this module."""


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
    if -_SMALL <= value < _SMALL:
        writer.out.append(b"\x08" + _I64.pack(value))
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
    name = getattr(factory, "__name__", "")
    writer.text(name if _TYPES.get(name) is factory else "")
    writer.pairs(value)


def _put_deque(writer: _Writer, value: deque[Any]) -> None:
    writer.put(value.maxlen)
    writer.items(deque.__len__(value), deque.__iter__(value))


def _put_array(writer: _Writer, value: array[Any]) -> None:
    writer.text(value.typecode)
    writer.items(len(value), value)


def _put_zone(writer: _Writer, offset: timedelta | None) -> None:
    writer.put(None if offset is None else offset.days * 86400 + offset.seconds)


def _put_datetime(writer: _Writer, v: datetime) -> None:
    writer.row(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold)
    _put_zone(writer, v.utcoffset())


def _put_time(writer: _Writer, v: time) -> None:
    writer.row(v.hour, v.minute, v.second, v.microsecond, v.fold)
    _put_zone(writer, v.utcoffset())


def exception_name(kind: type[BaseException]) -> str:
    """The nearest builtin exception that ``kind`` is or extends."""
    names = [each.__name__ for each in type.mro(kind) if issubclass(each, Exception)]
    return next((name for name in names if name in _TYPES), "Exception")


def _put_exception(writer: _Writer, value: BaseException) -> None:
    writer.text(exception_name(type(value)))
    writer.put(tuple(value.args))


Put = Callable[[_Writer, Any], None]
_WRITERS: dict[Any, tuple[bytes, Put]] = {
    type(None): (b"N", lambda w, v: None),
    bool: (b"T", lambda w, v: w.out.append(b"\x01" if v else b"\x00")),
    int: (b"i", lambda w, v: _put_int(w, int.__pos__(v))),
    float: (b"f", lambda w, v: w.out.append(_F64.pack(float.__pos__(v)))),
    complex: (b"c", lambda w, v: w.out.append(_COMPLEX.pack(complex.__pos__(v).real, complex.__pos__(v).imag))),
    str: (b"s", lambda w, v: w.text(v)),
    bytes: (b"b", lambda w, v: w.raw(v)),
    bytearray: (b"B", lambda w, v: w.raw(v)),
    memoryview: (b"w", lambda w, v: w.raw(v.tobytes())),
    type(...): (b".", lambda w, v: None),
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
    _Named: (b"n", _put_named),
    BaseException: (b"X", _put_exception),
}
_LATER: dict[tuple[str, str], tuple[bytes, Put]] = {
    ("fractions", "Fraction"): (b"Q", lambda w, v: w.row(v.numerator, v.denominator)),
    ("decimal", "Decimal"): (b"M", lambda w, v: w.text(sys.modules["decimal"].Decimal.__str__(v))),
    ("datetime", "datetime"): (b"A", _put_datetime),
    ("datetime", "date"): (b"a", lambda w, v: w.row(v.year, v.month, v.day)),
    ("datetime", "time"): (b"h", _put_time),
    ("datetime", "timedelta"): (b"y", lambda w, v: w.row(v.days, v.seconds, v.microseconds)),
}
"""Types whose modules are large and seldom wanted: what the nest has imported is paid for by every fork."""

_SCALARS = {type(None), bool, int, float, complex, str, bytes, memoryview, type(...)}
_CONTAINERS = {list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict}


class _Reader:
    def __init__(self, data: bytes, known: Sequence[Any], resolve: Callable[[Handle], Any]) -> None:
        self._data = data
        self._at = 0
        self.met = list(known)
        self._resolve = resolve
        self._depth = 0
        self._unnumbered = False

    def whole(self, read: Callable[[], Any]) -> Any:
        """What ``read`` gives, when it takes all bytes; any fault on the way is ``Malformed``."""
        try:
            value = read()
        except Malformed:
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, struct.error, RecursionError) as error:
            raise Malformed(f"{type(error).__name__} in a message") from error
        if self._at != len(self._data):
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

    def contents(self, mine: Any) -> Any:
        """The next container's contents; it must be of the same kind as ``mine``."""
        tag, _ = _WRITERS[_plain_type(mine)]
        if self.take(1) != tag:
            raise Malformed("an argument came back as another type")
        self._unnumbered = True  # the copy itself has no number: the numbered one is ``mine``
        return _READERS[tag](self)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed("a message that ends too early")
        data = self._data[self._at : end]
        self._at = end
        return data

    def size(self) -> int:
        (size,) = _U32.unpack(self.take(4))
        if size > len(self._data) - self._at:
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
            self.met.append(container)
        return container

    def fill(self, mapping: Any) -> Any:
        self.keep(mapping)
        for _ in range(self.size()):
            key = self.get()
            dict.__setitem__(mapping, key, self.get())
        return mapping

    def reference(self) -> Any:
        (number,) = _U32.unpack(self.take(4))
        return self.met[number]

    def handle(self, mine: bool) -> Any:
        (number,) = _U32.unpack(self.take(4))
        return self._resolve(Handle(mine, number, self.text(), self.text()))


def _get_list(reader: _Reader) -> list[Any]:
    result: list[Any] = reader.keep([])
    form = reader.take(1)
    if form in (b"\x01", b"\x02"):
        packed = array("q" if form == b"\x01" else "d")
        packed.frombytes(reader.raw())
        result.extend(packed)
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
        return int(_I64.unpack(reader.take(8))[0])
    return int.from_bytes(reader.raw(), "little", signed=True)


def _get_ordered(reader: _Reader) -> OrderedDict[Any, Any]:
    result: OrderedDict[Any, Any] = reader.keep(OrderedDict())
    for _ in range(reader.size()):
        key = reader.get()
        result[key] = reader.get()
    return result


def _get_defaultdict(reader: _Reader) -> defaultdict[Any, Any]:
    name = reader.text()
    return reader.fill(defaultdict(_TYPES[name] if name else None))  # type: ignore[no-any-return]


def _get_deque(reader: _Reader) -> deque[Any]:
    maxlen = reader.get()
    result: deque[Any] = reader.keep(deque(maxlen=maxlen))
    for _ in range(reader.size()):
        result.append(reader.get())
    return result


def _get_named(reader: _Reader) -> Any:
    """A named tuple of a class made here: attribute access, ``_fields`` and ``_asdict`` as the original's."""
    name = reader.text()
    read = [(reader.text(), reader.get()) for _ in range(reader.size())]
    fields = tuple(field for field, _ in read)
    if not all(each.isidentifier() and not each.startswith("_") for each in fields) or not name.isidentifier():
        raise Malformed("a named tuple with impossible names")
    members: dict[str, Any] = {field: property(itemgetter(place)) for place, field in enumerate(fields)}
    members |= {"__slots__": (), "_fields": fields, "_asdict": lambda self: dict(zip(fields, self, strict=True))}
    members["__repr__"] = lambda self: f"{name}({', '.join(f'{f}={v!r}' for f, v in zip(fields, self, strict=True))})"
    return type(name, (tuple,), members)(value for _, value in read)


def _made(module: str, name: str, *arguments: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments)


def _get_zone(reader: _Reader) -> timezone | None:
    from datetime import timedelta, timezone

    seconds = reader.get()
    return None if seconds is None else timezone(timedelta(seconds=seconds))


def _get_datetime(reader: _Reader) -> datetime:
    from datetime import datetime

    year, month, day, hour, minute, second, microsecond, fold = (reader.get() for _ in range(8))
    return datetime(year, month, day, hour, minute, second, microsecond, _get_zone(reader), fold=fold)


def _get_time(reader: _Reader) -> time:
    from datetime import time

    hour, minute, second, microsecond, fold = (reader.get() for _ in range(5))
    return time(hour, minute, second, microsecond, _get_zone(reader), fold=fold)


def _get_exception(reader: _Reader) -> BaseException:
    return make_exception(reader.text(), reader.get())


def make_exception(name: str, arguments: Any) -> BaseException:
    """The builtin exception ``name`` with ``arguments``; ``Malformed`` when there is none of that name."""
    kind = _TYPES.get(name)
    if kind is None or not issubclass(kind, Exception) or not isinstance(arguments, tuple):
        raise Malformed("an exception that does not exist")
    try:
        made: BaseException = kind(*arguments)
        return made
    except TypeError:  # UnicodeDecodeError and its like want arguments of a shape of their own
        return Exception(f"{name}{arguments!r:.200}")


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda r: None,
    b"T": lambda r: r.take(1) != b"\x00",
    b"i": _get_int,
    b"f": lambda r: _F64.unpack(r.take(8))[0],
    b"c": lambda r: complex(*_COMPLEX.unpack(r.take(16))),
    b"s": _Reader.text,
    b"b": _Reader.raw,
    b"B": lambda r: r.keep(bytearray(r.raw())),
    b"w": lambda r: memoryview(r.raw()),
    b".": lambda r: ...,
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
    b"j": lambda r: array(r.text(), r.items()),
    b"Q": lambda r: _made("fractions", "Fraction", r.get(), r.get()),
    b"M": lambda r: _made("decimal", "Decimal", r.text()),
    b"A": _get_datetime,
    b"a": lambda r: _made("datetime", "date", r.get(), r.get(), r.get()),
    b"h": _get_time,
    b"y": lambda r: _made("datetime", "timedelta", r.get(), r.get(), r.get()),
    b"n": _get_named,
    b"X": _get_exception,
    b"x": lambda r: _TYPES[r.text()],
    b"R": _Reader.reference,
    b"p": lambda r: r.handle(True),
    b"P": lambda r: r.handle(False),
}
