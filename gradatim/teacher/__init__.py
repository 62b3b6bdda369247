"""Teachers: sources of answers, rejected answers, new questions, grades and curricula.

    teacher      the two contracts: a ``Chat`` turns messages into text, a ``Teacher`` does the work of the loop
    oracle       the exact teacher of TinyPy: questions from the grammar, answers from the interpreter
    llm_teacher  a teacher on top of any chat, and two chats: an OpenAI-compatible endpoint, and scripted replies
    local        a chat: a Hugging Face model in this process
    prompts      the prompt files (prompts/*.md), the parsers of replies, and the estimate of requests and cost
    reply_store  a chat around another one that stores its replies, so that no reply is paid for twice

``TEACHERS`` holds factories of teachers by name. A teacher's output is not trusted: ``distillation`` verifies it where
that is possible.
"""

from __future__ import annotations

from collections.abc import Callable

from ..client.messages import Reply, Request
from ..lazy import lazy_names
from ..registry import Contract, Registry
from .teacher import Chat, Grade, Question, Teacher

__all__ = ["TEACHERS", "Chat", "Grade", "Question", "Reply", "Request", "Teacher"]

TEACHERS: Registry[Callable[..., Teacher]] = Registry(
    "teacher", contracts=(Contract(Teacher, ("facts", "answers", "faults", "questions", "seeds")),), arguments=0
)
TEACHERS.lazy("api", f"{__name__}.llm_teacher:api", "Any OpenAI-compatible endpoint, with rate limits and a budget")
TEACHERS.lazy("local", f"{__name__}.local:local", "A Hugging Face model in this process")
TEACHERS.lazy("oracle", f"{__name__}.oracle:oracle", "TinyPy: questions from the grammar, answers by running them")
TEACHERS.lazy("scripted", f"{__name__}.llm_teacher:scripted", "Replies written beforehand, for tests and documents")

__getattr__ = lazy_names(__name__)
