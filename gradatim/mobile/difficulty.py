"""Difficulties of environments of mobile networks: ``load`` from the sizes, ``nearest_station`` from an episode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import DataError
from ..lazy import np
from ..options import strict
from ..stage import Difficulty, Event, Events, ignore_events
from . import require_packages
from .environment import Environment, read_environment

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


class Load(Difficulty):
    """See ``load``."""

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per environment, NaN for a sample that is none."""
        scores = [math.nan if each is None else load_of(each) for each in _environments(samples)]
        return np.array(scores, dtype=np.float64)


def _environments(samples: pa.Table) -> list[Environment | None]:
    """The environment of each sample, None for another text."""
    environments: list[Environment | None] = []
    for text in samples["prompt"].to_pylist():
        try:
            environments.append(read_environment(text or ""))
        except DataError:
            environments.append(None)
    return environments


def load_of(environment: Environment) -> float:
    """Users × stations × (1 + speed in metres per step)."""
    return environment.users * len(environment.stations) * (1 + environment.speed)


@strict("the difficulty 'load'")
def load() -> Difficulty:
    """Users × stations × (1 + speed) of an environment."""
    return Load()


class NearestStation(Difficulty):
    """See ``nearest_station``."""

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """1 - the utility of one episode per environment, NaN for a sample that is none."""
        require_packages("difficulty.metric")
        from .play import reference

        scores = []
        for environment in _environments(samples):
            scores.append(math.nan if environment is None else 1 - reference(environment).utility)
            events(Event("advance", "play", len(scores), samples.num_rows))
        return np.array(scores, dtype=np.float64)


@strict("the difficulty 'nearest_station'")
def nearest_station() -> Difficulty:
    """1 - the utility of an episode in which every user is connected to its nearest station alone."""
    return NearestStation()
