"""How does one cycle come to its questions?

A ``Drawing`` is what ``taught`` does for one cycle. For the first it takes the seeds, given or the teacher's own; for a
later one it goes round the parents of a grade, has the teacher write a question of each one's kind, refuses what is not
new and asks again, until there are enough or the tries are used up. Every answer is proved where it can be: a TinyPy
program is run, others are put to ``right``. How many questions of which grade there should be is ``taught``'s to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..programs import commented, run_program
from ..stage import Event
from ..table import SCHEMA, dedupe, make_table
from .novelty import OUTPUT, Contamination, Known, Refusals, refusal
from .parents import laps

if TYPE_CHECKING:
    from ..teacher import Question
    from .taught import Taught

__all__ = ["Drawing", "draw_of", "texts"]

DRAWS = 1_000
"""A cycle's first so many draws follow those of the cycle before; further ones lie beyond those of all cycles."""
CYCLES = 1_000_000
"""More cycles than any run has."""


@dataclass
class Drawing:
    """One ``Taught.draw`` on its way; what it finds is counted in ``source.facts`` and ``refusals``."""

    source: Taught
    cycle: int
    evaluated: Contamination
    refusals: Refusals
    known: Known = field(default_factory=Known)

    def first(self) -> pa.Table:
        """The seeds that are right and are no problems of the evaluation."""
        source = self.source
        table = source.seeds
        if table is None:
            questions = source.teacher.seeds(source.count, seed=source.seed)
            source.facts["asked"] += len(questions)
            table = _table(questions)
        else:
            self._check_apart(table)
            unique = dedupe(table.select(SCHEMA.names).cast(SCHEMA), "id")
            given, table = table.num_rows, _chosen(unique.table, source.count, source.seed)
            beyond = unique.table.num_rows - table.num_rows
            source.facts["seeds"] = {**source.read, "given": given, "duplicates": unique.dropped, "beyond": beyond}
        table = self._kept(table, [self.evaluated.refuses(prompt) for prompt in texts(table, "prompt")])
        return self._answered(table, draw=0)

    def later(self, grade: str, parents: pa.Table, number: int) -> pa.Table:
        """Up to ``number`` new questions with their answers, each of the kind of one of ``parents``."""
        source = self.source
        asking = "middle" if grade == "random" else grade
        following = laps(parents.num_rows, _seed(source.seed, self.cycle, grade))
        left = number * (1 + source.rounds)
        made: list[pa.Table] = [SCHEMA.empty_table()]
        had = 0
        source.events(Event("start", f"new {grade} questions", 0, number))
        while had < number and left:
            lap, rows = following(min(number - had, left))
            draw = draw_of(self.cycle, lap)
            left -= len(rows)
            source.facts["asked"] += len(rows)
            some = parents.take(rows)
            questions = source.teacher.questions(some, grade=asking, draw=draw)
            fresh = self._fresh(zip(texts(some, "id"), questions, strict=True))
            made.append(self._answered(_table(*fresh, grade=grade), draw=draw))
            had += made[-1].num_rows
            source.events(Event("advance", f"new {grade} questions", had, number))
        source.events(Event("finish", f"new {grade} questions", had, number))
        return pa.concat_tables(made)

    def _fresh(self, written: Iterator[tuple[str, Question | None]]) -> tuple[list[Question], list[str]]:
        """The questions that may be asked, and their parents' ids; from now on they are known."""
        questions, parents = [], []
        for parent, question in written:
            cause = "no_question" if question is None else refusal(question.prompt, self.known, self.evaluated)
            if question is None or cause is not None:
                self.refusals.count(cause or "no_question")
                continue
            self.known.add(question.prompt)
            questions.append(question)
            parents.append(parent)
        return questions, parents

    def _answered(self, table: pa.Table, draw: int) -> pa.Table:
        """The rows that have an answer, and one that is not known to be wrong or the evaluation's."""
        answers = texts(table, "answer")
        missing = [row for row, answer in enumerate(answers) if not answer]
        if missing:
            found = self.source.teacher.answers(table.take(missing), draw=draw)
            for row, answer in zip(missing, found, strict=True):
                answers[row] = answer or ""
            column = SCHEMA.get_field_index("answer")
            table = table.set_column(column, SCHEMA.field(column), pa.array(answers, pa.large_string()))
        table = self._kept(table, [None if answer else "unanswered" for answer in answers])
        return self._kept(table, self._wrong(table))

    def _wrong(self, table: pa.Table) -> list[str | None]:
        """Why the answer of each row cannot stand, None where nothing speaks against it."""
        prompts, answers = texts(table, "prompt"), texts(table, "answer")
        causes = [
            _unproved(prompt, answer) if prompt.endswith(OUTPUT) else self.evaluated.refuses(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        others = [row for row, prompt in enumerate(prompts) if causes[row] is None and not prompt.endswith(OUTPUT)]
        if others and self.source.right is not None:
            verdicts = self.source.right(table.take(others), [answers[row] for row in others])
            for row, verdict in zip(others, verdicts, strict=True):
                causes[row] = "wrong_answer" if verdict is False else None
        return causes

    def _kept(self, table: pa.Table, causes: Sequence[str | None]) -> pa.Table:
        """The rows without a cause against them; the others are counted."""
        for cause in causes:
            if cause is not None:
                self.refusals.count(cause)
        return table.filter(pa.array([cause is None for cause in causes], pa.bool_()))

    def _check_apart(self, seeds: pa.Table) -> None:
        """``DataError`` when half of the seeds or of the evaluation's texts are the same: it is the same file."""
        same = sum(self.evaluated.holds(prompt) for prompt in texts(seeds, "prompt"))
        if same and 2 * same >= min(seeds.num_rows, len(self.evaluated)):
            raise DataError(
                "the seed questions are problems that the student is examined with",
                where="source.seeds",
                given=f"{same} of {seeds.num_rows} seeds are in the evaluation",
                hint="other seeds, or another evaluation",
            )


def draw_of(cycle: int, lap: int) -> int:
    """The teacher's draw for a cycle's walk number ``lap`` round its parents. No two walks of any cycles share one, or
    a reply would come twice."""
    more, within = divmod(lap, DRAWS)
    return more * DRAWS * CYCLES + cycle * DRAWS + within


def _seed(seed: int, cycle: int, grade: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{cycle}/{grade}".encode(), digest_size=8).digest(), "little")


def _chosen(table: pa.Table, count: int, seed: int) -> pa.Table:
    """``count`` rows of a larger table, drawn by ``seed``, in the table's order."""
    if table.num_rows <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).permutation(table.num_rows)[:count]))


def _table(questions: Sequence[Question], parents: Sequence[str] | None = None, grade: str | None = None) -> pa.Table:
    """The questions as samples; an answer that is not known is empty."""
    return make_table(
        {
            "prompt": [each.prompt for each in questions],
            "answer": [each.answer or "" for each in questions],
            "tests": [each.tests for each in questions],
            "level": [each.level for each in questions],
            "category": [grade or each.category for each in questions],
            "language": [each.language for each in questions],
            "parent": parents if parents is not None else [None] * len(questions),
            "source": ["taught"] * len(questions),
        }
    )


def texts(table: pa.Table, column: str) -> list[str]:
    """A column of texts as a list."""
    found: list[str] = table[column].to_pylist()
    return found


def _unproved(program: str, answer: str) -> str | None:
    """Why ``answer`` is not what ``program`` prints: ``cannot_run`` or ``wrong_answer``; None when it is."""
    try:
        printed = commented(run_program(program))
    except DataError:
        return "cannot_run"
    return None if printed == answer else "wrong_answer"
