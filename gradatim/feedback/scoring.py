"""Can a small model learn the teacher's points and judge in its place?

The teacher's rubric is asked about a ``share`` of the questions. On the attempts it could grade, a *scoring model* is
trained: a ridge regression (``scoring_model``) from what the student's own last layer holds of an attempt (``hidden``)
to points / 6. It then judges the attempts that the teacher was not asked about.

How far it agrees with the teacher is measured on a part of the graded questions that it did not learn from. Too few
grades, or too little agreement, and the rest stays ``unjudged`` with that cause. A model belongs to the student whose
hidden states it learnt; with any other it refuses to judge.

2408.03680 trains a scoring model from the teacher's scores; which one is not known. A linear head on the student's own
states is the least that works for a student of any size, and costs one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, RecipeError
from ..options import strict
from ..stage import Events, ignore_events
from .judge import Grader, Judge, View, distinct, need_grader, spread, taken, unjudged
from .rubric import MOST, Rubric, check_passing
from .scoring_model import Numbers, ScoringModel, part_of, train

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Scoring", "ScoringJudge", "features", "judge_with", "scoring"]

LEAST_GRADED = 24
"""Graded attempts below which nothing is learnt from them."""
UNREADABLE = "the student's tokenizer does not know a character of it"


@strict("the judge 'scoring'")
def scoring(
    grader: Grader | None = None,
    /,
    *,
    share: float = 0.5,
    held_out: float = 0.25,
    least_agreement: float = 0.2,
    passing: float = 5.0,
) -> Scoring:
    """Asks the teacher about a ``share`` of the questions and learns to judge the rest; ``held_out`` of the graded
    questions measure it, and below a Spearman correlation of ``least_agreement`` it does not judge."""
    check_passing("scoring", passing)
    faults = [
        f"{name}: must lie between 0 and 1 (given {value})"
        for name, value in (("share", share), ("held_out", held_out))
        if not 0 < value < 1
    ]
    if not -1 <= least_agreement < 1:
        faults.append(f"least_agreement: must lie in [-1, 1) (given {least_agreement})")
    if faults:
        raise RecipeError("the judge 'scoring': " + "; ".join(faults), faults=faults)
    return Scoring(need_grader("scoring", grader), share, held_out, least_agreement, passing)


@dataclass(frozen=True)
class Scoring:
    """The judge ``scoring`` before it knows the student; see the module."""

    grader: Grader
    share: float = 0.5
    held_out: float = 0.25
    least_agreement: float = 0.2
    passing: float = 5.0

    def by(self, student: Any, *, seed: int) -> ScoringJudge:
        """The judge for this student. ``seed`` decides which questions the teacher is asked about."""
        return ScoringJudge(self, student, seed)


class ScoringJudge:
    """``Scoring`` with its student. ``facts`` tells counts and agreement, and ``model`` is what was learnt, of the
    last call."""

    proves = False

    def __init__(self, settings: Scoring, student: Any, seed: int) -> None:
        self.settings, self.student, self.seed = settings, student, seed
        self.facts: dict[str, Any] = {}
        self.model: ScoringModel | None = None

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row: the teacher's where it was asked, the scoring model's elsewhere."""
        settings = self.settings
        rows, place = distinct(samples, attempts)
        asked, texts = taken(samples, rows), [attempts[row] for row in rows]
        keys = asked.column("prompt").to_pylist()
        ours = set(part_of(keys, settings.share, self.seed))
        graded = [row for row, key in enumerate(keys) if key in ours]
        rubric: Judge = Rubric(settings.grader, settings.passing)
        told = rubric(taken(asked, graded), [texts[row] for row in graded], events=events)
        views = dict(zip(graded, told, strict=True))
        rest = [row for row in range(len(rows)) if row not in views]
        views |= self._rest(asked, texts, views, rest, keys)
        self.facts |= {"graded": len(graded), "unread": sum(view.score is None for view in told), "rest": len(rest)}
        return spread(views, place)

    def _rest(
        self,
        asked: pa.Table,
        texts: Sequence[str],
        graded: Mapping[int, View],
        rest: Sequence[int],
        keys: Sequence[str],
    ) -> dict[int, View]:
        """Views of the rows that the teacher was not asked about."""
        settings = self.settings
        self.model, self.facts = None, {"agreement": None}
        every = features(self.student, asked, texts)
        known = [row for row, view in graded.items() if view.score is not None and every[row] is not None]
        if len(known) < LEAST_GRADED:
            return dict.fromkeys(rest, unjudged(f"fewer than {LEAST_GRADED} grades to learn from"))
        scores = np.array([graded[row].score for row in known], dtype=np.float64)
        found = train(
            np.array([every[row] for row in known]),
            scores,
            [keys[row] for row in known],
            encoder=_encoder(self.student),
            held_out=settings.held_out,
            seed=self.seed,
        )
        if found is None:
            return dict.fromkeys(rest, unjudged("too few questions to hold some out"))
        self.model, agreed = found
        self.facts["agreement"] = asdict(agreed)
        if agreed.spearman is None or agreed.spearman < settings.least_agreement:
            return dict.fromkeys(rest, unjudged("the scoring model agrees too little with the teacher"))
        return {row: self._view(every[row]) for row in rest}

    def _view(self, found: Numbers | None) -> View:
        if found is None or self.model is None:
            return unjudged(UNREADABLE)
        score = float(self.model(found[None])[0])
        passed = score * MOST >= self.settings.passing
        return View(score, "passed" if passed else "failed", f"the scoring model: {score * MOST:.1f} of 6")


def _encoder(student: Any) -> str:
    from ..student.learner import weights_digest

    return weights_digest(student.model)


def features(student: Any, samples: pa.Table, attempts: Sequence[str], *, batch: int = 16) -> list[Numbers | None]:
    """One row of features per attempt (see ``hidden``), None where the tokenizer does not know a character."""
    from .hidden import pooled

    return pooled(student, samples.column("prompt").to_pylist(), attempts, batch)


def judge_with(model: ScoringModel, student: Any, samples: pa.Table, attempts: Sequence[str]) -> list[float | None]:
    """Scores by a model that was learnt before. Raises ``DataError`` for another student than that one."""
    if _encoder(student) != model.encoder:
        raise DataError(
            "the scoring model learnt the hidden states of another student",
            where="scoring",
            hint="the student of the cycle that trained it",
        )
    found = features(student, samples, attempts)
    return [None if each is None else float(model(each[None])[0]) for each in found]
