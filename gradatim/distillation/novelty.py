"""Is this question new, and is it none of those that the student will be examined with?

What counts as new depends on what the question is. A *program* whose output is asked (TinyPy) is new when its
canonical form, which renamed twins share, is none that is known. A question *in words* is new when its ROUGE-L with
every known one lies below a limit (0.7 in Self-Instruct, arXiv 2212.10560, and Lion, 2305.12870). The grammar's
programs are short and alike, so that ROUGE-L would refuse most of them.

Whatever the question is, neither it nor its answer may share 13 words in a row with a problem of the evaluation
(GPT-3's rule, 2005.14165; a shorter problem counts as a whole), be nearly the same (Jaccard similarity of word
trigrams), or be its program with other names. Refusals are counted by cause in ``Refusals``. Nobody is asked here.
"""

from __future__ import annotations

import ast
import contextlib
import re
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..evaluation.problems import Problem
from ..programs import canonical

__all__ = ["OUTPUT", "Contamination", "Known", "Refusals", "problem_texts", "refusal", "rouge_l", "words"]


OUTPUT = "# output\n"
"""How the prompt of a program whose output is asked ends."""
LONG = 13
"""So many words in a row are no coincidence."""
SHORT = 5
"""A problem of fewer words is only met by a text that is just it: two or three words stand in many questions."""
NEAR = 0.7
"""The Jaccard similarity of word trigrams from which on two texts are nearly the same."""

_WORD = re.compile(r"[^\W_]+")
Words = tuple[str, ...]


@dataclass
class Refusals:
    """How many questions were refused, by cause."""

    causes: Counter[str] = field(default_factory=Counter)

    def count(self, cause: str) -> None:
        self.causes[cause] += 1

    @property
    def total(self) -> int:
        return sum(self.causes.values())

    def facts(self) -> dict[str, int]:
        """Plain counts, by cause in their alphabetical order."""
        return dict(sorted(self.causes.items()))


def words(text: str) -> Words:
    """The words of ``text`` in small letters: runs of letters and digits."""
    return tuple(_WORD.findall(text.lower()))


def rouge_l(left: str, right: str) -> float:
    """ROUGE-L as an F-measure in 0..1: twice the longest common subsequence of words over the words of both."""
    one, other = words(left), words(right)
    if not one or not other:
        return 0.0
    return 2 * _common(_masks(one), len(one), other) / (len(one) + len(other))


def _masks(sequence: Words) -> dict[str, int]:
    """Where each word stands, as bits."""
    masks: dict[str, int] = {}
    for place, word in enumerate(sequence):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _common(masks: Mapping[str, int], length: int, other: Words) -> int:
    """The length of the longest common subsequence, a row of the table in one whole number (Hyyrö, 2004)."""
    everything = (1 << length) - 1
    row = everything
    for word in other:
        if mask := masks.get(word):
            met = row & mask
            row = ((row + met) | (row - met)) & everything
    return length - row.bit_count()


class Known:
    """The questions that are there already; ``add`` makes one known, ``refuses`` says why one is not new.

    For questions in words an index of their words bounds ROUGE-L from above, so that the subsequence is only looked
    for in the few that could reach ``limit``; the result is exact.
    """

    def __init__(self, prompts: Iterable[str] = (), *, limit: float = 0.7) -> None:
        self.limit = limit
        self._forms: set[str] = set()
        self._texts: list[Words] = []
        self._lengths = array("l")
        self._places: dict[str, array[int]] = defaultdict(lambda: array("l"))
        self._times: dict[str, array[int]] = defaultdict(lambda: array("l"))
        for prompt in prompts:
            self.add(prompt)

    def __len__(self) -> int:
        return len(self._forms) + len(self._texts)

    def add(self, prompt: str) -> None:
        """From now on ``prompt`` is not new."""
        if prompt.endswith(OUTPUT):
            self._forms.add(canonical(prompt))
            return
        text = words(prompt)
        for word, times in Counter(text).items():
            self._places[word].append(len(self._texts))
            self._times[word].append(times)
        self._texts.append(text)
        self._lengths.append(len(text))

    def refuses(self, prompt: str) -> str | None:
        """Why ``prompt`` is not new: ``same_program``, ``like_known`` or ``empty``; None when it is."""
        if prompt.endswith(OUTPUT):
            return "same_program" if canonical(prompt) in self._forms else None
        text = words(prompt)
        if not text:
            return "empty"
        return None if self._like(text) is None else "like_known"

    def _like(self, text: Words) -> int | None:
        """A known question whose ROUGE-L with ``text`` reaches the limit."""
        import numpy as np  # here, because a plan takes the evaluation's texts and compares nothing

        shared = np.zeros(len(self._texts), np.int64)
        for word, times in Counter(text).items():
            if word in self._places:
                places = np.frombuffer(self._places[word], np.int64)
                shared[places] += np.minimum(np.frombuffer(self._times[word], np.int64), times)
        lengths = np.frombuffer(self._lengths, np.int64) if self._texts else shared
        masks = _masks(text)
        for place in np.flatnonzero(2 * shared >= self.limit * (lengths + len(text))).tolist():
            other = self._texts[place]
            if other and 2 * _common(masks, len(text), other) >= self.limit * (len(text) + len(other)):
                return int(place)
        return None


class Contamination:
    """The problems of the evaluation, as texts; ``refuses`` says how a text gives one of them away."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self._runs: set[Words] = set()
        self._lengths: set[int] = set()
        self._wholes: set[Words] = set()
        self._forms: set[str] = set()
        self._shingles: list[frozenset[Words]] = []
        self._holders: dict[Words, list[int]] = defaultdict(list)
        for problem in problems:
            self._add(problem)

    def __len__(self) -> int:
        return len(self._shingles)

    def _add(self, problem: str) -> None:
        text = words(problem)
        if not text:
            return
        self._wholes.add(text)
        if len(text) >= SHORT:
            size = min(LONG, len(text))
            self._lengths.add(size)
            self._runs.update(_runs(text, size))
        with contextlib.suppress(_Unreadable):  # its words still count
            if (form := _form(problem)) is not None:
                self._forms.add(form)
        shingles = frozenset(_runs(text, 3))
        for shingle in shingles:
            self._holders[shingle].append(len(self._shingles))
        self._shingles.append(shingles)

    def holds(self, text: str) -> bool:
        """Whether ``text`` is, word for word, one of the problems."""
        return words(text) in self._wholes

    def refuses(self, text: str) -> str | None:
        """``same_problem``, ``problem_words`` (a run of 13, or a shorter problem), ``near_problem`` or None;
        ``unreadable_program`` for one that cannot be compared, as it is nested too deeply."""
        found = words(text)
        if not found or not self._shingles:
            return None
        try:
            form = _form(text)
        except _Unreadable:
            return "unreadable_program"
        if found in self._wholes or (form is not None and form in self._forms):
            return "same_problem"
        if any(not self._runs.isdisjoint(_runs(found, size)) for size in self._lengths if size <= len(found)):
            return "problem_words"
        return "near_problem" if self._is_near(frozenset(_runs(found, 3))) else None

    def _is_near(self, shingles: frozenset[Words]) -> bool:
        """Whether some problem's trigrams have a Jaccard similarity of ``NEAR`` with these."""
        shared: Counter[int] = Counter()
        for shingle in shingles:
            shared.update(self._holders.get(shingle, ()))
        return any(both >= NEAR * (len(shingles) + len(self._shingles[place]) - both) for place, both in shared.items())


def _runs(text: Words, size: int) -> Iterable[Words]:
    """Every ``size`` words in a row; none for a shorter text."""
    return (text[start : start + size] for start in range(len(text) - size + 1))


class _Unreadable(Exception):
    """A program that Python's own tools cannot write out again: nested too deeply, an integer of too many digits."""


def _form(text: str) -> str | None:
    """What a Python program shares with its twins, whatever their names, layout and words; None for what is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its author should hear is not our business
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    except (RecursionError, MemoryError):
        raise _Unreadable from None
    try:
        return _form_of(tree, text)
    except (ValueError, RecursionError, MemoryError):
        raise _Unreadable from None


def _form_of(tree: ast.Module, text: str) -> str | None:
    # A lone word or text parses too and is no program.
    if all(isinstance(each, ast.Expr) for each in tree.body):
        return None
    bare = [each for each in ast.walk(tree) if _is_documented(each)]
    for each in bare:
        each.body = each.body[1:]  # type: ignore[attr-defined]
    # A signature with words and no code is told by its words alone: many functions share it.
    whole = all(each.body for each in bare)  # type: ignore[attr-defined]
    return canonical(ast.unparse(tree)) if whole else canonical(text).strip()


def _is_documented(node: ast.AST) -> bool:
    """Whether ``node`` opens with a text that says what it does."""
    match node:
        case (
            ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), *_])
            | ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())), *_])
            | ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), *_])
        ):
            return True
    return False


def problem_texts(problems: Iterable[Problem]) -> list[str]:
    """What must not come back in questions and answers: each problem's prompt, and its program where one is known."""
    texts: list[str] = []
    for problem in problems:
        texts.append(problem.prompt)
        if problem.reference:
            texts.append(problem.reference if problem.whole else problem.prompt + problem.reference)
    return texts


def refusal(prompt: str, known: Known, evaluated: Contamination) -> str | None:
    """Why the question ``prompt`` cannot be asked; None when it can."""
    return evaluated.refuses(prompt) or known.refuses(prompt)
