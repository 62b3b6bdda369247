"""How was each cycle of a run taught, by what its folder says?

Of a run with several cycles, the facts of each cycle's corpus (``table.json``), of the feedback after it
(``feedback.json``) and of the attempts before it (``attempts.json``) become ``CycleFacts``: counts, and a few
*lessons* from the tables themselves: a question, what the student wrote, and the new question that came of it. What is
not there is left empty; what cannot be read is named in ``notes``. It adds nothing up: that is ``cycles``' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import read_input
from ..parsing import parse_json
from ..record import MISSHAPEN, fault_of
from .data import CycleFacts, Lesson

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GRADES", "PLACES", "TEACHING", "read_cycles"]

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
        except MISSHAPEN as error:
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
    except (DataError, OSError, *MISSHAPEN) as error:  # pyarrow's errors are among them
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
