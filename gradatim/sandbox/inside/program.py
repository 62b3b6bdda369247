"""The candidate, seen from the tests: its functions are called, and everything that arrives from it is a claim."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from . import exceptions
from .codec import Handle, Unsendable
from .objects import Items, Object, awaited, name_object, streamed
from .operations import READINGS
from .peer import EXCEPTION, Broken, Gone, Peer, Raised, Refused, Unsent

__all__ = ["TESTS", "Fault", "Program"]

TESTS = "tests"
"""The module to which classes of the prompt and of the tests belong."""

SMALL = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__", "__annotations__"),
        *("__match_args__", "__init__", "__repr__", "__str__", "__eq__", "__hash__", "__dataclass_fields__"),
        *("__dataclass_params__", "__static_attributes__", "__firstlineno__", "__type_params__"),
    )
)
"""What a class of the tests may define so that its instances cross as their state."""

LENT = frozenset(("StringIO", "BytesIO", "Random"))
"""Types of the standard library that the tests lend as objects."""


class Fault(BaseException):
    """The check is over; ``except Exception`` in the tests does not hold it up."""

    def __init__(self, verdict: bytes, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


class Program:
    """The candidate, seen from the tests. ``fault`` is what ended its part, once something has.

    ``_informed``: whether anything that the program chose has reached the tests. Until then an argument that cannot be
    encoded is the tests' own fault (``unjudged``). Afterwards the argument may be of the program's making, so the
    program fails: no program may choose to be left out of the score.
    """

    def __init__(self, connection: int) -> None:
        self.fault: Fault | None = None
        self._informed = False
        self._named = False
        self._records: dict[str, type] = {}
        self._copied: dict[str, type] = {}
        self._exceptions: dict[str, type] = {}
        serves: dict[str, Callable[..., Any]] = {
            "call": self._called_back,
            "next": self._next,
            "get": self._get,
            "set": self._set,
            "apply": self._apply,
        }
        self._peer = Peer(connection, serves, _kind, self._proxy, self)

    def load(
        self, source: str, names: frozenset[str], named: frozenset[str], records: dict[str, type]
    ) -> dict[str, Any]:
        """Run the program; those of ``names`` that it defines, as plain values or proxies.

        ``named`` are classes that the tests are about, ``records`` complete classes of the prompt.
        """
        self._records = records
        match self.ask("load", source, tuple(sorted(names)), tuple(sorted(records))):
            case ("ready", dict(values)):
                found = {name: values[name] for name in names if name in values}
                for name in named & found.keys():
                    name_object(found[name])
                plain = any(type(each) is not Object and not isinstance(each, type) for each in found.values())
                self._informed = len(found) < len(names) or plain
                return found
            case ("invalid", str(reason)):
                raise Fault(b"i", f"the program does not compile: {reason}")
            case ("failed", str(reason)):
                raise Fault(b"f", f"the program ends while it is loaded: {reason}")
        raise self.over(b"f", "the program broke the protocol: no answer to its loading")

    def ask(self, operation: str, *arguments: Any, named: bool = False) -> Any:
        """One question; an exception of the program is raised here, of the class that is nearest to its own.

        ``named``: objects that the answer brings belong to what is tested.
        """
        if self.fault is not None:
            raise self.fault
        before, self._named = self._named, named
        try:
            answer = self._peer.ask(operation, *arguments)
        except Gone as error:
            raise self.over(b"l", f"the program broke the protocol: {error}") from None
        except Broken as error:
            raise self.over(b"f", f"the program broke the protocol: {error}") from None
        except Unsent as error:
            reason = f"an argument cannot be handed to the program: {error}"
            raise self.over(b"f" if self._informed else b"u", reason) from None
        except Refused as error:
            raise self.over(b"f", f"the answer cannot cross: {error}") from None
        except Raised as error:
            self._informed = True
            made = self._exception(error)
            raise made from made.__cause__
        finally:
            self._named = before
        self._informed = True
        return answer

    def state(self, number: int, other: Object | None) -> tuple[str, Any, dict[str, Any], bool]:
        """How an object compares, its class, its state, and what it says of ``other``."""
        match self.ask("state", number, other):
            case (str(how), kind, dict(state), bool(said)):
                return how, kind, state, said
        raise self.over(b"f", "the program broke the protocol: a state that is none")

    def over(self, verdict: bytes, reason: str) -> Fault:
        """Remember why the check is over."""
        self.fault = self.fault or Fault(verdict, reason)
        return self.fault

    def record_name(self, value: Any) -> str | None:
        """The name of an instance's class, where it is the prompt's, or the tests' and no more than its attributes."""
        kind = type(value)
        if kind.__module__ != TESTS:
            return None
        name = kind.__name__
        if self._records.get(name) is kind:
            return name
        own = [each for each in type.mro(kind) if each is not object]
        if any(each.__module__ != TESTS or not SMALL.issuperset(_members(each)) for each in own):
            return None
        return name if self._copied.setdefault(name, kind) is kind else None

    def record_type(self, name: str) -> type | None:
        """The class of that name which the tests' side has."""
        return self._records.get(name) or self._copied.get(name)

    def exception_type(self, name: str) -> type | None:
        """The prompt's exception of that name, or the one that stands for the program's."""
        return self._records.get(name) or self._exceptions.get(name)

    def _exception(self, error: Raised) -> BaseException:
        description = error.description
        self._exception_class(description.kinds)
        made = exceptions.make(description, self.exception_type)
        if not isinstance(made, Exception) and type(made) not in (SystemExit, KeyboardInterrupt):
            return self.over(b"f", f"the program raises {description.told}")
        if isinstance(made, StopIteration | StopAsyncIteration):
            # Out of a function these would end a loop of the tests as if all its turns were done.
            made = RuntimeError(f"the program raises {description.told}")
        made._of_program = True  # type: ignore[attr-defined]
        return made

    def _exception_class(self, kinds: tuple[str, ...]) -> Any:
        """The class that stands for one of the program's, made with those that it extends."""
        if not kinds:
            return Exception
        module, _, name = kinds[0].rpartition(":")
        if module != "candidate":
            found = exceptions.class_of(kinds[:1], self.exception_type)
            known = found is not Exception or kinds[0] == "builtins:Exception"
            return found if known else self._exception_class(kinds[1:])
        known_here = self.exception_type(name)
        if known_here is not None:
            return known_here
        bases: list[Any] = []
        for place in range(1, len(kinds)):
            base = self._exception_class(kinds[place:])
            if not any(issubclass(each, base) for each in bases):
                bases.append(base)
        members = {"__module__": TESTS, "_text": None, "__str__": _text_of}
        made = _class(name if name.isidentifier() else "Exception", bases, members)
        self._exceptions[name] = made
        return made

    def _called_back(self, number: int, arguments: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        """The program calls a function that the tests have handed over."""
        self._informed = True
        return self._peer.lent(number)(*arguments, **dict(named))

    def _next(self, number: int, count: int) -> tuple[list[Any], bool]:
        """The next items of an iterator that the tests have handed over, and whether that was all."""
        self._informed = True
        iterator, items = self._peer.lent(number), []
        for _ in range(min(count, 1024)):
            try:
                items.append(next(iterator))
            except StopIteration:
                return items, True
        return items, False

    def _get(self, number: int, name: str) -> Any:
        self._informed = True
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._object(self._peer.lent(number)), name)

    def _set(self, number: int, name: str, value: Any) -> None:
        self._informed = True
        if name.startswith("_"):
            raise AttributeError(name)
        setattr(self._object(self._peer.lent(number)), name, value)

    def _apply(self, name: str, arguments: tuple[Any, ...]) -> Any:
        self._informed = True
        owner, *others = arguments
        return READINGS[name](self._object(owner), *others)

    def _object(self, owner: Any) -> Any:
        """The owner, where it is an object that the tests have lent as one."""
        if _kind(owner) != "object":
            raise TypeError("not an object of the tests")
        return owner

    def _proxy(self, peer: Peer, handle: Handle) -> Any:
        match handle.kind:
            case "iterator":
                return Items(self, handle, self._named)
            case "coroutine":
                return awaited(self, handle.number)
            case "stream":
                return streamed(self, handle.number)
            case kind if kind == EXCEPTION:
                return self._exception_class(tuple(handle.name.split(" ")[: exceptions.MAX_KINDS]))
        return Object(self, handle, self._named)


def _text_of(error: BaseException) -> str:
    text = vars(error).get("_text")
    return text if isinstance(text, str) else Exception.__str__(error)


def _class(name: str, bases: list[Any], members: dict[str, Any]) -> type:
    """A class of these bases, of the first alone where they do not go together."""
    try:
        return types.new_class(name, tuple(bases), exec_body=lambda namespace: namespace.update(members))
    except TypeError:
        return types.new_class(name, tuple(bases[:1]), exec_body=lambda namespace: namespace.update(members))


def _members(kind: type) -> list[str]:
    """Names that are more than data: methods, properties, and what is special."""
    return [name for name, member in vars(kind).items() if name.startswith("__") or hasattr(type(member), "__get__")]


def _kind(value: Any) -> str:
    """Functions and iterators of the tests are lent, and objects of their own classes; nothing else is.

    The attributes of any other object could tell too much.
    """
    if callable(value):
        return "function"
    kind = type(value)
    if kind.__module__ in ("_io", "random") and kind.__name__ in LENT:
        return "object"
    if hasattr(kind, "__next__"):
        return "iterator"
    if kind.__module__ == TESTS:
        return "object"
    raise Unsendable(f"{kind.__name__} is not plain data")
