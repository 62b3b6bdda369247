"""Novelty of a question, and contamination by the problems of the evaluation.

The criterion of novelty depends on the kind of question. A *program* whose output is the answer (TinyPy) is new when
its canonical form, equal for programs with other names, is not among the existing ones. A question *in words* is new
when its ROUGE-L with every existing one is below a limit (0.7 in Self-Instruct, arXiv 2212.10560, and Lion,
2305.12870). Programs of the grammar are short and alike, so ROUGE-L would refuse most of them.

No question or answer may share 13 words in a row with a problem of the evaluation (GPT-3's rule, 2005.14165; a shorter
problem counts as a whole), be nearly equal to it (Jaccard similarity of word trigrams), or be its program with other
names. ``Refusals`` counts refusals by cause.
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
from ..lazy import np
from ..programs import canonical
from ..table.rows import asks_for_output

"""End of a prompt whose answer is the output of a program."""
LONG = 13
"""Words in a row that show contamination."""
SHORT = 5
"""A problem of fewer words matches only an equal text: two or three words occur in many questions."""
NEAR = 0.7
"""Least Jaccard similarity of word trigrams of nearly equal texts."""

_WORD = re.compile(r"[^\W_]+")
Words = tuple[str, ...]


@dataclass
class Refusals:
    """Number of refused questions by cause."""

    causes: Counter[str] = field(default_factory=Counter)

    def count(self, cause: str) -> None:
        self.causes[cause] += 1

    @property
    def total(self) -> int:
        return sum(self.causes.values())

    def facts(self) -> dict[str, int]:
        """Counts by cause, in alphabetical order."""
        return dict(sorted(self.causes.items()))


def words(text: str) -> Words:
    """The words of ``text`` in lower case: runs of letters and digits."""
    return tuple(_WORD.findall(text.lower()))


def rouge_l(left: str, right: str) -> float:
    """ROUGE-L as an F-measure in 0..1: twice the longest common subsequence of words over the words of both."""
    first, second = words(left), words(right)
    if not first or not second:
        return 0.0
    return 2 * _common(_masks(first), len(first), second) / (len(first) + len(second))


def _masks(sequence: Words) -> dict[str, int]:
    """Positions of each word, as bits."""
    masks: dict[str, int] = {}
    for index, word in enumerate(sequence):
        masks[word] = masks.get(word, 0) | 1 << index
    return masks


def _common(masks: Mapping[str, int], length: int, text: Words) -> int:
    """The length of the longest common subsequence, one row of the table as one integer (Hyyrö, 2004)."""
    all_ones = (1 << length) - 1
    row = all_ones
    for word in text:
        if mask := masks.get(word):
            matches = row & mask
            row = ((row + matches) | (row - matches)) & all_ones
    return length - row.bit_count()


class Known:
    """Existing questions; ``add`` includes one, ``refuses`` returns the cause why a question is not new.

    An index of words bounds ROUGE-L from above, so that the subsequence is computed only for the few questions that
    may reach ``limit``; the result is exact.
    """

    def __init__(self, prompts: Iterable[str] = (), *, limit: float = 0.7) -> None:
        self.limit = limit
        self._forms: set[str] = set()
        self._texts: list[Words] = []
        self._lengths = array("l")
        self._rows: dict[str, array[int]] = defaultdict(lambda: array("l"))
        self._times: dict[str, array[int]] = defaultdict(lambda: array("l"))
        for prompt in prompts:
            self.add(prompt)

    def __len__(self) -> int:
        return len(self._forms) + len(self._texts)

    def add(self, prompt: str) -> None:
        """Include ``prompt`` among the existing questions."""
        if asks_for_output(prompt):
            self._forms.add(canonical(prompt))
            return
        text = words(prompt)
        for word, times in Counter(text).items():
            self._rows[word].append(len(self._texts))
            self._times[word].append(times)
        self._texts.append(text)
        self._lengths.append(len(text))

    def refuses(self, prompt: str) -> str | None:
        """Cause why ``prompt`` is not new, ``same_program``, ``like_known`` or ``empty``; None for a new one."""
        if asks_for_output(prompt):
            return "same_program" if canonical(prompt) in self._forms else None
        text = words(prompt)
        if not text:
            return "empty"
        return None if self._like(text) is None else "like_known"

    def _like(self, text: Words) -> int | None:
        """An existing question whose ROUGE-L with ``text`` reaches the limit."""
        shared = np.zeros(len(self._texts), np.int64)
        for word, times in Counter(text).items():
            if word in self._rows:
                rows = np.frombuffer(self._rows[word], np.int64)
                shared[rows] += np.minimum(np.frombuffer(self._times[word], np.int64), times)
        lengths = np.frombuffer(self._lengths, np.int64) if self._texts else shared
        masks = _masks(text)
        for row in np.flatnonzero(2 * shared >= self.limit * (lengths + len(text))).tolist():
            existing = self._texts[row]
            if existing and 2 * _common(masks, len(text), existing) >= self.limit * (len(text) + len(existing)):
                return int(row)
        return None


class Contamination:
    """Texts of the evaluation's problems; ``refuses`` returns how a text is contaminated by one."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self._runs: set[Words] = set()
        self._lengths: set[int] = set()
        self._complete: set[Words] = set()
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
        self._complete.add(text)
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
        """Whether ``text`` equals one of the problems, word for word."""
        return words(text) in self._complete

    def refuses(self, text: str) -> str | None:
        """``same_problem``, ``problem_words`` (a run of 13, or a shorter problem), ``near_problem`` or None;
        ``unreadable_program`` for one that is nested too deeply to be compared."""
        tokens = words(text)
        if not tokens or not self._shingles:
            return None
        try:
            form = _form(text)
        except _Unreadable:
            return "unreadable_program"
        if tokens in self._complete or (form is not None and form in self._forms):
            return "same_problem"
        if any(not self._runs.isdisjoint(_runs(tokens, size)) for size in self._lengths if size <= len(tokens)):
            return "problem_words"
        return "near_problem" if self._is_near(frozenset(_runs(tokens, 3))) else None

    def _is_near(self, shingles: frozenset[Words]) -> bool:
        """Whether some problem's trigrams have a Jaccard similarity of ``NEAR`` with these."""
        shared: Counter[int] = Counter()
        for shingle in shingles:
            shared.update(self._holders.get(shingle, ()))
        return any(
            both >= NEAR * (len(shingles) + len(self._shingles[problem]) - both) for problem, both in shared.items()
        )


def _runs(text: Words, size: int) -> Iterable[Words]:
    """All runs of ``size`` words; none for a shorter text."""
    return (text[start : start + size] for start in range(len(text) - size + 1))


class _Unreadable(Exception):
    """A program that ``ast`` cannot unparse: nested too deeply, an integer of too many digits."""


def _form(text: str) -> str | None:
    """Canonical form of a Python program, without names, layout and docstrings; None for another text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings concern the author of the code
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
    # A lone word or string parses too and is no program.
    if all(isinstance(statement, ast.Expr) for statement in tree.body):
        return None
    documented = [node for node in ast.walk(tree) if _is_documented(node)]
    for node in documented:
        node.body = node.body[1:]  # type: ignore[attr-defined]
    # A signature with a docstring and no code is compared with its docstring: many functions share the signature.
    has_code = all(node.body for node in documented)  # type: ignore[attr-defined]
    return canonical(ast.unparse(tree)) if has_code else canonical(text).strip()


def _is_documented(node: ast.AST) -> bool:
    """Whether ``node`` has a docstring."""
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
    """Texts that questions and answers must not contain: each problem's prompt, and its program where available."""
    texts: list[str] = []
    for problem in problems:
        texts.append(problem.prompt)
        if problem.reference:
            texts.append(problem.reference if problem.whole else problem.prompt + problem.reference)
    return texts


def refusal(prompt: str, known: Known, evaluated: Contamination) -> str | None:
    """Cause of refusal of the question ``prompt``; None for an acceptable one."""
    return evaluated.refuses(prompt) or known.refuses(prompt)
