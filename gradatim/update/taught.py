"""What does the student get to learn next, when a teacher sees what it got wrong?

The source ``taught``. The first cycle has seed questions, the teacher's own or a table that is handed in, answered by
the teacher where the answer is missing. Each later cycle has new questions: parents are drawn from what the student
was asked, so many of each grade as ``ratio`` says, and the teacher writes one of their kind for each. What is not new
is refused (``novelty``) and asked for again, a few times over; then the source has run dry and says so. Answers are
proved where they can be: a TinyPy program is run, others are put to ``right``. Every row knows its parent and the grade
that it was written for.

Which questions are graded how is decided in ``feedback``, which samples are held out by whoever makes the corpus: all
that is known to it is not new here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from ..errors import DataError, RecipeError, did_you_mean
from ..programs import commented, run_program
from ..stage import Event, Events, Feedback, ignore_events
from ..table import SCHEMA, dedupe, make_table
from ..teacher.teacher import GRADES, used_since
from .novelty import OUTPUT, Contamination, Known, Refusals, refusal
from .parents import apportion, graded, laps

if TYPE_CHECKING:
    from ..delivery import Right
    from ..teacher import Question, Teacher

__all__ = ["RanDry", "Taught"]

DRAWS = 1_000
"""Draws of the teacher that one cycle may use: the next cycle's begin after them, so that no reply comes twice."""
RATIO: Mapping[str, float] = {"hard": 1.0, "easy": 1.0}


class RanDry(DataError):
    """No new question could be had: whoever asked ends well with what there is."""


@dataclass(frozen=True)
class Taught:
    """Questions and answers of a teacher.

    ``count`` questions in the first cycle, at most that many of ``seeds`` when these are given; ``new`` ones in each
    later cycle (None: ``count``; 0: none, the same samples again). ``ratio`` weighs the grades that parents are drawn
    from; with ``grade="random"`` parents are drawn whatever their grade. A refused question is asked for again, up to
    ``rounds`` times as many as are wanted. With ``accumulate`` a cycle has the samples learnt before it too. ``limit``
    is that of ROUGE-L, ``evaluation`` the texts of the problems that the student is examined with
    (``novelty.problem_texts``). ``read`` tells what of the file of seeds could not be used.

    ``facts`` of the last ``draw``: ``cycle``, ``kept``, ``new``, ``learnt`` (rows from former cycles), ``asked``,
    ``refused`` by cause, and ``dry``, why there are fewer than wanted, or None. Of seeds that are given also ``seeds``:
    how many there were, those whose id came before, those beyond ``count``, and what ``read`` tells.
    After the first cycle also, by grade, ``parents`` (questions there were), ``wanted``, ``had``, and ``moved`` (of a
    grade without parents, so that others have more).
    """

    teacher: Teacher
    count: int
    new: int | None = None
    seed: int = 0
    seeds: pa.Table | None = field(default=None, repr=False)
    read: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ratio: Mapping[str, float] = field(default_factory=lambda: dict(RATIO))
    grade: Literal["feedback", "random"] = "feedback"
    rounds: int = 3
    accumulate: bool = True
    limit: float = 0.7
    evaluation: Sequence[str] = field(default=(), repr=False)
    right: Right | None = field(default=None, compare=False, repr=False)
    events: Events = field(default=ignore_events, compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """``RecipeError`` for options that cannot be used."""
        for name, least in (("count", 1), ("new", 0), ("rounds", 0)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise RecipeError("too few", where=f"source.{name}", given=given, allowed=f"whole numbers from {least}")
        if not 0 < self.limit <= 1:
            raise RecipeError("ROUGE-L has no such limit", where="source.limit", given=self.limit, allowed="0 to 1")
        for name, share in self.ratio.items():
            if name not in GRADES:
                hint = did_you_mean(name, GRADES)
                raise RecipeError(
                    "no such grade", where="source.ratio", given=name, allowed=", ".join(GRADES), hint=hint
                )
            if not 0 <= share < float("inf"):
                raise RecipeError("a share is a weight", where=f"source.ratio.{name}", given=share, allowed="0 or more")
        if not sum(self.ratio.values()):
            raise RecipeError("no grade has a share", where="source.ratio", given=dict(self.ratio))

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """The samples of a cycle, in ``table.SCHEMA``; the same call gives the same table.

        Raises ``DataError`` when no seed can be used or the seeds are the evaluation's own problems, ``RanDry`` when a
        later cycle has not one new question.
        """
        self.facts.clear()
        self.facts.update(cycle=cycle, asked=0, learnt=0, dry=None)
        before = deepcopy(dict(self.teacher.facts))
        refusals = Refusals()
        drawing = _Drawing(self, cycle, Contamination(self.evaluation), refusals)
        if cycle == 0:
            made = drawing.first()
        else:
            made = self._later(drawing, feedback)
        self.facts.update(new=made.num_rows, refused=refusals.facts())
        if "requests" in self.teacher.facts:
            self.facts["teacher"] = used_since(before, self.teacher.facts)
        if not made.num_rows and not (cycle and self.new == 0):
            raise self._nothing(cycle, refusals)
        learnt = self._learnt(feedback) if cycle and (self.accumulate or self.new == 0) else None
        parts = [made] if learnt is None else [learnt, made]
        self.facts.update(learnt=0 if learnt is None else learnt.num_rows, kept=sum(part.num_rows for part in parts))
        return pa.concat_tables([part.cast(SCHEMA) for part in parts]).unify_dictionaries().combine_chunks()

    def _later(self, drawing: _Drawing, feedback: Feedback) -> pa.Table:
        """New questions from what the student got wrong and right."""
        groups = graded(feedback.table, self.grade)
        ratio = {"random": 1.0} if self.grade == "random" else self.ratio
        count = self.count if self.new is None else self.new
        wanted, moved = apportion(count, ratio, groups)
        self.facts.update(parents={name: group.num_rows for name, group in groups.items()}, wanted=wanted, moved=moved)
        known = feedback.known if feedback.known is not None else feedback.table
        # A sample that several cycles learnt is known once: every new question is compared with all of them.
        drawing.known = Known(dict.fromkeys(_texts(known, "prompt") if known is not None else ()), limit=self.limit)
        made = [drawing.later(name, groups[name], number) for name, number in wanted.items() if number]
        had = {name: part.num_rows for name, part in zip((n for n in wanted if wanted[n]), made, strict=True)}
        self.facts.update(had=had)
        short = [f"{had[name]} of {number} {name}" for name, number in wanted.items() if had.get(name, 0) < number]
        if short:
            self.facts["dry"] = f"new questions had: {', '.join(short)}"
        if count and not wanted:
            self.facts["dry"] = "no question has a grade that new ones are written for"
        return pa.concat_tables([SCHEMA.empty_table(), *made])

    def _learnt(self, feedback: Feedback) -> pa.Table:
        """What former cycles taught, each sample once; its faulty answer is delivered anew unless the seeds gave it."""
        if feedback.learnt is None:
            raise DataError("there are no samples of former cycles", where="source taught", given="an empty feedback")
        table = dedupe(feedback.learnt.select(SCHEMA.names), "text").table
        given: dict[str, str | None] = {}
        if self.seeds is not None and "rejected" in self.seeds.column_names:
            given = dict(zip(_texts(self.seeds, "id"), self.seeds["rejected"].to_pylist(), strict=True))
        rejected = pa.array([given.get(id) for id in _texts(table, "id")], pa.large_string())
        return table.set_column(SCHEMA.get_field_index("rejected"), SCHEMA.field("rejected"), rejected)

    def _nothing(self, cycle: int, refusals: Refusals) -> DataError:
        causes = ", ".join(f"{cause} {times}" for cause, times in refusals.facts().items()) or "nothing was asked"
        if cycle == 0:
            return DataError("no seed question can be used", where="source taught", given=causes)
        reason = self.facts["dry"] or "no new question"
        self.facts["dry"] = reason
        return RanDry(f"the source has run dry in cycle {cycle}: {reason}", where="source taught", given=causes)


@dataclass
class _Drawing:
    """One ``draw`` on its way."""

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
        table = self._kept(table, [self.evaluated.refuses(prompt) for prompt in _texts(table, "prompt")])
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
            draw, rows = following(min(number - had, left))
            draw += self.cycle * DRAWS
            left -= len(rows)
            source.facts["asked"] += len(rows)
            some = parents.take(rows)
            questions = source.teacher.questions(some, grade=asking, draw=draw)
            fresh = self._fresh(zip(_texts(some, "id"), questions, strict=True))
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
        answers = _texts(table, "answer")
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
        prompts, answers = _texts(table, "prompt"), _texts(table, "answer")
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
        same = sum(self.evaluated.holds(prompt) for prompt in _texts(seeds, "prompt"))
        if same and 2 * same >= min(seeds.num_rows, len(self.evaluated)):
            raise DataError(
                "the seed questions are problems that the student is examined with",
                where="source.seeds",
                given=f"{same} of {seeds.num_rows} seeds are in the evaluation",
                hint="other seeds, or another evaluation",
            )


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


def _texts(table: pa.Table, column: str) -> list[str]:
    found: list[str] = table[column].to_pylist()
    return found


def _unproved(program: str, answer: str) -> str | None:
    """Why ``answer`` is not what ``program`` prints: ``cannot_run`` or ``wrong_answer``; None when it is."""
    try:
        printed = commented(run_program(program))
    except DataError:
        return "cannot_run"
    return None if printed == answer else "wrong_answer"
