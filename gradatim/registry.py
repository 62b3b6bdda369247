"""Which parts are there, by name?

A registry maps the names that recipes use to objects: functions or small classes. Members may be *lazy*, a
``module:attribute`` path imported at first use, so that listing names never imports torch. Installed packages
add members through entry points in the group ``gradatim.<plural>`` (``gradatim.schedules``, …). A registry
does not build objects; ``assemble`` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import RecipeError, UnknownPart, did_you_mean

__all__ = ["Entry", "Registry"]

Part = TypeVar("Part")
Registered = TypeVar("Registered", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One member: its name, one line that says what it is, and the part or the path to it."""

    name: str
    summary: str
    part: Any


class Registry(Generic[Part]):
    """Parts of one family. ``kind`` is the singular noun, ``plural`` the word `gradatim list` uses.

    ``methods``: callable attributes that every part of the family must have, checked when a part is first loaded.
    """

    def __init__(self, kind: str, plural: str | None = None, methods: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.methods = methods
        self.plural = plural or kind + "s"
        self._entries: dict[str, Entry] = {}
        self._plugins_read = False

    def register(self, name: str, summary: str = "") -> Callable[[Registered], Registered]:
        """Decorator: add the function or class under ``name``; the summary is its docstring's first line.

        Raises ``ValueError`` when the name is taken: two parts of one name would make recipes ambiguous.
        """

        def add(part: Registered) -> Registered:
            doc = summary or (part.__doc__ or "").strip().split("\n")[0]
            self._add(Entry(name, doc, part))
            return part

        return add

    def constant(self, name: str, part: Part, summary: str) -> None:
        """Add a value, such as a preset's row of numbers."""
        self._add(Entry(name, summary, part))

    def lazy(self, name: str, path: str, summary: str) -> None:
        """Add the object at ``module:attribute``, imported at first use."""
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
        """The part called ``name``; ``UnknownPart`` with the nearest name when there is none."""
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
    """What every installed package adds, to ``select`` from; read once, since that opens a file of each package."""
    return entry_points()
