"""The main result of a study in one sentence, with the sentences that qualify it.

The headline claims no more than the statistics allow. Arms that are not comparable have no difference
(``comparison``); with fewer than five seeds no difference is claimed; models that are not above the most frequent
answer are undertrained. A gain is not attributed to the ordering unless it beats the control with the same
learning-rate restarts, nor to the training method when the arm has more distinct samples or tokens than the baseline
and does not beat an arm that has as many. Other arms that are named beside a gain have the same qualification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from ..evaluation.statistics import ENOUGH_SEEDS, Difference, detectable_difference, seeds_needed
from .summary import HEADLINE, ArmRow, Summary, interval_of_points, p_value, percent, points
from .units import metric_of, plural

Verdict = Literal["helped", "hurt", "undecided", "too few", "undertrained", "incomparable", "single", "empty"]


@dataclass(frozen=True)
class Headline:
    """The result in one ``sentence``, with ``support`` sentences; ``verdict`` is its machine-readable form."""

    verdict: Verdict
    sentence: str
    support: tuple[str, ...] = ()


def headline(summary: Summary) -> Headline:
    """The main result in one sentence, with the sentences that qualify it."""
    finished = [row for row in summary.rows if row.mean is not None]
    if not finished:
        return Headline("empty", "No run is finished yet; there is nothing to compare.")
    caveats = (*_incomparable(summary), *_below_majority(summary, finished))
    result = _undertrained(summary, finished) or _result(summary, finished)
    return Headline(result.verdict, result.sentence, (*result.support, *caveats))


def _undertrained(summary: Summary, rows: Sequence[ArmRow]) -> Headline | None:
    """The verdict on models that are not above the most frequent answer, or solve nothing; None for others."""
    best = max(rows, key=lambda row: row.mean or 0.0)
    if best.mean is None or best.mean > (summary.majority or 0.0):
        return None
    scores = f"{_metric(summary)} is at most {percent(best.mean)}{_items(best, summary)}"
    if summary.majority:
        scores += f", the majority answer alone has {percent(summary.majority)}"
    advice = "Differences between such models say nothing about training: use a larger budget or easier data."
    return Headline("undertrained", f"Undertrained: {scores}.", (advice,))


def _below_majority(summary: Summary, rows: Sequence[ArmRow]) -> tuple[str, ...]:
    """A sentence on the arms that are not above the most frequent answer while others are."""
    below = [row for row in rows if summary.majority and (row.mean or 0.0) <= summary.majority]
    if not below or len(below) == len(rows):
        return ()
    names = ", ".join(f"{row.title} ({percent(row.mean)})" for row in below)
    return (f"Undertrained, not above the majority answer ({percent(summary.majority)}): {names}.",)


def _incomparable(summary: Summary) -> tuple[str, ...]:
    """A sentence for each arm that is not compared with the baseline."""
    return tuple(
        f"{summary.row(arm).title} is not compared with the baseline: {'; '.join(reasons)}."
        for arm, reasons in summary.incomparable.items()
    )


def _result(summary: Summary, finished: Sequence[ArmRow]) -> Headline:
    compared = [row for row in finished if row.difference and row.difference.mean is not None]
    tested = [row for row in compared if row.role == "arm"] or compared
    if not tested:
        scores = "; ".join(
            f"{row.title}: {_metric(summary)} {percent(row.mean)}{_seeds(row, summary)}" for row in finished
        )
        if summary.incomparable:
            return Headline(
                "incomparable", "No difference can be claimed: the runs are not comparable.", (f"{scores}.",)
            )
        return Headline("single", f"{scores}.", ("No comparison: that needs a baseline and another arm.",))
    enough = [row for row in tested if row.difference and not row.difference.too_few]
    if not enough:
        return _too_few(summary, max(tested, key=_mean))
    best = max(enough, key=_mean)
    better = [row for row in tested if row.difference and row.difference.significant() and _mean(row) > 0]
    worse = [row for row in tested if row.difference and row.difference.significant() and _mean(row) < 0]
    arms = [row for row in better if row.role == "arm"]
    if arms:
        verdicts = [_helped(summary, row, better, worse) for row in sorted(arms, key=_mean, reverse=True)]
        return next((verdict for verdict in verdicts if verdict.verdict == "helped"), verdicts[0])
    if better:
        sentence = f"No arm with an order is compared, only controls. {_sentence(better[0], summary)}"
        return Headline("undecided", sentence, _sentences(better[1:], summary))
    if worse:
        worst = min(worse, key=_mean)
        sentence = f"{_subject(summary)} hurt: {worst.title} scores {_compared(worst)}; no arm is significantly better."
        return Headline("hurt", sentence, _sentences([row for row in worse if row is not worst], summary))
    sentence = f"No difference can be claimed: the best arm, {best.title}, scores {_compared(best)}."
    return Headline("undecided", sentence, ("This is no proof of no effect: see the interval.", *power_lines(summary)))


def _too_few(summary: Summary, best: ArmRow) -> Headline:
    """The verdict below ``ENOUGH_SEEDS`` seeds: no claim first, then the accuracies with the interval."""
    assert best.difference is not None
    seeds, interval = best.difference.seeds, best.difference.interval
    base = next(row for row in summary.rows if row.role == "baseline")
    sentence = f"No difference can be claimed with {plural(len(seeds), 'seed')}; that needs at least {ENOUGH_SEEDS}."
    width = f" (95\u00a0%\u00a0interval {interval_of_points(interval)})" if interval else ""
    kind = "arm" if summary.several_cycles else "ordering"
    lead = "the highest" if _mean(best) > 0 else f"no {kind} is above the baseline; the best has"
    observed = (
        f"Observed {_metric(summary)}: {lead} {_mean_over(best, seeds)} of {best.title}, against "
        f"{_mean_over(base, seeds)} of {base.title}: {points(_mean(best))}\u00a0points{width}."
    )
    return Headline("too few", sentence, (observed, *_control(summary, best.arm), *power_lines(summary)))


def power_lines(summary: Summary, seeds: int | None = None) -> list[str]:
    """The differences that the study can detect with its seeds or with ``seeds``, and the seeds that others need.

    From the pooled standard deviation of the paired differences; empty with fewer than two seeds in each arm. Fewer
    seeds than ``ENOUGH_SEEDS`` count as that many, since fewer support no claim.
    """
    differences = [row.difference for row in summary.rows if row.difference]
    varying = [row.differences for row in differences if row.p is not None]
    if not varying:
        return []
    freedom = sum(len(values) - 1 for values in varying)
    spread = math.sqrt(sum(variance(values) * (len(values) - 1) for values in varying) / freedom)
    seeds = max(seeds or max(len(row.seeds) for row in differences), ENOUGH_SEEDS)
    parts = [row.item_variance for row in differences if row.item_variance is not None]
    items = fmean(parts) if parts else 0.0
    smallest = detectable_difference(spread, seeds, len(differences), item_variance=items)
    words = {0.01: "1 point", 0.02: "2 points", 0.05: "5 points"}
    needed = [
        (goal, seeds_needed(goal, spread, len(differences), item_variance=items)) for goal in words if goal < smallest
    ]
    plans = [f"{words[goal]} at {max(number, ENOUGH_SEEDS)} seeds" for goal, number in needed if number]
    return [
        f"With {seeds} seeds and this spread over seeds, a true difference of {100 * smallest:.1f} points is found in "
        f"8 of 10 studies, after Holm{''.join(f'; {plan}' for plan in plans)}."
    ]


def _helped(summary: Summary, best: ArmRow, better: Sequence[ArmRow], worse: Sequence[ArmRow]) -> Headline:
    """The verdict on ``best``, one of the arms that are significantly better than the baseline."""
    remaining = _sentences([row for row in (*better, *worse) if row is not best], summary)
    support = (*remaining, *_control(summary, best.arm))
    if _other_cause(summary, best.arm) is None:
        return Headline("helped", f"{_subject(summary)} helped: {best.title} scores {_compared(best)}.", support)
    advice: list[str] = []
    if _has_unmatched_excess(summary, best.arm):
        advice = _matched(summary, best.arm) or [
            "Add a control with as many distinct samples and tokens, drawn at random: in one cycle, or the baseline's "
            "recipe with more questions."
        ]
    elif not _differences_to_controls(summary, best.arm):
        advice = [
            f"Its learning rate restarts {_more_restarts(summary, best.arm)} times more often than the baseline's, "
            "which alone may explain the gain: add a control arm with as many restarts (schedule: baseline, restarts)."
        ]
    return Headline("undecided", _sentence(best, summary), (*support, *advice))


def _other_cause(summary: Summary, arm: str) -> str | None:
    """Another possible cause of a gain of ``arm``, as the end of a sentence; None without one."""
    if _has_unmatched_excess(summary, arm):
        return f"it has {' and '.join(summary.excess[arm])}, which may be the cause"
    controls = _differences_to_controls(summary, arm)
    if (controls and not _beats_all(controls)) or (not controls and _more_restarts(summary, arm) > 0):
        return f"{_subject(summary).lower()} is not shown to be the cause"
    return None


def _has_unmatched_excess(summary: Summary, arm: str) -> bool:
    """Whether ``arm`` has more samples or tokens than the baseline, and does not beat an arm that has as many."""
    return arm in summary.excess and not _beats_all(summary.matched[arm])


def _differences_to_controls(summary: Summary, arm: str) -> list[Difference]:
    return [row for rows in summary.against.values() for row in rows if row.arm == arm]


def _more_restarts(summary: Summary, arm: str) -> int:
    """The number of restarts of the learning rate in ``arm`` beyond those of the baseline."""
    base = next(row.arm for row in summary.rows if row.role == "baseline")
    return summary.restarts.get(arm, 0) - summary.restarts.get(base, 0)


def _beats_all(differences: Sequence[Difference]) -> bool:
    """Whether there are differences and all are significant gains."""
    return bool(differences) and all(row.significant() and (row.mean or 0) > 0 for row in differences)


def _matched(summary: Summary, arm: str) -> list[str]:
    """A sentence per arm with as many samples and tokens as ``arm``."""
    return [
        f"Difference of {summary.row(arm).title} to {summary.row(row.against).title}, which has as many: "
        f"{points(row.mean)} points"
        f"{', too few seeds' if row.too_few else ', significant' if row.significant() else ', not significant'}."
        for row in summary.matched[arm]
        if row.mean is not None
    ]


def _control(summary: Summary, arm: str) -> list[str]:
    """A sentence per control: learning-rate restarts alone may explain a gain."""
    sentences = []
    for control, differences in summary.against.items():
        for row in differences:
            if row.arm == arm and row.mean is not None:
                verdict = "" if row.too_few else ", significant" if row.significant() else ", not significant"
                sentences.append(
                    f"Difference to {summary.row(control).title}, a control without an order: "
                    f"{points(row.mean)} points{verdict}."
                )
    return sentences


def _sentences(rows: Sequence[ArmRow], summary: Summary) -> tuple[str, ...]:
    """The sentences of further arms, each with the differences that decide on its gain."""
    sentences = []
    for row in rows:
        sentences.append(_sentence(row, summary))
        if _mean(row) > 0 and _has_unmatched_excess(summary, row.arm):
            sentences += _matched(summary, row.arm)
    return tuple(sentences)


def _sentence(row: ArmRow, summary: Summary) -> str:
    """The difference of an arm to the baseline, for a gain with another possible cause."""
    cause = _other_cause(summary, row.arm) if _mean(row) > 0 else None
    return f"{row.title} scores {_compared(row)}{'' if cause is None else f', but {cause}'}."


def _compared(row: ArmRow) -> str:
    """The difference to the baseline in words, with its interval and p value."""
    difference: Difference | None = row.difference
    assert difference is not None
    mean = _mean(row)
    direction = "above" if mean >= 0 else "below"
    p = f"p = {p_value(difference.p_holm)}".replace("p = <", "p <")
    test = f"95\u00a0%\u00a0interval {interval_of_points(difference.interval)}, {p} after Holm"
    return f"{abs(100 * mean):.1f} points {direction} the baseline ({test})"


def _subject(summary: Summary) -> str:
    """The factor that is compared: with several cycles the arms also differ in their data."""
    return "The training method" if summary.several_cycles else "The ordering"


def _metric(summary: Summary) -> str:
    """The name of the main metric."""
    if (summary.suite, summary.protocol) == HEADLINE:
        return "exact-match accuracy"
    return f"{metric_of(summary.suite)} on {summary.suite} ({summary.protocol})"


def _mean_over(row: ArmRow, seeds: Sequence[int]) -> str:
    """The accuracy over the paired seeds, so that the two accuracies differ by the reported difference."""
    return percent(fmean(score.share for score in row.scores if score.seed in seeds))


def _items(row: ArmRow, summary: Summary) -> str:
    return f" on {plural(row.scores[0].total, f'test {summary.unit}')}"


def _seeds(row: ArmRow, summary: Summary) -> str:
    size = _items(row, summary)
    return f"{size} (mean of {len(row.scores)} seeds)" if len(row.scores) > 1 else size


def _mean(row: ArmRow) -> float:
    assert row.difference is not None
    assert row.difference.mean is not None
    return row.difference.mean
