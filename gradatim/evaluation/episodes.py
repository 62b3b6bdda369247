"""The suite ``episodes``: the utility that a policy reaches in a mobile network.

One episode of the likeliest actions is played in each environment of the samples. Its score is its utility in [0, 1]
(``mobile.play``), whatever the reward of the training, so that ``passed`` of the counts is a sum of utilities. The
outcome of an episode is ``passed`` where the utility is at least that of the rule that connects every user to its
nearest station alone. Further scores: the share of connected users, mean over steps, and the utility of that rule.
Two of the examples, one of either outcome, have the positions of the users (``map``).

*seen*: the layouts of the samples. *unseen*: a random layout for each environment instead, with the same users, speed
and seed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..errors import DataError, RecipeError
from ..mobile import require_packages
from ..mobile.environment import Environment, environments_of, layout
from ..options import BatchSize, strict
from ..stage import Counts, Events, Model, Suite, SuiteResult, ignore_events
from .statistics import Attempt, SampleLimit, check_options, check_samples, example_indices, sample_indices, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from ..mobile.play import Episode

Layouts = Annotated[
    Literal["seen", "unseen"],
    Field(description="The layouts of the samples, or a random layout for each environment (`unseen`)."),
]
Levels = Annotated[
    tuple[str, ...] | None,
    Field(description="Levels of the environments to play in, such as `3 stations, 5 users, speed 1.5`. Default: all."),
]
UNSEEN = 1 << 20
"""Number of the first unseen layout; a source has fewer."""
ROUNDING = 1e-9


@strict("the suite 'episodes'")
def episodes(
    *, layouts: Layouts = "seen", levels: Levels = None, limit: SampleLimit = None, batch: BatchSize = None
) -> Suite:
    """Utility of a policy."""
    check_options("episodes", limit=limit, batch=batch)
    return Episodes(layouts, levels, limit, batch)


@dataclass(frozen=True)
class Episodes(Suite):
    """The suite ``episodes`` with its options; see the module docstring."""

    layouts: Literal["seen", "unseen"]
    levels: tuple[str, ...] | None
    limit: int | None
    batch: int | None
    students = ("policy",)

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One episode per sample. ``student`` is a policy, as from ``policy.masked.load_policy``.

        Raises ``RecipeError`` for a language model and ``DataError`` for samples that are no environments.
        """
        require_packages("evaluate.suites: episodes")
        from ..mobile import play

        check_samples(samples)
        if not hasattr(student, "act"):
            raise RecipeError(
                "this suite needs a policy", where="evaluate.suites: episodes", given="a language model",
                hint="student: {kind: policy}",
            )  # fmt: skip
        started = time.perf_counter()
        chosen = self._of_levels(samples)
        rows = [chosen[row] for row in sample_indices(len(chosen), self.limit, seed)]
        environments = [self._environment(item, seed) for item in environments_of(samples.take(rows))]
        task = f"episodes ({self.layouts})"
        played = play.play(student, environments, batch=self.batch, task=task, events=events)  # type: ignore[arg-type]
        references = [play.reference(environment) for environment in environments]
        attempts = [_attempt(*item) for item in zip(rows, environments, played, references, strict=True)]
        shown = example_indices(attempts)
        mapped = [index for index in shown if attempts[index].outcome == attempts[shown[0]].outcome][:1]
        mapped += [index for index in shown if attempts[index].outcome != attempts[shown[0]].outcome][:1]
        traced = play.play(student, [environments[index] for index in mapped], traced=len(mapped))  # type: ignore[arg-type]
        maps = {index: _map(environments[index], episode) for index, episode in zip(mapped, traced, strict=True)}
        result = tally("episodes", self.layouts, samples, attempts, started=started)
        scores = {
            "connected users": (sum(episode.connected for episode in played), len(played)),
            "utility of the nearest station": (sum(episode.utility for episode in references), len(references)),
        }
        examples = tuple(
            {**example, "map": maps[index]} if index in maps else example
            for example, index in zip(result.examples, shown, strict=True)
        )
        return replace(_with_utilities(result, played), scores=scores, examples=examples, texts=None)

    def _of_levels(self, samples: pa.Table) -> list[int]:
        """The rows of the option ``levels``. ``DataError`` for a level without a row."""
        present = samples["level"].to_pylist() if "level" in samples.column_names else [None] * samples.num_rows
        if self.levels is None:
            return list(range(samples.num_rows))
        for level in self.levels:
            if level not in present:
                raise DataError(
                    "no environment to evaluate on has this level",
                    where="evaluate.suites: episodes.levels",
                    given=level,
                    allowed="; ".join(sorted({str(name) for name in present if name is not None})),
                )
        return [row for row, level in enumerate(present) if level in self.levels]

    def _environment(self, environment: Environment, seed: int) -> Environment:
        if self.layouts == "seen":
            return environment
        stations = layout(len(environment.stations), UNSEEN + environment.seed, seed)
        return replace(environment, stations=stations)


def _attempt(row: int, environment: Environment, episode: Episode, reference: Episode) -> Attempt:
    passed = episode.utility >= reference.utility - ROUNDING
    text = (
        f"utility {episode.utility:.3f}, {episode.connected_at_end} of {environment.users} users connected at the end"
    )
    expected = f"utility {reference.utility:.3f} or more"
    return Attempt(row, environment.text, expected, text, passed=int(passed), failed=int(not passed))


def _with_utilities(result: SuiteResult, played: Sequence[Episode]) -> SuiteResult:
    """The result with sums of utilities in place of the numbers of passed episodes."""
    verdicts = result.verdicts
    assert verdicts is not None
    utilities = [episode.utility for episode in played]
    labels = {**verdicts.labels, "outcome": verdicts.outcomes, "all": ("all",) * len(utilities)}
    counts = {
        group: {
            value: Counts(
                float(sum(item for item, label in zip(utilities, labels[group], strict=True) if label == value)),
                number.total,
            )
            for value, number in values.items()
        }
        for group, values in result.counts.items()
    }
    return replace(result, counts=counts, verdicts=replace(verdicts, passed=tuple(utilities)))


def _map(environment: Environment, episode: Episode) -> dict[str, object]:
    """The positions of an episode as plain JSON: ``stations`` and, for each user, its points with stations in use."""
    return {
        "stations": [list(position) for position in environment.stations],
        "users": [[[x, y, list(stations)] for x, y, stations in user] for user in episode.trace],
    }
