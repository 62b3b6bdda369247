"""The source ``mobile``: environments of mobile-env as samples.

A sample is one environment (``environment``): its prompt is the JSON text, its answer is empty, its level names the
size. Environments of a kind differ in their seeds, and in their layouts where there are several. Later cycles have
other seeds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import RecipeError
from ..faults import fault_text
from ..options import strict
from ..random_streams import cycle_seed
from ..stage import CyclePlan, Drawn, Feedback, Source
from .environment import MOST_SPEED, MOST_STATIONS, MOST_STEPS, MOST_USERS, Environment, layout, level_of


class EnvironmentKind(BaseModel):
    """A kind of environment: number of stations and users, speed in metres per step, number of layouts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stations: Annotated[int, Field(ge=1, le=MOST_STATIONS)]
    users: Annotated[int, Field(ge=1, le=MOST_USERS)]
    speed: Annotated[float, Field(ge=0, le=MOST_SPEED)]
    layouts: Annotated[int, Field(ge=1, le=100_000)] = 1

    @property
    def level(self) -> str:
        """The label of its environments."""
        return level_of(self.stations, self.users, self.speed)


@dataclass(frozen=True)
class MobileSource(Source):
    """``count`` environments of each of ``kinds``, of ``steps`` steps each."""

    count: int
    kinds: tuple[EnvironmentKind, ...]
    steps: int
    seed: int

    def plan(self, cycle: int) -> CyclePlan:
        """All environments in the first cycle; the training samples of the same number later."""
        return CyclePlan(self.count * len(self.kinds) if cycle == 0 else None)

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """The environments of a cycle."""
        from ..table import make_table

        environments = [environment for kind in self.kinds for environment in self._environments(kind, cycle)]
        columns = {
            "prompt": [environment.text for environment in environments],
            "answer": [""] * len(environments),
            "level": [environment.level for environment in environments],
        }
        facts = {"kept": len(environments), "levels": {kind.level: self.count for kind in self.kinds}}
        return Drawn(make_table(columns), facts)

    def _environments(self, kind: EnvironmentKind, cycle: int) -> list[Environment]:
        rng = random.Random(f"{cycle_seed(self.seed, cycle)}/{kind.level}")
        seeds = rng.sample(range(SEEDS), self.count)
        return [
            Environment(
                layout(kind.stations, number % kind.layouts, self.seed), kind.users, kind.speed, self.steps, seed
            )
            for number, seed in enumerate(seeds)
        ]


SEEDS = 1 << 30
"""Seeds of environments."""


@strict("the source 'mobile'")
def mobile(
    *,
    count: Annotated[int, Field(ge=1, description="Number of environments of each kind, which differ in their seeds.")],
    environments: Annotated[
        Sequence[dict[str, Any]],
        Field(
            description="Kinds of environments: a list of {`stations`, `users`, `speed` (metres per step), `layouts`}. "
            "Layout 0 is that of mobile-env's small scenario, others (`layouts` above 1) have random positions."
        ),
    ],
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS, description="Steps of an episode.")] = 100,
    seed: int = 0,
) -> Source:
    """Environments of mobile-env, a simulator of cellular networks, for a policy (extra `mobile`)"""
    kinds = tuple(_kind(number, content) for number, content in enumerate(environments))
    levels = [kind.level for kind in kinds]
    for name, value, most in (("count", count, SEEDS // 2), ("steps", steps, MOST_STEPS)):
        if not 1 <= value <= most:
            raise RecipeError("an option out of range", where=f"data.{name}", given=value, allowed=f"1 to {most:,}")
    if not levels:
        raise RecipeError(
            "there is no kind of environment", where="data.environments", hint="[{stations: 1, users: 2, speed: 0}]"
        )
    if twice := sorted({level for level in levels if levels.count(level) > 1}):
        raise RecipeError("a kind of environment occurs twice", where="data.environments", given="; ".join(twice))
    return MobileSource(count, kinds, steps, seed)


def _kind(number: int, content: Mapping[str, Any]) -> EnvironmentKind:
    """A kind of environment from plain values; ``RecipeError`` with all its faults."""
    where = f"data.environments[{number}]"
    try:
        return EnvironmentKind.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, entry['loc']))} {fault_text(entry)} (given {entry['input']!r})"
            for entry in error.errors()
        ]
        allowed = ", ".join(EnvironmentKind.model_fields)
        raise RecipeError("; ".join(faults), where=where, faults=faults, allowed=allowed) from error
