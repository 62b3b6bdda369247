"""What does the student get to learn next, when a teacher sees what it got wrong?

The source ``taught``. The first cycle has seed questions, the teacher's own or a table that is handed in, answered by
the teacher where the answer is missing. Each later cycle has new questions: parents are drawn from what the student
was asked, so many of each grade as ``ratio`` says, and the teacher writes one of their kind for each. What is not new
is refused (``novelty``) and asked for again, a few times over; then the source has run dry and says so. Every row knows
its parent and the grade that it was written for. How one cycle asks and proves is ``drawing``'s.

Which questions are graded how is decided in ``feedback``, which samples are held out by whoever makes the corpus: all
that is known to it is not new here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from ..errors import DataError, RecipeError, did_you_mean
from ..stage import Events, Feedback, ignore_events
from ..table import SCHEMA, dedupe
from ..teacher.teacher import GRADES, used_since
from .drawing import Drawing, texts
from .novelty import Contamination, Known, Refusals
from .parents import apportion, graded

if TYPE_CHECKING:
    from ..delivery import Right
    from ..table import ReadReport
    from ..teacher import Teacher

__all__ = ["RanDry", "Taught"]

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
