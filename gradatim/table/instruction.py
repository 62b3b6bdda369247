"""Conversations and instruction data as pairs of prompt and answer.

A prompt is one text: the question of a conversation with one question, otherwise the messages, each as a record
separator (U+001E), the role, a line break and the text. That character does not occur in text, so ``messages_of``
restores the messages and ``model.prompt_format`` can apply a model's chat template.

Shapes of rows, by name (``format: alpaca``) or, without a mapping, by their columns:

* *alpaca*: ``instruction``, ``input`` (optional), ``output``. The prompt is the instruction, a blank line, the input.
* *chat*: ``messages``, a list of {role, content}, or ShareGPT's ``conversations``, a list of {from, value}. The answer
  is the last message of the assistant, the prompt the messages before it; later messages are omitted. ``developer`` is
  ``system``; the texts of a content in parts are joined, as chat templates do.
* *pairs*: a column of ``PROMPTS`` and one of ``ANSWERS``, such as TRL's ``prompt`` and ``completion``, or ``prompt``,
  ``chosen`` and ``rejected``. Each is a text or a list of messages; without a prompt, ``chosen`` is a conversation.
* *text*: a column of ``TEXTS``, code or text to complete without a prompt.

In all shapes the columns of ``CONTEXT`` belong to the prompt: ``system`` and ``history`` precede the question. Tool
calls, tool definitions and images have no place in a prompt: such rows are rejected with the cause (``ValueError``).
Other columns are unchanged. Parts that are omitted from a usable row are counted in ``remarks``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .formats import Chunk, Reject

MARK = "\x1e"
ROLES = ("system", "user", "assistant")

Message = tuple[str, str]
"""Role and text."""


def prompt_of(messages: Sequence[Message]) -> str:
    """Prompt of the messages before an answer. ``ValueError`` with the cause for messages that cannot be one."""
    if not messages:
        raise ValueError("there is no message before the answer")
    for role, text in messages:
        if role not in ROLES:
            raise ValueError(f"a message has the unknown role {role!r}")
        if MARK in text:
            raise ValueError("a message has the character U+001E")
    if len(messages) == 1 and messages[0][0] == "user":
        return messages[0][1]
    return "".join(f"{MARK}{role}\n{text}" for role, text in messages)


def messages_of(prompt: str) -> list[Message]:
    """Inverse of ``prompt_of``; any other text is one message of the user."""
    if not prompt.startswith(MARK):
        return [("user", prompt)]
    messages = [message.partition("\n") for message in prompt[1:].split(MARK)]
    if any(role not in ROLES for role, _, _ in messages):
        return [("user", prompt)]
    return [(role, text) for role, _, text in messages]


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
_KEYS = frozenset(("role", "from", "content", "value", "weight"))
_EMPTY = ("", "[]", "{}", "null", "None")

LATER = "messages after the last answer are left out"


def present(value: Any) -> bool:
    """Whether an optional value is present and not empty, also as JSON text."""
    if isinstance(value, str):
        return value.strip() not in _EMPTY
    return value is not None and value is not False and value != [] and value != {}


def conversation(turns: Any, row: Mapping[str, Any], remarks: set[str]) -> tuple[list[Message], str]:
    """Messages before the answer, and the answer: the last message of the assistant with a weight other than 0.

    ``row``: the columns beside the conversation, see ``context``.
    """
    turns = _from_json(turns)
    if not isinstance(turns, list):
        raise ValueError("the conversation is no list of messages")
    messages = [_message(turn, remarks) for turn in turns]
    responses = [index for index, (role, _) in enumerate(messages) if role == "assistant"]
    answers = [index for index in responses if turns[index].get("weight") not in (0, False)]
    if not answers:
        raise ValueError("every answer has the weight 0" if responses else "no message is the assistant's")
    last = answers[-1]
    if last + 1 < len(messages):
        remarks.add(LATER)
    answer = messages[last][1]
    if answer is None:
        raise ValueError("the answer is null")
    return _with_first(_with_texts(messages[:last]), row), answer


def _with_first(messages: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """The messages after those of the columns of ``CONTEXT``."""
    first = context(row) if len(row) > 1 else []
    if not first:
        return messages
    if any(role != "system" for role, _ in first):
        raise ValueError("a row has both history and a conversation")
    if messages[:1] == first:
        return messages
    if messages and messages[0][0] == "system":
        raise ValueError("the column system and the first message are two system messages")
    return [*first, *messages]


def context(row: Mapping[str, Any]) -> list[Message]:
    """Messages of the columns ``system`` and ``history``; ``ValueError`` for tool definitions."""
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
    turns = _from_json(value)
    if not present(turns):
        return []
    if not isinstance(turns, list):
        raise ValueError("history is no list of turns")
    messages: list[Message] = []
    for turn in turns:
        if isinstance(turn, Mapping):
            messages += _with_texts([_message(turn, set())])
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
            messages += [("user", turn[0]), ("assistant", turn[1])]
        else:
            raise ValueError("a turn of history is no pair of question and answer")
    return messages


def _with_texts(messages: list[tuple[str, str | None]]) -> list[Message]:
    """The same messages; ``ValueError`` for one without a text."""
    if any(text is None for _, text in messages):
        raise ValueError("a message has no text")
    return [(role, text or "") for role, text in messages]


def _message(turn: Any, remarks: set[str]) -> tuple[str, str | None]:
    """Role and text of a message; None for a missing content."""
    if not isinstance(turn, Mapping):
        raise ValueError("a message has no role")
    role = turn["role"] if turn.get("role") is not None else turn.get("from")
    if not isinstance(role, str):
        raise ValueError("a message has no role")
    for name in sorted(turn.keys() - _KEYS):
        if present(turn[name]):
            if name in _CALLS:
                raise ValueError(f"a message has {name}, which no text can hold")
            remarks.add(f"the field {name!r} of messages is not read")
    content = turn["content"] if turn.get("content") is not None else turn.get("value")
    role = role.lower()
    return _ROLES.get(role, role), content if isinstance(content, str) else _text(content)


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    segments = [content] if isinstance(content, Mapping) else content
    if not isinstance(segments, list) or not segments:
        raise ValueError("a message has no text")
    return "".join(map(_segment_text, segments))


def _segment_text(part: Any) -> str:
    if not isinstance(part, Mapping):
        raise ValueError("a message has no text")
    kind, text = part.get("type", "text"), part.get("text")
    if kind not in _TEXTS:
        raise ValueError(f"a message has a part of the type {str(kind)[:40]!r}, which is no text")
    if not isinstance(text, str):
        raise ValueError("a message has no text")
    return text


def _from_json(value: Any) -> Any:
    """List in JSON text, as in CSV and some Parquet files; any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


SHAPES = ("alpaca", "chat")
"""Shapes that ``format`` can name; *pairs* and *text* are recognised by the columns alone."""
PROMPTS = ("prompt", "question", "instruction", "query", "problem", "input", "text")
ANSWERS = ("answer", "completion", "response", "chosen", "output", "solution", "code")
TEXTS = ("text", "content", "code", "completion")
"""Usual names of columns, the first present one counts."""
CONTEXT = ("system", "history", "tools", "functions")

MESSAGES = ("messages", "conversations")
"""Columns of conversations; a mapping names another one ``{messages: COLUMN}``."""
_ALPACA = ("instruction", "input", "output")
_FURTHER = ("input", "context", "system_prompt")
"""Columns of pairs that belong to the prompt: text after an instruction, and a system message."""

Pair = tuple[str, str] | tuple[str, str, str | None]
"""Prompt and answer, and the rejected answer if the shape has one."""
Pairing = Callable[[dict[str, Any], set[str]], Pair]


def shape_of(columns: Iterable[str]) -> str | None:
    """Shape of rows with these columns; None for other columns, and for ``answer`` with ``prompt`` or without one."""
    names = set(columns)
    prompt, answer = pair_columns(names)
    if "answer" in names and (prompt in ("prompt", None) or not names.isdisjoint(MESSAGES)):
        return None
    if {"chosen", "rejected"} <= names:
        return "pairs"
    if not names.isdisjoint(MESSAGES):
        return "chat"
    if {"instruction", "output"} <= names:
        return "alpaca"
    if prompt is not None and answer is not None:
        return "pairs"
    return None if names.isdisjoint(TEXTS) else "text"


def text_fields(names: Iterable[str]) -> tuple[str, ...]:
    """The fields among ``names`` that a row is read by; empty when it has no answer."""
    present_names = list(names)
    shape = shape_of(present_names)
    if shape == "pairs":
        return tuple(name for name in pair_columns(present_names) if name is not None)
    if shape == "alpaca":
        return ("instruction", "output")
    if shape is not None:
        return shape_columns([name for name in present_names if name not in CONTEXT], shape)
    return tuple(name for name in ("prompt", "answer") if name in present_names) if "answer" in present_names else ()


def conversation_columns(chunk: Chunk) -> list[str]:
    """Columns whose first value is a list of messages, under whatever name."""
    found = []
    for name, values in chunk.columns.items():
        first = _from_json(next((value for value in _plain(values) if value is not None), None))
        keys = first[0].keys() if isinstance(first, list) and first and isinstance(first[0], Mapping) else set()
        if {"role", "content"} <= keys or {"from", "value"} <= keys:
            found.append(name)
    return found


def pair_columns(columns: Iterable[str]) -> tuple[str | None, str | None]:
    """The first columns of ``PROMPTS`` and of ``ANSWERS``, None where there is none."""
    names = set(columns)
    prompt, answer = (next((name for name in usual if name in names), None) for usual in (PROMPTS, ANSWERS))
    return prompt, answer


def shape_columns(columns: Iterable[str], shape: str) -> tuple[str, ...]:
    """Columns of the shape, of those in ``columns``."""
    present_columns = tuple(columns)
    if shape == "pairs":
        names = (*(name for name in pair_columns(present_columns) if name), "rejected", *_FURTHER)
    elif shape == "text":
        names = tuple(name for name in TEXTS if name in present_columns)[:1]
    else:
        names = _ALPACA if shape == "alpaca" else tuple(name for name in MESSAGES if name in present_columns)[:1]
    return tuple(dict.fromkeys(name for name in (*names, *CONTEXT) if name in present_columns))


def convert(
    chunk: Chunk, shape: str, reject: Reject, where: str, *, remarks: Counter[str] | None = None, first: bool = True
) -> Chunk:
    """``chunk`` with columns ``prompt`` and ``answer``, and of pairs ``rejected``, instead of the shape's.

    Rows of another shape are passed to ``reject`` and omitted; ``remarks`` counts rows of which a part is omitted.
    ``DataError`` when the ``first`` chunk of a file lacks the columns.
    """
    required = ("instruction", "output") if shape == "alpaca" else MESSAGES
    present_names = [name for name in required if name in chunk.columns]
    # In JSON lines a key may be missing from a whole chunk; then its rows are rejected.
    named = shape in SHAPES  # the others are recognised by the columns of the first chunk
    if first and named and (not present_names or (shape == "alpaca" and len(present_names) < len(required))):
        raise DataError(
            f"these are no {shape} rows", where=where, given=", ".join(chunk.columns),
            allowed="instruction and output" if shape == "alpaca" else " or ".join(MESSAGES),
        )  # fmt: skip
    sources = shape_columns(chunk.columns, shape)
    columns = {name: _plain(chunk.columns[name]) for name in sources}
    rows, pairs = _pairs(chunk, columns, _PAIRINGS[shape], reject, remarks)
    extra = {name: _take(column, rows) for name, column in chunk.columns.items() if name not in (*sources, "prompt")}
    texts: dict[str, list[Any]] = {"prompt": [pair[0] for pair in pairs], "answer": [pair[1] for pair in pairs]}
    if "rejected" in sources:
        texts["rejected"] = [pair[2] if len(pair) == 3 else None for pair in pairs]
    return Chunk([chunk.numbers[row] for row in rows], {**extra, **texts}, chunk.untyped)


def with_context(chunk: Chunk, names: Mapping[str, str], prompt: str, reject: Reject) -> Chunk:
    """``chunk`` with the content of the columns of ``CONTEXT`` at the beginning of the questions.

    ``names``: ours -> theirs for the columns of ``CONTEXT`` in the file; ``prompt``: the file's column of questions,
    created if missing.
    """
    columns = {ours: _plain(chunk.columns[theirs]) for ours, theirs in names.items()}
    if prompt in chunk.columns and not any(present(value) for column in columns.values() for value in column):
        return chunk
    texts = _plain(chunk.columns.get(prompt, [""] * len(chunk.numbers)))
    columns["prompt"] = ["" if text is None else text for text in texts] if chunk.untyped else texts
    rows, pairs = _pairs(chunk, columns, _question, reject, None)
    extra = {name: _take(column, rows) for name, column in chunk.columns.items() if name not in names.values()}
    questions = {prompt: [pair[0] for pair in pairs]}
    return Chunk([chunk.numbers[row] for row in rows], {**extra, **questions}, chunk.untyped)


def _pairs(
    chunk: Chunk, columns: Mapping[str, list[Any]], pairing: Pairing, reject: Reject, remarks: Counter[str] | None
) -> tuple[list[int], list[Pair]]:
    """Rows that ``pairing`` converts, and their pairs."""
    rows, pairs = [], []
    for row, number in enumerate(chunk.numbers):
        values = {name: column[row] for name, column in columns.items()}
        omissions: set[str] = set()
        try:
            pairs.append(pairing(values, omissions))
        except ValueError as error:
            reject(int(number), str(error), json.dumps(values, ensure_ascii=False, default=str))
            continue
        rows.append(row)
        if remarks is not None:
            remarks.update(omissions)
    return rows, pairs


def _alpaca(row: dict[str, Any], remarks: set[str]) -> Pair:
    instruction, context_text, output = (row.get(name) for name in _ALPACA)
    if output is None:
        raise ValueError("the answer is null")
    for name, value in (("instruction", instruction), ("output", output)):
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    if context_text is not None and not isinstance(context_text, str):
        raise ValueError("input is no text")
    question = f"{instruction}\n\n{context_text}" if context_text and context_text.strip() else str(instruction)
    return prompt_of([*context(row), ("user", question)]), output


def _chat(row: dict[str, Any], remarks: set[str]) -> Pair:
    turns = next((row[name] for name in MESSAGES if name in row), None)
    messages, answer = conversation(turns, row, remarks)
    return prompt_of(messages), answer


def _text_alone(row: dict[str, Any], remarks: set[str]) -> Pair:
    answer = next((row[name] for name in TEXTS if name in row), None)
    if answer is None:
        raise ValueError("the answer is null")
    if not isinstance(answer, str):
        raise ValueError("the text is no text")
    messages = context(row)
    return (prompt_of(messages) if messages else ""), answer


def _pair(row: dict[str, Any], remarks: set[str]) -> Pair:
    """Prompt, answer and rejected answer of a row of *pairs*; each is a text or a list of messages."""
    prompt_name, answer_name = pair_columns(row)
    if answer_name is None or row[answer_name] is None:
        raise ValueError("the answer is null")
    row = {**row, "system": _system(row)}
    rejected = _answer_text(row.get("rejected"), remarks)
    if prompt_name is None:
        if not isinstance(_from_json(row[answer_name]), list):
            raise ValueError("there is no prompt")
        messages, answer = conversation(row[answer_name], row, remarks)
        return prompt_of(messages), answer, rejected
    answer_text = _answer_text(row[answer_name], remarks)
    if answer_text is None:
        raise ValueError("the answer is null")
    prompt = _from_json(row[prompt_name])
    if isinstance(prompt, list):
        turns = _with_first(_with_texts([_message(turn, remarks) for turn in prompt]), row)
        return prompt_of(turns), answer_text, rejected
    if not isinstance(prompt, str):
        raise ValueError("the prompt is null" if prompt is None else f"{prompt_name} is no text")
    further = next((row[name] for name in _FURTHER[:2] if name in row and name != prompt_name), None)
    if prompt_name == "instruction" and isinstance(further, str) and further.strip():
        prompt = f"{prompt}\n\n{further}"
    return prompt_of([*context(row), ("user", prompt)]), answer_text, rejected


def _system(row: Mapping[str, Any]) -> Any:
    """The system message of a row, from the column ``system`` or ``system_prompt``."""
    return row.get("system") if present(row.get("system")) else row.get("system_prompt")


def _answer_text(value: Any, remarks: set[str]) -> str | None:
    """An answer that is a text or a list of messages, whose last one of the assistant it is; None when missing."""
    turns = _from_json(value)
    if turns is None or isinstance(turns, str):
        return value if isinstance(value, str) else None
    return conversation(turns, {}, remarks)[1]


_PAIRINGS: Mapping[str, Pairing] = {"alpaca": _alpaca, "chat": _chat, "pairs": _pair, "text": _text_alone}


def _question(row: dict[str, Any], remarks: set[str]) -> Pair:
    """Prompt of a row with its context and question; a question that is no text is rejected later, in ``fit``."""
    messages, question = context(row), row["prompt"]
    if not messages or not isinstance(question, str):
        return question, ""
    return prompt_of([*messages, ("user", question)] if question else messages), ""


def _plain(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list) else list(values.to_pylist())


def _take(column: Any, rows: list[int]) -> Any:
    if len(rows) == len(column):
        return column
    return [column[row] for row in rows] if isinstance(column, list) else column.take(pa.array(rows, pa.int64()))
