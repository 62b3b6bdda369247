"""What do instruction data of other people's make mean as prompts and answers?

Two shapes are known, by name (``format: alpaca``, ``format: chat``) or by their columns when no mapping is given:

* *alpaca*: ``instruction``, ``input`` (may be empty or missing), ``output``. The prompt is the instruction and, a
  blank line below, the input.
* *chat*: ``messages``, a list of {role, content}, or ``conversations``, a list of {from, value} (human, gpt). The
  answer is the last message of the assistant, what is said before it is the prompt (``conversation``), what comes
  after it is left out.

In both, and beside columns ``prompt`` and ``answer``, the columns of ``CONTEXT`` belong to the prompt: a ``system``
message and a ``history`` of earlier turns stand before the question; a row with ``tools`` or ``functions`` is rejected,
since no prompt holds them. Other columns (language, tests, category, …) pass through. A row that has not this shape is
rejected with its cause, like any row that ``read`` cannot use.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .conversation import prompt_of
from .messages import context, conversation, present
from .opened import Chunk, Reject

__all__ = ["CONTEXT", "SHAPES", "converted", "own_columns", "shape_of", "with_context"]

SHAPES = ("alpaca", "chat")
CONTEXT = ("system", "history", "tools", "functions")

_MESSAGES = ("messages", "conversations")
_ALPACA = ("instruction", "input", "output")

Pair = tuple[str, str]
Pairing = Callable[[dict[str, Any], set[str]], Pair]


def shape_of(columns: Mapping[str, Any]) -> str | None:
    """The shape that a file's own columns speak for; None when they speak for none, or have an answer already."""
    if "answer" in columns:
        return None
    if any(name in columns for name in _MESSAGES):
        return "chat"
    return "alpaca" if {"instruction", "output"} <= set(columns) else None


def own_columns(columns: Mapping[str, Any], shape: str) -> tuple[str, ...]:
    """The columns that a shape reads, of those that are there."""
    own = _ALPACA if shape == "alpaca" else tuple(name for name in _MESSAGES if name in columns)[:1]
    return tuple(name for name in (*own, *CONTEXT) if name in columns)


def converted(
    chunk: Chunk, shape: str, reject: Reject, where: str, *, remarks: Counter[str] | None = None, first: bool = True
) -> Chunk:
    """``chunk`` with columns ``prompt`` and ``answer`` in the place of the shape's own.

    Rows that have not the shape are given to ``reject`` and left out; ``remarks`` counts the rows of which a part is
    left out. ``DataError`` when the ``first`` chunk of a file has not the columns.
    """
    wanted = ("instruction", "output") if shape == "alpaca" else _MESSAGES
    there = [name for name in wanted if name in chunk.columns]
    # In JSON lines a key may be missing from a whole chunk; then its rows are rejected.
    if first and (not there or (shape == "alpaca" and len(there) < len(wanted))):
        raise DataError(
            f"these are no {shape} rows", where=where, given=", ".join(chunk.columns),
            allowed="instruction and output" if shape == "alpaca" else " or ".join(_MESSAGES),
        )  # fmt: skip
    own = own_columns(chunk.columns, shape)
    columns = {name: _plain(chunk.columns[name]) for name in own}
    kept, pairs = _pairs(chunk, columns, _alpaca if shape == "alpaca" else _chat, reject, remarks)
    others = {name: _taken(column, kept) for name, column in chunk.columns.items() if name not in (*own, "prompt")}
    made = {"prompt": [prompt for prompt, _ in pairs], "answer": [answer for _, answer in pairs]}
    return Chunk([chunk.numbers[row] for row in kept], {**others, **made}, chunk.untyped)


def with_context(chunk: Chunk, names: Mapping[str, str], prompt: str, reject: Reject) -> Chunk:
    """``chunk`` with questions that begin with what the columns of ``CONTEXT`` say.

    ``names``: ours -> theirs, of the columns of ``CONTEXT`` that are there; ``prompt``: the file's column of questions,
    which is made where it is missing.
    """
    columns = {ours: _plain(chunk.columns[theirs]) for ours, theirs in names.items()}
    if prompt in chunk.columns and not any(present(value) for column in columns.values() for value in column):
        return chunk
    asked = _plain(chunk.columns.get(prompt, [""] * len(chunk.numbers)))
    columns["prompt"] = ["" if text is None else text for text in asked] if chunk.untyped else asked
    kept, pairs = _pairs(chunk, columns, _question, reject, None)
    others = {name: _taken(column, kept) for name, column in chunk.columns.items() if name not in names.values()}
    questions = {prompt: [question for question, _ in pairs]}
    return Chunk([chunk.numbers[row] for row in kept], {**others, **questions}, chunk.untyped)


def _pairs(
    chunk: Chunk, columns: Mapping[str, list[Any]], read: Pairing, reject: Reject, remarks: Counter[str] | None
) -> tuple[list[int], list[Pair]]:
    """The rows that ``read`` makes a pair of, and those pairs."""
    kept, pairs = [], []
    for row, number in enumerate(chunk.numbers):
        values = {name: column[row] for name, column in columns.items()}
        left_out: set[str] = set()
        try:
            pairs.append(read(values, left_out))
        except ValueError as error:
            reject(int(number), str(error), json.dumps(values, ensure_ascii=False, default=str))
            continue
        kept.append(row)
        if remarks is not None:
            remarks.update(left_out)
    return kept, pairs


def _alpaca(row: dict[str, Any], remarks: set[str]) -> Pair:
    instruction, given, output = (row.get(name) for name in _ALPACA)
    if output is None:
        raise ValueError("the answer is null")
    for name, value in (("instruction", instruction), ("output", output)):
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    if given is not None and not isinstance(given, str):
        raise ValueError("input is no text")
    question = f"{instruction}\n\n{given}" if given and given.strip() else str(instruction)
    return prompt_of([*context(row), ("user", question)]), output


def _chat(row: dict[str, Any], remarks: set[str]) -> Pair:
    said = next((row[name] for name in _MESSAGES if name in row), None)
    messages, answer = conversation(said, row, remarks)
    return prompt_of(messages), answer


def _question(row: dict[str, Any], remarks: set[str]) -> Pair:
    """The prompt of a row with a question of its own; one that is no text stays, and is rejected where it is fitted."""
    before, question = context(row), row["prompt"]
    if not before or not isinstance(question, str):
        return question, ""
    return prompt_of([*before, ("user", question)] if question else before), ""


def _plain(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list) else list(values.to_pylist())


def _taken(column: Any, rows: list[int]) -> Any:
    if len(rows) == len(column):
        return column
    return [column[row] for row in rows] if isinstance(column, list) else column.take(pa.array(rows, pa.int64()))
