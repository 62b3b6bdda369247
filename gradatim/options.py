"""Type checks of the options that recipes pass to components.

A component is a factory whose keyword-only parameters are its options, given as plain values from YAML. ``strict``
wraps a factory so that unknown options and values of the wrong type raise one ``RecipeError`` with all faults instead
of the first ``TypeError`` inside the factory. The wrapper keeps the signature, so that options can be listed. Ranges
(a share in [0, 1], an existing band) are checked by the factory.

Parsers of untrusted JSON and YAML, with limits on depth and size.

Hostile input makes the libraries fail in their own ways: libyaml recurses until the process dies, YAML aliases expand
exponentially, and numbers of thousands of digits, deep nesting and lone surrogates raise errors of many classes. These
functions raise one ``ValueError`` that quotes none of the text.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, ValidationError

from .errors import RecipeError, did_you_mean
from .faults import fault_text, with_numbers

DEEPEST = 64
"""Limit on nested lists and mappings; the deepest file of this package has 8."""
MOST_VALUES = 200_000
"""Limit on the values of a YAML text, aliases expanded."""
MOST_CHARACTERS = 4 << 20
"""Limit on the characters of a YAML text."""


def parse_json(content: bytes | str, *, large: bool = False) -> Any:
    """Value of a JSON text in UTF-8 with finite numbers. ``ValueError`` for all other input.

    Integers are below 2^64 in magnitude; with ``large`` they have up to 100 digits.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(
            text, parse_int=_large_integer if large else _integer, parse_float=_finite, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    if _is_deep(value):
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >> 64:
        raise ValueError("a number is too large")
    return int(text)


def _large_integer(text: str) -> int:
    if len(text) > 100:
        raise ValueError("a number is too large")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_deep(value: Any) -> bool:
    """Whether ``value`` is nested deeper than ``DEEPEST``, level by level without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [node for node in level if isinstance(node, dict | list)]
        if not containers:
            return False
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
    return True


def parse_yaml(content: bytes | str) -> Any:
    """Value of one YAML document in UTF-8. ``ValueError`` for all other input."""
    import yaml

    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    # libyaml, where PyYAML was built with it (its wheels are): ten times as fast, same values.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(_yaml_fault(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        message = str(error) if error.args and isinstance(error, _LimitExceeded) else "an invalid number or date"
        raise ValueError(message) from None
    # An explicit tag (!!timestamp, !!int) on a value of another kind raises any error of its constructor.
    except (ArithmeticError, AttributeError, LookupError, TypeError):
        raise ValueError("a value does not fit its tag") from None


class _LimitExceeded(ValueError):
    """A text beyond the limits of this module."""


def _check_events(events: Any) -> None:
    """Raise ``_LimitExceeded`` for documents that are too deep or too large to construct."""
    from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

    open_nodes: list[tuple[str | None, int]] = []  # anchor, number of values before the node
    sizes: dict[str | None, int] = {}
    count = 0
    for event in events:
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            sizes.pop(event.anchor, None)
            count += 1
            if len(open_nodes) > DEEPEST:
                raise _LimitExceeded(f"nested deeper than {DEEPEST} levels")
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, AliasEvent):
            if event.anchor not in sizes and any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _LimitExceeded("an alias inside its own anchor")
            count += sizes.get(event.anchor, 1)
        if count > MOST_VALUES:
            raise _LimitExceeded(f"more than {MOST_VALUES:,} values")


def _yaml_fault(error: Exception) -> str:
    """Message of the parser without its quotations from the text."""
    problem = re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(getattr(error, "problem", None) or "not YAML"))
    mark = getattr(error, "problem_mark", None)
    return problem if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def is_address(text: str) -> bool:
    """Whether ``text`` is the address of an HTTP server: a host, a valid port, no control characters.

    ``urlsplit`` ignores line breaks, which would corrupt a header or a request line.
    """
    try:
        address = urlsplit(text)
        host, _ = address.hostname, address.port
        (host or "").encode("idna")
    except ValueError:
        return False
    return address.scheme in ("http", "https") and bool(host) and text.isprintable() and " " not in text


Workers = Annotated[int, Field(description="Number of programs run in parallel; results do not depend on it.")]
CpuSeconds = Annotated[
    float | None,
    Field(description="CPU time limit of a program in seconds. Default: 3 in Python, 10 in other languages."),
]
Unsafe = Annotated[
    bool,
    Field(
        description="Run programs without a sandbox where none is available, with all permissions of the "
        "user. For trusted programs only."
    ),
]
BatchSize = Annotated[int | None, Field(description="Number of texts per batch. Default: chosen for the device.")]
"""Types of options that components of several packages share, with their descriptions."""

Params = ParamSpec("Params")
Component = TypeVar("Component")


def override(text: str, form: str = "KEY=VALUE", *, hint: str) -> tuple[list[str], Any]:
    """The keys and the YAML value of one ``--set KEY.KEY=VALUE``; raises ``RecipeError`` for any other text.

    ``form`` is the notation that the command documents.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"an override is written {form}", where="--set", given=text[:100], hint=hint)
    keys = key.strip().split(".")
    try:
        content = parse_yaml(value)
        if len(keys) > DEEPEST:
            raise ValueError(f"the key has more than {DEEPEST} parts")
    except ValueError as error:
        shown = f"{value[:59]}…" if len(value) > 60 else value
        raise RecipeError("the value is not YAML", where=f"--set {key[:100]}", given=f"{shown}: {error}") from error
    return keys, content


def option_names(factory: Callable[..., Any]) -> list[str]:
    """Options of ``factory``: its keyword-only parameters in order of definition."""
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def missing_options(factory: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Required options of ``factory`` that are missing from ``options``."""
    parameters = inspect.signature(factory).parameters
    required = [name for name in option_names(factory) if parameters[name].default is inspect.Parameter.empty]
    return [name for name in required if name not in options]


def strict(part: str) -> Callable[[Callable[Params, Component]], Callable[Params, Component]]:
    """Decorator that checks the options of a factory; ``part`` names it in errors ("the schedule 'hybrid'")."""

    def wrap(factory: Callable[Params, Component]) -> Callable[Params, Component]:
        @functools.cache  # to make an adapter takes far longer than to use it
        def adapter(name: str) -> TypeAdapter[Any]:
            return TypeAdapter(_annotations(part, factory).get(name, Any))

        @functools.wraps(factory)
        def checked(*args: Params.args, **options: Params.kwargs) -> Component:
            return factory(*args, **_fitting(part, factory, adapter, options))

        checked.checks_options = True  # type: ignore[attr-defined]
        return checked

    return wrap


def with_checked_options(part: str, factory: Callable[Params, Component]) -> Callable[Params, Component]:
    """``factory`` itself where ``strict`` has wrapped it already, else wrapped."""
    return factory if getattr(factory, "checks_options", False) else strict(part)(factory)


def _fitting(
    part: str, factory: Callable[..., Any], adapter: Callable[[str], TypeAdapter[Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options converted to the annotated types by their ``adapter``; ``RecipeError`` with all faults otherwise."""
    if not options:
        return {}
    names = option_names(factory)
    faults, hint, values = [], None, {}
    for name, value in options.items():
        if name not in names:
            faults.append(f"{part} has no option {name!r}")
            hint = hint or did_you_mean(name, names)
            continue
        try:
            values[name] = _converted(adapter(name), value)
        except ValidationError as error:
            faults.append(f"{name} {fault_text(error.errors()[0])} (given {value!r})")
    if faults:
        allowed = f"the options {', '.join(names)}" if names else "no options"
        where = None if faults[0].startswith(part) else part
        raise RecipeError("; ".join(faults), where=where, faults=faults, allowed=allowed, hint=hint)
    return values


def _converted(adapter: TypeAdapter[Any], value: Any) -> Any:
    """``value`` as the annotated type; numbers may be written as in ``faults.number``."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # The adapter's locations do not begin with a key, so the value is the content of one.
        errors = [{**entry, "loc": (0, *entry["loc"])} for entry in error.errors()]
        repaired = with_numbers([value], errors)
        if repaired is None:
            raise
    return adapter.validate_python(repaired[0])


def _annotations(part: str, factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of ``factory`` as types; ``RecipeError`` for a name that exists for type checkers only."""
    try:
        return get_type_hints(factory)
    except NameError as error:
        raise RecipeError(
            f"the annotations cannot be evaluated: {error}",
            where=part,
            hint="annotate a factory with names that exist at run time",
        ) from error
