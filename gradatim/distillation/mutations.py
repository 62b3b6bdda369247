"""What would the right answer be with one small mistake in it?

Two kinds of answers are known. An *output* answer (the prompt is a TinyPy program up to and including ``# output``)
is what a program prints: the mistake is made in the program, the changed program is run, and what it prints is the
mutant where that differs. It is what someone would answer who read one operator, number, limit, name or branch
wrongly. A *code* answer is edited itself: Python by its syntax tree, the other languages by tree-sitter. It may be a
whole program, follow its prompt (HumanEval), or stand in a fence of a reply; only the answer is edited. A code mutant
may still be right (``a + b`` is ``b + a``): who runs the tests can tell, ``faulty`` asks.

Nothing but TinyPy is run here, by the project's own interpreter.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..errors import DataError, UnknownPart
from ..languages import Language, named
from .edits import KINDS, Edit, Kind, apply
from .python_mutations import python_edits
from .treesitter_mutations import tree_edits

__all__ = ["OUTPUT", "Mutant", "mutants", "same_text"]


OUTPUT = "# output\n"
_TRIED = 500
"""Edits of one answer that are tried; each is parsed or run as a whole, so a long text would take quadratic time."""
_STEPS = 1_000
"""Statements that a changed program may take: a mistake in a ``while`` often makes it endless."""


@dataclass(frozen=True)
class Mutant:
    """A faulty answer, and the kind of mistake it comes from."""

    text: str
    kind: Kind


def mutants(prompt: str, answer: str, language: str | None, *, seed: int) -> Iterator[Mutant]:
    """Faulty answers, different from each other and never the right one; the same for the same arguments.

    The kinds take turns, in an order drawn by ``seed``, so that the many numbers of a program do not crowd out its
    few branches. There may be none: for text that is not code, a language that is not ours, a program that is not
    TinyPy. Raises ``ToolchainMissing`` when a language's grammar is not installed.
    """
    seen = {_plain(answer)}
    for kind, text in _candidates(prompt, answer, language, random.Random(seed)):
        if _plain(text) not in seen:
            seen.add(_plain(text))
            yield Mutant(text, kind)


def same_text(left: str, right: str) -> bool:
    """Whether two answers differ in nothing but blanks at the ends of lines and of the text."""
    return _plain(left) == _plain(right)


def _plain(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.split("\n")]).rstrip()


def _candidates(prompt: str, answer: str, language: str | None, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    if prompt.endswith(OUTPUT):
        yield from _outputs(prompt, generator)
    elif language is not None and (known := _language(language)) is not None:
        yield from _codes(prompt, answer, known, generator)


def _language(name: str) -> Language | None:
    try:
        return named(name)
    except UnknownPart:
        return None


def _outputs(prompt: str, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """What changed programs print."""
    from ..programs import commented, run_program  # here, because they bring tables along, and a plan has none

    try:
        run_program(prompt)
    except DataError:
        return  # not TinyPy, or it has no output: there is no right answer to spoil
    source = prompt.encode()
    for edit in islice(_in_turns(_edits(named("python"), prompt), generator), _TRIED):
        try:
            printed = run_program(apply(source, edit).decode(), max_steps=_STEPS)
        except DataError:
            continue  # what raises or does not end prints no answer
        if printed:
            yield edit.kind, commented(printed)


def _codes(prompt: str, answer: str, language: Language, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """The answer's own code, changed."""
    for before, code, after, outside in _readings(prompt, answer, language):
        parsed = _parser(language)
        right = parsed(before + code)
        if right is None:
            continue
        source, first = (before + code).encode(), len(before.encode())
        found = [edit for edit in _edits(language, before + code) if edit.start >= first]
        for edit in islice(_in_turns(found, generator), _TRIED):
            changed = apply(source, edit)
            # Python's trees tell edits that change nothing; the others' are only asked whether they parse.
            if parsed(changed.decode()) not in (None, right):
                yield edit.kind, outside + changed[first:].decode() + after
        return


def _readings(prompt: str, answer: str, language: Language) -> Iterator[tuple[str, str, str, str]]:
    """How the answer may hold code: (code before it, the code, the reply's text after it, and before it)."""
    extracted = language.extract(answer)
    if extracted.state == "fenced" and extracted.code.strip() and answer.count(extracted.code) == 1:
        outside, _, after = answer.partition(extracted.code)
        yield "", extracted.code, after, outside
        yield prompt, extracted.code, after, outside
    else:
        yield "", answer, "", ""
        yield prompt, answer, "", ""


def _parser(language: Language) -> Callable[[str], str | None]:
    """A function that says what a code means, as far as parsing tells, and None for what does not parse."""
    if language.name == "python":
        return _python_tree
    return lambda code: code if code.strip() and language.parses(code) is None else None


def _python_tree(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as a literal compared by `is`, which a mutant may do
            tree = ast.parse(code)
        # Here too: a tree can be too deep for what walks it by recursion, and an integer have too many digits.
        return ast.dump(tree) if tree.body else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _edits(language: Language, code: str) -> Sequence[Edit]:
    """The edits of a code; none for one that is nested too deeply."""
    try:
        return python_edits(code) if language.name == "python" else tree_edits(language, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _in_turns(edits: Sequence[Edit], generator: random.Random) -> Iterator[Edit]:
    """The edits in random order, one of each kind that is left in turn."""
    groups = [group for kind in KINDS if (group := [edit for edit in edits if edit.kind == kind])]
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    while groups:
        for group in groups:
            yield group.pop()
        groups = [group for group in groups if group]
