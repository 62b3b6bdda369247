"""Options of the source ``taught``: how many questions each cycle has, and how they are chosen and checked.

``QuestionOptions`` holds and checks them without numpy or pyarrow, so that a plan of a recipe loads neither. The file
of seed questions is read at first use. ``questions`` makes the samples of a cycle from these options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..errors import RecipeError, did_you_mean
from ..stage import CyclePlan, Drawn, Events, Feedback, Source, ignore_events
from ..table.rows import EMPTY_ANSWER, ReadReport, largest_remainder
from ..teacher.teacher import GRADES

if TYPE_CHECKING:
    import pyarrow as pa

    from ..model.settings import AnswerFormat
    from ..teacher import Teacher
    from .rejected import Right


RATIO: Mapping[str, float] = {"hard": 1.0, "easy": 1.0}


LATER_OPTIONS = ("new", "ratio", "grade", "rounds", "accumulate")
"""Options that affect later cycles only."""


@dataclass(frozen=True)
class QuestionOptions:
    """Options of a source whose questions a teacher writes.

    ``count`` questions in the first cycle, at most that many of the seeds where there are any: ``seeds``, or those of
    ``seed_file``. ``new`` questions in each later cycle (None: ``count``; 0: the same samples again). ``ratio`` weighs
    the grades that parents are drawn from; with ``grade="random"`` parents are drawn from all questions. A refused
    question is requested again, up to ``rounds`` times the number of questions. With ``accumulate`` a cycle includes
    the samples of earlier cycles. ``limit`` is the largest ROUGE-L with an existing question, ``evaluation`` the texts
    of the evaluation's problems (``novelty.problem_texts``), ``right`` verifies answers, ``answer_format`` is the form
    of programs as answers (None: as they are written).

    Raises ``RecipeError`` for a value out of range.
    """

    teacher: Teacher
    count: int
    new: int | None = None
    seed: int = 0
    seeds: pa.Table | None = field(default=None, repr=False)
    seed_file: Source | None = field(default=None, repr=False)
    ratio: Mapping[str, float] = field(default_factory=lambda: dict(RATIO))
    grade: Literal["feedback", "random"] = "feedback"
    rounds: int = 3
    accumulate: bool = True
    limit: float = 0.7
    evaluation: Sequence[str] = field(default=(), repr=False)
    right: Right | None = field(default=None, compare=False, repr=False)
    answer_format: AnswerFormat | None = None
    events: Events = field(default=ignore_events, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check every option. Raises ``RecipeError``."""
        for name, minimum in (("count", 1), ("new", 0), ("rounds", 0)):
            number = getattr(self, name)
            if number is not None and number < minimum:
                raise RecipeError(
                    "too few", where=f"source.{name}", given=number, allowed=f"whole numbers from {minimum}"
                )
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

    @cached_property
    def seed_samples(self) -> Drawn | None:
        """The seed questions, None where the teacher writes them. Raises ``DataError`` for an unusable file.

        Seeds may lack answers, so the report on the file has no remark on that.
        """
        if self.seed_file is None:
            return None if self.seeds is None else Drawn(self.seeds)
        drawn = self.seed_file.draw(0, Feedback())
        if isinstance(drawn.rejected, ReadReport):
            remarks = {name: count for name, count in drawn.rejected.remarks.items() if name != EMPTY_ANSWER}
            drawn = replace(drawn, rejected=replace(drawn.rejected, remarks=Counter(remarks)))
        return drawn

    def cycle_plan(self, cycle: int) -> CyclePlan:
        """The questions of ``cycle``, of every grade that the options name."""
        if cycle == 0:
            return CyclePlan(self.count)
        new = self.count if self.new is None else self.new
        weights = {name: share for name, share in self.ratio.items() if share > 0}
        numbers = {"random": new} if self.grade == "random" else largest_remainder(new, weights)
        by_grade = {name: number for name, number in numbers.items() if number}
        return CyclePlan(new, self.accumulate or new == 0, by_grade)
