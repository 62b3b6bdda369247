"""Values of types outside the builtins that cross as plain data: standard library, numpy, and states of instances.

A value is written as the arguments from which its constructor makes an equal one. Reading imports a module only when a
value of it arrives, writing only covers modules that the program has imported, so that a fork without such values has
no cost.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

Arguments = Callable[[Any], tuple[Any, ...]]

_ADDRESSES = ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")
_ARGUMENTS: dict[tuple[str, str], Arguments] = {
    ("pathlib", "PurePosixPath"): lambda v: (str(v),),
    ("pathlib", "PosixPath"): lambda v: (str(v),),
    ("pathlib", "PureWindowsPath"): lambda v: (str(v),),
    ("uuid", "UUID"): lambda v: (str(v),),
    **{("ipaddress", name): lambda v: (str(v),) for name in _ADDRESSES},
    ("re", "Pattern"): lambda v: (v.pattern, v.flags),
    ("datetime", "timezone"): lambda v: _zone(v),
    ("types", "SimpleNamespace"): lambda v: (dict(vars(v)),),
    ("types", "MappingProxyType"): lambda v: (dict(v),),
    ("collections", "UserDict"): lambda v: (v.data,),
    ("collections", "UserList"): lambda v: (v.data,),
    ("collections", "UserString"): lambda v: (v.data,),
    ("collections", "ChainMap"): lambda v: tuple(v.maps),
}
"""Constructor arguments of a value, by module and name of its type."""

_CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("re", "Pattern"): lambda pattern, flags: sys.modules["re"].compile(pattern, flags),
    ("types", "SimpleNamespace"): lambda state: sys.modules["types"].SimpleNamespace(**state),
    ("datetime", "timezone"): lambda *arguments: make_zone(*arguments),
}
"""Constructors, for types that cannot be called with those arguments."""

_NAMED_TYPES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": "memoryview slice type enumerate zip map filter reversed property staticmethod classmethod super",
        "collections": "Counter OrderedDict defaultdict deque ChainMap UserDict UserList UserString",
        "datetime": "datetime date time timedelta timezone",
        "types": "FunctionType SimpleNamespace GeneratorType ModuleType",
        "pathlib": "Path PurePath PosixPath PurePosixPath",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "array": "array",
        "uuid": "UUID",
    }.items()
    for name in names.split()
)
"""Types that cross by name, in addition to the builtin ones of ``serializer``."""


def named_type(name: str, *, load: bool) -> Any:
    """Type of a dotted name; None, or with ``load`` a ``LookupError``, for one that does not cross by name."""
    if name not in _NAMED_TYPES:
        if load:
            raise LookupError(name)
        return None
    module, _, attribute = name.partition(".")
    owner = importlib.import_module(module) if load else sys.modules.get(module)
    return getattr(owner, attribute, None)


def _writer(key: tuple[str, str]) -> tuple[bytes, Callable[[Any, Any], None]]:
    arguments = _ARGUMENTS[key]

    def put(writer: Any, value: Any) -> None:
        writer.text(key[0])
        writer.text(key[1])
        writer.put(arguments(value))

    return b"g", put


WRITERS = {key: _writer(key) for key in _ARGUMENTS}
"""(tag, function of the writer and the value), by module and name of the type."""


def get_value(reader: Any) -> Any:
    """Read a value of one of the types above. Raises ``ValueError`` if it cannot be constructed."""
    key = (reader.text(), reader.text())
    arguments = reader.get()
    if key not in _ARGUMENTS or type(arguments) is not tuple:
        raise ValueError("a value of an unknown type")
    kind = getattr(importlib.import_module(key[0]), key[1])
    try:
        return _CONSTRUCTORS.get(key, kind)(*arguments)
    except Exception as error:
        raise ValueError(f"{key[1]} cannot be constructed") from error


def _zone(value: Any) -> tuple[Any, ...]:
    offset = value.utcoffset(None)
    return offset.days, offset.seconds, offset.microseconds, value.tzname(None)


def make_zone(days: int, seconds: int, microseconds: int, name: str | None) -> Any:
    """Time zone of a fixed offset, with the name of the original."""
    from datetime import timedelta, timezone

    offset = timedelta(days, seconds, microseconds)
    plain = timezone(offset)
    return plain if name is None or plain.tzname(None) == name else timezone(offset, name)


def make_view(code: str, data: bytes) -> memoryview:
    """Memoryview with items of the format ``code``."""
    view = memoryview(data)
    return view if code == "B" else view.cast(code)  # type: ignore[call-overload, no-any-return]


# numpy


def is_numpy(value: Any) -> bool:
    """Whether the value's type is defined by numpy."""
    return getattr(type(value), "__module__", "") == "numpy" and "numpy" in sys.modules


def is_array(value: Any) -> bool:
    """Whether the value is an ``ndarray`` and no subclass."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is getattr(numpy, "ndarray", None)


def is_plain_array(value: Any) -> bool:
    """Whether the value is an array or scalar of numbers, texts, dates or objects, without named fields."""
    numpy: Any = sys.modules["numpy"]
    if not (is_array(value) or isinstance(value, numpy.generic)):
        return False
    return value.dtype.fields is None and value.dtype.kind in "biufcSUmMO"


def put_array(writer: Any, value: Any) -> None:
    """Write element type, shape (None for a scalar) and elements."""
    writer.text(value.dtype.str)
    writer.put(tuple(value.shape) if is_array(value) else None)
    if value.dtype.kind == "O":
        writer.put(value.ravel().tolist())
    else:
        writer.raw(value.tobytes())


def get_array(reader: Any) -> Any:
    """Read an array or scalar; ``ValueError`` if numpy is not available to the tests."""
    code, shape = reader.text(), reader.get()
    try:
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        raise ValueError("numpy is not available") from error
    if code.startswith("|O"):
        array = reader.keep(numpy.empty(shape, dtype=object))
        array.ravel()[:] = reader.get()
        return array
    data = reader.raw()
    flat = numpy.frombuffer(data, dtype=numpy.dtype(code)).copy()
    return flat[0] if shape is None else reader.keep(flat.reshape(shape))


# Instances


def is_enumeration(kind: type) -> bool:
    """Whether the class is an enumeration."""
    enum: Any = sys.modules.get("enum")
    return enum is not None and isinstance(kind, enum.EnumMeta)


def is_member(value: Any) -> bool:
    """Whether the value is a member of an enumeration."""
    return is_enumeration(type(value))


def state_of(value: Any) -> dict[str, Any]:
    """Attributes of an instance, including those in slots."""
    state = {}
    for kind in reversed(type.mro(type(value))):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            stored = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and name[-2:] != "__" else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, stored):
                state[stored] = getattr(value, stored)
    return state | dict(getattr(value, "__dict__", {}))


def set_state(value: Any, state: dict[str, Any]) -> None:
    """Set exactly these attributes of an instance, without its ``__setattr__``.

    Raises ``ValueError`` for an attribute that would replace a method.
    """
    kind = type(value)
    attributes = getattr(value, "__dict__", None)
    if attributes is not None:
        attributes.clear()
    for name, item in state.items():
        if type(name) is not str or not name.isidentifier() or name.startswith("__"):
            raise ValueError("a state with an invalid attribute name")
        member = getattr(kind, name, None)
        if hasattr(type(member), "__get__") and not hasattr(type(member), "__set__"):
            raise ValueError(f"a state that replaces the method {name}")
        if attributes is not None and not hasattr(type(member), "__set__"):
            attributes[name] = item
        else:
            object.__setattr__(value, name, item)
