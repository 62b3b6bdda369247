"""What do the messages of somebody else's conversation say, and which parts of them are no text?

A message is {role, content} or ShareGPT's {from, value}. ``developer`` is OpenAI's later name for ``system``; a
content may be a list of parts, whose texts are joined as chat templates join them. A ``ValueError`` gives the cause for
a row that no prompt and answer can hold: tool calls, tool definitions, images. The parts that are left out of a row
that is used otherwise go into ``remarks``, one sentence for each kind, so that the reader of the file can count the
rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .conversation import Message

__all__ = ["context", "conversation", "present"]

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
