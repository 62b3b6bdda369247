"""How does a conversation of several messages fit into one prompt?

A sample's prompt is one text. When a conversation is a single question it is that question. When there is more, a
system message or earlier turns, the messages follow each other, each as one record separator (U+001E), its role, a
line break and its text. No text that people write has that character, so ``messages_of`` takes the prompt apart again
without a doubt, and whoever puts it before a model (``student.form``) can use that model's own template. Prompts are
still compared, hashed and stored as plain text.

What do the messages of somebody else's conversation say, and which parts of them are no text?

A message is {role, content} or ShareGPT's {from, value}. ``developer`` is OpenAI's later name for ``system``; a
content may be a list of parts, whose texts are joined as chat templates join them. A ``ValueError`` gives the cause for
a row that no prompt and answer can hold: tool calls, tool definitions, images. The parts that are left out of a row
that is used otherwise go into ``remarks``, one sentence for each kind, so that the reader of the file can count the
rows.

What do instruction data of other people's make mean as prompts and answers?

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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .formats import Chunk, Reject

__all__ = [
    "CONTEXT",
    "MARK",
    "ROLES",
    "SHAPES",
    "Message",
    "context",
    "conversation",
    "converted",
    "messages_of",
    "own_columns",
    "present",
    "prompt_of",
    "shape_of",
    "with_context",
]


MARK = "\x1e"
ROLES = ("system", "user", "assistant")

Message = tuple[str, str]
"""Role and text."""


def prompt_of(messages: Sequence[Message]) -> str:
    """The messages before an answer as one prompt. ``ValueError`` says why they cannot be one."""
    if not messages:
        raise ValueError("nothing is asked before the answer")
    for role, text in messages:
        if role not in ROLES:
            raise ValueError(f"a message has the unknown role {role!r}")
        if MARK in text:
            raise ValueError("a message has the character U+001E")
    if len(messages) == 1 and messages[0][0] == "user":
        return messages[0][1]
    return "".join(f"{MARK}{role}\n{text}" for role, text in messages)


def messages_of(prompt: str) -> list[Message]:
    """What ``prompt_of`` made a prompt of; any other text is one message of the user."""
    if not prompt.startswith(MARK):
        return [("user", prompt)]
    parts = [part.partition("\n") for part in prompt[1:].split(MARK)]
    if any(role not in ROLES for role, _, _ in parts):
        return [("user", prompt)]
    return [(role, text) for role, _, text in parts]


_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "developer": "system",
}
_TEXTS = ("text", "input_text", "output_text")
_CALLS = ("tool_calls", "function_call", "tool_call_id")
_READ = frozenset(("role", "from", "content", "value", "weight"))
_EMPTY = ("", "[]", "{}", "null", "None")

LATER = "messages after the last answer are left out"


def present(value: Any) -> bool:
    """Whether a value that may be missing says anything; JSON that is kept as text counts as what it says."""
    if isinstance(value, str):
        return value.strip() not in _EMPTY
    return value is not None and value is not False and value != [] and value != {}


def conversation(said: Any, row: Mapping[str, Any], remarks: set[str]) -> tuple[list[Message], str]:
    """The messages before the answer, and the answer: the last message of the assistant that has any weight.

    ``row``: the columns beside the conversation, see ``context``.
    """
    said = _decoded(said)
    if not isinstance(said, list):
        raise ValueError("the conversation is no list of messages")
    messages = [_message(each, remarks) for each in said]
    own = [place for place, (role, _) in enumerate(messages) if role == "assistant"]
    answers = [place for place in own if said[place].get("weight") not in (0, False)]
    if not answers:
        raise ValueError("every answer has the weight 0" if own else "no message is the assistant's")
    last = answers[-1]
    if last + 1 < len(messages):
        remarks.add(LATER)
    answer = messages[last][1]
    if answer is None:
        raise ValueError("the answer is null")
    return _before(_whole(messages[:last]), row), answer


def _before(messages: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """The messages with what stands in columns of their own before them."""
    first = context(row) if len(row) > 1 else []
    if not first:
        return messages
    if any(role != "system" for role, _ in first):
        raise ValueError("history stands beside a whole conversation")
    if messages[:1] == first:
        return messages
    if messages and messages[0][0] == "system":
        raise ValueError("the column system and the first message are two system messages")
    return [*first, *messages]


def context(row: Mapping[str, Any]) -> list[Message]:
    """What the columns ``system`` and ``history`` say before a question; tool definitions are refused."""
    for name in ("tools", "functions"):
        if present(row.get(name)):
            raise ValueError(f"the row defines {name}, which a prompt cannot hold")
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise ValueError("system is no text")
    first: list[Message] = [("system", system)] if system and system.strip() else []
    return [*first, *_history(row.get("history"))]


def _history(value: Any) -> list[Message]:
    """Earlier turns: pairs of a question and its answer, or messages."""
    turns = _decoded(value)
    if not present(turns):
        return []
    if not isinstance(turns, list):
        raise ValueError("history is no list of turns")
    messages: list[Message] = []
    for turn in turns:
        if isinstance(turn, Mapping):
            messages += _whole([_message(turn, set())])
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
            messages += [("user", turn[0]), ("assistant", turn[1])]
        else:
            raise ValueError("a turn of history is no pair of question and answer")
    return messages


def _whole(messages: list[tuple[str, str | None]]) -> list[Message]:
    """The same messages where each has a text."""
    if any(text is None for _, text in messages):
        raise ValueError("a message has no text")
    return [(role, text or "") for role, text in messages]


def _message(each: Any, remarks: set[str]) -> tuple[str, str | None]:
    """Role and text of one message; None when it has no content."""
    if not isinstance(each, Mapping):
        raise ValueError("a message has no role")
    role = each["role"] if each.get("role") is not None else each.get("from")
    if not isinstance(role, str):
        raise ValueError("a message has no role")
    for name in sorted(each.keys() - _READ):
        if present(each[name]):
            if name in _CALLS:
                raise ValueError(f"a message has {name}, which no text can hold")
            remarks.add(f"the field {name!r} of messages is not read")
    content = each["content"] if each.get("content") is not None else each.get("value")
    role = role.lower()
    return _ROLES.get(role, role), content if isinstance(content, str) else _text(content)


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list) or not parts:
        raise ValueError("a message has no text")
    return "".join(map(_part, parts))


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        raise ValueError("a message has no text")
    kind, text = part.get("type", "text"), part.get("text")
    if kind not in _TEXTS:
        raise ValueError(f"a message has a part of the type {str(kind)[:40]!r}, which is no text")
    if not isinstance(text, str):
        raise ValueError("a message has no text")
    return text


def _decoded(value: Any) -> Any:
    """A list that is kept as JSON text, as CSV and some Parquet files have it; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


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
