"""Statistics: shares and their intervals, pass@k, counts of a suite's results, and comparisons of arms over seeds.

Pure functions. Accuracies and differences are fractions in [0, 1]. An undefined value is ``None`` with a reason in
words.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor, prod, sqrt
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import DataError, RecipeError, UserError
from ..lazy import np, pa
from ..random_streams import subset_stream
from ..stage import Counts, SuiteResult, Verdicts

if TYPE_CHECKING:
    import numpy.typing as npt

    from .crossed import CrossedError, ItemScores


_NONE = Counts(0, 0)


def wilson(passed: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (JASA 1927) for the share ``passed / total``, as (low, high) within [0, 1].

    ``passed`` may also be a sum of values in [0, 1]: their variance is at most that of a count with the same mean,
    so the interval is then conservative. Without items it is (0, 1). Raises
    ``ValueError`` for a ``passed`` outside [0, total] or a ``confidence`` outside (0, 1).

    ``wilson`` concerns the *test items*: the variation of a share over other items of the same kind, not over
    training seeds; the report compares arms over seeds.
    """
    if not 0 <= passed <= total:
        raise ValueError(f"{passed} of {total} is not a share")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = passed / total
    center = share + z * z / (2 * total)
    half_width = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the exact bound is the share itself; rounding must not put it on the wrong side.
    low = 0.0 if passed == 0 else max(0.0, (center - half_width) / scale)
    high = 1.0 if passed == total else min(1.0, (center + half_width) / scale)
    return low, high


def summary(result: SuiteResult) -> dict[str, Any]:
    """Plain numbers of a result, in the stable form of ``--json``.

    ``{"counts": {"passed", "failed", "timeout", "invalid", "total"}, "scores": {name: {"value", "low", "high"}}}``.
    A prompt longer than the student's context counts as failed, a sample that cannot be evaluated (a character outside
    the vocabulary, no correct answer) as invalid; both are in the total. ``accuracy`` is passed / total unless the
    result has a score of that name; where items have scores, ``mean score`` stands in its place and ``passed`` is the
    number of items with that outcome. The result's other scores follow. Intervals are 95 %.
    """
    overall = result.counts["all"]["all"]
    ends = result.counts.get("outcome", {})
    invalid, timeout = (ends.get(name, _NONE).total for name in ("invalid", "timeout"))
    scored = isinstance(overall.passed, float)
    scores = {"mean score" if scored else "accuracy": (float(overall.passed), overall.total), **result.scores}
    passed = ends.get("passed", _NONE).total if scored else overall.passed
    return {
        "counts": {
            "passed": passed,
            "failed": overall.total - passed - timeout - invalid,
            "timeout": timeout,
            "invalid": invalid,
            "total": overall.total,
        },
        "scores": {name: _estimate(*score) for name, score in scores.items()},
    }


def _estimate(total_value: float, count: int) -> dict[str, float]:
    low, high = wilson(total_value, count)
    return {"value": total_value / count if count else 0.0, "low": low, "high": high}


@dataclass(frozen=True)
class Tally:
    """Counts of one problem's samples: judged ones, and correct ones among them."""

    samples: int
    right: int


@dataclass(frozen=True)
class Estimate:
    """pass@k over problems, with its 95 % interval.

    ``problems`` had k samples or more; ``short`` names the others, which are not in the mean. ``equivalent`` is the
    number of yes-or-no problems with an equal interval: ``wilson(value * equivalent, equivalent)``.
    """

    k: int
    value: float
    low: float
    high: float
    problems: int
    equivalent: int
    short: tuple[str, ...] = ()


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased estimate for one problem, in [0, 1]. Raises ``ValueError`` unless 0 <= right <= samples >= k >= 1.

    A product of ratios instead of two binomials (the paper's figure 3), which could overflow.

    pass@k of one problem is estimated as by Chen et al. (2107.03374, section 2.1): with c correct of n samples, 1 -
    C(n-c, k) / C(n, k) is the share of the subsets of size k with a correct one. That is unbiased, unlike 1 - (1 -
    c/n)^k. The score is the mean over problems.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {right} right in {samples} samples does not exist")
    if samples - right < k:
        return 1.0
    return 1.0 - prod(1.0 - k / count for count in range(samples - right + 1, samples + 1))


def estimate(tallies: Mapping[str, Tally], k: int, confidence: float = 0.95) -> Estimate:
    """pass@k, the mean over the problems of ``tallies`` with at least k samples.

    Raises ``UserError`` when there is none.

    Its interval concerns the *problems*: Wilson's (JASA 1927) for an equivalent number of yes-or-no problems, as
    surveys compute it for shares of unequal units (Korn and Graubard 1998): value (1 - value) / (squared standard
    error), corrected for the few problems that the error is estimated from (Student's t). A bootstrap needs a seed,
    has no width when every problem or none is solved, and is too narrow for few problems; Wilson's interval stays
    within [0, 1]. Problems with one sample (n = 1, k = 1) get Wilson's interval itself.
    """
    enough = [tally for tally in tallies.values() if tally.samples >= k]
    if k < 1 or not enough:
        maximum = max((tally.samples for tally in tallies.values()), default=0)
        raise UserError(
            f"pass@{k} needs a problem with {max(k, 1)} or more samples",
            where="k",
            given=f"at most {maximum} samples of a problem",
            allowed=f"1 to {maximum}" if maximum else None,
        )
    values = [pass_at_k(tally.samples, tally.right, k) for tally in enough]
    equivalent = _equivalent(values, [tally.samples for tally in enough], k, confidence)
    value = fmean(values)
    low, high = wilson(min(value * equivalent, equivalent), equivalent, confidence)
    short = tuple(name for name, tally in tallies.items() if tally.samples < k)
    return Estimate(k, value, low, high, len(enough), equivalent, short)


def _equivalent(values: Sequence[float], samples: Sequence[int], k: int, confidence: float) -> int:
    """Number of yes-or-no problems with the standard error of these values; at least 1.

    At most the number of disjoint groups of k samples: values that are equal by chance would otherwise have no error.
    """
    count, value = len(values), fmean(values)
    if all(share in (0.0, 1.0) for share in values):
        return count
    groups = sum(number // k for number in samples)
    variance = sum((share - value) ** 2 for share in values) / max(count - 1, 1)
    equivalent = count * value * (1 - value) / variance if variance > 0 else groups
    return max(1, floor(min(equivalent, groups) * _small_sample_factor(count, confidence)))


def _small_sample_factor(problems: int, confidence: float) -> float:
    """(z / t)²: correction for a standard error that is estimated from few problems."""
    if problems < 2:
        return 1.0
    tail = (1 + confidence) / 2
    return (NormalDist().inv_cdf(tail) / _student_t(tail, problems - 1)) ** 2


def _student_t(tail: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, tail))


Mode = Annotated[
    Literal["greedy", "paper"],
    Field(description="Greedy decoding, or sampling at temperature 1 with the limits of arXiv 2407.10194."),
]
SampleLimit = Annotated[
    int | None, Field(description="Maximum number of items, chosen at random by `evaluate.seed`. Default: all.")
]

GROUPS = ("level", "band", "twin", "category")
"""Columns with counts for each of their values, where the table has them."""

_OUTCOMES = ("passed", "failed", "too_long", "invalid")
OUTCOMES = ("passed", "failed", "timeout", "too_long", "invalid")
"""The outcomes of an item, the gravest last."""
_EXAMPLES = 6


@dataclass(frozen=True)
class Attempt:
    """Result of one item of row ``row`` of the table: numbers of units that passed, failed, or were not evaluated.

    A unit is an output or a line, or a character in the suite ``token``. ``too_long``: beyond the student's context;
    ``invalid``: a character outside its vocabulary, or no correct answer for a comparison.
    """

    row: int
    prompt: str
    expected: str
    attempt: str = ""
    passed: int = 0
    failed: int = 0
    too_long: int = 0
    invalid: int = 0

    @property
    def total(self) -> int:
        return self.passed + self.failed + self.too_long + self.invalid

    @property
    def outcome(self) -> str:
        """The gravest outcome of the units: invalid, too_long, failed, or passed."""
        return next((name for name in reversed(_OUTCOMES[1:]) if getattr(self, name)), "passed")


def check_options(suite: str, **counts: int | None) -> None:
    """Raise ``RecipeError`` with every option of ``counts`` below one; None is valid."""
    numbers = {name: count for name, count in counts.items() if count is not None}
    faults = [f"{name}: must be 1 or more (given {count})" for name, count in numbers.items() if count < 1]
    if faults:
        raise RecipeError(f"the suite {suite!r}: " + "; ".join(faults), faults=faults)


def check_chat(suite: str, chat: bool, text: str) -> None:
    """Raise ``RecipeError`` for ``text: all`` with a chat template: the prompt is the user's message there."""
    if chat and text == "all":
        raise RecipeError(
            "with a chat template only answers are evaluated", where=f"the suite {suite!r}", given="text: all",
            hint="leave out text, or chat",
        )  # fmt: skip


def check_samples(samples: pa.Table) -> None:
    """Raise ``DataError`` for a table without rows, prompts or answers."""
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing:
        names = ", ".join(samples.column_names)
        raise DataError(f"the samples have no column {missing[0]!r}", where="evaluate", given=names)
    if not samples.num_rows:
        raise DataError("there are no samples to evaluate on", where="evaluate", hint="a table with rows")


def text_column(samples: pa.Table, name: str) -> list[str]:
    """A column as strings; missing values are empty."""
    return [value or "" for value in samples.column(name).to_pylist()]


def program_texts(
    samples: pa.Table, text: Literal["program", "all"], format_prompt: Callable[[str], str] = str
) -> list[str]:
    """Texts to complete: the prompt (the answer, for code without a prompt), or the formatted prompt and the answer."""
    both = zip(text_column(samples, "prompt"), text_column(samples, "answer"), strict=True)
    return [format_prompt(prompt) + answer if text == "all" else prompt or answer for prompt, answer in both]


def sample_indices(count: int, limit: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Sorted indices of ``limit`` of ``count`` items (all when None): the first of a permutation by ``seed``.

    A larger limit includes the items of a smaller one, so that a quick and a full evaluation agree on them.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(subset_stream(seed).permutation(count)[:limit])


def tally(
    suite: str,
    protocol: str,
    samples: pa.Table,
    attempts: Sequence[Attempt],
    *,
    started: float,
    scores: Mapping[str, tuple[float, int]] | None = None,
) -> SuiteResult:
    """The attempts as counts: ``all``, one group per present column of ``GROUPS``, and ``outcome``.

    ``counts["outcome"]`` always has the entries passed, failed, too_long and invalid.
    ``started`` is a reading of ``time.perf_counter``.

    Every suite ends with one ``Attempt`` per item, and ``tally`` turns them into a ``SuiteResult``. Every item is
    in a total: one that could not be evaluated counts under the outcome of its cause.
    """
    groups = {name: _labels(samples, name) for name in GROUPS if name in samples.column_names}
    counts = {"all": {"all": _counts(attempts)}}
    for name, labels in groups.items():
        members: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            members.setdefault(labels[attempt.row], []).append(attempt)
        counts[name] = {label: _counts(members[label]) for label in sorted(members)}
    ends = {name: sum(getattr(attempt, name) for attempt in attempts) for name in _OUTCOMES}
    counts["outcome"] = {name: Counts(end if name == "passed" else 0, end) for name, end in ends.items()}
    shown = [attempts[index] for index in example_indices(attempts)]
    examples = tuple(_without_row(entry) for entry in _entries(samples, groups, shown))
    seconds, verdicts = time.perf_counter() - started, _verdicts(samples, groups, attempts)
    texts = partial(_entries, samples, groups, attempts)
    return SuiteResult(suite, protocol, counts, dict(scores or {}), examples, seconds, verdicts, texts=texts)


def example_indices(attempts: Sequence[Attempt]) -> list[int]:
    """Indices of the attempts that become examples: the first correct and the first wrong ones."""
    correct = [index for index, attempt in enumerate(attempts) if attempt.outcome == "passed" and attempt.total]
    wrong = [index for index, attempt in enumerate(attempts) if attempt.outcome != "passed"]
    return [*correct[:_EXAMPLES], *wrong[:_EXAMPLES]]


def _counts(attempts: Iterable[Attempt]) -> Counts:
    both = [(attempt.passed, attempt.total) for attempt in attempts]
    return Counts(sum(passed for passed, _ in both), sum(total for _, total in both))


def _labels(samples: pa.Table, name: str) -> list[str]:
    return ["none" if value is None else str(value) for value in samples.column(name).to_pylist()]


def _ids(samples: pa.Table, rows: Sequence[int]) -> list[str]:
    """The ids of ``rows``; the numbers of the rows in a table without ids."""
    if "id" not in samples.column_names:
        return list(map(str, rows))
    return list(map(str, samples.column("id").take(pa.array(rows, pa.int64())).to_pylist()))


def _verdicts(samples: pa.Table, groups: Mapping[str, Sequence[str]], attempts: Sequence[Attempt]) -> Verdicts:
    """The verdict on each row with an attempt; the attempts of one row (lines) are its units."""
    members: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        members.setdefault(attempt.row, []).append(attempt)
    rows = sorted(members)
    return Verdicts(
        ids=tuple(_ids(samples, rows)),
        rows=tuple(rows),
        outcomes=tuple(gravest(attempt.outcome for attempt in members[row]) for row in rows),
        passed=tuple(sum(attempt.passed for attempt in members[row]) for row in rows),
        total=tuple(sum(attempt.total for attempt in members[row]) for row in rows),
        labels={name: tuple(labels[row] for row in rows) for name, labels in groups.items()},
    )


def gravest(outcomes: Iterable[str]) -> str:
    """The outcome of an item from those of its units, ``passed`` only if all are."""
    return max(outcomes, key=OUTCOMES.index)


def _entries(
    samples: pa.Table, groups: Mapping[str, Sequence[str]], attempts: Sequence[Attempt]
) -> Iterator[dict[str, Any]]:
    """The attempts as plain values."""
    for id, attempt in zip(_ids(samples, [attempt.row for attempt in attempts]), attempts, strict=True):
        yield {
            "id": id,
            "row": attempt.row,
            "prompt": attempt.prompt,
            "expected": attempt.expected,
            "attempt": attempt.attempt,
            "passed": attempt.outcome == "passed",
            "outcome": attempt.outcome,
            **{name: labels[attempt.row] for name, labels in groups.items()},
        }


def _without_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as an example of a ``SuiteResult``."""
    return {name: value for name, value in entry.items() if name != "row"}


ENOUGH_SEEDS = 5
"""With fewer seeds no difference is claimed: the t interval depends on a poor estimate of the variance."""


@dataclass(frozen=True)
class Interval:
    """A closed interval from ``low`` to ``high`` with coverage ``level``."""

    low: float
    high: float
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """The difference of two arms, paired by seed.

    ``differences[i]`` is ``arm`` − ``against`` at ``seeds[i]``, over their common seeds. ``mean`` is None without a
    common seed; ``interval`` and ``p`` (two-sided) are None when undefined, with the reason in ``undefined``.
    ``p_holm`` is p corrected over all comparisons of the table. ``too_few`` is true below ``ENOUGH_SEEDS`` seeds:
    no difference may be claimed then, whatever p is. ``item_variance``: the test items' part of the squared standard
    error; None: interval and p have the seeds' part only.
    """

    arm: str
    against: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    undefined: str | None = None
    item_variance: float | None = None

    @property
    def too_few(self) -> bool:
        return len(self.seeds) < ENOUGH_SEEDS

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether there are enough seeds and the corrected p is below ``alpha``."""
        return not self.too_few and self.p_holm is not None and self.p_holm < alpha


def wilson_interval(passed: float, total: int, level: float = 0.95) -> Interval | None:
    """Wilson's score interval (see ``wilson``) for ``passed`` of ``total`` test items; None without items."""
    return Interval(*wilson(passed, total, level), level) if total else None


def t_interval(values: Sequence[float], level: float = 0.95, error: CrossedError | None = None) -> Interval | None:
    """Student's t interval for the mean of ``values``; None with fewer than two values or without variance.

    ``error``: the squared standard error and degrees of freedom, by default those of ``values`` alone.
    """
    spread = _spread(values)
    if spread is None:
        return None
    from scipy.stats import t  # imported here: takes half a second, and single runs need no interval

    variance, freedom = _error(values, spread, error)
    reach = float(t.ppf(0.5 + level / 2, freedom)) * math.sqrt(variance)
    middle = fmean(values)
    return Interval(middle - reach, middle + reach, level)


def _error(values: Sequence[float], spread: float, error: CrossedError | None) -> tuple[float, float]:
    """The squared standard error of the mean of ``values`` and its degrees of freedom."""
    if error is None:
        return spread**2 / len(values), len(values) - 1.0
    return error.variance, error.freedom


def arm_interval(
    arm: str, scores: Mapping[int, float], items: ItemScores | None = None, level: float = 0.95
) -> Interval | None:
    """The interval of an arm's mean accuracy over seeds and, with ``items``, over test items (``crossed``)."""
    return t_interval(list(scores.values()), level, _crossed(items, {arm: 1.0}, tuple(scores), scores))


def _crossed(
    items: ItemScores | None, signs: Mapping[str, float], seeds: Sequence[int], means: Mapping[int, float]
) -> CrossedError | None:
    """The error of the signed sum of arms over ``seeds``; None when a run has no verdicts, or others than its score."""
    if items is None or not seeds or any(seed not in items.values.get(arm, {}) for arm in signs for seed in seeds):
        return None
    from .crossed import crossed_error

    values = np.stack([sum(sign * items.values[arm][seed] for arm, sign in signs.items()) for seed in seeds])
    if not np.allclose(values.mean(axis=1), [means[seed] for seed in seeds]):
        return None
    return crossed_error(values, items.forms)


def paired_difference(
    arm: str,
    against: str,
    scores: Mapping[str, Mapping[int, float]],
    level: float = 0.95,
    items: ItemScores | None = None,
) -> Difference:
    """``arm`` − ``against`` over their common seeds. ``scores[name][seed]`` is an accuracy.

    One seed gives a difference without an interval; two or more give Student's t interval and a two-sided p.
    Identical differences leave both undefined: p would be 0 or 0/0, and neither is evidence.

    The unit of analysis is the *seed*: arms share seeds, data and test set, so the statistic is the mean difference
    paired by seed, with Student's t interval over seeds. With ``items``, interval and p also cover other test items
    (``crossed``). The p values of several arms are corrected by Holm's step-down method. The Wilson interval over test
    items covers one trained model on other programs of the same kind; it is given per run and never pooled over seeds,
    which would count the items of one seed as independent trials.
    """
    first, second = scores.get(arm, {}), scores.get(against, {})
    seeds = tuple(sorted(first.keys() & second.keys()))
    values = tuple(first[seed] - second[seed] for seed in seeds)
    difference = Difference(arm, against, seeds, values, mean=fmean(values) if values else None)
    if not values:
        return replace(difference, undefined="no seed is finished in both")
    if not all(map(math.isfinite, values)):
        return replace(difference, mean=None, undefined="a score is not a number")
    if len(values) == 1:
        return replace(difference, undefined="one seed gives no interval")
    spread = _spread(values)
    if spread is None:
        return replace(difference, undefined="the same in every seed: no interval")
    from scipy.stats import t

    error = _crossed(items, {arm: 1.0, against: -1.0}, seeds, dict(zip(seeds, values, strict=True)))
    variance, freedom = _error(values, spread, error)
    p = min(1.0, 2 * float(t.sf(abs(fmean(values)) / math.sqrt(variance), freedom)))
    item_variance = None if error is None else error.items
    return replace(difference, interval=t_interval(values, level, error), p=p, item_variance=item_variance)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction (1979): the k-th smallest of m p values is multiplied by m − k + 1.

    Corrected values are non-decreasing and at most 1. An undefined p stays undefined but counts in m, since the
    comparison was planned, even while its runs are unfinished.
    """
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    defined = sorted((p, name) for name, p in p_values.items() if p is not None)
    floor = 0.0
    for rank, (p, name) in enumerate(defined):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = floor
    return corrected


def compare(
    scores: Mapping[str, Mapping[int, float]],
    arms: Sequence[str],
    against: str,
    level: float = 0.95,
    items: ItemScores | None = None,
) -> tuple[Difference, ...]:
    """The difference of each of ``arms`` to ``against`` (but of ``against`` itself), Holm-corrected over all."""
    differences = [paired_difference(arm, against, scores, level, items) for arm in arms if arm != against]
    corrected = holm({difference.arm: difference.p for difference in differences})
    return tuple(replace(difference, p_holm=corrected[difference.arm]) for difference in differences)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (1947) for two models on the same items.

    ``won``: the items that only the first model solves, ``lost``: those that only the second does. Under the null
    hypothesis ``won`` is binomial with probability 1/2; without such items p is 1.
    """
    if won < 0 or lost < 0:
        raise ValueError(f"counts must not be negative, not {won} and {lost}")
    if won + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost, 0.5).pvalue)


ENOUGH_POWER = 0.8
"""The probability of detecting a true difference that a study should have (Cohen, 1988)."""


def power(
    difference: float,
    spread: float,
    seeds: int,
    comparisons: int = 1,
    alpha: float = 0.05,
    item_variance: float = 0.0,
) -> float:
    """Probability that a paired t test over ``seeds`` finds a true mean ``difference`` significant.

    ``spread``: the standard deviation of the paired differences. ``item_variance``: the test items' part of the squared
    standard error, which more seeds do not reduce. ``comparisons``: the number of arms that are compared
    with the baseline; the level is ``alpha / comparisons``, Holm's for the smallest p value.
    """
    if seeds < 2:
        return 0.0
    if difference == 0:
        return alpha / comparisons
    from scipy.stats import ncf, t

    # The square of a noncentral t is a noncentral F, whose tail is computed without loss for large differences.
    critical = float(t.ppf(1 - alpha / (2 * comparisons), seeds - 1))
    shift = difference / math.sqrt(spread**2 / seeds + item_variance)
    return float(ncf.sf(critical**2, 1, seeds - 1, shift**2))


def detectable_difference(
    spread: float,
    seeds: int,
    comparisons: int = 1,
    alpha: float = 0.05,
    enough: float = ENOUGH_POWER,
    item_variance: float = 0.0,
) -> float:
    """The smallest true difference that ``seeds`` detect with probability ``enough``; infinite below two seeds."""
    if seeds < 2:
        return math.inf
    low, high = 0.0, spread
    while power(high, spread, seeds, comparisons, alpha, item_variance) < enough:
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        share = power(middle, spread, seeds, comparisons, alpha, item_variance)
        low, high = (middle, high) if share < enough else (low, middle)
    return high


def seeds_needed(
    difference: float,
    spread: float,
    comparisons: int = 1,
    alpha: float = 0.05,
    enough: float = ENOUGH_POWER,
    item_variance: float = 0.0,
) -> int | None:
    """The smallest number of seeds that detect ``difference`` with probability ``enough``; None above 1,000."""
    if difference == 0:
        return None
    seeds = range(2, 1001)
    index = bisect_left(
        seeds, enough, key=lambda count: power(difference, spread, count, comparisons, alpha, item_variance)
    )
    return seeds[index] if index < len(seeds) else None


def _spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None when undefined or below rounding error."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    spread = stdev(values)
    return spread if spread > 1e-12 * max(1.0, *(abs(value) for value in values)) else None


def rank_correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation of two arrays of equal length, ties with their mean rank.

    None where a side is constant or has fewer than two values.
    """
    from scipy.stats import spearmanr

    if any(len(set(values.tolist())) < 2 for values in (first, second)):
        return None
    return float(spearmanr(first, second).statistic)
