"""Options of the source ``taught``: how many questions each cycle has, and how they are chosen and checked.

``QuestionOptions`` holds and checks them without numpy or pyarrow, so that a plan of a recipe loads neither. The file
of seed questions is read at first use. ``questions`` makes the samples of a cycle from these options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import RecipeError, did_you_mean
from ..stage import Events, Feedback, ignore_events
from ..table.report import EMPTY_ANSWER
from ..teacher.teacher import GRADES

if TYPE_CHECKING:
    import pyarrow as pa

    from ..table import ReadReport
    from ..teacher import Teacher
    from .rejected import Right


RATIO: Mapping[str, float] = {"hard": 1.0, "easy": 1.0}


class SeedFile(Protocol):
    """A file of seed questions: ``source.FileSource``."""

    @property
    def path(self) -> str:
        """Path of the file, or ``hub:NAME``."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of the rows of the last ``draw``."""
        ...

    @property
    def origin(self) -> dict[str, Any]:
        """Fingerprint of the file as the last ``draw`` read it."""
        ...

    @property
    def report(self) -> ReadReport:
        """Report on the rows of the last ``draw``."""
        ...

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """Read the file."""
        ...


@dataclass(frozen=True)
class QuestionOptions:
    """Options of a source whose questions a teacher writes.

    ``count`` questions in the first cycle, at most that many of the seeds where there are any: ``seeds``, or those of
    ``seed_file``. ``new`` questions in each later cycle (None: ``count``; 0: the same samples again). ``ratio`` weighs
    the grades that parents are drawn from; with ``grade="random"`` parents are drawn from all questions. A refused
    question is requested again, up to ``rounds`` times the number of questions. With ``accumulate`` a cycle includes
    the samples of earlier cycles. ``limit`` is the largest ROUGE-L with an existing question, ``evaluation`` the texts
    of the evaluation's problems (``novelty.problem_texts``), ``right`` verifies answers.

    Raises ``RecipeError`` for a value out of range.
    """

    teacher: Teacher
    count: int
    new: int | None = None
    seed: int = 0
    seeds: pa.Table | None = field(default=None, repr=False)
    seed_file: SeedFile | None = field(default=None, repr=False)
    ratio: Mapping[str, float] = field(default_factory=lambda: dict(RATIO))
    grade: Literal["feedback", "random"] = "feedback"
    rounds: int = 3
    accumulate: bool = True
    limit: float = 0.7
    evaluation: Sequence[str] = field(default=(), repr=False)
    right: Right | None = field(default=None, compare=False, repr=False)
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

    @property
    def path(self) -> str | None:
        """Path of the seed file, None without one; the file is not read for it."""
        return None if self.seed_file is None else self.seed_file.path

    @cached_property
    def seed_table(self) -> pa.Table | None:
        """The seed questions, None where the teacher writes them. Raises ``DataError`` for an unusable file."""
        return self.seeds if self.seed_file is None else self.seed_file.draw(0, Feedback())

    @property
    def seed_facts(self) -> Mapping[str, Any]:
        """Counts of the seed file's rows."""
        return {} if self.seed_file is None or self.seed_table is None else self.seed_file.facts

    @property
    def origin(self) -> Mapping[str, Any]:
        """Fingerprint of the seed file as it was read; empty without one."""
        return {} if self.seed_file is None or self.seed_table is None else self.seed_file.origin

    @property
    def report(self) -> ReadReport | None:
        """Report on the seed file's rows, None without one. Seeds may lack answers, so that is no remark."""
        if self.seed_file is None or self.seed_table is None:
            return None
        report = self.seed_file.report
        report.remarks.pop(EMPTY_ANSWER, None)
        return report
