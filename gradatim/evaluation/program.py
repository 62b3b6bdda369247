"""Which program does a sample make of a problem?

A completion follows the prompt as it is. A reply is searched for its code first (``languages``); a program that
defines what the prompt asks for replaces the prompt's last function and keeps what stands before it (imports,
helpers), one that does not is what follows the prompt. In Python a later definition wins, so such a program can stand
after the whole prompt; in the other languages nothing may be defined twice, so only the part before the function is
kept. Programs are put together as text: nothing here runs, parses or repairs one.
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
"""Where C, C++ and Java define a function. Every span is bounded, so that no text makes the search slow."""

LARGEST = 1 << 20
"""Characters of a sample that is tried: a thousand times what a solution needs, and no burden to any parser."""


ABSENCES: dict[Absence, str] = {
    "missing": "there is no text: none of the fields completion, reply, solution",
    "null": "there is no text: the {form} is null",
    "not a string": "there is no text: the {form} is not a string",
    "more than one": "there is more than one of the fields completion, reply, solution",
}


@dataclass(frozen=True)
class Candidate:
    """A program to be tried: ``before`` is the problem's, and trusted, ``code`` is the model's."""

    before: str
    code: str


_HEADER = re.compile(
    r"^[ \t]{0,40}(?:#[ \t]*include|using\s+namespace|import|package)\b.*$|^.{0,200}\brequire\(.*$", re.MULTILINE
)
"""Lines of a prompt that a whole program still needs when it brings everything else."""


def candidate_of(problem: Problem, sample: Sample) -> Candidate | Verdict:
    """What there is to be tried; a verdict ``invalid`` with the reason when there is nothing.

    A completion that a model was cut off in is tried as it is; a reply whose last block of code was never closed is
    ``invalid``, because nobody knows how it would have gone on.
    """
    fault = fault_of(sample)
    if fault is not None:
        return Verdict("invalid", fault)
    code, language = sample.text, LANGUAGES.get(problem.language)
    if sample.form == "reply":
        found = language.extract(code, problem.entry_point)
        if found.state == "incomplete":
            return Verdict("invalid", "the reply's last block of code is not closed")
        if found.state == "none" or not found.code.strip():
            return Verdict("invalid", "there is no code in the reply")
        code = found.code
    if problem.whole:
        return Candidate("", code)
    return Candidate(problem.prompt, code) if sample.form == "completion" else _placed(problem, code, language)


def program_of(problem: Problem, candidate: Candidate) -> Program:
    """The whole program in a language other than Python, tests included."""
    language = LANGUAGES.get(problem.language)
    whole = {"wanted": problem.prompt} if language.name in ("c", "cpp") and not problem.whole else {}
    return language.assemble(candidate.before, candidate.code, problem.tests, setup=problem.setup, **whole)


def reference(problem: Problem) -> Sample | None:
    """The problem's own solution as a sample; None when it has none."""
    return Sample(problem.id, problem.reference) if problem.reference.strip() else None


def fault_of(sample: Sample) -> str | None:
    """Why a sample's text cannot be tried, whatever the problem is."""
    if sample.absence is not None:
        return ABSENCES[sample.absence].format(form=sample.form)
    if sample.finish == "too_long":
        return "the model was not asked: the prompt is longer than its context"
    if sample.finish == "unknown_character":
        return "the model was not asked: the prompt has a character that it does not know"
    if len(sample.text) > LARGEST:
        return f"the {sample.form} has {len(sample.text):,} characters; at most {LARGEST:,} are tried"
    if not sample.text.strip():
        return f"the {sample.form} is empty"
    try:
        sample.text.encode()
    except UnicodeEncodeError:
        return f"the {sample.form} is not Unicode: it has half of a surrogate pair"
    return None


def _placed(problem: Problem, code: str, language: Language) -> Candidate:
    """Code from a reply, after as much of the prompt as it leaves unsaid."""
    prompt = problem.prompt
    if problem.language == "python":
        # An indented beginning is the body of the function that the prompt began.
        return Candidate(prompt, code if code[:1].isspace() and not language.defined(code) else f"\n{code}")
    asked, brought = _defined(language, prompt), {name for _, name in _defined(language, code)}
    if not asked or asked[-1][1] not in brought:
        return Candidate(prompt, code)
    header = "".join(f"{line}\n" for line in _HEADER.findall(prompt))
    before = prompt[: asked[-1][0]]
    if problem.language == "java":
        bare = re.search(r"\bclass\s+Solution\b", code) is None
        return Candidate(before, f"{code}\n}}\n") if bare else Candidate(header, code)
    return Candidate(header if brought & {name for _, name in asked[:-1]} else before, code)


def _defined(language: Language, text: str) -> list[tuple[int, str]]:
    """(place, name) of every function that ``text`` defines."""
    pattern = _C_LIKE if language.name in ("c", "cpp", "java") else language.definition
    found = re.finditer(pattern, text, re.MULTILINE)
    return [(each.start(), next(name for name in each.groups() if name)) for each in found]
