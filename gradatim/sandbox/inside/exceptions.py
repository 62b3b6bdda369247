"""Exceptions that cross between candidate and tests: described as plain data and rebuilt on the other side.

A description names the classes from the exception's own to ``BaseException``, so that an ``except`` of the other side
matches as it would in one process: builtin classes, those of standard modules that the other side has imported, and
classes of the program or the prompt by name. No code of the sender is run to rebuild one.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_KINDS = 50
MAX_CAUSES = 3
MAX_TEXT = 1000
FIELDS = {"ImportError": ("name", "path"), "NameError": ("name",), "AttributeError": ("name",)}
"""Attributes that are neither arguments nor in the exception's ``__dict__``, by class."""

CONTROLLING = ("unittest", "doctest", "bdb", "asyncio", "concurrent")
"""Packages whose exceptions control a test runner: ``SkipTest`` would turn a failed test into a skipped one."""

ENDINGS = (SystemExit, KeyboardInterrupt, BaseException)
"""The exceptions outside ``Exception`` that cross."""

ClassLookup = Callable[[str], Any]
"""Lookup of an exception class that program and tests share by name; None if there is none."""


class Description(NamedTuple):
    """An exception as plain data. ``text`` is ``str`` of it; ``cause`` a description or None."""

    kinds: tuple[str, ...]
    arguments: tuple[Any, ...]
    text: str
    attributes: dict[str, Any]
    cause: Any

    @property
    def summary(self) -> str:
        """Class name and text on one line."""
        name = self.kinds[0].rpartition(":")[2] if self.kinds else "Exception"
        return f"{name}: {self.text}" if self.text else name


def kinds_of(kind: type) -> tuple[str, ...]:
    """``module:name`` of the exception classes in the MRO of ``kind``, its own first."""
    classes = [base for base in type.mro(kind) if issubclass(base, BaseException)]
    return tuple(f"{base.__module__}:{base.__name__}" for base in classes[:MAX_KINDS])


def describe(error: BaseException, plain: Callable[[Any], bool], causes: int = MAX_CAUSES) -> tuple[Any, ...]:
    """Fields of a ``Description``; values for which ``plain`` is false are omitted."""
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:
        text = ""
    arguments = _arguments(error)
    state = {name: value for name, value in vars(error).items() if isinstance(name, str) and plain(value)}
    for base, names in FIELDS.items():
        if isinstance(error, getattr(builtins, base)):
            state |= {name: value for name in names if isinstance(value := getattr(error, name, None), str)}
    cause = error.__cause__
    cause_fields = None if cause is None or causes <= 1 else describe(cause, plain, causes - 1)
    return kinds_of(type(error)), arguments if plain(arguments) else (), text, state, cause_fields


def _arguments(error: BaseException) -> tuple[Any, ...]:
    arguments = tuple(error.args)
    if isinstance(error, OSError) and len(arguments) == 2 and error.filename is not None:
        return *arguments, error.filename
    return arguments


def class_of(kinds: tuple[str, ...], lookup: ClassLookup) -> Any:
    """Most specific class of ``kinds`` on this side: builtin, of an imported standard module, or from ``lookup``."""
    for name in kinds:
        match = _standard(name) or lookup(name.rpartition(":")[2])
        if isinstance(match, type) and issubclass(match, BaseException):
            return match
    return Exception


def _standard(name: str) -> Any:
    """Class of a module that this process has already imported; the other side cannot cause an import."""
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    if module not in sys.modules or package not in sys.stdlib_module_names or package in CONTROLLING:
        return None
    match = vars(sys.modules[module]).get(attribute)
    ending = isinstance(match, type) and not issubclass(match, Exception)
    return None if ending and match not in ENDINGS else match


def make(description: Description, lookup: ClassLookup) -> BaseException:
    """Rebuild the described exception, of the most specific class on this side."""
    kind = class_of(description.kinds, lookup)
    error = _construct(kind, description.arguments)
    for name, value in description.attributes.items():
        if type(name) is str and (name == "__notes__" or not name.startswith("__")):
            try:
                setattr(error, name, value)
            except (AttributeError, TypeError, ValueError):
                continue
    if hasattr(kind, "_text"):
        error._text = description.text  # type: ignore[attr-defined]
    if description.cause is not None:
        error.__cause__ = make(Description(*description.cause), lookup)
    return error


def _construct(kind: Any, arguments: tuple[Any, ...]) -> BaseException:
    """Construct without a Python ``__init__``, whose parameters may differ from the stored arguments."""
    has_python_init = hasattr(kind.__init__, "__code__")
    try:
        error: BaseException = kind.__new__(kind, *arguments) if has_python_init else kind(*arguments)
        return error
    except TypeError:  # UnicodeDecodeError and others require arguments of fixed types
        return Exception(f"{kind.__name__}{arguments!r:.200}")
