"""Chat templates whose generation prompt opens a block of thinking (``<think>``).

Such a template has every reply begin inside the block. A taught answer there would teach the model to think the answer
and say nothing, so ``closing`` is what closes the block empty: answers are taught, and compared, behind it. A model of
others that is asked to write keeps the open block and thinks; ``opening`` is what its reply lacks to be read alone.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["closing", "opening", "opens_thinking"]

_OPEN = re.compile(r"(?:<(?P<tag>think|thinking|thought|reasoning)>|\[(?P<bracket>THINK)\])\s*\Z")


def opening(prompt: str) -> str:
    """The tag that a rendered prompt leaves open at its end; empty where there is none."""
    found = _OPEN.search(prompt[-200:])
    return "" if found is None else found[0].strip()


def closing(prompt: str) -> str:
    """What makes the open block of a rendered prompt an empty one, as templates write it that do not think."""
    tag = opening(prompt)
    if not tag:
        return ""
    newlines = "\n" * max(0, 2 - (len(prompt) - len(prompt.rstrip("\n"))))
    return f"{newlines}{tag[0]}/{tag[1:]}\n\n"


def opens_thinking(tokenizer: Any) -> str:
    """The tag that the chat template of ``tokenizer`` leaves open; empty without one, or without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    messages = [{"role": "user", "content": "question"}]
    try:
        return opening(str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))
    except Exception:  # a template that refuses this conversation is reported when it refuses the user's
        return ""
