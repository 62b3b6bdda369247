"""The candidate as the tests use it: proxies whose calls go to its process; no received data is trusted."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from . import exceptions
from .objects import READ_OPERATIONS, Items, Object, await_result, mark_tested, stream_items
from .rpc import EXCEPTION, AnswerRefused, Broken, Gone, Peer, Raised, Unsent
from .serializer import Handle, Unsendable

TESTS = "tests"
"""Module name of the classes of the prompt and of the tests."""

SMALL = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__", "__annotations__"),
        *("__match_args__", "__init__", "__repr__", "__str__", "__eq__", "__hash__", "__dataclass_fields__"),
        *("__dataclass_params__", "__static_attributes__", "__firstlineno__", "__type_params__"),
    )
)
"""Members that a class of the tests may define so that its instances cross as their state."""

LENT = frozenset(("StringIO", "BytesIO", "Random"))
"""Standard library types whose instances the tests lend as objects."""


class CheckEnded(BaseException):
    """End of the check with a verdict; ``except Exception`` in the tests does not catch it."""

    def __init__(self, verdict: bytes, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


class RemoteProgram:
    """The candidate as the tests use it. ``ending``: the error that has ended the check, None while it runs.

    ``_informed``: whether any data that the program chose has reached the tests. Until then an argument that cannot be
    encoded is an error of the tests (``unjudged``). Afterwards the program may have produced the argument, so the
    program fails: no program can exclude itself from the score. ``returned``: the result of the last call, in a tuple;
    empty before the first and after a call that raised an exception.
    """

    def __init__(self, connection: int) -> None:
        self.ending: CheckEnded | None = None
        self.returned: tuple[Any, ...] = ()
        self._informed = False
        self._tested = False
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
        self, source: str, names: frozenset[str], tested: frozenset[str], records: dict[str, type]
    ) -> dict[str, Any]:
        """Run the program; its values of ``names``, as plain values or proxies.

        ``tested`` are names of classes under test, ``records`` complete classes of the prompt.
        """
        self._records = records
        match self.request("load", source, tuple(sorted(names)), tuple(sorted(records))):
            case ("ready", dict(values)):
                defined = {name: values[name] for name in names if name in values}
                for name in tested & defined.keys():
                    mark_tested(defined[name])
                has_plain = any(type(value) is not Object and not isinstance(value, type) for value in defined.values())
                self._informed = len(defined) < len(names) or has_plain
                return defined
            case ("invalid", str(reason)):
                raise CheckEnded(b"i", f"the program does not compile: {reason}")
            case ("failed", str(reason)):
                raise CheckEnded(b"f", f"the program ends while it is loaded: {reason}")
        raise self.end_check(b"f", "the program broke the protocol: an invalid reply to load")

    def request(self, operation: str, *arguments: Any, tested: bool = False) -> Any:
        """Send one request; an exception of the program is raised here, of its most specific class on this side.

        ``tested``: objects in the answer are under test.
        """
        if self.ending is not None:
            raise self.ending
        outer, self._tested = self._tested, tested
        if operation == "call":
            self.returned = ()
        try:
            answer = self._peer.request(operation, *arguments)
        except Gone as error:
            raise self.end_check(b"l", f"the program broke the protocol: {error}") from None
        except Broken as error:
            raise self.end_check(b"f", f"the program broke the protocol: {error}") from None
        except Unsent as error:
            reason = f"an argument cannot be handed to the program: {error}"
            raise self.end_check(b"f" if self._informed else b"u", reason) from None
        except AnswerRefused as error:
            raise self.end_check(b"f", f"the answer cannot cross: {error}") from None
        except Raised as error:
            self._informed = True
            exception = self._exception(error)
            raise exception from exception.__cause__
        finally:
            self._tested = outer
        self._informed = True
        if operation == "call":
            self.returned = (answer,)
        return answer

    def state(self, number: int, other: Object | None) -> tuple[str, Any, dict[str, Any], bool]:
        """Kind of comparison of an object, its class, its state, and the result of its own ``== other``."""
        match self.request("state", number, other):
            case (str(how), kind, dict(state), bool(equal)):
                return how, kind, state, equal
        raise self.end_check(b"f", "the program broke the protocol: an invalid state")

    def end_check(self, verdict: bytes, reason: str) -> CheckEnded:
        """Record why the check ends; the first reason is kept."""
        self.ending = self.ending or CheckEnded(verdict, reason)
        return self.ending

    def record_name(self, value: Any) -> str | None:
        """Name of an instance's class, if it is the prompt's, or the tests' without behaviour beyond its attributes."""
        kind = type(value)
        if kind.__module__ != TESTS:
            return None
        name = kind.__name__
        if self._records.get(name) is kind:
            return name
        classes = [base for base in type.mro(kind) if base is not object]
        if any(base.__module__ != TESTS or not SMALL.issuperset(_members(base)) for base in classes):
            return None
        return name if self._copied.setdefault(name, kind) is kind else None

    def record_type(self, name: str) -> type | None:
        """Class of that name on the tests' side."""
        return self._records.get(name) or self._copied.get(name)

    def exception_type(self, name: str) -> type | None:
        """The prompt's exception of that name, or the substitute for the program's."""
        return self._records.get(name) or self._exceptions.get(name)

    def _exception(self, error: Raised) -> BaseException:
        description = error.description
        self._exception_class(description.kinds)
        exception = exceptions.make(description, self.exception_type)
        if not isinstance(exception, Exception) and type(exception) not in (SystemExit, KeyboardInterrupt):
            return self.end_check(b"f", f"the program raises {description.summary}")
        if isinstance(exception, StopIteration | StopAsyncIteration):
            # Raised by a function, these would end a loop of the tests as if it were complete.
            exception = RuntimeError(f"the program raises {description.summary}")
        exception._of_program = True  # type: ignore[attr-defined]
        return exception

    def _exception_class(self, kinds: tuple[str, ...]) -> Any:
        """Substitute for an exception class of the program, created with its base classes."""
        if not kinds:
            return Exception
        module, _, name = kinds[0].rpartition(":")
        if module != "candidate":
            match = exceptions.class_of(kinds[:1], self.exception_type)
            matched = match is not Exception or kinds[0] == "builtins:Exception"
            return match if matched else self._exception_class(kinds[1:])
        existing = self.exception_type(name)
        if existing is not None:
            return existing
        bases: list[Any] = []
        for index in range(1, len(kinds)):
            base = self._exception_class(kinds[index:])
            if not any(issubclass(known_base, base) for known_base in bases):
                bases.append(base)
        members = {"__module__": TESTS, "_text": None, "__str__": _text_of}
        substitute = _class(name if name.isidentifier() else "Exception", bases, members)
        self._exceptions[name] = substitute
        return substitute

    def _called_back(self, number: int, arguments: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> Any:
        """Call a function that the tests have passed to the program."""
        self._informed = True
        return self._peer.lent(number)(*arguments, **dict(named))

    def _next(self, number: int, count: int) -> tuple[list[Any], bool]:
        """Next items of an iterator that the tests have passed, and whether it is exhausted."""
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
        owner, *operands = arguments
        return READ_OPERATIONS[name](self._object(owner), *operands)

    def _object(self, owner: Any) -> Any:
        """``owner``, if it is an object that the tests have lent as an object; ``TypeError`` otherwise."""
        if _kind(owner) != "object":
            raise TypeError("not an object of the tests")
        return owner

    def _proxy(self, peer: Peer, handle: Handle) -> Any:
        match handle.kind:
            case "iterator":
                return Items(self, handle, self._tested)
            case "coroutine":
                return await_result(self, handle.number)
            case "stream":
                return stream_items(self, handle.number)
            case kind if kind == EXCEPTION:
                return self._exception_class(tuple(handle.name.split(" ")[: exceptions.MAX_KINDS]))
        return Object(self, handle, self._tested)


def _text_of(error: BaseException) -> str:
    text = vars(error).get("_text")
    return text if isinstance(text, str) else Exception.__str__(error)


def _class(name: str, bases: list[Any], members: dict[str, Any]) -> type:
    """Class with these bases, or with the first one alone if they cannot be combined."""
    try:
        return types.new_class(name, tuple(bases), exec_body=lambda namespace: namespace.update(members))
    except TypeError:
        return types.new_class(name, tuple(bases[:1]), exec_body=lambda namespace: namespace.update(members))


def _members(kind: type) -> list[str]:
    """Names of members that are not plain data: methods, properties and special names."""
    return [name for name, member in vars(kind).items() if name.startswith("__") or hasattr(type(member), "__get__")]


def _kind(value: Any) -> str:
    """Kind under which a value is lent: functions, iterators, and objects of the tests' classes; no others.

    The attributes of any other object could reveal expected values.
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
