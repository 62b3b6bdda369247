"""Who answers, errs, asks and grades?

    teacher    the two contracts: a ``Chat`` turns messages into text, a ``Teacher`` does what the loop needs
    oracle     TinyPy: the grammar asks, the interpreter answers; always right, free (kin: programs of a kind)
    language   a teacher made of any chat: prompts go out, replies are read strictly
    reading    what its replies say, read strictly
    prompt_files   the words it asks with (prompts/*.md), which a user can copy and replace
    api        a chat: any OpenAI-compatible endpoint, through ``client``, with rate limits and a budget
    account    what was spent before on the account of a run
    local      a chat: a Hugging Face model in this process
    scripted   a chat: replies written beforehand, for tests and documents
    cache      a chat around another: no received reply is ever paid for twice (store: where they lie)

``TEACHERS`` holds factories of teachers by name. Whether what a teacher says is true is not decided here: ``delivery``
and ``feedback`` prove what can be proved.
"""

from __future__ import annotations

from typing import Any

from ..registry import Registry
from .teacher import Chat, Grade, Question, Reply, Request, Teacher

__all__ = ["TEACHERS", "Chat", "Grade", "Question", "Reply", "Request", "Teacher"]

TEACHERS: Registry[Any] = Registry("teacher")
TEACHERS.lazy("api", f"{__name__}.api:api", "Any OpenAI-compatible endpoint, with rate limits and a budget")
TEACHERS.lazy("local", f"{__name__}.local:local", "A Hugging Face model in this process")
TEACHERS.lazy("oracle", f"{__name__}.oracle:oracle", "TinyPy: questions from the grammar, answers by running them")
TEACHERS.lazy("scripted", f"{__name__}.replay:scripted", "Replies written beforehand, for tests and documents")
