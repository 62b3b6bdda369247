"""How was each cycle of a run taught, by what its folder says?

Of a run with several cycles, the facts of each cycle's corpus (``table.json``), of the feedback after it
(``feedback.json``) and of the attempts before it (``attempts.json``) become ``CycleFacts``: counts, and a few
*lessons* from the tables themselves: a question, what the student wrote, and the new question that came of it. What is
not there is left empty; what cannot be read is named in ``notes``. It adds nothing up: that is ``cycles``' matter.

What did each cycle bring, and what did it take?

For studies in which some run has several cycles: for each arm and cycle the accuracy after the cycle's last stage with
its interval, how the samples were come by, what the student got wrong, and what was asked of the teacher. Counts are
means over the seeds that got that far; a test set is never pooled over seeds. The page, Markdown and the terminal show
these rows. It reads no files and draws nothing.

Which stages did a teacher write for a run, and with what reason?

Reads ``design.json`` of each cycle into ``Designed``: the stages as plain rows, the teacher's reason, and what was
wrong with replies that could not be used. All of it is somebody else's text and is shown as text. What the student then
made of these stages is told elsewhere on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import read_input
from ..parsing import parse_json
from ..record import DECODE_ERRORS, fault_of
from ..results import decode_design
from ..stage import StageSpec
from .data import CycleFacts, Designed, DesignedStage, Lesson, RunData, StudyData
from .statistics import Interval, t_interval
from .summary import Score, Summary, score_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "GRADES",
    "PLACES",
    "TEACHING",
    "ArmCycle",
    "TeacherUse",
    "cycle_rows",
    "cycle_scores",
    "designs",
    "lessons",
    "level_rows",
    "read_cycles",
    "read_designs",
    "teacher_use",
    "told_runs",
]


GRADES = ("easy", "middle", "hard", "unjudged")
PLACES = ("student", "mutation", "teacher", "given", "none")
"""Where a sample's faulty answer can come from; the last: nowhere."""
THROWN = ("proved_right", "equal", "untold")
"""What became of candidates: thrown away the first two, taken without proof the last."""
TEACHING = ("requests", "cached", "prompt_tokens", "completion_tokens", "cost", "failed", "unreadable")
LESSONS = 3
"""Lessons read from each cycle."""
MOST_BYTES = 256 << 20
"""Tables larger than this are not opened for the sake of a few lessons."""

Read = Callable[[Path], Any]


def read_cycles(folder: Path, read: Read, notes: list[str], *, lessons: bool) -> tuple[CycleFacts, ...]:
    """The cycles of a run's folder, first to last; none when it has one cycle only.

    ``read`` gives a JSON file's content, None where there is none. ``lessons``: whether to open the tables.
    """
    places = sorted(path.parent for path in folder.glob("cycle-*/table.json"))
    if len(places) < 2 and not (folder / "cycle-00" / "feedback.json").is_file():
        return ()
    found = []
    for number, place in enumerate(places):
        table, feedback, attempts, design = (
            _mapping(read(place / f"{name}.json")) for name in ("table", "feedback", "attempts", "design")
        )
        failed = read(place / "design-unusable.json")
        try:
            made = _facts(number, table, feedback, attempts, _with_failed(design, failed))
        except DECODE_ERRORS as error:
            notes.append(f"{folder.name}/{place.name}: what is told of teaching is left out ({fault_of(error)}).")
            made = CycleFacts(number)
        following = places[number + 1] if number + 1 < len(places) else None
        some = tuple(_lessons(number, place, following, notes)) if lessons and following is not None else ()
        found.append(CycleFacts(**{**vars(made), "lessons": some}))
    return tuple(found)


def _facts(
    number: int,
    table: Mapping[str, Any],
    feedback: Mapping[str, Any],
    attempts: Mapping[str, Any],
    design: Mapping[str, Any],
) -> CycleFacts:
    facts = _mapping(table.get("facts"))
    source, delivery = _mapping(facts.get("source")), _mapping(facts.get("delivery"))
    return CycleFacts(
        number=number,
        rows=table.get("rows"),
        new=source.get("new"),
        refused=_counts(source.get("refused")),
        dry=None if source.get("dry") is None else str(source["dry"]),
        faulty={place: int(delivery[place]) for place in PLACES if delivery.get(place)},
        thrown={cause: _counts(delivery.get(cause)) for cause in THROWN},
        grades=_counts(feedback.get("grades")),
        levels={str(level): _counts(of) for level, of in _mapping(feedback.get("levels")).items()},
        unjudged={
            str(name): _counts(judge.get("unjudged")) for name, judge in _mapping(feedback.get("judges")).items()
        },
        teacher=_teacher(
            {
                "designing the stages": design,
                "questions and answers": source,
                "faulty answers": delivery,
                "judging attempts before": attempts,
                "judging feedback": feedback,
            }
        ),
    )


def _with_failed(design: Mapping[str, Any], failed: Any) -> Mapping[str, Any]:
    """What designing took, replies that nobody could use included."""
    parts = [_mapping(_mapping(each).get("teacher")) for each in (failed if isinstance(failed, list) else ())]
    told = _mapping(design.get("teacher"))
    if not parts:
        return design
    every = [told, *parts]
    summed: dict[str, Any] = {what: sum(_number(part.get(what)) for part in every) for what in TEACHING}
    paid = sum(_number(_mapping(part.get("paid")).get("cost", part.get("cost"))) for part in every)
    return {**design, "teacher": {**told, **summed, "paid": {"cost": paid}}}


def _teacher(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What the teacher was asked for in a cycle; ``paid`` is what was asked for anew, not what the cache had."""
    found = {}
    for name, part in parts.items():
        told = _mapping(part.get("teacher"))
        if told.get("requests") or told.get("failed"):
            found[name] = {what: _number(told.get(what)) for what in TEACHING}
            found[name]["paid"] = _number(_mapping(told.get("paid")).get("cost", told.get("cost")))
    return found


def _lessons(number: int, place: Path, following: Path, notes: list[str]) -> Iterator[Lesson]:
    """A few questions of the feedback with what was written after them, the hard ones first."""
    asked_at, new_at = place / "feedback.parquet", following / "corpus" / "train.parquet"
    try:
        if (
            not asked_at.is_file()
            or not new_at.is_file()
            or asked_at.stat().st_size + new_at.stat().st_size > MOST_BYTES
        ):
            return
        yield from _chosen(number, _rows(asked_at), _new_rows(new_at, following))
    except (DataError, OSError, *DECODE_ERRORS) as error:  # pyarrow's errors are among them
        notes.append(f"{place.parent.name}/{place.name}: no examples can be read ({type(error).__name__}).")


def _rows(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    columns = ["id", "prompt", "answer", "level", "attempt", "verdict", "reason", "grade"]
    return pq.read_table(path, columns=columns)


def _new_rows(path: Path, cycle: Path) -> pa.Table:
    """The samples written for that cycle: they stand behind those that were learnt before."""
    import pyarrow.parquet as pq

    told = _mapping(parse_json(read_input(cycle / "table.json")))
    learnt = int(_mapping(_mapping(told.get("facts")).get("source")).get("learnt") or 0)
    return pq.read_table(path, columns=["parent", "prompt", "answer"]).slice(learnt)


def _chosen(number: int, asked: pa.Table, new: pa.Table) -> Iterator[Lesson]:
    import pyarrow as pa
    import pyarrow.compute as pc

    parents = pa.array(new["parent"].unique().to_pylist(), asked.schema.field("id").type)
    first: dict[str, Mapping[str, Any]] = {}
    for row in asked.filter(pc.is_in(asked["id"], value_set=parents)).to_pylist():
        first.setdefault(row["id"], row)
    pairs: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    met: set[str] = set()
    for row in new.to_pylist():
        parent = first.get(row["parent"])
        if parent is not None and row["parent"] not in met:
            met.add(row["parent"])
            pairs.setdefault(parent["grade"], []).append((parent, row))
    for parent, row in _in_turn([pairs[grade] for grade in ("hard", "easy", "middle") if grade in pairs]):
        yield Lesson(
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
    """The first of each group, then the second of each, so many as ``LESSONS``."""
    longest = max((len(group) for group in groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)][:LESSONS]


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def _counts(content: Any) -> dict[str, int]:
    return {str(name): int(count) for name, count in _mapping(content).items() if count}


def _number(value: Any) -> float:
    """A number as it is; of counts by cause their sum."""
    if isinstance(value, Mapping):
        return sum(_number(each) for each in value.values())
    return value if isinstance(value, int | float) else 0


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


ReadDesign = Callable[[Path], Any]
MOST_FAULTS = 30
"""Faults of a reply that a page lists."""


def read_designs(folder: Path, read: ReadDesign, names: Sequence[str], notes: list[str]) -> tuple[Designed, ...]:
    """The designs of a run's folder, first to last; ``names`` are the bands'. What has another shape is noted."""
    found = []
    for path in sorted(folder.glob("cycle-*/design.json")):
        content = read(path)
        if content is None:
            continue
        try:
            found.append(_designed(content, int(path.parent.name.rpartition("-")[2]), names))
        except DECODE_ERRORS as error:
            what = f"{path.parent.name}/design.json does not have the shape of a design and is left out"
            notes.append(f"{what} ({fault_of(error)}).")
    return tuple(found)


def designs(study: StudyData) -> tuple[tuple[str, int, tuple[Designed, ...]], ...]:
    """(title, seed, designs) of one run of each arm that has some."""
    found = []
    for arm in study.arms:
        run = next((run for run in study.of(arm.name) if run.designs), None)
        if run is not None:
            found.append((arm.title, run.seed, run.designs))
    return tuple(found)


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
    for place, part in enumerate(spec.fractions):
        if part:
            name = names[place] if place < len(names) else f"band {place + 1}"
            shares.append(f"{name} {part:.0%}" + (f" {spec.ends[place]}" if part < 1 else ""))
    return DesignedStage(
        cycle, spec.name, spec.tokens / tokens, spec.tokens, ", ".join(shares), spec.order, spec.objective
    )
