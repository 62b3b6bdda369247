"""Proxies, on the tests' side, of the program's objects that have no plain form.

Attributes, items and results of an ``Object`` come from the program. A comparison with a value of the tests does not,
because the program could claim equality with any value. Objects of a class that the tests or the prompt name are under
test (``tested``): their operators are evaluated by the program like their methods. Objects that a function returns are
answers: operators and methods that would receive the expected value end the check.

Two objects of the program are compared here by their states.

Named functions that one side may apply to an object of the other.
"""

from __future__ import annotations

import dis
import operator
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn, Protocol

from .reader import refill
from .serializer import Handle

COMPARISONS = ("lt", "le", "gt", "ge")
OPERATORS = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
)
UNARY = ("neg", "pos", "invert")


def _leave(manager: Any, error: BaseException | None) -> bool:
    kind = None if error is None else type(error)
    return bool(type(manager).__exit__(manager, kind, error, None))


READ_OPERATIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
    "repr": repr,
    "format": format,
    "bool": bool,
    "hash": hash,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "contains": operator.contains,
    "eq": operator.eq,
    "ne": operator.ne,
    **{name: getattr(operator, name) for name in COMPARISONS},
}
"""Functions that the program may apply to an object of the tests."""

FUNCTIONS: dict[str, Callable[..., Any]] = READ_OPERATIONS | {
    "delitem": operator.delitem,
    "abs": abs,
    "round": round,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "divmod": divmod,
    "isinstance": isinstance,
    "issubclass": issubclass,
    "enter": lambda manager: type(manager).__enter__(manager),
    "leave": _leave,
    **{name: getattr(operator, name) for name in (*OPERATORS, *UNARY)},
    **{f"i{name.rstrip('_')}": getattr(operator, f"i{name.rstrip('_')}") for name in OPERATORS},
}
"""Functions that the tests may apply to an object of the program."""


READABLE = frozenset(
    ("__name__", "__qualname__", "__doc__", "__annotations__", "__defaults__", "__dict__", "__module__")
)
"""Special attributes that are data."""

PLAIN = (
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
    int,
    float,
    complex,
    range,
    deque,
    Counter,
    memoryview,
)
CHANGING = frozenset(
    (
        *("append", "appendleft", "extend", "extendleft", "add", "insert", "pop", "popleft", "popitem", "remove"),
        *("discard", "clear", "update", "setdefault", "sort", "reverse", "rotate", "get"),
    )
)
ARGUMENT_DEPENDENT = frozenset(name for kind in PLAIN for name in dir(kind) if not name.startswith("_")) - CHANGING
"""Methods of plain values whose result depends on their argument: ``startswith``, ``issubset``, ``count``, …"""

RAISE = dis.opmap["RAISE_VARARGS"]
SINGLE = 8
"""Number of items fetched one by one from an iterator, before portions grow."""
MAX_PORTION = 1024


class Owner(Protocol):
    """Connection to the process that owns the objects, as far as proxies use it (``program.RemoteProgram``)."""

    def request(self, operation: str, *arguments: Any, tested: bool = False) -> Any:
        """Send one request."""

    def state(self, number: int, other: Object | None) -> tuple[str, Any, dict[str, Any], bool]:
        """Kind of comparison, class, state, and the result of the object's own ``== other``."""

    def end_check(self, verdict: bytes, reason: str) -> BaseException:
        """Record why the check ends."""


class Object:
    """Proxy of an object of the program."""

    __slots__ = ("__kind", "__label", "__number", "__program", "__tested", "__weakref__")

    def __init__(self, program: Owner, handle: Handle, tested: bool) -> None:
        values = {"program": program, "number": handle.number, "kind": handle.kind, "label": handle.name}
        for name, value in {**values, "tested": tested}.items():
            object.__setattr__(self, f"_Object__{name}", value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        request = ("call", self.__number, arguments, tuple(named.items()))
        return self.__program.request(*request, tested=self.__tested)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in READABLE:
            raise AttributeError(name)
        value = self.__program.request("get", self.__number, name, tested=self.__tested)
        if name in ARGUMENT_DEPENDENT and not self.__tested and callable(value):
            return self.__silent(name, value)
        return value

    def __silent(self, name: str, method: Any) -> Callable[..., Any]:
        """Method that may only be called without arguments."""

        def silent(*arguments: Any, **named: Any) -> Any:
            if arguments or named:
                reason = f"the answer is of a class of the program ({self.__label}): its {name} is not trusted"
                raise self.__program.end_check(b"f", reason)
            return method()

        return silent

    def __setattr__(self, name: str, value: Any) -> None:
        self.__program.request("set", self.__number, name, value)

    def __bool__(self) -> bool:
        return self.__program.request("apply", "bool", (self,)) is True

    def __eq__(self, other: object) -> bool:
        if other is None or self is other:
            return other is not None
        if isinstance(other, Object):
            return _same(self.__program, self, other)
        if self.__kind != "plain":
            self.__incomparable()
        plain = self.__program.request("plain", self.__number)
        if isinstance(plain, Object):
            self.__incomparable()
        return bool(plain == other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        how, _, state, _ = self.__program.state(self.__number, None)
        if how == "own":
            self.__incomparable()
        return hash((self.__number if how == "identity" else self.__label, *state.items()))

    def __instancecheck__(self, other: object) -> bool:
        return isinstance(other, Object) and self.__program.request("apply", "isinstance", (other, self)) is True

    def __subclasscheck__(self, other: object) -> bool:
        return isinstance(other, Object) and self.__program.request("apply", "issubclass", (other, self)) is True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Let the program suppress exceptions that the tests raise on purpose, but never a failed assertion."""
        intended = error is not None and not isinstance(error, AssertionError) and _raised_by_tests(error)
        suppressed = self.__program.request("apply", "leave", (self, error if isinstance(error, Exception) else None))
        return intended and suppressed is True

    def __incomparable(self, *_: object) -> NoReturn:
        raise self.__program.end_check(b"f", f"the answer is of a type that cannot be compared: {self.__label}")

    def _applied(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """Result of a function of this object, which must be of type ``kind``."""
        answer = self.__program.request("apply", name, arguments, tested=self.__tested)
        if not isinstance(answer, kind):
            raise TypeError(f"{name} of {self.__label} gives {type(answer).__name__}")
        return answer

    def _compared(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """The same, for a function that would compare the answer: only for objects under test."""
        return self._applied(name, kind, arguments) if self.__tested else self.__incomparable()

    def _combined(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """The same, for an operator: not implemented for answers of a type of the program."""
        return self._applied(name, kind, arguments) if self.__tested else NotImplemented


def _method(policy: Callable[..., Any], name: str, kind: type = object) -> Callable[..., Any]:
    def method(self: Object, *arguments: Any) -> Any:
        return policy(self, name, kind, (self, *arguments))

    return method


def _reversed(name: str) -> Callable[..., Any]:
    def method(self: Object, other: Any) -> Any:
        return Object._combined(self, name, object, (other, self))

    return method


class Items(Object):
    """Proxy of an iterator of the program, fetched in growing portions."""

    __slots__ = ("__buffer", "__done", "__last", "__portions")

    def __init__(self, program: Owner, handle: Handle, tested: bool) -> None:
        super().__init__(program, handle, tested)
        for name, value in (("buffer", []), ("portions", 0), ("done", False), ("last", None)):
            object.__setattr__(self, f"_Items__{name}", value)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.__buffer and not self.__done:
            self.__fetch()
        if not self.__buffer:
            raise StopIteration
        return self.__buffer.pop()

    def __fetch(self) -> None:
        program = program_of(self)
        portions = self.__portions + 1
        count = 1 if portions <= SINGLE else min(2 ** (portions - SINGLE), MAX_PORTION)
        match program.request("next", number_of(self), count):
            case (tuple(items), bool(done), bool(again)):
                pass
            case _:
                raise program.end_check(b"f", "the program broke the protocol: invalid items")
        last = items[-1] if items else None
        if again and type(last) is type(self.__last) and isinstance(last, list | dict | set | bytearray | deque):
            refill(self.__last, last)  # the same object as before, with its current contents
            items = (*items[:-1], self.__last)
        values = (("portions", portions), ("buffer", list(reversed(items))), ("done", done or not items))
        for name, value in (*values, ("last", items[-1] if items else None)):
            object.__setattr__(self, f"_Items__{name}", value)

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


for _name, _kind in {
    "len": int, "getitem": object, "setitem": object, "delitem": object, "str": str, "repr": str, "format": str,
    "enter": object,
}.items():  # fmt: skip
    setattr(Object, f"__{_name}__", _method(Object._applied, _name, _kind))
Object.__iter__ = _method(Object._applied, "iter", Items)  # type: ignore[attr-defined]
for _name, _kind in {
    "contains": bool, "int": int, "float": float, "complex": complex, "index": int, **dict.fromkeys(COMPARISONS, bool),
}.items():  # fmt: skip
    setattr(Object, f"__{_name}__", _method(Object._compared, _name, _kind))
for _name in ("abs", "round", *UNARY):
    setattr(Object, f"__{_name}__", _method(Object._compared, _name))
for _name in (*OPERATORS, "divmod"):
    _bare = _name.rstrip("_")
    setattr(Object, f"__{_bare}__", _method(Object._combined, _name))
    setattr(Object, f"__r{_bare}__", _reversed(_name))
    if _name != "divmod":
        setattr(Object, f"__i{_bare}__", _method(Object._combined, f"i{_bare}"))


Object.__doc__ = property(lambda self: self.__getattr__("__doc__"))  # type: ignore[assignment]


def number_of(value: Object) -> int:
    """Number under which the program has lent the object."""
    number: int = object.__getattribute__(value, "_Object__number")
    return number


def label_of(value: object) -> str | None:
    """Name of the type of an object of the program; None for another value."""
    if type(value) not in (Object, Items):
        return None
    label: str = object.__getattribute__(value, "_Object__label")
    return label


def program_of(value: Object) -> Owner:
    """Program that owns the object."""
    program: Owner = object.__getattribute__(value, "_Object__program")
    return program


def mark_tested(value: object) -> None:
    """Mark an object, a class that the tests name, and its instances as under test."""
    if isinstance(value, Object):
        object.__setattr__(value, "_Object__tested", True)


async def await_result(program: Owner, number: int) -> Any:
    """Result of a coroutine of the program."""
    return program.request("wait", number)


async def stream_items(program: Owner, number: int) -> AsyncIterator[Any]:
    """Items of an asynchronous iterator of the program."""
    while (item := program.request("advance", number)) != ():
        (value,) = item
        yield value


def _same(program: Owner, first: Object, second: Object) -> bool:
    """Whether two objects of the program are equal: the same object, or of one class and with equal states.

    If their class defines a comparison, its result must be the same.
    """
    if number_of(first) == number_of(second):
        return True
    how, kind, state, own_result = program.state(number_of(first), second)
    second_how, second_kind, second_state, _ = program.state(number_of(second), first)
    if "identity" in (how, second_how):
        return False
    equal = number_of(kind) == number_of(second_kind) and state == second_state
    if how == "fields" == second_how:
        return equal
    if equal is not own_result or (equal and not state):
        raise program.end_check(b"f", "the answer is of a class of the program whose comparison contradicts its state")
    return equal


def _raised_by_tests(error: BaseException) -> bool:
    """Whether a ``raise`` statement of the tests raised the exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename != "<tests>":
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == RAISE
