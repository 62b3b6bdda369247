"""Whose child is the next question?

New questions are written after old ones. Which old ones depends on how they went: ``graded`` groups the questions of a
feedback, ``apportion`` says how many children each group gets, ``laps`` goes round the members of one. Questions that
are unjudged are in no group but ``random``, which does not look at grades. Nobody is asked here.

How does one cycle come to its questions?

A ``Drawing`` is what ``taught`` does for one cycle. For the first it takes the seeds, given or the teacher's own; for a
later one it goes round the parents of a grade, has the teacher write a question of each one's kind, refuses what is not
new and asks again, until there are enough or the tries are used up. Every answer is proved where it can be: a TinyPy
program is run, others are put to ``right``. How many questions of which grade there should be is ``taught``'s to say.

What does the student get to learn next, when a teacher sees what it got wrong?

The source ``taught``. The first cycle has seed questions, the teacher's own or a table that is handed in, answered by
the teacher where the answer is missing. Each later cycle has new questions: parents are drawn from what the student
was asked, so many of each grade as ``ratio`` says, and the teacher writes one of their kind for each. What is not new
is refused (``novelty``) and asked for again, a few times over; then the source has run dry and says so. Every row knows
its parent and the grade that it was written for. How one cycle asks and proves is ``drawing``'s.

Which questions are graded how is decided in ``feedback``, which samples are held out by whoever makes the corpus: all
that is known to it is not new here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, RecipeError, did_you_mean
from ..programs import commented, run_program
from ..stage import Event, Events, Feedback, ignore_events
from ..table import SCHEMA, dedupe, make_table
from ..teacher.teacher import GRADES, used_since
from .novelty import OUTPUT, Contamination, Known, Refusals, refusal

if TYPE_CHECKING:
    from ..table import ReadReport
    from ..teacher import Question, Teacher
    from . import Right

__all__ = ["Drawing", "RanDry", "Taught", "apportion", "draw_of", "graded", "laps", "texts"]


def graded(table: pa.Table | None, grade: Literal["feedback", "random"]) -> dict[str, pa.Table]:
    """The questions of a feedback, each once, by grade; or all of them as ``random``."""
    if table is None or not table.num_rows:
        return {}
    questions = dedupe(table, "id").table
    grades = pc.cast(questions["grade"], pa.string())
    parts = {name: questions.filter(pc.equal(grades, name)) for name in GRADES}
    if grade == "random":
        parts = {"random": questions}
    found = {name: part for name, part in parts.items() if part.num_rows}
    return {
        name: make_table({n: part[n] for n in SCHEMA.names if n in part.column_names}) for name, part in found.items()
    }


def apportion(
    count: int, ratio: Mapping[str, float], groups: Mapping[str, pa.Table]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many questions of each grade to ask for, and how many of those without parents the others take over."""
    weights = {name: share for name, share in ratio.items() if share > 0}
    ideal = _parted(count, weights)
    there = {name: share for name, share in weights.items() if name in groups}
    return _parted(count, there), {name: number for name, number in ideal.items() if name not in there and number}


def _parted(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """``count`` in proportion to ``weights``, rounded by largest remainder; earlier names win ties."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: parts[name] - exact[name])[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


def laps(parents: int, seed: int) -> Callable[[int], tuple[int, list[int]]]:
    """A function that gives the next parents, at most so many, and their draw.

    In one draw no parent comes twice, because the same request and draw mean the same reply. Each draw goes through
    all parents in an order of its own.
    """
    generator = np.random.default_rng(seed)
    draw = -1
    order: list[int] = []

    def some(most: int) -> tuple[int, list[int]]:
        nonlocal draw, order
        if not order:
            draw, order = draw + 1, generator.permutation(parents).tolist()
        taken, order = order[:most], order[most:]
        return draw, taken

    return some


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
    (``novelty.problem_texts``). ``read`` tells what of the file of seeds could not be used, ``report``
    names its rows, and ``origin`` is the file's fingerprint.

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
    report: ReadReport | None = field(default=None, compare=False, repr=False)
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
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
        drawing = Drawing(self, cycle, Contamination(self.evaluation), refusals)
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

    def _later(self, drawing: Drawing, feedback: Feedback) -> pa.Table:
        """New questions from what the student got wrong and right."""
        groups = graded(feedback.table, self.grade)
        ratio = {"random": 1.0} if self.grade == "random" else self.ratio
        count = self.count if self.new is None else self.new
        wanted, moved = apportion(count, ratio, groups)
        self.facts.update(parents={name: group.num_rows for name, group in groups.items()}, wanted=wanted, moved=moved)
        known = feedback.known if feedback.known is not None else feedback.table
        # A sample that several cycles learnt is known once: every new question is compared with all of them.
        drawing.known = Known(dict.fromkeys(texts(known, "prompt") if known is not None else ()), limit=self.limit)
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
            given = dict(zip(texts(self.seeds, "id"), self.seeds["rejected"].to_pylist(), strict=True))
        rejected = pa.array([given.get(id) for id in texts(table, "id")], pa.large_string())
        return table.set_column(SCHEMA.get_field_index("rejected"), SCHEMA.field("rejected"), rejected)

    def _nothing(self, cycle: int, refusals: Refusals) -> DataError:
        causes = ", ".join(f"{cause} {times}" for cause, times in refusals.facts().items()) or "nothing was asked"
        if cycle == 0:
            return DataError("no seed question can be used", where="source taught", given=causes)
        reason = self.facts["dry"] or "no new question"
        self.facts["dry"] = reason
        return RanDry(f"the source has run dry in cycle {cycle}: {reason}", where="source taught", given=causes)
