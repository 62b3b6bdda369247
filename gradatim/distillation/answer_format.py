"""Answer formats: the form of programs as answers, the same for right answers, mutations and attempts.

A chat model replies with a fenced block of code. An answer in another form (a bare program) trains it to change that
form: on Qwen2.5-Coder-0.5B the end token after a bare program costs 9.8 nats, after a closed fence 0.01. Where the two
answers of a pair have different forms, a preference loss separates them by the form. So programs are extracted and then
wrapped in one format:

    fenced  the program in a fenced block of code, and nothing else
    reply   the whole reply as it was generated; a program without a reply is fenced
    code    the program alone

``format_answer`` puts right answers into the format of the recipe (``student.answer_format``), ``match_format`` a
rejected answer into that of its right answer. The output of a program, a completion of a prompt that begins a program,
and a text in a language that is not supported have no format and stay unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..languages.language import fenced, program_in
from ..languages.thinking import fenced_blocks, strip_thinking
from ..table.rows import asks_for_output
from .judge import form_of, language_of

if TYPE_CHECKING:
    from ..languages import Language
    from ..model.settings import AnswerFormat


def format_answer(prompt: str, text: str, language: str | None, answer_format: AnswerFormat) -> str | None:
    """``text``, a program or a reply with one, in ``answer_format``; None for a reply without a complete program."""
    named = _language(prompt, text, language)
    if named is None:
        return text
    program = program_in(named, text)
    if program is None or answer_format == "code":
        return program
    if answer_format == "reply" and fenced_blocks(reply := strip_thinking(text).strip()):
        return reply
    return fenced(named, program)


def format_of(prompt: str, answer: str, language: str | None) -> AnswerFormat | None:
    """The format of ``answer``; None for a text without one, such as words or the output of a program."""
    named = _language(prompt, answer, language)
    if named is None:
        return None
    blocks = fenced_blocks(answer)
    if not blocks:
        return "code" if named.parses(answer) is None else None
    lines = answer.strip().split("\n")
    only = len(blocks) == 1 and len(lines) == blocks[0].code.count("\n") + 2
    return "fenced" if only else "reply"


def match_format(prompt: str, answer: str, text: str, language: str | None) -> str | None:
    """``text`` in the format of ``answer``; None for a reply without a complete program."""
    answer_format = format_of(prompt, answer, language)
    return text if answer_format is None else format_answer(prompt, text, language, answer_format)


def _language(prompt: str, text: str, language: str | None) -> Language | None:
    """The language of a text that is a whole program or a reply with one; None for other texts."""
    named = language_of(language)
    if named is None or asks_for_output(prompt) or form_of(prompt, text, named) == "completion":
        return None
    return named
