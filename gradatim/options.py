"""Do the options a recipe gives fit the part they are meant for?

Recipes name parts and hand them plain options read from YAML. A part is a factory whose keyword-only parameters
are its options; ``strict`` wraps such a factory so that options it does not have and values of the wrong type are
told as one ``RecipeError`` that holds every fault, not as the first ``TypeError`` from somewhere inside. The
wrapper keeps the signature, so that options can be listed. What a value means (a share in [0, 1], a band that is
there) is checked by the factory itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_type_hints

from .errors import RecipeError, did_you_mean
from .parsing import DEEPEST, parse_yaml

__all__ = ["missing_options", "option_names", "override", "strict"]

Given = ParamSpec("Given")
Made = TypeVar("Made")


def override(text: str, form: str = "KEY=VALUE", *, hint: str) -> tuple[list[str], Any]:
    """The keys and the YAML value of one ``--set KEY.KEY=VALUE``; raises ``RecipeError`` for any other text.

    ``form`` is the notation that the command documents.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"an override is written {form}", where="--set", given=text, hint=hint)
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
    """The options of ``factory``: its keyword-only parameters, in the order they are written."""
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def missing_options(factory: Callable[..., Any], given: Mapping[str, Any]) -> list[str]:
    """The options that ``factory`` cannot do without and ``given`` lacks."""
    parameters = inspect.signature(factory).parameters
    needed = [name for name in option_names(factory) if parameters[name].default is inspect.Parameter.empty]
    return [name for name in needed if name not in given]


def strict(part: str) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Decorator: the factory of ``part`` ("the schedule 'hybrid'") refuses options that do not fit it."""

    def wrap(factory: Callable[Given, Made]) -> Callable[Given, Made]:
        @functools.wraps(factory)
        def checked(*args: Given.args, **options: Given.kwargs) -> Made:
            return factory(*args, **_fitting(part, factory, options))

        return checked

    return wrap


def _fitting(part: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their values as the annotations ask for; ``RecipeError`` with every fault otherwise."""
    if not options:
        return {}
    from pydantic import TypeAdapter, ValidationError

    known, hints = option_names(factory), get_type_hints(factory)
    faults, hint, values = [], None, {}
    for name, value in options.items():
        if name not in known:
            faults.append(f"{part} has no option {name!r}")
            hint = hint or did_you_mean(name, known)
            continue
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            faults.append(f"{name}: {error.errors()[0]['msg']} (given {value!r})")
    if faults:
        allowed = f"the options {', '.join(known)}" if known else "no options"
        raise RecipeError("; ".join(faults), where=part, faults=faults, allowed=allowed, hint=hint)
    return values
