"""Does the report tell which stages a teacher wrote, and show its words as words?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from make_study import make_run
from test_page import HOSTILE, read

from gradatim.reporting import collect
from gradatim.reporting.cycles import designs
from gradatim.reporting.html import render
from gradatim.stage import StageSpec


def write(folder: Path, cycle: int, reason: str, *cycles: list[StageSpec], **more: object) -> None:
    content = {
        "reason": reason,
        "kept": False,
        "cycles": [{"stages": [asdict(spec) for spec in stages]} for stages in cycles],
        "replies": ["x"],
        "faults": [[]],
        "teacher": {},
        **more,
    }
    place = folder / f"cycle-{cycle:02d}"
    place.mkdir(exist_ok=True)
    (place / "design.json").write_text(json.dumps(content))


START = StageSpec("start", (1.0, 0.5, 0.0), 100, ("easiest",) * 3, "sorted", "answer_only")
ALL = StageSpec("all", (1.0, 1.0, 1.0), 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has only begun: its page takes no time to draw."""
    place = make_run(tmp_path / "designed", "hybrid", 1)
    for result in place.glob("cycle-00/*/result.json"):
        result.unlink()
    (place / "metrics.jsonl").unlink()
    return place


def test_each_design_is_told_with_its_stages_reason_and_faults(folder: Path) -> None:
    write(folder, 0, "Easy first.", [START], [ALL], faults=[["the budget is not kept"], []])
    write(folder, 1, "As planned.", [ALL], kept=True)
    study = collect(folder)
    ((title, seed, (first, second)),) = designs(study)
    assert (title, seed) == ("The hybrid arm", 1)
    assert (first.cycle, first.reason, first.faults) == (0, "Easy first.", ("the budget is not kept",))
    told = [(stage.cycle, stage.name, stage.share, stage.bands, stage.order, stage.objective) for stage in first.stages]
    assert told == [
        (0, "start", 0.25, "easy 100%, medium 50% easiest", "sorted", "answer_only"),
        (1, "all", 0.75, "easy 100%, medium 100%, hard 100%", "shuffled", None),
    ]
    assert (second.kept, second.stages[0].cycle) == (True, 1)
    page = render(study)
    for words in ("LLM-designed schedule", "Easy first.", "plan unchanged", "the budget is not kept", "25.0"):
        assert words in page


def test_a_run_that_nobody_designed_says_nothing_of_it(folder: Path) -> None:
    assert designs(collect(folder)) == ()
    assert "LLM-designed schedule" not in render(collect(folder))


def test_words_of_a_teacher_stay_text(folder: Path) -> None:
    spec = StageSpec(HOSTILE, (1.0, 0.5, 0.0), 100, order=HOSTILE, objective=HOSTILE)
    write(folder, 0, HOSTILE, [spec], faults=[[HOSTILE], []])
    page = render(collect(folder))
    assert HOSTILE not in page
    tags = read(page).tags
    assert (tags.count("script"), tags.count("img")) == (3, 0)
    assert page.count("&lt;script&gt;") == 5  # the reason, the fault, a name, an order and an objective
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"cycles": 3}', '{"cycles": [{"stages": [{}]}], "reason": 1, "kept": 0}']
)
def test_a_design_that_cannot_be_read_is_a_note_and_the_page_is_written(folder: Path, content: str) -> None:
    (folder / "cycle-00" / "design.json").write_text(content)
    study = collect(folder)
    assert designs(study) == ()
    assert any("design.json" in note for note in study.notes)
    assert "design.json" in render(study)
