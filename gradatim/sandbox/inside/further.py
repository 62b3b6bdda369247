"""Values of further types that cross as plain data: of the standard library, of numpy, and states of instances.

Each is written as the arguments from which its constructor makes an equal value. A module is imported for reading only
where a value of it arrives, and for writing only when the program has imported it, so that a fork that needs none of
them pays for none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["WRITERS", "get_array", "get_value", "is_array", "is_numpy", "is_plain_array", "make_view", "make_zone"]
__all__ += ["is_enumeration", "is_member", "named_type", "put_array", "set_state", "state_of"]

Parts = Callable[[Any], tuple[Any, ...]]

_ADDRESSES = ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")
_PARTS: dict[tuple[str, str], Parts] = {
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
"""How a value is taken apart, by module and name of its type."""

_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("re", "Pattern"): lambda pattern, flags: sys.modules["re"].compile(pattern, flags),
    ("types", "SimpleNamespace"): lambda state: sys.modules["types"].SimpleNamespace(**state),
    ("datetime", "timezone"): lambda *parts: make_zone(*parts),
}
"""How it is made again, where that is not a call of the type."""

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
"""Types that cross by their names, beside the builtin ones that ``codec`` lists."""


def named_type(name: str, *, load: bool) -> Any:
    """The type of a dotted name; None, or with ``load`` a ``LookupError``, for one that does not cross by its name."""
    if name not in _NAMED_TYPES:
        if load:
            raise LookupError(name)
        return None
    module, _, attribute = name.partition(".")
    owner = importlib.import_module(module) if load else sys.modules.get(module)
    return getattr(owner, attribute, None)


def _writer(key: tuple[str, str]) -> tuple[bytes, Callable[[Any, Any], None]]:
    parts = _PARTS[key]

    def put(writer: Any, value: Any) -> None:
        writer.text(key[0])
        writer.text(key[1])
        writer.put(parts(value))

    return b"g", put


WRITERS = {key: _writer(key) for key in _PARTS}
"""(tag, function of the writer and the value), by module and name of the type."""


def get_value(reader: Any) -> Any:
    """A value of one of the types above. Raises ``ValueError`` when it cannot be made."""
    key = (reader.text(), reader.text())
    arguments = reader.get()
    if key not in _PARTS or type(arguments) is not tuple:
        raise ValueError("a value of an unknown type")
    kind = getattr(importlib.import_module(key[0]), key[1])
    try:
        return _MAKERS.get(key, kind)(*arguments)
    except Exception as error:
        raise ValueError(f"{key[1]} cannot be made") from error


def _zone(value: Any) -> tuple[Any, ...]:
    offset = value.utcoffset(None)
    return offset.days, offset.seconds, offset.microseconds, value.tzname(None)


def make_zone(days: int, seconds: int, microseconds: int, name: str | None) -> Any:
    """A time zone of a fixed offset, with the name that the original gives itself."""
    from datetime import timedelta, timezone

    offset = timedelta(days, seconds, microseconds)
    plain = timezone(offset)
    return plain if name is None or plain.tzname(None) == name else timezone(offset, name)


def make_view(form: str, data: bytes) -> memoryview:
    """A memoryview of items of the format ``form``."""
    view = memoryview(data)
    return view if form == "B" else view.cast(form)  # type: ignore[call-overload, no-any-return]


# numpy


def is_numpy(value: Any) -> bool:
    """Whether the value's own type is numpy's."""
    return getattr(type(value), "__module__", "") == "numpy" and "numpy" in sys.modules


def is_array(value: Any) -> bool:
    """Whether it is an array, exactly."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is getattr(numpy, "ndarray", None)


def is_plain_array(value: Any) -> bool:
    """Whether it is an array or a scalar of numbers, texts, dates or objects without fields of its own."""
    numpy: Any = sys.modules["numpy"]
    if not (is_array(value) or isinstance(value, numpy.generic)):
        return False
    return value.dtype.fields is None and value.dtype.kind in "biufcSUmMO"


def put_array(writer: Any, value: Any) -> None:
    """Element type, shape (None for a scalar) and elements."""
    writer.text(value.dtype.str)
    writer.put(tuple(value.shape) if is_array(value) else None)
    if value.dtype.kind == "O":
        writer.put(value.ravel().tolist())
    else:
        writer.raw(value.tobytes())


def get_array(reader: Any) -> Any:
    """The array or scalar; ``ValueError`` where numpy is not given to the tests."""
    form, shape = reader.text(), reader.get()
    try:
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        raise ValueError("numpy is not there") from error
    if form.startswith("|O"):
        made = reader.keep(numpy.empty(shape, dtype=object))
        made.ravel()[:] = reader.get()
        return made
    data = reader.raw()
    flat = numpy.frombuffer(data, dtype=numpy.dtype(form)).copy()
    return flat[0] if shape is None else reader.keep(flat.reshape(shape))


# Instances


def is_enumeration(kind: type) -> bool:
    """Whether it is an enumeration."""
    enum: Any = sys.modules.get("enum")
    return enum is not None and isinstance(kind, enum.EnumMeta)


def is_member(value: Any) -> bool:
    """Whether it is a member of an enumeration."""
    return is_enumeration(type(value))


def state_of(value: Any) -> dict[str, Any]:
    """The attributes of an instance, those in slots too."""
    state = {}
    for kind in reversed(type.mro(type(value))):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            stored = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and name[-2:] != "__" else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, stored):
                state[stored] = getattr(value, stored)
    return state | dict(getattr(value, "__dict__", {}))


def set_state(value: Any, state: dict[str, Any]) -> None:
    """Give an instance these attributes and no others, past its own ``__setattr__``.

    Raises ``ValueError`` for an attribute that would take the place of one of its methods.
    """
    kind = type(value)
    own = getattr(value, "__dict__", None)
    if own is not None:
        own.clear()
    for name, item in state.items():
        if type(name) is not str or not name.isidentifier() or name.startswith("__"):
            raise ValueError("a state with an impossible name")
        member = getattr(kind, name, None)
        if hasattr(type(member), "__get__") and not hasattr(type(member), "__set__"):
            raise ValueError(f"a state that replaces the method {name}")
        if own is not None and not hasattr(type(member), "__set__"):
            own[name] = item
        else:
            object.__setattr__(value, name, item)
