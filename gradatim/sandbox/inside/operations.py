"""Named functions that one side may apply to an object of the other."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

__all__ = ["COMPARISONS", "FUNCTIONS", "OPERATORS", "READ_OPERATIONS", "UNARY"]

COMPARISONS = ("lt", "le", "gt", "ge")
OPERATORS = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
)
UNARY = ("neg", "pos", "invert")


def _leave(manager: Any, error: BaseException | None) -> bool:
    kind = None if error is None else type(error)
    return bool(type(manager).__exit__(manager, kind, error, None))


READ_OPERATIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
    "repr": repr,
    "format": format,
    "bool": bool,
    "hash": hash,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "contains": operator.contains,
    "eq": operator.eq,
    "ne": operator.ne,
    **{name: getattr(operator, name) for name in COMPARISONS},
}
"""Functions that the program may apply to an object of the tests."""

FUNCTIONS: dict[str, Callable[..., Any]] = READ_OPERATIONS | {
    "delitem": operator.delitem,
    "abs": abs,
    "round": round,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "divmod": divmod,
    "isinstance": isinstance,
    "issubclass": issubclass,
    "enter": lambda manager: type(manager).__enter__(manager),
    "leave": _leave,
    **{name: getattr(operator, name) for name in (*OPERATORS, *UNARY)},
    **{f"i{name.rstrip('_')}": getattr(operator, f"i{name.rstrip('_')}") for name in OPERATORS},
}
"""Functions that the tests may apply to an object of the program."""
