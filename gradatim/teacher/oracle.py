"""Who teaches TinyPy without ever being wrong?

The grammar writes the questions and the interpreter answers them, so nothing has to be believed. A new question has
the statements of its parent with fresh literals, operators and names; where too few tries succeed it is drawn from the
parent's level instead. A fault is what a slightly different program prints. Everything is fixed by (seed, draw, id), so
nothing needs to be kept.

The oracle has no opinion: it grades no attempts (the judge ``output`` can say right from wrong). It does not know what
is already known; ``update`` refuses what is not new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UserError, did_you_mean
from ..options import strict
from .teacher import GRADES, Grade, Question, Teacher

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Oracle", "check_grade", "oracle"]

TRIES = 40
"""How often a new program is tried before the level's grammar is asked, and how often that is asked."""
MOST_STEPS = 1_000
"""Statements that a slightly wrong program may take: a loop that does not end is no plausible answer."""


class Oracle:
    """The exact teacher. ``levels`` and ``digits`` are what ``seeds`` and new questions are drawn from."""

    def __init__(self, *, levels: str | Sequence[str] = ("all",), digits: int = 9, seed: int = 0) -> None:
        from ..programs.grammar import DIGITS, levels_named

        if not DIGITS[0] <= digits <= DIGITS[1]:
            raise DataError(
                "digits cannot be used", where="oracle", given=digits, allowed=f"{DIGITS[0]} to {DIGITS[1]}"
            )
        levels_named(levels)
        self.levels = (levels,) if isinstance(levels, str) else tuple(levels)
        self.digits, self.seed = digits, seed
        self._counts: Counter[str] = Counter()

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of what was given (``redrawn``: questions drawn from the level) and of what was not to be had."""
        return dict(sorted(self._counts.items()))

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """What each program prints, as comments; None for what is not TinyPy, fails, or prints nothing."""
        return [self._counted("answers", _printed(prompt)) for prompt in questions["prompt"].to_pylist()]

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """What a program prints that differs at one place, where that differs from the right answer."""
        rows = zip(samples["id"].to_pylist(), samples["prompt"].to_pylist(), strict=True)
        return [self._counted("faults", self._fault(prompt, self._random("fault", draw, id))) for id, prompt in rows]

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """One new program per parent, answered by running it; never a renamed twin of its parent."""
        check_grade(grade)
        columns = (parents[name].to_pylist() for name in ("id", "prompt", "level"))
        return [
            self._counted("questions", self._question(prompt, level, self._random(grade, draw, id)))
            for id, prompt, level in zip(*columns, strict=True)
        ]

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """``count`` different programs, spread over the levels; the same for the same seed."""
        from ..programs import generate

        table = generate(count, levels=self.levels, digits=self.digits, seed=seed).table
        columns = (table[name].to_pylist() for name in ("prompt", "answer", "level"))
        return [Question(prompt, answer, level, "python") for prompt, answer, level in zip(*columns, strict=True)]

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """Not available: ``UserError``."""
        raise UserError(
            "the teacher 'oracle' knows what is right and has no opinion",
            where="rubric",
            hint="the judge output, or a teacher that is a language model",
        )

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None:
        """Not available: ``UserError``."""
        raise UserError(
            "the teacher 'oracle' knows what is right and has no opinion of a curriculum",
            where="schedule.name: designed",
            hint="a schedule that needs no teacher, or a teacher that is a language model",
        )

    def _random(self, purpose: str, draw: int, id: str) -> Random:
        return Random(f"{self.seed}/{purpose}/{draw}/{id}")

    def _counted(self, what: str, made: Any) -> Any:
        self._counts[what if made is not None else f"{what} not to be had"] += 1
        return made

    def _fault(self, prompt: str, random: Random) -> str | None:
        from .variations import slips

        right = _printed(prompt)
        if right is None:
            return None
        wrong = (_printed(slip, MOST_STEPS) for slip in slips(prompt, random))
        return next((answer for answer in wrong if answer is not None and answer != right), None)

    def _question(self, parent: str, level: str | None, random: Random) -> Question | None:
        from ..programs import canonical
        from .variations import kin

        known = canonical(parent)
        if _printed(parent) is not None:
            for _ in range(TRIES):
                prompt = kin(parent, self.digits, random)
                answer = _printed(prompt, MOST_STEPS) if prompt is not None else None
                if prompt is not None and answer is not None and canonical(prompt) != known:
                    return Question(prompt, answer, level, "python")
        return self._redrawn(known, level, random)

    def _redrawn(self, known: str, level: str | None, random: Random) -> Question | None:
        """Another program of the level; None where the level is not known."""
        from ..programs import LEVELS, canonical
        from ..programs.generator import Drawer

        if level not in LEVELS:
            return None
        draw = Drawer(LEVELS[level], self.digits, str(random.getrandbits(64)))
        for _ in range(TRIES):
            try:
                prompt, answer = draw()
            except ArithmeticError:
                continue
            if canonical(prompt) != known:
                self._counts["redrawn"] += 1
                return Question(prompt, answer, level, "python")
        return None


def _printed(program: str, most_steps: int = 10_000) -> str | None:
    """The sample's answer to ``program``; None for what is not TinyPy, fails, does not end, or prints nothing."""
    from ..programs import commented, run_program

    try:
        return commented(run_program(program, max_steps=most_steps)) or None
    except DataError:
        return None


def check_grade(grade: str) -> None:
    """``UserError`` for a grade that no question is asked for."""
    if grade not in GRADES:
        raise UserError(
            "no question is asked for such a grade",
            where="teacher",
            given=grade,
            allowed=", ".join(GRADES),
            hint=did_you_mean(grade, GRADES),
        )


@strict("teacher 'oracle'")
def oracle(*, levels: str | Sequence[str] = ("all",), digits: int = 9, seed: int = 0) -> Teacher:
    """TinyPy: questions from the grammar, answers by running them"""
    return Oracle(levels=levels, digits=digits, seed=seed)
