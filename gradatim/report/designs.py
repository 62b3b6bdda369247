"""Which stages did a teacher write for a run, and with what reason?

Reads ``design.json`` of each cycle into ``Designed``: the stages as plain rows, the teacher's reason, and what was
wrong with replies that could not be used. All of it is somebody else's text and is shown as text. What the student then
made of these stages is told elsewhere on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..record import MISSHAPEN, fault_of
from ..results import decode_design
from ..stage import StageSpec
from .data import Designed, DesignedStage, StudyData

__all__ = ["designs", "read_designs"]

Read = Callable[[Path], Any]
MOST_FAULTS = 30
"""Faults of a reply that a page lists."""


def read_designs(folder: Path, read: Read, names: Sequence[str], notes: list[str]) -> tuple[Designed, ...]:
    """The designs of a run's folder, first to last; ``names`` are the bands'. What has another shape is noted."""
    found = []
    for path in sorted(folder.glob("cycle-*/design.json")):
        content = read(path)
        if content is None:
            continue
        try:
            found.append(_designed(content, int(path.parent.name.rpartition("-")[2]), names))
        except MISSHAPEN as error:
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
    rows = [_row(cycle + later, spec, tokens, names) for later, stages in enumerate(design.cycles) for spec in stages]
    faults = tuple(str(fault) for reply in content.get("faults", ()) for fault in reply)
    if len(faults) > MOST_FAULTS:
        faults = (*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} more")
    return Designed(cycle, str(design.reason), design.kept, tuple(rows), faults)


def _row(cycle: int, spec: StageSpec, tokens: int, names: Sequence[str]) -> DesignedStage:
    shares = []
    for place, part in enumerate(spec.fractions):
        if part:
            name = names[place] if place < len(names) else f"band {place + 1}"
            shares.append(f"{name} {part:.0%}" + (f" {spec.ends[place]}" if part < 1 else ""))
    return DesignedStage(
        cycle, spec.name, spec.tokens / tokens, spec.tokens, ", ".join(shares), spec.order, spec.objective
    )
