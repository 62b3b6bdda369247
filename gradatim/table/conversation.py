"""How does a conversation of several messages fit into one prompt?

A sample's prompt is one text. When a conversation is a single question it is that question. When there is more, a
system message or earlier turns, the messages follow each other, each as one record separator (U+001E), its role, a
line break and its text. No text that people write has that character, so ``messages_of`` takes the prompt apart again
without a doubt, and whoever puts it before a model (``student.form``) can use that model's own template. Prompts are
still compared, hashed and stored as plain text.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MARK", "ROLES", "Message", "messages_of", "prompt_of"]

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
