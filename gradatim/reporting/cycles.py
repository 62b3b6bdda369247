"""Results by cycle: counts of each cycle's data, completions and teacher usage, and LLM-designed schedules.

``read_cycles`` reads ``table.json``, ``feedback.json`` and ``attempts.json`` of each cycle of a run into
``CycleFacts``, with a few example questions from the tables. ``cycle_rows``, ``level_rows`` and ``teacher_use``
aggregate them over the runs of an arm: counts are means over the seeds that reached the cycle; a test set is never
pooled over seeds. ``read_designs`` reads ``design.json`` of each cycle into ``Designed``. Missing files leave fields
empty; unreadable ones are listed in ``notes``. All texts come from models or users and are shown as text.

Figures by cycle: accuracy, questions by grade, and sources of rejected answers.

Each function returns SVG text, or None without data. The values are those of ``cycles``; intervals are as in
``figures``: with fewer than five seeds each run is a dot with its Wilson interval, otherwise the dot is the mean with
Student's t interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import DataError
from ..evaluation.statistics import Interval, t_interval
from ..files import read_input
from ..lazy import pa, pc, pq
from ..options import parse_json
from ..record import DECODE_ERRORS, fault_of
from ..results import NO_QUESTIONS, TEACHER_CHECK, decode_design
from ..stage import StageSpec
from .data import CycleFacts, Designed, DesignedStage, ExampleQuestion, RunData, StudyData
from .figures import LIGHT, WIDTH, canvas, dots, dress, legend, marks, percent_axis, styles, svg
from .summary import Score, Summary, score_of

GRADES = ("easy", "middle", "hard", "unjudged")
SOURCES = ("student", "mutation", "teacher", "given", "none")
"""Sources of a sample's rejected answer; ``none``: the sample has no rejected answer."""
OUTCOMES = ("proved_right", "equal", "untold")
"""Outcomes of candidates for rejected answers: the first two discarded, the last used without proof."""
TEACHING = ("requests", "cached", "prompt_tokens", "completion_tokens", "cost", "failed", "unreadable")
EXAMPLES = 3
"""Example questions read from each cycle."""
MOST_BYTES = 256 << 20
"""Larger tables are not opened for a few examples."""

Read = Callable[[Path], Any]


def read_cycles(folder: Path, read: Read, notes: list[str], *, examples: bool) -> tuple[CycleFacts, ...]:
    """The cycles of a run folder in order; empty with a single cycle.

    ``read`` returns the content of a JSON file, None without one. ``examples``: whether to open the tables.
    """
    folders = sorted(path.parent for path in folder.glob("cycle-*/table.json"))
    if len(folders) < 2 and not (folder / "cycle-00" / "feedback.json").is_file():
        return ()
    cycles = []
    for number, cycle in enumerate(folders):
        table, feedback, attempts, design = (
            _mapping(read(cycle / f"{name}.json")) for name in ("table", "feedback", "attempts", "design")
        )
        failed = read(cycle / "design-unusable.json")
        further = {
            "checking the endpoint": {"teacher": None if number else read(folder / TEACHER_CHECK)},
            "questions without a result": _mapping(read(cycle / NO_QUESTIONS)),
        }
        try:
            facts = _facts(number, table, feedback, attempts, _with_failed(design, failed), further)
        except DECODE_ERRORS as error:
            notes.append(f"{folder.name}/{cycle.name}: the data on this cycle is skipped ({fault_of(error)}).")
            facts = CycleFacts(number)
        following = folders[number + 1] if number + 1 < len(folders) else None
        if examples and following is not None:
            facts = replace(facts, examples=tuple(_examples(number, cycle, following, notes)))
        cycles.append(facts)
    return tuple(cycles)


def _facts(
    number: int,
    table: Mapping[str, Any],
    feedback: Mapping[str, Any],
    attempts: Mapping[str, Any],
    design: Mapping[str, Any],
    further: Mapping[str, Mapping[str, Any]],
) -> CycleFacts:
    facts = _mapping(table.get("facts"))
    source, delivery = _mapping(facts.get("source")), _mapping(facts.get("delivery"))
    return CycleFacts(
        number=number,
        rows=table.get("rows"),
        new=source.get("new"),
        learnt=source.get("learnt"),
        refused=_counts(source.get("refused")),
        dry=None if source.get("dry") is None else str(source["dry"]),
        rejected={source: int(delivery[source]) for source in SOURCES if delivery.get(source)},
        outcomes={outcome: _counts(delivery.get(outcome)) for outcome in OUTCOMES},
        grades=_counts(feedback.get("grades")),
        levels={str(level): _counts(grades) for level, grades in _mapping(feedback.get("levels")).items()},
        unjudged={
            str(name): _counts(judge.get("unjudged")) for name, judge in _mapping(feedback.get("judges")).items()
        },
        teacher=_teacher(
            {
                **further,
                "rating the difficulty": _mapping(facts.get("rating")),
                "designing the stages": design,
                "questions and answers": source,
                "rejected answers": delivery,
                "judging completions before": attempts,
                "judging feedback": feedback,
            }
        ),
    )


def _with_failed(design: Mapping[str, Any], failed: Any) -> Mapping[str, Any]:
    """The design with the usage of its unusable replies added."""
    failures = [_mapping(_mapping(reply).get("teacher")) for reply in (failed if isinstance(failed, list) else ())]
    if not failures:
        return design
    usage = _mapping(design.get("teacher"))
    entries = [usage, *failures]
    totals: dict[str, Any] = {name: sum(_number(entry.get(name)) for entry in entries) for name in TEACHING}
    paid = sum(_price(_mapping(entry.get("paid")).get("cost", entry.get("cost", 0))) for entry in entries)
    totals["cost"] = sum(_price(entry.get("cost", 0)) for entry in entries)
    return {**design, "teacher": {**usage, **totals, "paid": {"cost": paid}}}


def _teacher(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The teacher's usage in a cycle by purpose; ``paid`` is the cost without cached replies."""
    purposes = {}
    for purpose, content in facts.items():
        usage = _mapping(content.get("teacher"))
        if usage.get("requests") or usage.get("failed"):
            purposes[purpose] = {name: _number(usage.get(name)) for name in TEACHING}
            purposes[purpose]["cost"] = _price(usage.get("cost", 0))
            purposes[purpose]["paid"] = _price(_mapping(usage.get("paid")).get("cost", usage.get("cost", 0)))
    return purposes


def _examples(number: int, cycle: Path, following: Path, notes: list[str]) -> Iterator[ExampleQuestion]:
    """A few questions of the feedback with the new questions derived from them, hard ones first."""
    old, new = cycle / "feedback.parquet", following / "corpus" / "train.parquet"
    try:
        if not old.is_file() or not new.is_file() or old.stat().st_size + new.stat().st_size > MOST_BYTES:
            return
        yield from _pairs(number, _rows(old), _new_rows(new, following))
    except (DataError, OSError, *DECODE_ERRORS) as error:  # pyarrow's errors are among them
        notes.append(f"{cycle.parent.name}/{cycle.name}: the examples cannot be read ({type(error).__name__}).")


def _rows(path: Path) -> pa.Table:
    columns = ["id", "prompt", "answer", "level", "attempt", "verdict", "reason", "grade"]
    return pq.read_table(path, columns=columns)


def _new_rows(path: Path, cycle: Path) -> pa.Table:
    """The new samples of that cycle, which follow those of earlier cycles."""
    table = _mapping(parse_json(read_input(cycle / "table.json")))
    old = int(_mapping(_mapping(table.get("facts")).get("source")).get("learnt") or 0)
    return pq.read_table(path, columns=["parent", "prompt", "answer"]).slice(old)


def _pairs(number: int, old: pa.Table, new: pa.Table) -> Iterator[ExampleQuestion]:
    """One pair of a question and a new question per parent, alternating between the grades."""
    parents = pa.array(new["parent"].unique().to_pylist(), old.schema.field("id").type)
    first: dict[str, Mapping[str, Any]] = {}
    for row in old.filter(pc.is_in(old["id"], value_set=parents)).to_pylist():
        first.setdefault(row["id"], row)
    pairs: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    used: set[str] = set()
    for row in new.to_pylist():
        parent = first.get(row["parent"])
        if parent is not None and row["parent"] not in used:
            used.add(row["parent"])
            pairs.setdefault(parent["grade"], []).append((parent, row))
    for parent, row in _in_turn([pairs[grade] for grade in ("hard", "easy", "middle") if grade in pairs]):
        yield ExampleQuestion(
            cycle=number,
            question=parent["prompt"],
            answer=parent["answer"],
            attempt=parent["attempt"],
            verdict=parent["verdict"],
            reason=parent["reason"],
            grade=parent["grade"],
            new_question=row["prompt"],
            new_answer=row["answer"],
            level=parent["level"],
        )


def _in_turn(groups: Sequence[Sequence[Any]]) -> list[Any]:
    """The first items of the groups, then the second ones, up to ``EXAMPLES``."""
    longest = max((len(group) for group in groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)][:EXAMPLES]


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def _counts(content: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in _mapping(content).items() if count}


def price_text(value: float) -> str:
    """A price for tables; ``unknown`` for NaN."""
    return "unknown" if math.isnan(value) else f"{value:.4g}"


def _price(value: Any) -> float:
    """A price, NaN for an unknown one: the recipe names no prices."""
    return math.nan if value is None else _number(value)


def _number(value: Any) -> float:
    """A number, or the sum of counts by cause."""
    if isinstance(value, Mapping):
        return sum(_number(count) for count in value.values())
    return value if isinstance(value, int | float) else 0


@dataclass(frozen=True)
class ArmCycle:
    """One arm after one cycle. ``interval``: Student's t over seeds; with one seed Wilson's over test items.

    ``rejected`` (answers by source), ``grades``, ``refused``, ``discarded`` (candidates that proved correct) and
    ``unjudged`` (by judge and cause) are means over the runs.
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
    rejected: Mapping[str, float]
    discarded: Mapping[str, float]
    grades: Mapping[str, float]
    unjudged: Mapping[str, float]
    dry: tuple[str, ...]


@dataclass(frozen=True)
class TeacherUse:
    """The usage of an arm's teacher in a cycle (None: the total) for one purpose; means over the runs."""

    title: str
    cycle: int | None
    purpose: str
    counts: Mapping[str, float]


def _runs(study: StudyData, arm: str) -> tuple[RunData, ...]:
    """The finished runs of ``arm``, or all of them if none is finished."""
    return study.finished(arm) or study.of(arm)


def cycle_scores(run: RunData, suite: str, protocol: str) -> dict[int, Score]:
    """The score after the last stage of each cycle in which that stage was evaluated."""
    scores = {
        cycle: score_of(run.seed, run.evaluation(suite, protocol, index)) for cycle, index in run.last_stages.items()
    }
    return {cycle: score for cycle, score in scores.items() if score is not None}


def cycle_rows(study: StudyData, summary: Summary) -> tuple[ArmCycle, ...]:
    """A row for each arm and cycle, the baseline first; empty when no run has several cycles."""
    if not study.several_cycles:
        return ()
    rows: list[ArmCycle] = []
    for arm in [row.arm for row in summary.rows]:
        runs = _runs(study, arm)
        scores = [cycle_scores(run, summary.suite, summary.protocol) for run in runs]
        numbers = {number for row in scores for number in row} | {facts.number for run in runs for facts in run.cycles}
        rows += [
            _row(study, arm, number, [row[number] for row in scores if number in row], _facts_of(runs, number))
            for number in sorted(numbers)
        ]
    return tuple(rows)


def level_rows(study: StudyData, summary: Summary) -> tuple[tuple[str, int, str, Mapping[str, float]], ...]:
    """(title, cycle, level, questions by grade) of the feedback, for questions with levels."""
    rows = []
    for arm in [row.arm for row in summary.rows]:
        runs = _runs(study, arm)
        for number in sorted({facts.number for run in runs for facts in run.cycles}):
            facts = _facts_of(runs, number)
            levels = sorted({level for cycle in facts for level in cycle.levels})
            if levels not in ([], ["none"]):
                means = ((level, _means([cycle.levels.get(level, {}) for cycle in facts], GRADES)) for level in levels)
                rows += [(study.title_of(arm), number, level, grades) for level, grades in means]
    return tuple(rows)


def teacher_use(study: StudyData, summary: Summary) -> tuple[TeacherUse, ...]:
    """The usage of teachers by cycle and purpose, with a total for each arm; empty without requests."""
    uses: list[TeacherUse] = []
    for arm in [row.arm for row in summary.rows]:
        runs, title = _runs(study, arm), study.title_of(arm)
        rows = []
        for number in sorted({facts.number for run in runs for facts in run.cycles}):
            facts = _facts_of(runs, number)
            for purpose in dict.fromkeys(name for cycle in facts for name in cycle.teacher):
                counts = _means([cycle.teacher.get(purpose, {}) for cycle in facts], (*TEACHING, "paid"), zeros=True)
                rows.append(TeacherUse(title, number, purpose, counts))
        if rows:
            totals = _sums([{name: _sum(run, name) for name in (*TEACHING, "paid")} for run in runs])
            rows.append(TeacherUse(title, None, "total", {name: sum_ / len(runs) for name, sum_ in totals.items()}))
        uses += rows
    return tuple(uses)


def example_questions(study: StudyData, summary: Summary) -> tuple[tuple[str, int, tuple[ExampleQuestion, ...]], ...]:
    """(title, seed, examples) of one run of each arm that has examples."""
    rows = []
    for arm in [row.arm for row in summary.rows]:
        for run in study.of(arm):
            examples = tuple(example for facts in run.cycles for example in facts.examples)
            if examples:
                rows.append((study.title_of(arm), run.seed, examples))
                break
    return tuple(rows)


def _row(study: StudyData, arm: str, number: int, scores: Sequence[Score], facts: Sequence[CycleFacts]) -> ArmCycle:
    shares = [score.share for score in scores]
    unjudged = [
        {f"{judge}: {cause}": count for judge, causes in run.unjudged.items() for cause, count in causes.items()}
        for run in facts
    ]
    rows = [run.rows for run in facts if run.rows is not None]
    new = [run.new for run in facts if run.new is not None]
    return ArmCycle(
        arm=arm,
        title=study.title_of(arm),
        cycle=number,
        scores=tuple(scores),
        mean=fmean(shares) if shares else None,
        interval=scores[0].interval if len(scores) == 1 else t_interval(shares),
        rows=fmean(rows) if rows else None,
        new=fmean(new) if new else None,
        refused=_means([run.refused for run in facts]),
        rejected=_means([run.rejected for run in facts], SOURCES),
        discarded=_means([run.outcomes.get("proved_right", {}) for run in facts]),
        grades=_means([run.grades for run in facts], GRADES),
        unjudged=_means(unjudged),
        dry=tuple(dict.fromkeys(run.dry for run in facts if run.dry)),
    )


def _facts_of(runs: Iterable[RunData], number: int) -> list[CycleFacts]:
    return [facts for run in runs for facts in run.cycles if facts.number == number]


def _means(counts: Sequence[Mapping[str, float]], order: Sequence[str] = (), zeros: bool = False) -> dict[str, float]:
    """The mean of each count, the names of ``order`` first; zero means are omitted unless ``zeros``."""
    names = dict.fromkeys([*order, *(name for row in counts for name in row)])
    means = {name: fmean(row.get(name, 0) for row in counts) if counts else 0.0 for name in names}
    return {name: mean for name, mean in means.items() if mean or zeros}


def _sums(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in counts) for name in (counts[0] if counts else {})}


def _sum(run: RunData, name: str) -> float:
    return sum(counts.get(name, 0) for facts in run.cycles for counts in facts.teacher.values())


ReadDesign = Callable[[Path], Any]
MOST_FAULTS = 30
"""Errors of a reply that the page lists."""


def read_designs(folder: Path, read: ReadDesign, names: Sequence[str], notes: list[str]) -> tuple[Designed, ...]:
    """The designs of a run folder in order; ``names`` are those of the bands. Malformed designs are noted."""
    parsed = []
    for path in sorted(folder.glob("cycle-*/design.json")):
        content = read(path)
        if content is None:
            continue
        try:
            parsed.append(_designed(content, int(path.parent.name.rpartition("-")[2]), names))
        except DECODE_ERRORS as error:
            notes.append(f"{path.parent.name}/design.json is malformed and is skipped ({fault_of(error)}).")
    return tuple(parsed)


def designs(study: StudyData) -> tuple[tuple[str, int, tuple[Designed, ...]], ...]:
    """(title, seed, designs) of one run of each arm that has designs."""
    rows = []
    for arm in study.arms:
        run = next((run for run in study.of(arm.name) if run.designs), None)
        if run is not None:
            rows.append((arm.title, run.seed, run.designs))
    return tuple(rows)


def _designed(content: Mapping[str, Any], cycle: int, names: Sequence[str]) -> Designed:
    design = decode_design(content)
    tokens = sum(spec.tokens for stages in design.cycles for spec in stages)
    rows = [
        _design_row(cycle + later, spec, tokens, names) for later, stages in enumerate(design.cycles) for spec in stages
    ]
    faults = tuple(str(fault) for reply in content.get("faults", ()) for fault in reply)
    if len(faults) > MOST_FAULTS:
        faults = (*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} more")
    return Designed(cycle, str(design.reason), design.kept, tuple(rows), faults)


def _design_row(cycle: int, spec: StageSpec, tokens: int, names: Sequence[str]) -> DesignedStage:
    shares = []
    for index, fraction in enumerate(spec.fractions):
        if fraction:
            name = names[index] if index < len(names) else f"band {index + 1}"
            shares.append(f"{name} {fraction:.0%}" + (f" {spec.ends[index]}" if fraction < 1 else ""))
    return DesignedStage(
        cycle, spec.name, spec.tokens / tokens, spec.tokens, ", ".join(shares), spec.order, spec.objective
    )


GRADE_COLOURS = {"easy": "band-0", "middle": "band-2", "hard": "band-4", "unjudged": "grid"}
SOURCE_COLOURS = {"student": "arm-1", "mutation": "arm-2", "teacher": "arm-3", "given": "arm-0", "none": "grid"}


def accuracy_by_cycle(study: StudyData, rows: Sequence[ArmCycle]) -> str | None:
    """Accuracy after each cycle, arms side by side; an arm with one cycle is a reference line."""
    arms = list(dict.fromkeys(row.arm for row in rows if row.scores))
    numbers = sorted({row.cycle for row in rows})
    if len(numbers) < 2 or not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    step = 0.7 / len(arms)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for index, arm in enumerate(arms):
            arm_rows = [row for row in rows if row.arm == arm and row.scores]
            means = [100 * fmean(score.share for score in row.scores) for row in arm_rows]
            style, shift = look[arm], (index - (len(arms) - 1) / 2) * step
            title = study.title_of(arm)
            if len(arm_rows) == 1 and arm_rows[0].cycle == 0:
                axes.axhline(means[0], color=style.colour, linewidth=1.6, linestyle=(0, (4, 3)))
                axes.plot([], [], color=style.colour, linestyle=(0, (4, 3)), label=f"{title} (one cycle)")
                continue
            dots(axes, [m for row in arm_rows for m in marks(row.cycle + shift, step, row.scores)], style)
            axes.plot([row.cycle + shift for row in arm_rows], means, color=style.colour, linewidth=1.4, alpha=0.6)
            axes.plot([], [], style.marker, color=style.colour, label=title)
        axes.set_xticks(numbers, [f"cycle {number}" for number in numbers], color=LIGHT["ink"])
        axes.set(xlim=(numbers[0] - 0.5, numbers[-1] + 0.5), ylabel="accuracy")
        percent_axis(axes)
        dress(axes)
        legend(axes, len(arms))
        return svg(figure, "cycles")
