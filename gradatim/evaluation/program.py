"""The program that a sample makes of a problem.

A completion follows the prompt unchanged. Of a reply the code is extracted first (``languages``); a program that
defines the function of the prompt replaces it and keeps the text before it (imports, helpers), any other program
follows the prompt. In Python a later definition overrides, so such a program can follow the whole prompt; the other
languages allow one definition only, so only the text before the function is kept. Programs are assembled as text,
without being run, parsed or repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..languages import LANGUAGES, Language, Program
from ..sandbox.verdict import Verdict
from .problems import Problem
from .samples import Absence, Sample

__all__ = ["Candidate", "candidate_of", "fault_of", "program_of", "reference"]


_C_LIKE = (
    r"^[ \t]{0,40}+[\w:<>\[\],.?&* \t]{0,200}[ \t&*>\]](?!(?:if|for|while|switch|catch|return|else|new)\b)(\w{1,100})"
    r"[ \t]{0,9}\([^;{}()]{0,1000}\)[^;{}()=]{0,200}\{"
)
"""A function definition in C, C++ or Java. Every span is bounded, so that no text makes the search slow."""

LARGEST = 1 << 20
"""Most characters of a sample: a thousand times those of a solution, and fast for any parser."""


ABSENCES: dict[Absence, str] = {
    "missing": "there is no text: none of the fields completion, reply, solution",
    "null": "there is no text: the {form} is null",
    "not a string": "there is no text: the {form} is not a string",
    "more than one": "there is more than one of the fields completion, reply, solution",
}


@dataclass(frozen=True)
class Candidate:
    """A program: ``before`` is the problem's, and trusted, ``code`` is the model's."""

    before: str
    code: str


_HEADER = re.compile(
    r"^[ \t]{0,40}(?:#[ \t]*include|using\s+namespace|import|package)\b.*$|^.{0,200}\brequire\(.*$", re.MULTILINE
)
"""Header lines of a prompt, which a whole program may rely on."""


def candidate_of(problem: Problem, sample: Sample) -> Candidate | Verdict:
    """The program of a sample; a verdict ``invalid`` with the reason when there is none.

    A truncated completion is used unchanged; a reply whose last block of code is not closed is ``invalid``, because
    its code is incomplete.
    """
    fault = fault_of(sample)
    if fault is not None:
        return Verdict("invalid", fault)
    code, language = sample.text, LANGUAGES.get(problem.language)
    if sample.form == "reply":
        extracted = language.extract(code, problem.entry_point)
        if extracted.state == "incomplete":
            return Verdict("invalid", "the reply's last block of code is not closed")
        if extracted.state == "none" or not extracted.code.strip():
            return Verdict("invalid", "there is no code in the reply")
        code = extracted.code
    if problem.whole:
        return Candidate("", code)
    return Candidate(problem.prompt, code) if sample.form == "completion" else _after_prompt(problem, code, language)


def program_of(problem: Problem, candidate: Candidate) -> Program:
    """The whole program in a language other than Python, tests included."""
    language = LANGUAGES.get(problem.language)
    prompt = {"wanted": problem.prompt} if language.name in ("c", "cpp") and not problem.whole else {}
    return language.assemble(candidate.before, candidate.code, problem.tests, setup=problem.setup, **prompt)


def reference(problem: Problem) -> Sample | None:
    """The problem's reference solution as a sample, or None."""
    return Sample(problem.id, problem.reference) if problem.reference.strip() else None


def fault_of(sample: Sample) -> str | None:
    """Cause why a sample's text cannot be run, whatever the problem is; None for a usable one."""
    if sample.absence is not None:
        return ABSENCES[sample.absence].format(form=sample.form)
    if sample.finish == "too_long":
        return "no text was generated: the prompt is longer than the model's context"
    if sample.finish == "unknown_character":
        return "no text was generated: the prompt has a character outside the model's vocabulary"
    if len(sample.text) > LARGEST:
        return f"the {sample.form} has {len(sample.text):,} characters; at most {LARGEST:,} are allowed"
    if not sample.text.strip():
        return f"the {sample.form} is empty"
    try:
        sample.text.encode()
    except UnicodeEncodeError:
        return f"the {sample.form} is not Unicode: it has half of a surrogate pair"
    return None


def _after_prompt(problem: Problem, code: str, language: Language) -> Candidate:
    """Code from a reply, after the part of the prompt that it lacks."""
    prompt = problem.prompt
    if problem.language == "python":
        # An indented beginning is the body of the prompt's function.
        return Candidate(prompt, code if code[:1].isspace() and not language.defined(code) else f"\n{code}")
    functions, names = _definitions(language, prompt), {name for _, name in _definitions(language, code)}
    if not functions or functions[-1][1] not in names:
        return Candidate(prompt, code)
    header = "".join(f"{line}\n" for line in _HEADER.findall(prompt))
    before = prompt[: functions[-1][0]]
    if problem.language == "java":
        bare = re.search(r"\bclass\s+Solution\b", code) is None
        return Candidate(before, f"{code}\n}}\n") if bare else Candidate(header, code)
    return Candidate(header if names & {name for _, name in functions[:-1]} else before, code)


def _definitions(language: Language, text: str) -> list[tuple[int, str]]:
    """(position, name) of every function that ``text`` defines."""
    pattern = _C_LIKE if language.name in ("c", "cpp", "java") else language.definition
    matches = re.finditer(pattern, text, re.MULTILINE)
    return [(match.start(), next(name for name in match.groups() if name)) for match in matches]
