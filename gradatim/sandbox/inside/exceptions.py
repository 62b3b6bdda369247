"""Exceptions that cross between program and tests: described as plain data, made again on the other side.

A description names the classes from the exception's own to ``BaseException``, so that an ``except`` of the other side
matches as it would in one process: builtin classes, those of standard modules that the other side has imported, and
classes of the program or the prompt by their names. Nothing of the sender's is run to make one.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Description", "class_of", "describe", "kinds_of", "make"]

MAX_KINDS = 50
MAX_CAUSES = 3
MAX_TEXT = 1000
FIELDS = {"ImportError": ("name", "path"), "NameError": ("name",), "AttributeError": ("name",)}
"""Attributes that are neither among the arguments nor in the exception's ``__dict__``."""

CONTROLLING = ("unittest", "doctest", "bdb", "asyncio", "concurrent")
"""Packages with exceptions that steer what runs tests: ``SkipTest`` would make a failed test a skipped one."""

ENDINGS = (SystemExit, KeyboardInterrupt, BaseException)
"""What crosses of the exceptions that are no ``Exception``."""

Own = Callable[[str], Any]
"""The class of a name that program and tests share, None where there is none."""


class Description(NamedTuple):
    """An exception as plain data. ``text`` is ``str`` of it; ``cause`` a description or None."""

    kinds: tuple[str, ...]
    arguments: tuple[Any, ...]
    text: str
    attributes: dict[str, Any]
    cause: Any

    @property
    def told(self) -> str:
        """Class and text on one line."""
        name = self.kinds[0].rpartition(":")[2] if self.kinds else "Exception"
        return f"{name}: {self.text}" if self.text else name


def kinds_of(kind: type) -> tuple[str, ...]:
    """``module:name`` of each exception class that ``kind`` is or extends, its own first."""
    classes = [each for each in type.mro(kind) if issubclass(each, BaseException)]
    return tuple(f"{each.__module__}:{each.__name__}" for each in classes[:MAX_KINDS])


def describe(error: BaseException, plain: Callable[[Any], bool], causes: int = MAX_CAUSES) -> tuple[Any, ...]:
    """The fields of a ``Description``; values for which ``plain`` does not hold are left out."""
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
    told = None if cause is None or causes <= 1 else describe(cause, plain, causes - 1)
    return kinds_of(type(error)), arguments if plain(arguments) else (), text, state, told


def _arguments(error: BaseException) -> tuple[Any, ...]:
    arguments = tuple(error.args)
    if isinstance(error, OSError) and len(arguments) == 2 and error.filename is not None:
        return *arguments, error.filename
    return arguments


def class_of(kinds: tuple[str, ...], own: Own) -> Any:
    """The most special class of ``kinds`` that is here: builtin, of an imported standard module, or ``own``."""
    for name in kinds:
        found = _standard(name) or own(name.rpartition(":")[2])
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    return Exception


def _standard(name: str) -> Any:
    """A class of a module that this process has imported already: nothing is imported on the other side's word."""
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    if module not in sys.modules or package not in sys.stdlib_module_names or package in CONTROLLING:
        return None
    found = vars(sys.modules[module]).get(attribute)
    ending = isinstance(found, type) and not issubclass(found, Exception)
    return None if ending and found not in ENDINGS else found


def make(description: Description, own: Own) -> BaseException:
    """The exception described, of the class that fits best here."""
    kind = class_of(description.kinds, own)
    made = _made(kind, description.arguments)
    for name, value in description.attributes.items():
        if type(name) is str and (name == "__notes__" or not name.startswith("__")):
            try:
                setattr(made, name, value)
            except (AttributeError, TypeError, ValueError):
                continue
    if hasattr(kind, "_text"):
        made._text = description.text  # type: ignore[attr-defined]
    if description.cause is not None:
        made.__cause__ = make(Description(*description.cause), own)
    return made


def _made(kind: Any, arguments: tuple[Any, ...]) -> BaseException:
    """Past a Python ``__init__``, which may want other arguments than those that the exception holds."""
    written = hasattr(kind.__init__, "__code__")
    try:
        made: BaseException = kind.__new__(kind, *arguments) if written else kind(*arguments)
        return made
    except TypeError:  # UnicodeDecodeError and its like take arguments of a shape of their own
        return Exception(f"{kind.__name__}{arguments!r:.200}")
