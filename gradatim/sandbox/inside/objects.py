"""Objects of the program that have no plain form, as the tests hold them.

An ``Object`` stands for one. Its attributes, items and results come from the program; a comparison with a value of the
tests never does, because an object could say that it equals whatever it is compared with. Objects of a class that the
tests or the prompt name (``named``) are what is tested: their operators are asked like their methods. Objects that a
function gives are answers: operators and methods that would be handed the expected value end the check.

Two objects of the program are compared here by their states.
"""

from __future__ import annotations

import dis
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from .codec import Handle, refill
from .operations import COMPARISONS, OPERATORS, UNARY

if TYPE_CHECKING:
    from .program import Program

__all__ = ["REPORTING", "Items", "Object", "awaited", "name_object", "number_of", "streamed"]

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
REPORTING = frozenset(name for kind in PLAIN for name in dir(kind) if not name.startswith("_")) - CHANGING
"""Methods by which plain values report on their argument: ``startswith``, ``issubset``, ``count``, …"""

RAISE = dis.opmap["RAISE_VARARGS"]
SINGLE = 8
"""So many times one item of an iterator is fetched; then portions grow."""
MOST = 1024


class Object:
    """An object of the program's."""

    __slots__ = ("__kind", "__label", "__named", "__number", "__program", "__weakref__")

    def __init__(self, program: Program, handle: Handle, named: bool) -> None:
        values = {"program": program, "number": handle.number, "kind": handle.kind, "label": handle.name}
        for name, value in {**values, "named": named}.items():
            object.__setattr__(self, f"_Object__{name}", value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        request = ("call", self.__number, arguments, tuple(named.items()))
        return self.__program.ask(*request, named=self.__named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in READABLE:
            raise AttributeError(name)
        found = self.__program.ask("get", self.__number, name, named=self.__named)
        return self.__silent(name, found) if name in REPORTING and not self.__named and callable(found) else found

    def __silent(self, name: str, method: Any) -> Callable[..., Any]:
        """A method that answers only when it is handed nothing."""

        def silent(*arguments: Any, **named: Any) -> Any:
            if arguments or named:
                reason = f"the answer is of a type of the program's own ({self.__label}): its {name} is not trusted"
                raise self.__program.over(b"f", reason)
            return method()

        return silent

    def __setattr__(self, name: str, value: Any) -> None:
        self.__program.ask("set", self.__number, name, value)

    def __bool__(self) -> bool:
        return self.__program.ask("apply", "bool", (self,)) is True

    def __eq__(self, other: object) -> bool:
        if other is None or self is other:
            return other is not None
        if isinstance(other, Object):
            return _same(self.__program, self, other)
        if self.__kind != "plain":
            self.__incomparable()
        plain = self.__program.ask("plain", self.__number)
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
        return isinstance(other, Object) and self.__program.ask("apply", "isinstance", (other, self)) is True

    def __subclasscheck__(self, other: object) -> bool:
        return isinstance(other, Object) and self.__program.ask("apply", "issubclass", (other, self)) is True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """What the program swallows are exceptions that the tests raise on purpose, never a failed assertion."""
        meant = error is not None and not isinstance(error, AssertionError) and _raised_on_purpose(error)
        swallowed = self.__program.ask("apply", "leave", (self, error if isinstance(error, Exception) else None))
        return meant and swallowed is True

    def __incomparable(self, *_: object) -> NoReturn:
        raise self.__program.over(b"f", f"the answer is of a type that cannot be compared: {self.__label}")

    def _applied(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """What a function makes of this object, where the result must be of a type."""
        answer = self.__program.ask("apply", name, arguments, named=self.__named)
        if not isinstance(answer, kind):
            raise TypeError(f"{name} of {self.__label} gives {type(answer).__name__}")
        return answer

    def _judged(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """The same, for a function that would compare the answer: only of objects that are what is tested."""
        return self._applied(name, kind, arguments) if self.__named else self.__incomparable()

    def _combined(self, name: str, kind: type, arguments: tuple[Any, ...]) -> Any:
        """The same, for an operator: an answer of the program's own type has none."""
        return self._applied(name, kind, arguments) if self.__named else NotImplemented


def _method(policy: Callable[..., Any], name: str, kind: type = object) -> Callable[..., Any]:
    def method(self: Object, *arguments: Any) -> Any:
        return policy(self, name, kind, (self, *arguments))

    return method


def _reversed(name: str) -> Callable[..., Any]:
    def method(self: Object, other: Any) -> Any:
        return Object._combined(self, name, object, (other, self))

    return method


class Items(Object):
    """An iterator of the program's, fetched in growing portions."""

    __slots__ = ("__ahead", "__asked", "__done", "__last")

    def __init__(self, program: Program, handle: Handle, named: bool) -> None:
        super().__init__(program, handle, named)
        for name, value in (("ahead", []), ("asked", 0), ("done", False), ("last", None)):
            object.__setattr__(self, f"_Items__{name}", value)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.__ahead and not self.__done:
            self.__fetch()
        if not self.__ahead:
            raise StopIteration
        return self.__ahead.pop()

    def __fetch(self) -> None:
        program = program_of(self)
        asked = self.__asked + 1
        count = 1 if asked <= SINGLE else min(2 ** (asked - SINGLE), MOST)
        match program.ask("next", number_of(self), count):
            case (tuple(items), bool(done), bool(again)):
                pass
            case _:
                raise program.over(b"f", "the program broke the protocol: items that are none")
        last = items[-1] if items else None
        if again and type(last) is type(self.__last) and isinstance(last, list | dict | set | bytearray | deque):
            refill(self.__last, last)  # the same object as before, with what it holds by now
            items = (*items[:-1], self.__last)
        values = (("asked", asked), ("ahead", list(reversed(items))), ("done", done or not items))
        for name, value in (*values, ("last", items[-1] if items else None)):
            object.__setattr__(self, f"_Items__{name}", value)

    def __contains__(self, wanted: object) -> bool:
        return any(item is wanted or item == wanted for item in self)

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
    setattr(Object, f"__{_name}__", _method(Object._judged, _name, _kind))
for _name in ("abs", "round", *UNARY):
    setattr(Object, f"__{_name}__", _method(Object._judged, _name))
for _name in (*OPERATORS, "divmod"):
    _bare = _name.rstrip("_")
    setattr(Object, f"__{_bare}__", _method(Object._combined, _name))
    setattr(Object, f"__r{_bare}__", _reversed(_name))
    if _name != "divmod":
        setattr(Object, f"__i{_bare}__", _method(Object._combined, f"i{_bare}"))


Object.__doc__ = property(lambda self: self.__getattr__("__doc__"))  # type: ignore[assignment]


def number_of(value: Object) -> int:
    """The number under which the program has lent the object."""
    number: int = object.__getattribute__(value, "_Object__number")
    return number


def program_of(value: Object) -> Program:
    """The program that the object is of."""
    program: Program = object.__getattribute__(value, "_Object__program")
    return program


def name_object(value: object) -> None:
    """Take what comes of an object, a class that the tests name, for what is tested."""
    if isinstance(value, Object):
        object.__setattr__(value, "_Object__named", True)


async def awaited(program: Program, number: int) -> Any:
    """What a coroutine of the program's comes to."""
    return program.ask("wait", number)


async def streamed(program: Program, number: int) -> AsyncIterator[Any]:
    """The items of an asynchronous iterator of the program's."""
    while (item := program.ask("advance", number)) != ():
        (value,) = item
        yield value


def _same(program: Program, one: Object, other: Object) -> bool:
    """Whether two objects of the program are equal: one object, or of one class and of one state.

    Where their class compares by a method of its own, that must say the same.
    """
    if number_of(one) == number_of(other):
        return True
    how, kind, state, said = program.state(number_of(one), other)
    other_how, other_kind, other_state, _ = program.state(number_of(other), one)
    if "identity" in (how, other_how):
        return False
    equal = number_of(kind) == number_of(other_kind) and state == other_state
    if how == "fields" == other_how:
        return equal
    if equal is not said or (equal and not state):
        raise program.over(b"f", "the answer is of a type of the program's own whose comparison does not fit its state")
    return equal


def _raised_on_purpose(error: BaseException) -> bool:
    """Whether a ``raise`` of the tests is where the exception comes from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename != "<tests>":
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == RAISE
