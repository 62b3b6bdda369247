"""JSON and YAML from files that somebody else may have written.

Both parsers are fine with what people write and fail in odd ways on the rest: libyaml recurses until the process dies,
aliases in YAML multiply, numbers of thousands of digits, nested lists and half surrogates raise whatever lies beneath.
Here everything that is no value of a reasonable shape is one ``ValueError`` that repeats nothing of the text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import urlsplit

__all__ = ["DEEPEST", "is_address", "parse_json", "parse_yaml"]

DEEPEST = 64
"""Lists and mappings inside each other; the deepest file of this package has 8."""
MOST_VALUES = 200_000
"""Values in a YAML text, each alias counted as what it stands for."""
MOST_CHARACTERS = 4 << 20
"""Characters of a YAML text."""


def parse_json(content: bytes | str, *, large: bool = False) -> Any:
    """The value of a JSON text in UTF-8, its numbers finite. ``ValueError`` for everything else.

    Whole numbers lie below 2^64, or, where ``large`` ones are allowed, have up to 100 digits.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(
            text, parse_int=_large_integer if large else _integer, parse_float=_finite, parse_constant=_refused
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


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_deep(value: Any) -> bool:
    """Whether ``value`` is nested deeper than ``DEEPEST``; level by level, not recursively."""
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return False
        level = [value for each in containers for value in (each.values() if isinstance(each, dict) else each)]
    return True


def parse_yaml(content: bytes | str) -> Any:
    """The value of one YAML document, in UTF-8. ``ValueError`` for everything else."""
    import yaml

    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    # libyaml where PyYAML was built with it, as its wheels are: ten times as fast, to the same values.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(_yaml_fault(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        known = error.args and isinstance(error, _Refused)
        raise ValueError(str(error) if known else "a number or date that cannot be one") from None
    # An explicit tag (!!timestamp, !!int) on a value of another kind raises whatever its constructor stumbles over.
    except (ArithmeticError, AttributeError, LookupError, TypeError):
        raise ValueError("a value does not fit its tag") from None


class _Refused(ValueError):
    """A limit of this module is exceeded."""


def _check_events(events: Any) -> None:
    """Raise ``_Refused`` for what would take too much depth or memory to construct."""
    from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the values counted before the node
    sizes: dict[str | None, int] = {}
    count = 0
    for event in events:
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            sizes.pop(event.anchor, None)
            count += 1
            if len(open_nodes) > DEEPEST:
                raise _Refused(f"nested deeper than {DEEPEST} levels")
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
                raise _Refused("an alias stands inside what it repeats")
            count += sizes.get(event.anchor, 1)
        if count > MOST_VALUES:
            raise _Refused(f"more than {MOST_VALUES:,} values")


def _yaml_fault(error: Exception) -> str:
    """What the parser says, without the words of the text that it quotes."""
    problem = re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(getattr(error, "problem", None) or "not YAML"))
    mark = getattr(error, "problem_mark", None)
    return problem if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def is_address(text: str) -> bool:
    """Whether ``text`` is the address of an HTTP server: a host, a port that can be one, and no hidden characters.

    ``urlsplit`` passes over line ends, which a header or a request line would not survive.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and text.isprintable() and " " not in text
