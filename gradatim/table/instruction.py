"""What do instruction data of other people's make mean as prompts and answers?

Two shapes are known, by name (``format: alpaca``, ``format: chat``) or by their columns when no mapping is given:

* *alpaca*: ``instruction``, ``input`` (may be empty or missing), ``output``. The prompt is the instruction and, a
  blank line below, the input.
* *chat*: ``messages``, a list of {role, content}, or ``conversations``, a list of {from, value} (human, gpt). The
  answer is the last message of the assistant, what is said before it is the prompt (``conversation``), what comes
  after it is left out.

Other columns (language, tests, category, …) pass through. A row that has not this shape is rejected with its cause,
like any row that ``read`` cannot use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .chunks import Chunk, Reject
from .conversation import prompt_of

__all__ = ["SHAPES", "converted", "shape_of"]

SHAPES = ("alpaca", "chat")

_MESSAGES = ("messages", "conversations")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}


def shape_of(columns: Mapping[str, Any]) -> str | None:
    """The shape that a file's own columns speak for; None when they speak for none, or have an answer already."""
    if "answer" in columns:
        return None
    if any(name in columns for name in _MESSAGES):
        return "chat"
    return "alpaca" if {"instruction", "output"} <= set(columns) else None


def converted(chunk: Chunk, shape: str, reject: Reject, where: str, *, first: bool = True) -> Chunk:
    """``chunk`` with columns ``prompt`` and ``answer`` in the place of the shape's own.

    Rows that have not the shape are given to ``reject`` and left out. ``DataError`` when the ``first`` chunk of a file
    has not the columns.
    """
    wanted = ("instruction", "output") if shape == "alpaca" else _MESSAGES
    there = [name for name in wanted if name in chunk.columns]
    # In JSON lines a key may be missing from a whole chunk; then its rows are rejected.
    if first and (not there or (shape == "alpaca" and len(there) < len(wanted))):
        raise DataError(
            f"these are no {shape} rows", where=where, given=", ".join(chunk.columns),
            allowed="instruction and output" if shape == "alpaca" else " or ".join(_MESSAGES),
        )  # fmt: skip
    own = ("instruction", "input", "output") if shape == "alpaca" else tuple(there[:1])
    columns = {name: _plain(chunk.columns[name]) for name in own if name in chunk.columns}
    read: Callable[[dict[str, Any]], tuple[str, str]] = _alpaca if shape == "alpaca" else _chat
    kept, pairs = [], []
    for row, number in enumerate(chunk.numbers):
        values = {name: column[row] for name, column in columns.items()}
        try:
            pairs.append(read(values))
            kept.append(row)
        except ValueError as error:
            reject(int(number), str(error), json.dumps(values, ensure_ascii=False, default=str))
    others = {name: _taken(column, kept) for name, column in chunk.columns.items() if name not in (*own, "prompt")}
    made = {"prompt": [prompt for prompt, _ in pairs], "answer": [answer for _, answer in pairs]}
    return Chunk([chunk.numbers[row] for row in kept], {**others, **made})


def _alpaca(row: dict[str, Any]) -> tuple[str, str]:
    instruction, given, output = (row.get(name) for name in ("instruction", "input", "output"))
    for name, value in (("instruction", instruction), ("output", output)):
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    if given is not None and not isinstance(given, str):
        raise ValueError("input is no text")
    return (f"{instruction}\n\n{given}" if given and given.strip() else str(instruction)), str(output)


def _chat(row: dict[str, Any]) -> tuple[str, str]:
    said = next(iter(row.values()), None)
    if not isinstance(said, list):
        raise ValueError("the conversation is no list of messages")
    messages = [_message(each) for each in said]
    answers = [place for place, (role, _) in enumerate(messages) if role == "assistant"]
    if not answers:
        raise ValueError("no message is the assistant's")
    return prompt_of(messages[: answers[-1]]), messages[answers[-1]][1]


def _message(each: Any) -> tuple[str, str]:
    if not isinstance(each, dict):
        raise ValueError("a message has no role")
    role, text = each.get("role", each.get("from")), each.get("content", each.get("value"))
    if not isinstance(role, str):
        raise ValueError("a message has no role")
    if not isinstance(text, str):
        raise ValueError("a message has no text")
    return _ROLES.get(role, role), text


def _plain(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list) else list(values.to_pylist())


def _taken(column: Any, rows: list[int]) -> Any:
    if len(rows) == len(column):
        return column
    return [column[row] for row in rows] if isinstance(column, list) else column.take(pa.array(rows, pa.int64()))
