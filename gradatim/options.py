"""Type checks of the options that recipes pass to components.

A component is a factory whose keyword-only parameters are its options, given as plain values from YAML. ``strict``
wraps a factory so that unknown options and values of the wrong type raise one ``RecipeError`` with all faults instead
of the first ``TypeError`` inside the factory. The wrapper keeps the signature, so that options can be listed. Ranges
(a share in [0, 1], an existing band) are checked by the factory.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from .errors import RecipeError, did_you_mean
from .parsing import DEEPEST, parse_yaml

__all__ = ["missing_options", "option_names", "override", "strict"]

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
        @functools.wraps(factory)
        def checked(*args: Params.args, **options: Params.kwargs) -> Component:
            return factory(*args, **_fitting(part, factory, options))

        return checked

    return wrap


def _fitting(part: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options converted to the annotated types; ``RecipeError`` with all faults otherwise."""
    if not options:
        return {}
    names, hints = option_names(factory), get_type_hints(factory)
    faults, hint, values = [], None, {}
    for name, value in options.items():
        if name not in names:
            faults.append(f"{part} has no option {name!r}")
            hint = hint or did_you_mean(name, names)
            continue
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            faults.append(f"{name}: {error.errors()[0]['msg']} (given {value!r})")
    if faults:
        allowed = f"the options {', '.join(names)}" if names else "no options"
        raise RecipeError("; ".join(faults), where=part, faults=faults, allowed=allowed, hint=hint)
    return values
