"""Kind of a completion: the rest of a program, a whole program, or a reply that contains code.

``form_of`` decides by the texts alone. A completion with a fence of backticks is a *reply*. Without one it is a
*solution*, a whole program, when it parses alone and the prompt is in words, or begins a function that the completion
defines; a *completion* when the prompt is the beginning of a program; and otherwise a reply with bare code between
words.

A prompt begins a program when it has no fence, its first line looks like code or a comment, and one of its lines is
certainly code (``Language.openers``). A completion after ``# output`` is a program's output (``asks_for_output``).
Texts are not changed here; ``evaluation.program`` assembles programs.
"""

from __future__ import annotations

import re

from ..difficulty.python_source import OUTPUT_LINE
from ..errors import UnknownPart
from ..evaluation.samples import Form
from ..languages import Language, named
from ..languages.language import unusable
from ..languages.thinking import strip_thinking

__all__ = ["asks_for_output", "begins_program", "form_of", "language_of", "program_text"]


_FENCE = re.compile(r"^[ \t]*`{3,}", re.MULTILINE)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\"\"\"|''')")


def language_of(name: str | None) -> Language | None:
    """The language of a sample, Python by default; None for an unsupported one."""
    try:
        return named(name or "python")
    except UnknownPart:
        return None


def asks_for_output(prompt: str) -> bool:
    """Whether the answer is the output of a program (TinyPy)."""
    return prompt.rstrip("\n").endswith(f"\n{OUTPUT_LINE}")


def begins_program(prompt: str, language: Language) -> bool:
    """Whether ``prompt`` is the beginning of a program rather than a description of one."""
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not lines or _FENCE.search(prompt):
        return False
    opener = re.compile(language.openers)
    return bool(opener.match(lines[0]) or _COMMENT.match(lines[0])) and any(opener.match(line) for line in lines)


def form_of(prompt: str, attempt: str, language: Language) -> Form:
    """``reply``, ``solution`` or ``completion``; see the module docstring."""
    if _FENCE.search(attempt) or strip_thinking(attempt) != attempt:
        return "reply"
    parses = not unusable(attempt) and language.parses(attempt) is None
    if not begins_program(prompt, language):
        return "solution" if parses else "reply"
    function = language.defined(prompt)[-1:]
    return "solution" if parses and set(function) & set(language.defined(attempt)) else "completion"


def program_text(prompt: str, attempt: str, language: Language) -> str:
    """Input for the tools of a language: a reply unchanged, a program in a fence."""
    form = form_of(prompt, attempt, language)
    if form == "reply":
        return attempt
    code = attempt if form == "solution" else prompt + attempt
    fence = "~" * (3 + max((len(tildes) for tildes in re.findall(r"~+", code)), default=0))
    return f"{fence}{language.name}\n{code}\n{fence}\n"
