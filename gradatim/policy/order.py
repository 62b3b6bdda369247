"""The environment of each episode of a stage: a pure function of the episode's number.

Rows are visited in passes, permuted anew in each pass of a shuffled stage, or sampled with the weights of a mixture, by
the sampler that batches of text use. A resumed stage therefore needs the number of its next episode and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..random_streams import pass_stream
from ..stage import Stage
from ..training.batches import WeightedSampler, make_sampler

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass
class EpisodeOrder:
    """Rows of the episodes of ``stage``, whose episodes have ``steps`` steps; ``rollout``: steps of a rollout."""

    stage: Stage
    steps: int
    rollout: int
    _pass: tuple[int, npt.NDArray[np.int64]] | None = field(default=None, repr=False)
    _slices: list[npt.NDArray[np.int64]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        sizes = np.full(len(self.stage.rows), self.steps, dtype=np.int64)
        self.sampler: WeightedSampler | None = make_sampler(self.stage, self.stage.rows, sizes, self.rollout)

    def row(self, episode: int) -> int:
        """The row of an episode, both counted from 0."""
        return self._sampled(self.sampler, episode) if self.sampler is not None else self._visited(episode)

    def _visited(self, episode: int) -> int:
        number, index = divmod(episode, len(self.stage.rows))
        if self._pass is None or self._pass[0] != number:
            rows = self.stage.rows
            if self.stage.shuffled_in(number):
                rows = pass_stream(self.stage.seed, number).permutation(rows)
            self._pass = number, rows
        return int(self._pass[1][index])

    def _sampled(self, sampler: WeightedSampler, episode: int) -> int:
        for number in range(100_000):  # slices may be empty; past the stage's end they continue
            if number == len(self._slices):
                self._slices.append(sampler.slice(number))
            rows = self._slices[number]
            if episode < len(rows):
                return int(rows[episode])
            episode -= len(rows)
        raise AssertionError("a mixture without rows")
