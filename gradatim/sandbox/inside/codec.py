"""How do values cross between the tests and the program, when the program may be hostile?

As plain bytes that say what they are: one tag byte, then the content. Decoding executes nothing of the sender's and
builds only builtin types and a short list of standard value types. A subclass crosses as the builtin it extends, so
an overridden ``__eq__`` stays behind. Everything is bounded: the length of a message, the depth, and no count is
believed before its bytes are there.

Mutable containers (list, dict, set, bytearray, deque and their standard subclasses) are numbered in the order they
are met, on both sides alike. A second meeting is a reference to that number: shared references and cycles survive,
and a callee can send back what became of its arguments (``encode_contents``), which ``decode_contents`` pours into
the caller's own objects.

Instances of classes that both sides have by one name (``Links``) cross as their state and are containers too. A value
of any other type is handed to ``export``, which may lend it out as a ``Handle``; the type's name is all that crosses.
Values that nest deeper than the interpreter recurses by default are read and written with a higher limit.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import math
import struct
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import exceptions, further

if TYPE_CHECKING:
    from datetime import datetime, time, timedelta

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Handle", "Malformed", "Unsendable", "decode", "decode_contents", "encode"]
__all__ += ["Links", "description_of", "encode_contents", "is_plain", "refill"]

MAX_BYTES = 32 << 20
"""The longest message."""

MAX_DEPTH = 10_000
"""How deeply containers may nest: a linked list of so many nodes is one answer."""

FRAMES = 6 * MAX_DEPTH
"""Python frames that the deepest value takes. They lie on the heap, not on the stack of the process."""

_U32, _I64, _F64, _COMPLEX = struct.Struct("<I"), struct.Struct("<q"), struct.Struct("<d"), struct.Struct("<dd")
_SMALL = 1 << 63

_TYPES: dict[str, Any] = {
    each.__name__: each
    for each in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object)
}
_TYPES["NoneType"] = type(None)
_TYPES |= {
    name: each for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, Exception)
}
"""Types that cross by name, as values and as the factories of defaultdicts; ``further`` has those of other modules."""


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


class Links(Protocol):
    """Objects that both sides know by a name or a number of their own."""

    def held(self, value: Any) -> Handle | None:
        """The handle of an object that is lent although it extends a plain type."""

    def record_name(self, value: Any) -> str | None:
        """The name of the value's class, where instances of it cross as their state."""

    def record_type(self, name: str) -> type | None:
        """The class of that name on this side."""

    def exception_type(self, name: str) -> type | None:
        """The exception class of the program or the tests that has that name."""


def refuse_export(value: object) -> Handle:
    """The default ``export``: no other type crosses."""
    raise Unsendable(f"a value of type {type(value).__name__} cannot cross")


def refuse_handle(handle: Handle) -> Any:
    """The default ``resolve``: no handle is expected."""
    raise Malformed("a handle where plain data must be")


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """More recursion than the interpreter allows by default, for values that nest deeply."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, FRAMES + 2000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def encode(
    value: object,
    *,
    known: Sequence[Any] = (),
    export: Callable[[Any], Handle] = refuse_export,
    links: Links | None = None,
) -> tuple[bytes, list[Any]]:
    """``value`` as bytes, and the numbered containers: ``known`` followed by those met here.

    Raises ``Unsendable``.
    """
    writer = _Writer(known, export, links)
    try:
        writer.put(value)
    except RecursionError:
        writer = _Writer(known, export, links)
        with _deep():
            writer.put(value)
    return writer.done(), writer.met


def decode(
    data: bytes,
    *,
    known: Sequence[Any] = (),
    resolve: Callable[[Handle], Any] = refuse_handle,
    links: Links | None = None,
) -> tuple[Any, list[Any]]:
    """The value that ``encode`` was given, and the numbered containers. Raises ``Malformed``."""
    reader = _Reader(data, known, resolve, links)
    try:
        value = reader.whole(reader.get)
    except RecursionError:
        reader = _Reader(data, known, resolve, links)
        with _deep():
            value = reader.whole(reader.get)
    return value, reader.met


def encode_contents(
    containers: Sequence[Any],
    *,
    known: Sequence[Any] = (),
    export: Callable[[Any], Handle] = refuse_export,
    links: Links | None = None,
) -> bytes:
    """What ``containers``, all among ``known``, hold now."""
    writer = _Writer(known, export, links)
    try:
        writer.contents(containers)
    except RecursionError:
        writer = _Writer(known, export, links)
        with _deep():
            writer.contents(containers)
    return writer.done()


def decode_contents(
    data: bytes,
    containers: Sequence[Any],
    *,
    known: Sequence[Any] = (),
    resolve: Callable[[Handle], Any] = refuse_handle,
    links: Links | None = None,
) -> None:
    """Give ``containers`` the contents that ``encode_contents`` told; all are read before the first is changed."""
    reader = _Reader(data, known, resolve, links)
    try:
        read = reader.whole(lambda: [reader.contents(each) for each in containers])
    except RecursionError:
        reader = _Reader(data, known, resolve, links)
        with _deep():
            read = reader.whole(lambda: [reader.contents(each) for each in containers])
    for mine, new in zip(containers, read, strict=True):
        refill(mine, new)


def refill(mine: Any, new: Any) -> None:
    """Give a container the contents of ``new``."""
    if isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(new)
    elif isinstance(mine, (list, bytearray, deque)):
        mine.clear()
        mine.extend(new)
    elif isinstance(mine, array):
        mine[:] = new
    elif further.is_array(mine):
        mine[...] = new
    else:
        further.set_state(mine, new)


class _Writer:
    def __init__(self, known: Sequence[Any], export: Callable[[Any], Handle], links: Links | None) -> None:
        self.out: list[bytes] = []
        self.met = list(known)
        self._links = links
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
            if isinstance(value, type) and (name := _type_name(value)):
                self.out.append(b"x")
                self.text(name)
                return
            handle = self._links.held(value) if self._links is not None else None
            if handle is not None:
                self._handle(handle)
                return
            kind = _plain_type(value)
            if self._member(value, kind):
                return
            writer = _WRITERS.get(kind)
            if writer is None and self._links is not None and (record := self._links.record_name(value)):
                self._record(record, value)
                return
            if writer is None:
                self._other(value)
                return
        tag, put = writer
        if kind in _SCALARS:
            self.out.append(tag)
            put(self, value)
            return
        if kind in _CONTAINERS and self._numbered(value):
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsendable(f"nested more than {MAX_DEPTH} deep")
        self.out.append(tag)
        put(self, value)
        self._depth -= 1

    def contents(self, containers: Sequence[Any]) -> None:
        for each in containers:
            kind = _plain_type(each)
            if kind in _WRITERS:
                tag, put = _WRITERS[kind]
                self.out.append(tag)
                put(self, each)
            elif further.is_array(each):
                self.out.append(b"u")
                further.put_array(self, each)
            else:
                self.out.append(b"o")
                self.text(type(each).__name__)
                self.pairs(further.state_of(each))

    def _numbered(self, value: Any) -> bool:
        """Whether a container has been met, in which case a reference is written; otherwise number it."""
        number = self._numbers.get(id(value))
        if number is not None:
            self.out.append(b"R" + _U32.pack(number))
            return True
        self._numbers[id(value)] = len(self.met)
        self.met.append(value)
        return False

    def _member(self, value: Any, kind: type | None) -> bool:
        """Write a member of an enumeration that both sides have; False when it is none."""
        if self._links is None or not further.is_member(value) or (name := self._links.record_name(value)) is None:
            return False
        self.out.append(b"I")
        self.text(name)
        self.text(value.name or "")
        self.put_plain(value.value, kind)
        return True

    def put_plain(self, value: Any, kind: type | None) -> None:
        """A value that may itself be of an odd type: None in its place then."""
        self.put(value if type(value) in _SCALARS else None)

    def _record(self, name: str, value: Any) -> None:
        if self._numbered(value):
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsendable(f"nested more than {MAX_DEPTH} deep")
        self.out.append(b"o")
        self.text(name)
        self.pairs(further.state_of(value))
        self._depth -= 1

    def _other(self, value: Any) -> None:
        if further.is_numpy(value) and self._numpy(value):
            return
        self._lend(value)

    def _numpy(self, value: Any) -> bool:
        scalar = _numpy_scalar(value)
        if scalar is not None:
            self.put(scalar)
            return True
        if not further.is_plain_array(value):
            return False
        if further.is_array(value) and self._numbered(value):
            return True
        self.out.append(b"u")
        further.put_array(self, value)
        return True

    def _lend(self, value: Any) -> None:
        self._handle(self._export(value))

    def _handle(self, handle: Handle) -> None:
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
    if type(value) in _WRITERS:
        return type(value)
    for kind in type.mro(type(value)):
        if kind is tuple and isinstance(getattr(type(value), "_fields", None), tuple):
            return _Named
        if kind in _WRITERS or _met_later(kind):
            return kind
    return None


def _met_later(kind: Any) -> bool:
    """Whether ``kind`` is a type of another module (``_LATER``, ``further``) that this process has imported by now."""
    key = (kind.__module__, kind.__name__)
    writer = _LATER.get(key) or further.WRITERS.get(key)
    if writer is None or getattr(sys.modules.get(key[0]), key[1], None) is not kind:
        return False
    _WRITERS[kind] = writer
    return True


def _type_name(kind: type) -> str:
    """The name under which a type crosses; empty for one that does not."""
    name: str = kind.__name__
    if _TYPES.get(name) is kind:
        return name
    dotted = f"{kind.__module__}.{name}"
    return dotted if further.named_type(dotted, load=False) is kind else ""


def _type_of(name: str) -> Any:
    """The type of a name. Raises ``LookupError``."""
    return _TYPES[name] if "." not in name else further.named_type(name, load=True)


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
    name = _type_name(factory) if isinstance(factory, type) else ""
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


def is_plain(value: Any) -> bool:
    """Whether a value crosses without being lent."""
    try:
        encode(value)
        return True
    except (Unsendable, RecursionError, MemoryError):
        return False


def _put_view(writer: _Writer, value: memoryview) -> None:
    plain = value.ndim == 1 and value.contiguous
    writer.text(value.format if plain else "B")
    writer.raw(value.tobytes())


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
    _Named: (b"n", _put_named),
    BaseException: (b"X", _put_exception),
    type(type.__dict__): further.WRITERS["types", "MappingProxyType"],
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

_SCALARS = {type(None), bool, int, float, complex, str, bytes, memoryview, type(...), type(NotImplemented)}
_CONTAINERS = {list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict, array}


class _Reader:
    def __init__(
        self, data: bytes, known: Sequence[Any], resolve: Callable[[Handle], Any], links: Links | None
    ) -> None:
        self.links = links
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
        except (Malformed, RecursionError):
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, struct.error) as error:
            raise Malformed(f"{type(error).__name__} in a message: {str(error)[:200]}") from error
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
        kind = _plain_type(mine)
        tag = _WRITERS[kind][0] if kind in _WRITERS else b"u" if further.is_array(mine) else b"o"
        if self.take(1) != tag:
            raise Malformed("an argument came back as another type")
        if tag == b"o":
            self.text()
            return {self.get(): self.get() for _ in range(self.size())}
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

    def record(self) -> Any:
        """An instance of a class that both sides have, from its state."""
        kind = self._type()
        made = self.keep(object.__new__(kind))
        state = {self.get(): self.get() for _ in range(self.size())}
        further.set_state(made, state)
        return made

    def member(self) -> Any:
        """A member of an enumeration that both sides have, or of a flag made of its members."""
        kind, name, value = self._type(), self.text(), self.get()
        return kind[name] if name in kind.__members__ else kind(value)  # type: ignore[attr-defined, index, call-arg]

    def named(self, name: str, fields: Sequence[str], values: list[Any]) -> Any:
        """A named tuple, of this side's class where there is one of that name and those fields."""
        kind = self.links.record_type(name) if self.links is not None else None
        if kind is None or not issubclass(kind, tuple) or getattr(kind, "_fields", None) != fields:
            kind = _named_type(name, tuple(fields))
        return tuple.__new__(kind, values)

    def _type(self) -> type:
        name = self.text()
        kind = self.links.record_type(name) if self.links is not None else None
        if kind is None:
            raise Malformed(f"no class of the name {name[:100]!r} is known")
        return kind

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
        if form == b"\x02" and math.isnan(math.fsum(packed) if math.inf not in packed else math.nan):
            result[:] = map(_float, map(_F64.pack, packed))
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
    return reader.fill(defaultdict(_type_of(name) if name else reader.get()))  # type: ignore[no-any-return]


def _get_deque(reader: _Reader) -> deque[Any]:
    maxlen = reader.get()
    result: deque[Any] = reader.keep(deque(maxlen=maxlen))
    for _ in range(reader.size()):
        result.append(reader.get())
    return result


def _get_named(reader: _Reader) -> Any:
    name = reader.text()
    read = [(reader.text(), reader.get()) for _ in range(reader.size())]
    if len(read) > MAX_FIELDS or not name.isidentifier():
        raise Malformed("a named tuple with impossible names")
    return reader.named(name, tuple(field for field, _ in read), [value for _, value in read])


@functools.lru_cache(256)
def _named_type(name: str, fields: tuple[str, ...]) -> Any:
    """A class made here: field access, ``_fields``, ``_asdict``, ``_replace`` as the original's."""
    return namedtuple(name, fields, rename=True)  # type: ignore[misc]


MAX_FIELDS = 255


def _float(data: bytes) -> float:
    """The plain not-a-number is one object here, as ``math.nan`` is in any one process."""
    (value,) = _F64.unpack(data)
    return math.nan if data == _NAN else float(value)


_NAN = _F64.pack(math.nan)


def _get_float(reader: _Reader) -> float:
    return _float(reader.take(8))


def _get_array(reader: _Reader) -> array[Any]:
    kind = reader.text()
    result = reader.keep(array(kind))
    result.extend(reader.items())
    return result  # type: ignore[no-any-return]


def _made(module: str, name: str, *arguments: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments)


def _get_zone(reader: _Reader) -> Any:
    zone = reader.get()
    return None if zone is None else further.make_zone(*zone)


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
    made = exceptions.make(description_of(reader.get()), links.exception_type if links is not None else lambda _: None)
    if not isinstance(made, Exception):
        raise Malformed("an exception that is no value")
    return made


def description_of(value: Any) -> exceptions.Description:
    """The description of an exception that arrived. Raises ``Malformed``."""
    match value:
        case (tuple(kinds), tuple(arguments), str(text), dict(attributes), cause) if all(
            type(each) is str for each in kinds
        ):
            nested = None if cause is None else description_of(cause)
            return exceptions.Description(kinds, arguments, text, attributes, nested)
    raise Malformed("an exception that is none")


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda r: None,
    b"T": lambda r: r.take(1) != b"\x00",
    b"i": _get_int,
    b"f": _get_float,
    b"c": lambda r: complex(*_COMPLEX.unpack(r.take(16))),
    b"s": _Reader.text,
    b"b": _Reader.raw,
    b"B": lambda r: r.keep(bytearray(r.raw())),
    b"w": lambda r: further.make_view(r.text(), r.raw()),
    b".": lambda r: ...,
    b"!": lambda r: NotImplemented,
    b"o": _Reader.record,
    b"I": _Reader.member,
    b"u": further.get_array,
    b"g": further.get_value,
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
    b"Q": lambda r: _made("fractions", "Fraction", r.get(), r.get()),
    b"M": lambda r: _made("decimal", "Decimal", r.text()),
    b"A": _get_datetime,
    b"a": lambda r: _made("datetime", "date", r.get(), r.get(), r.get()),
    b"h": _get_time,
    b"y": lambda r: _made("datetime", "timedelta", r.get(), r.get(), r.get()),
    b"n": _get_named,
    b"X": _get_exception,
    b"x": lambda r: _type_of(r.text()),
    b"R": _Reader.reference,
    b"p": lambda r: r.handle(True),
    b"P": lambda r: r.handle(False),
}
