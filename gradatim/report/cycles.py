"""What did each cycle bring, and what did it take?

For studies in which some run has several cycles: for each arm and cycle the accuracy after the cycle's last stage with
its interval, how the samples were come by, what the student got wrong, and what was asked of the teacher. Counts are
means over the seeds that got that far; a test set is never pooled over seeds. The page, Markdown and the terminal show
these rows. It reads no files and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .cycle_facts import GRADES, PLACES, TEACHING
from .data import CycleFacts, Lesson, RunData, StudyData
from .statistics import Interval, t_interval
from .summary import Score, Summary, score_of

__all__ = ["ArmCycle", "TeacherUse", "cycle_rows", "cycle_scores", "lessons", "level_rows", "teacher_use", "told_runs"]


@dataclass(frozen=True)
class ArmCycle:
    """One arm after one cycle. ``interval``: Student's over seeds, of one seed Wilson's over test items.

    ``faulty``, ``grades``, ``refused``, ``thrown`` (candidates that proved right) and ``unjudged`` (by judge and cause)
    are means over the runs.
    """

    arm: str
    title: str
    cycle: int
    scores: tuple[Score, ...]
    mean: float | None
    interval: Interval | None
    rows: float | None
    new: float | None
    refused: Mapping[str, float]
    faulty: Mapping[str, float]
    thrown: Mapping[str, float]
    grades: Mapping[str, float]
    unjudged: Mapping[str, float]
    dry: tuple[str, ...]


@dataclass(frozen=True)
class TeacherUse:
    """What an arm asked of its teacher in a cycle (None: in all), for one purpose; means over the runs."""

    title: str
    cycle: int | None
    purpose: str
    counts: Mapping[str, float]


def told_runs(study: StudyData, arm: str) -> tuple[RunData, ...]:
    """The runs of ``arm`` that are shown cycle by cycle: the finished ones, or all while there are none."""
    return study.finished(arm) or study.of(arm)


def cycle_scores(run: RunData, suite: str, protocol: str) -> dict[int, Score]:
    """The score after the last stage of each cycle in which that stage was evaluated."""
    found = {
        cycle: score_of(run.seed, run.evaluation(suite, protocol, place)) for cycle, place in run.last_stages.items()
    }
    return {cycle: score for cycle, score in found.items() if score is not None}


def cycle_rows(study: StudyData, summary: Summary) -> tuple[ArmCycle, ...]:
    """A row for each arm and cycle, the baseline's first; none when no run has several cycles."""
    if not study.several_cycles:
        return ()
    rows: list[ArmCycle] = []
    for arm in [row.arm for row in summary.rows]:
        runs = told_runs(study, arm)
        scores = [cycle_scores(run, summary.suite, summary.protocol) for run in runs]
        numbers = {number for each in scores for number in each} | {each.number for run in runs for each in run.cycles}
        rows += [
            _row(study, arm, number, [each[number] for each in scores if number in each], _of(runs, number))
            for number in sorted(numbers)
        ]
    return tuple(rows)


def level_rows(study: StudyData, summary: Summary) -> tuple[tuple[str, int, str, Mapping[str, float]], ...]:
    """(title, cycle, level, questions by grade) of the feedback, where questions have levels."""
    found = []
    for arm in [row.arm for row in summary.rows]:
        runs = told_runs(study, arm)
        for number in sorted({each.number for run in runs for each in run.cycles}):
            facts = _of(runs, number)
            levels = sorted({level for each in facts for level in each.levels})
            if levels not in ([], ["none"]):
                told = ((level, _means([each.levels.get(level, {}) for each in facts], GRADES)) for level in levels)
                found += [(study.title_of(arm), number, level, grades) for level, grades in told]
    return tuple(found)


def teacher_use(study: StudyData, summary: Summary) -> tuple[TeacherUse, ...]:
    """What was asked of teachers, by cycle and purpose, and in all for each arm; none where nobody was asked."""
    uses: list[TeacherUse] = []
    for arm in [row.arm for row in summary.rows]:
        runs, title = told_runs(study, arm), study.title_of(arm)
        own = []
        for number in sorted({each.number for run in runs for each in run.cycles}):
            facts = _of(runs, number)
            for purpose in dict.fromkeys(name for each in facts for name in each.teacher):
                counts = _means([each.teacher.get(purpose, {}) for each in facts], (*TEACHING, "paid"), keep=True)
                own.append(TeacherUse(title, number, purpose, counts))
        if own:
            every = _sums([{what: _sum(run, what) for what in (*TEACHING, "paid")} for run in runs])
            own.append(TeacherUse(title, None, "in all", {what: total / len(runs) for what, total in every.items()}))
        uses += own
    return tuple(uses)


def lessons(study: StudyData, summary: Summary) -> tuple[tuple[str, int, tuple[Lesson, ...]], ...]:
    """(title, seed, lessons) of one run of each arm that has some."""
    found = []
    for arm in [row.arm for row in summary.rows]:
        for run in study.of(arm):
            some = tuple(lesson for each in run.cycles for lesson in each.lessons)
            if some:
                found.append((study.title_of(arm), run.seed, some))
                break
    return tuple(found)


def _row(study: StudyData, arm: str, number: int, scores: Sequence[Score], facts: Sequence[CycleFacts]) -> ArmCycle:
    shares = [score.share for score in scores]
    unjudged = [
        {f"{judge}: {cause}": count for judge, causes in each.unjudged.items() for cause, count in causes.items()}
        for each in facts
    ]
    rows = [each.rows for each in facts if each.rows is not None]
    new = [each.new for each in facts if each.new is not None]
    return ArmCycle(
        arm=arm,
        title=study.title_of(arm),
        cycle=number,
        scores=tuple(scores),
        mean=fmean(shares) if shares else None,
        interval=scores[0].interval if len(scores) == 1 else t_interval(shares),
        rows=fmean(rows) if rows else None,
        new=fmean(new) if new else None,
        refused=_means([each.refused for each in facts]),
        faulty=_means([each.faulty for each in facts], PLACES),
        thrown=_means([each.thrown.get("proved_right", {}) for each in facts]),
        grades=_means([each.grades for each in facts], GRADES),
        unjudged=_means(unjudged),
        dry=tuple(dict.fromkeys(each.dry for each in facts if each.dry)),
    )


def _of(runs: Iterable[RunData], number: int) -> list[CycleFacts]:
    return [each for run in runs for each in run.cycles if each.number == number]


def _means(found: Sequence[Mapping[str, float]], order: Sequence[str] = (), keep: bool = False) -> dict[str, float]:
    """The mean of each count over ``found``, those of ``order`` first; zeros are left out unless ``keep``."""
    names = dict.fromkeys([*order, *(name for each in found for name in each)])
    means = {name: fmean(each.get(name, 0) for each in found) if found else 0.0 for name in names}
    return {name: mean for name, mean in means.items() if mean or keep}


def _sums(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in found) for name in (found[0] if found else {})}


def _sum(run: RunData, what: str) -> float:
    return sum(counts.get(what, 0) for each in run.cycles for counts in each.teacher.values())
