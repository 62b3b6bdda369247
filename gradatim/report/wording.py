"""How is a study said in plain words?

The sentence at the top of a report, and how numbers are written: percentages of accuracies, *points* for their
differences, a true minus sign. The sentence claims no more than the statistics allow: under five seeds it says
that they are too few; an ordering that does not beat the control with the same learning-rate restarts is not said
to be what helped. It computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from .statistics import Difference, Interval
from .summary import HEADLINE, ArmRow, Summary

__all__ = ["Headline", "count", "headline", "interval_of_points", "p_value", "percent", "points"]

Verdict = Literal["helped", "hurt", "undecided", "too few", "single", "empty"]
NONE = "–"


@dataclass(frozen=True)
class Headline:
    """``sentence`` says what came out, ``support`` what goes with it; ``verdict`` is the same for programs."""

    verdict: Verdict
    sentence: str
    support: tuple[str, ...] = ()


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.7458 → '74.6 %' (with a space that does not break)."""
    return NONE if share is None else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points, signed: −0.012 → '−1.2'."""
    if difference is None:
        return NONE
    text = f"{100 * difference:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def interval_of_points(interval: Interval | None) -> str:
    """Both ends in percentage points: '+0.4 to +3.1'."""
    return NONE if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p_value(p: float | None) -> str:
    """A p value with as many digits as it deserves."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(number: float | None) -> str:
    """A whole number with separators; millions and more are shortened: 1 080 000 → '1.08 M'."""
    if number is None:
        return NONE
    for size, sign in ((1e9, "G"), (1e6, "M")):
        if abs(number) >= size:
            return f"{number / size:.3g}\u00a0{sign}"
    return f"{number:,.0f}"


def headline(summary: Summary) -> Headline:
    """What a reader should take away, in one sentence, and what must be said beside it."""
    done = [row for row in summary.rows if row.mean is not None]
    if not done:
        return Headline("empty", "No run is finished yet, so there is nothing to compare.")
    compared = [row for row in done if row.difference and row.difference.mean is not None]
    tested = [row for row in compared if row.role == "arm"] or compared
    if not tested:
        said = "; ".join(f"{row.title} {_does(summary)} {percent(row.mean)}{_seeds(row)}" for row in done)
        return Headline("single", f"{said}.", ("Nothing is compared: that takes a baseline and another arm.",))
    enough = [row for row in tested if row.difference and not row.difference.too_few]
    if not enough:
        return _too_few(summary, max(tested, key=_mean))
    best = max(enough, key=_mean)
    better = [row for row in tested if row.difference and row.difference.significant() and _mean(row) > 0]
    worse = [row for row in tested if row.difference and row.difference.significant() and _mean(row) < 0]
    if better:
        return _helped(summary, better, worse)
    if worse:
        worst = min(worse, key=_mean)
        sentence = (
            f"{_subject(summary)} hurt: {worst.title} scores {_beside(worst)}, and no arm is significantly better."
        )
        return Headline("hurt", sentence, _others([row for row in worse if row is not worst]))
    difference = "made no significant difference: the best arm"
    sentence = f"{_subject(summary)} {difference}, {best.title}, scores {_beside(best)}."
    return Headline("undecided", sentence, ("That is no proof that there is none; see how wide the interval is.",))


def _too_few(summary: Summary, best: ArmRow) -> Headline:
    assert best.difference is not None
    seeds = best.difference.seeds
    base = next(row for row in summary.rows if row.role == "baseline")
    lead = f"{best.title} is ahead in this study: it"
    if _mean(best) <= 0:
        other = "arm" if summary.several_cycles else "ordering"
        lead = f"No {other} beats the baseline in this study: the best, {best.title},"
    claim = f"{len(seeds)} seeds are" if len(seeds) != 1 else "1 seed is"
    sentence = (
        f"{lead} {_does(summary)} {_over(best, seeds)} of the test programs, against {_over(base, seeds)} for "
        f"{base.title} ({points(_mean(best))}\u00a0points), but {claim} too few to claim anything."
    )
    return Headline("too few", sentence, tuple(_control(summary, best.arm)))


def _helped(summary: Summary, better: Sequence[ArmRow], worse: Sequence[ArmRow]) -> Headline:
    best = max(better, key=_mean)
    control = [d for found in summary.against.values() for d in found if d.arm == best.arm]
    others = _others([row for row in (*better, *worse) if row is not best])
    support = (*others, *_control(summary, best.arm))
    base = next(row.arm for row in summary.rows if row.role == "baseline")
    more = summary.restarts.get(best.arm, 0) - summary.restarts.get(base, 0)
    if more > 0 and not control:
        lacking = (
            f"Its learning rate restarts {more} times more often than the baseline's, which alone may explain the "
            "gain: a baseline with as many restarts belongs in the study (schedule: baseline, restarts).",
        )
        sentence = (
            f"{best.title} scores {_beside(best)}, but {_subject(summary).lower()} is not shown to be the reason."
        )
        return Headline("undecided", sentence, (*support, *lacking))
    if all(difference.significant() and (difference.mean or 0) > 0 for difference in control):
        return Headline("helped", f"{_subject(summary)} helped: {best.title} scores {_beside(best)}.", support)
    sentence = f"{best.title} scores {_beside(best)}, but {_subject(summary).lower()} is not shown to be the reason."
    return Headline("undecided", sentence, support)


def _control(summary: Summary, arm: str) -> list[str]:
    """How the arm fares against each control: learning-rate restarts alone may explain a gain."""
    said = []
    for control, differences in summary.against.items():
        for found in differences:
            if found.arm == arm and found.mean is not None:
                verdict = "" if found.too_few else ", significant" if found.significant() else ", not significant"
                said.append(
                    f"Against {summary.row(control).title}, a control that is not ordered, "
                    f"the difference is {points(found.mean)} points{verdict}."
                )
    return said


def _others(rows: Sequence[ArmRow]) -> tuple[str, ...]:
    return tuple(f"{row.title} scores {_beside(row)}." for row in rows)


def _beside(row: ArmRow) -> str:
    found: Difference | None = row.difference
    assert found is not None
    mean = _mean(row)
    way = "above" if mean >= 0 else "below"
    sure = f"95\u00a0%\u00a0interval {interval_of_points(found.interval)}, p = {p_value(found.p_holm)} after Holm"
    return f"{abs(100 * mean):.1f} points {way} the baseline ({sure.replace('p = <', 'p <')})"


def _subject(summary: Summary) -> str:
    """What arms differ in: with several cycles also in what they are taught."""
    return "The way of teaching" if summary.several_cycles else "The ordering"


def _does(summary: Summary) -> str:
    if (summary.suite, summary.protocol) == HEADLINE:
        return "predicts the whole output of"
    return f"passes {summary.suite} ({summary.protocol}) on"


def _over(row: ArmRow, seeds: Sequence[int]) -> str:
    """The accuracy over the seeds that are paired, so that the two numbers told differ by the third."""
    return percent(fmean(score.share for score in row.scores if score.seed in seeds))


def _seeds(row: ArmRow) -> str:
    of = f" of {count(row.scores[0].total)} test programs"
    return f"{of} (mean of {len(row.scores)} seeds)" if len(row.scores) > 1 else of


def _mean(row: ArmRow) -> float:
    assert row.difference is not None
    assert row.difference.mean is not None
    return row.difference.mean
