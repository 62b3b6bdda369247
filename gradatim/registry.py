"""Registries of components by name.

A registry maps the names in recipes to factories: functions or small classes. Entries may be *lazy*, a
``module:attribute`` path imported at first use, so that listing names never imports torch. Installed packages add
entries through entry points in the group ``gradatim.<plural>`` (``gradatim.schedules``, …). ``assemble`` calls the
factories through ``Registry.make``, which checks the options against the factory's signature and the result against the
Protocol of the family, so that a component that does not fit ends in one line.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import RecipeError, UnknownPart, did_you_mean

Part = TypeVar("Part")
Registered = TypeVar("Registered", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered component: its name, a summary of one line, and the object or its import path."""

    name: str
    summary: str
    part: Any


_ABSENT = object()


@dataclass(frozen=True)
class Contract:
    """What the components of a family have: the members of ``protocol``; those in ``required`` have no default.

    A subclass of the Protocol inherits the defaults of all other members.
    """

    protocol: type
    required: tuple[str, ...]

    def faults(self, part: object) -> list[str]:
        """One phrase for each way in which ``part`` does not fit; methods must accept the Protocol's arguments."""
        members = [*self.required, *vars(self.protocol).get("__annotations__", {}), *vars(self.protocol)]
        names = [name for name in dict.fromkeys(members) if name in self.required or not name.startswith("_")]
        missing = [name for name in names if self._lacks(part, name)]
        faults = [f"it lacks {', '.join(missing)}"] if missing else []
        return faults + [
            f"its {name} must accept {_parameters(wanted)}, not {given}"
            for name, wanted in vars(self.protocol).items()
            if name in names and name not in missing and inspect.isfunction(wanted)
            if (given := _unfit_parameters(getattr(part, name), wanted)) is not None
        ]

    def _lacks(self, part: object, name: str) -> bool:
        # Static: the value of a property may be costly, such as the digest of a model.
        member = inspect.getattr_static(part, name, _ABSENT)
        return member is _ABSENT or (name in self.required and member is vars(self.protocol).get(name))


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _parameters(function: Callable[..., Any]) -> str:
    """The parameters of ``function`` as text without annotations and without ``self``."""
    parameters = inspect.signature(function).parameters.values()
    plain = [each.replace(annotation=each.empty) for each in parameters if each.name != "self"]
    shown = [each.replace(default=...) if each.default is not each.empty else each for each in plain]
    return str(inspect.Signature(shown)).replace("=Ellipsis", "=…")


def _unfit_parameters(method: Any, wanted: Callable[..., Any]) -> str | None:
    """The parameters of ``method`` when it does not accept the arguments of the Protocol's method ``wanted``."""
    if not callable(method):
        return f"the value {method!r}"
    try:
        signature = inspect.signature(method)
    except ValueError:  # a function in C without a signature
        return None
    positional, keywords = _arguments(wanted)
    try:
        signature.bind(*positional[1:], **dict.fromkeys(keywords))
    except TypeError:
        return _parameters(method)
    return None


@cache
def _arguments(wanted: Callable[..., Any]) -> tuple[list[inspect.Parameter], list[str]]:
    """The positional parameters of a Protocol's method, and the names of its keyword-only ones."""
    parameters = inspect.signature(wanted).parameters.values()
    return _positional(wanted), [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


class Registry(Generic[Part]):
    """Components of one family. ``kind``: the singular noun; ``plural``: the name of the family in `gradatim list`.

    ``contracts``: a factory's result fits one of them. ``instance``: the type of each component, for families of values
    instead of factories. ``methods``: callable attributes required of each component. ``arguments``: the number of
    positional arguments of a factory, or the names of those that it may have; None for any. ``adapt``: turns a
    factory's result into a component, such as a plain function into a difficulty. Components are checked when they are
    registered, or if lazy when first loaded, results when they are made; a fault is a ``RecipeError``.
    """

    def __init__(
        self,
        kind: str,
        plural: str | None = None,
        *,
        contracts: tuple[Contract, ...] = (),
        instance: type | None = None,
        methods: tuple[str, ...] = (),
        arguments: int | tuple[str, ...] | None = None,
        adapt: Callable[[Any], Any] | None = None,
    ) -> None:
        self.kind = kind
        self.contracts = contracts
        self.instance = instance
        self.methods = methods
        self.arguments = arguments
        self.adapt = adapt
        self.plural = plural or kind + "s"
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._plugins_read = False

    def register(self, name: str, summary: str = "") -> Callable[[Registered], Registered]:
        """Decorator that registers a function or class as ``name``; the default summary is its docstring's first line.

        Raises ``ValueError`` for a name that is in use, since recipes would be ambiguous, and ``RecipeError`` for a
        part that is no component of this family.
        """

        def add(part: Registered) -> Registered:
            doc = summary or (part.__doc__ or "").strip().split("\n")[0]
            entry = Entry(name, doc, part)
            self._check(entry, None)
            self._add(entry)
            return part

        return add

    def constant(self, name: str, part: Part, summary: str) -> None:
        """Register a value, such as the settings of a preset."""
        self._add(Entry(name, summary, part))

    def lazy(self, name: str, path: str, summary: str) -> None:
        """Register the object at ``module:attribute``, imported at first use."""
        self._add(Entry(name, summary, path))

    def alias(self, name: str, target: str) -> None:
        """Accept ``name`` for the component ``target``; `gradatim list` shows only ``target``."""
        self._aliases[name] = target

    def _add(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"the {self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry

    def _read_plugins(self) -> None:
        if not self._plugins_read:
            self._plugins_read = True
            for point in _installed().select(group=f"gradatim.{self.plural}"):
                if point.name not in self._entries:
                    self.lazy(point.name, point.value, f"from the package {point.dist.name if point.dist else '?'}")

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[Entry]:
        self._read_plugins()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def names(self) -> list[str]:
        """All names, sorted."""
        return [entry.name for entry in self]

    def get(self, name: str, where: str | None = None) -> Part:
        """The component ``name``; ``UnknownPart`` with the closest name when there is none."""
        if name not in self:
            raise UnknownPart(
                f"there is no {self.kind} called {name!r}",
                where=where,
                allowed=", ".join(self.names()),
                hint=did_you_mean(name, self.names()) or f"gradatim list {self.plural}",
            )
        name = self._aliases.get(name, name)
        entry = self._entries[name]
        if isinstance(entry.part, str):
            entry = Entry(name, entry.summary, self._load(entry, where))
            self._check(entry, where)
            self._entries[name] = entry
        part: Part = entry.part
        return part

    def make(self, name: str, /, *arguments: Any, where: str | None = None, options: Mapping[str, Any]) -> Any:
        """The result of the factory ``name``, called with ``arguments`` and ``options`` and checked by the contract.

        Raises ``UnknownPart``, and ``RecipeError`` for options that the factory lacks or requires and for a factory or
        a result that does not fit the family's contract.
        """
        from .options import missing_options, with_checked_options  # imports pydantic

        factory: Any = self.get(name, where)
        if missing := missing_options(factory, options):
            given = ", ".join(options) or "no options"
            raise RecipeError(f"the {self.kind} {name!r} needs {', '.join(missing)}", where=where, given=given)
        checked = with_checked_options(f"the {self.kind} {name!r}", factory)
        positional = _positional(factory)
        least = sum(each.default is each.empty for each in positional)
        if not least <= len(arguments) <= len(positional):
            fault = f"its factory must take {len(arguments)} positional arguments, not {_parameters(factory)}"
            raise self._unfit(self._entries[self._aliases.get(name, name)], where, fault)
        part = checked(*arguments, **options)
        if self.adapt is not None:
            part = self.adapt(part)
        self.check_result(name, part, where)
        return part

    def check_result(self, name: str, part: object, where: str | None = None) -> None:
        """Raise ``RecipeError`` unless ``part``, made by the factory ``name`` or by hand, fits one of the contracts."""
        # The fault by the Protocol that the part derives from comes first.
        by_base = sorted(self.contracts, key=lambda contract: contract.protocol not in type(part).__mro__)
        faults = [contract.faults(part) for contract in by_base]
        if faults and all(faults):
            raise self._unfit(self._entries.get(name, Entry(name, "", part)), where, "; ".join(faults[0]))

    def _load(self, entry: Entry, where: str | None) -> Any:
        """The object at the import path of ``entry``; errors of another package's import are one ``RecipeError``."""
        module, _, attribute = entry.part.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            if module.partition(".")[0] == __package__:
                raise
            raise self._unfit(entry, where, f"it cannot be imported: {error}") from error

    def _check(self, entry: Entry, where: str | None) -> None:
        missing = [method for method in self.methods if not callable(getattr(entry.part, method, None))]
        if missing:
            raise self._unfit(entry, where, f"it lacks {', '.join(missing)}")
        if self.instance is not None and not isinstance(entry.part, self.instance):
            kind = f"{self.instance.__module__}.{self.instance.__qualname__}"
            raise self._unfit(entry, where, f"it must be a {kind}, not {type(entry.part).__name__}")
        if self.instance is None and not callable(entry.part):
            raise self._unfit(entry, where, f"it must be a function of options, not {type(entry.part).__name__}")
        if (fault := self._unfit_arguments(entry.part)) is not None:
            raise self._unfit(entry, where, fault)

    def _unfit_arguments(self, factory: Any) -> str | None:
        """The fault of a factory whose positional parameters are not those of the family."""
        if self.arguments is None:
            return None
        parameters = [each for each in _positional(factory) if each.default is each.empty]
        if isinstance(self.arguments, int):
            if len(parameters) <= self.arguments <= len(_positional(factory)):
                return None
            count = {0: "no positional parameter", 1: "one positional parameter"}
            needed = count.get(self.arguments, f"{self.arguments} positional parameters")
        else:
            if all(each.name in self.arguments for each in parameters):
                return None
            needed = f"no positional parameter but {' and '.join(self.arguments)}"
        return (
            f"it is called with options and must return the component: a function with keyword-only options and "
            f"{needed}, not {_parameters(factory)}"
        )

    def _unfit(self, entry: Entry, where: str | None, fault: str) -> RecipeError:
        protocols = " or ".join(f"{each.protocol.__module__}.{each.protocol.__name__}" for each in self.contracts)
        summary = f" ({entry.summary})" if entry.summary else ""
        return RecipeError(
            f"the {self.kind} {entry.name!r}{summary} does not fit the contract of its family: {fault}",
            where=where,
            hint=f"a subclass of {protocols} has the defaults" if protocols else "see CONTRIBUTING.md, Add a part",
        )


@cache
def _installed() -> Any:
    """Entry points of all installed packages, read once: each package costs a file access."""
    return entry_points()
