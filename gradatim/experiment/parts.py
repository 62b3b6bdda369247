"""Parts of a study, for several commands at the same time, such as the tasks of a Slurm job array."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import UserError

Run = TypeVar("Run")


@dataclass(frozen=True)
class Part:
    """Part ``number`` (from 1) of ``count`` parts of a study."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def select(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Every ``count``-th of the runs; together the parts have each run once."""
        return runs[self.number - 1 :: self.count]


SLURM = "slurm"
"""The part of a task of a Slurm job array."""


def parse_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """The part that ``text`` names: NUMBER/COUNT, or ``slurm`` for the variables of a Slurm array task.

    Those are SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP. Raises ``UserError`` for another text, a number out of range,
    and an array whose task ids are not evenly spaced.
    """
    if text == SLURM:
        return _slurm_part(environment)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None:
        raise UserError("a part is NUMBER/COUNT", where="--part", given=text, allowed=f"1/16 to 16/16, or {SLURM}")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        allowed = f"1/{count} to {count}/{count}" if count else "a count from 1"
        raise UserError("the part is out of range", where="--part", given=text, allowed=allowed)
    return Part(number, count)


def _slurm_part(environment: Mapping[str, str]) -> Part:
    def number(name: str, default: str | None = None) -> int:
        text = environment.get(name, default)
        if text is None or not text.isdecimal():
            raise UserError(
                "this process is not a task of a Slurm job array",
                where=f"--part {SLURM}",
                given=f"{name}={text}" if text else f"no variable {name}",
                hint="sbatch --array=1-16, or --part 3/16",
            )
        return int(text)

    task, count = number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_COUNT")
    first, step = number("SLURM_ARRAY_TASK_MIN", "1"), max(number("SLURM_ARRAY_TASK_STEP", "1"), 1)
    index, rest = divmod(task - first, step)
    if rest or not 0 <= index < count:
        raise UserError(
            "the task ids of this job array are not evenly spaced",
            where=f"--part {SLURM}",
            given=f"task {task}, {count} tasks from {first} in steps of {step}",
            allowed="arrays such as 1-16, 0-15 or 0-30:2",
            hint="--part $SLURM_ARRAY_TASK_ID/16 for some tasks of an array of 16",
        )
    return Part(index + 1, count)
