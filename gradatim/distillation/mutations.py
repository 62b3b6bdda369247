"""Mutations: the correct answer with one small mistake.

Two kinds of answers have mutations. An *output* answer (the prompt is a TinyPy program up to and including
``# output``) is the output of a program: the program is mutated and run, and its output is the mutation where it
differs. It is the answer of a reader who misread one operator, number, limit, name or branch. A *code* answer is
edited itself: Python by its syntax tree, the other languages by tree-sitter. It may be a whole program, continue its
prompt (HumanEval), or stand in a fence of a reply; only the answer is edited. A mutation of code may still be correct
(``a + b`` is ``b + a``); ``rejected`` verifies it.

Only TinyPy programs are run here, by the project's interpreter.
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
from ..programs import commented, run_program
from .edits import KINDS, Edit, Kind, apply
from .python_mutations import python_edits
from .treesitter_mutations import tree_edits

__all__ = ["OUTPUT", "Mutant", "mutants", "same_text"]


OUTPUT = "# output\n"
_TRIED = 500
"""Edits of one answer that are tried; each reads the whole text, so a long text would take quadratic time."""
_STEPS = 1_000
"""Most statements of a mutated program: a mistake in a ``while`` often makes it endless."""


@dataclass(frozen=True)
class Mutant:
    """A rejected answer, and its kind of mistake."""

    text: str
    kind: Kind


def mutants(prompt: str, answer: str, language: str | None, *, seed: int) -> Iterator[Mutant]:
    """Distinct rejected answers, none equal to the correct one; deterministic.

    The kinds alternate, in an order drawn by ``seed``, so that the many numbers of a program do not crowd out its few
    branches. The result is empty for text that is not code, an unsupported language, or a program outside TinyPy.
    Raises ``ToolchainMissing`` when a language's grammar is not installed.
    """
    texts = {_plain(answer)}
    for kind, text in _candidates(prompt, answer, language, random.Random(seed)):
        if _plain(text) not in texts:
            texts.add(_plain(text))
            yield Mutant(text, kind)


def same_text(left: str, right: str) -> bool:
    """Whether two answers are equal but for white space at the ends of lines and of the text."""
    return _plain(left) == _plain(right)


def _plain(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.split("\n")]).rstrip()


def _candidates(prompt: str, answer: str, language: str | None, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    if prompt.endswith(OUTPUT):
        yield from _outputs(prompt, generator)
    elif language is not None and (grammar := _language(language)) is not None:
        yield from _codes(prompt, answer, grammar, generator)


def _language(name: str) -> Language | None:
    try:
        return named(name)
    except UnknownPart:
        return None


def _outputs(prompt: str, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """Outputs of mutated programs."""
    try:
        run_program(prompt)
    except DataError:
        return  # not TinyPy, or a program without output
    source = prompt.encode()
    for edit in islice(_in_turns(_edits(named("python"), prompt), generator), _TRIED):
        try:
            output = run_program(apply(source, edit).decode(), max_steps=_STEPS)
        except DataError:
            continue  # it raises or does not end, so it has no output
        if output:
            yield edit.kind, commented(output)


def _codes(prompt: str, answer: str, language: Language, generator: random.Random) -> Iterator[tuple[Kind, str]]:
    """Mutations of the answer's code."""
    for before, code, after, outside in _readings(prompt, answer, language):
        parsed = _parser(language)
        tree = parsed(before + code)
        if tree is None:
            continue
        source, first = (before + code).encode(), len(before.encode())
        edits = [edit for edit in _edits(language, before + code) if edit.start >= first]
        for edit in islice(_in_turns(edits, generator), _TRIED):
            changed = apply(source, edit)
            # Equal Python trees mean an edit without effect; other languages are only parsed.
            if parsed(changed.decode()) not in (None, tree):
                yield edit.kind, outside + changed[first:].decode() + after
        return


def _readings(prompt: str, answer: str, language: Language) -> Iterator[tuple[str, str, str, str]]:
    """Possible code of an answer: (code before it, the code, the reply's text after it, and before it)."""
    extracted = language.extract(answer)
    if extracted.state == "fenced" and extracted.code.strip() and answer.count(extracted.code) == 1:
        outside, _, after = answer.partition(extracted.code)
        yield "", extracted.code, after, outside
        yield prompt, extracted.code, after, outside
    else:
        yield "", answer, "", ""
        yield prompt, answer, "", ""


def _parser(language: Language) -> Callable[[str], str | None]:
    """A function that returns the syntax of a code (Python) or the code itself, None where it does not parse."""
    if language.name == "python":
        return _python_tree
    return lambda code: code if code.strip() and language.parses(code) is None else None


def _python_tree(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as a literal compared by `is`, which a mutation may contain
            tree = ast.parse(code)
        # Dumping may fail too: a tree too deep for recursion, an integer of too many digits.
        return ast.dump(tree) if tree.body else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _edits(language: Language, code: str) -> Sequence[Edit]:
    """The edits of a code; empty for one that is nested too deeply."""
    try:
        return python_edits(code) if language.name == "python" else tree_edits(language, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _in_turns(edits: Sequence[Edit], generator: random.Random) -> Iterator[Edit]:
    """The edits in random order, one of each remaining kind in turn."""
    groups = [group for kind in KINDS if (group := [edit for edit in edits if edit.kind == kind])]
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    while groups:
        for group in groups:
            yield group.pop()
        groups = [group for group in groups if group]
