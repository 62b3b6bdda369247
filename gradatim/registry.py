"""Registries of components by name.

A registry maps the names in recipes to factories: functions or small classes. Entries may be *lazy*, a
``module:attribute`` path imported at first use, so that listing names never imports torch. Installed packages add
entries through entry points in the group ``gradatim.<plural>`` (``gradatim.schedules``, …). ``assemble`` calls the
factories.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
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


class Registry(Generic[Part]):
    """Components of one family. ``kind``: the singular noun; ``plural``: the name of the family in `gradatim list`.

    ``methods``: callable attributes required of each component, checked when it is first loaded.
    """

    def __init__(self, kind: str, plural: str | None = None, methods: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.methods = methods
        self.plural = plural or kind + "s"
        self._entries: dict[str, Entry] = {}
        self._plugins_read = False

    def register(self, name: str, summary: str = "") -> Callable[[Registered], Registered]:
        """Decorator that registers a function or class as ``name``; the default summary is its docstring's first line.

        Raises ``ValueError`` for a name that is in use, since recipes would be ambiguous.
        """

        def add(part: Registered) -> Registered:
            doc = summary or (part.__doc__ or "").strip().split("\n")[0]
            self._add(Entry(name, doc, part))
            return part

        return add

    def constant(self, name: str, part: Part, summary: str) -> None:
        """Register a value, such as the settings of a preset."""
        self._add(Entry(name, summary, part))

    def lazy(self, name: str, path: str, summary: str) -> None:
        """Register the object at ``module:attribute``, imported at first use."""
        self._add(Entry(name, summary, path))

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
        return name in self._entries

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
        entry = self._entries[name]
        if isinstance(entry.part, str):
            module, _, attribute = entry.part.partition(":")
            entry = Entry(name, entry.summary, getattr(importlib.import_module(module), attribute))
            self._check(entry, where)
            self._entries[name] = entry
        part: Part = entry.part
        return part

    def _check(self, entry: Entry, where: str | None) -> None:
        missing = [method for method in self.methods if not callable(getattr(entry.part, method, None))]
        if missing:
            raise RecipeError(
                f"the {self.kind} {entry.name!r} ({entry.summary}) lacks {', '.join(missing)}",
                where=where,
                given=repr(entry.part),
                hint="CONTRIBUTING.md describes the contract of each family",
            )


@cache
def _installed() -> Any:
    """Entry points of all installed packages, read once: each package costs a file access."""
    return entry_points()
