"""Is what a student wrote the rest of a program, or a reply with a program in it?

A table knows only prompts and what follows them. ``form_of`` tells by the texts: an attempt with a fence of backticks
is a *reply*. Without one it is a *solution*, a whole program, when it parses alone and the prompt is in words, or
begins a function that the attempt defines; a *completion* when the prompt is the beginning of a program; and otherwise
a reply whose code stands bare between words.

A prompt begins a program when it has no fence, its first line looks like code or a comment, and one of its lines can
only be code (``Language.openers``). An attempt after ``# output`` is what a program prints and no program at all
(``asks_for_output``). Nothing is cut or repaired here; ``evaluate.candidate`` puts programs together.
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
    """The language that a sample names, Python when it names none; None for one that is not known."""
    try:
        return named(name or "python")
    except UnknownPart:
        return None


def asks_for_output(prompt: str) -> bool:
    """Whether the answer is what a program prints (TinyPy)."""
    return prompt.rstrip("\n").endswith(f"\n{OUTPUT_LINE}")


def begins_program(prompt: str, language: Language) -> bool:
    """Whether ``prompt`` is the beginning of a program, and not words about one."""
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not lines or _FENCE.search(prompt):
        return False
    opener = re.compile(language.openers)
    return bool(opener.match(lines[0]) or _COMMENT.match(lines[0])) and any(opener.match(line) for line in lines)


def form_of(prompt: str, attempt: str, language: Language) -> Form:
    """``reply``, ``solution`` or ``completion``; see the module."""
    if _FENCE.search(attempt) or strip_thinking(attempt) != attempt:
        return "reply"
    whole = not unusable(attempt) and language.parses(attempt) is None
    if not begins_program(prompt, language):
        return "solution" if whole else "reply"
    asked = language.defined(prompt)[-1:]
    return "solution" if whole and set(asked) & set(language.defined(attempt)) else "completion"


def program_text(prompt: str, attempt: str, language: Language) -> str:
    """What the tools of a language look at: a reply as it is, a program in a fence of our own."""
    form = form_of(prompt, attempt, language)
    if form == "reply":
        return attempt
    code = attempt if form == "solution" else prompt + attempt
    fence = "~" * (3 + max((len(found) for found in re.findall(r"~+", code)), default=0))
    return f"{fence}{language.name}\n{code}\n{fence}\n"
