"""Progress on stderr: bars on a terminal, a line in intervals elsewhere."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console
from rich.progress import Progress

from gradatim.cli import progress as module
from gradatim.cli.output import watching
from gradatim.cli.progress import IDLE, Row, Tasks, drawing
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.stage import Event


def events_of_a_study() -> list[Event]:
    return [
        Event("start", "runs", 0, 2),
        Event("start", "a/seed-1: run"),
        Event("start", "a/seed-1: train easy", 0, 100),
        Event("start", "b/seed-1: run"),
        Event("advance", "a/seed-1: train easy", 50, 100),
        Event("start", "b/seed-1: train all", 20, 100),
    ]


def bars() -> tuple[Tasks, Progress]:
    progress = Progress(console=Console(file=io.StringIO(), force_terminal=True))
    return Tasks(progress.console, progress), progress


def test_a_study_has_one_overall_bar_and_one_for_each_run_at_work():
    tasks, progress = bars()
    for event in events_of_a_study():
        tasks.draw(event)
    shown = {task.description: (task.completed, task.total) for task in progress.tasks}
    assert shown == {"runs": (0, 2), "a/seed-1: train easy": (50, 100), "b/seed-1: train all": (20, 100)}


def test_the_bar_of_a_run_is_gone_when_it_is_finished_and_not_before():
    tasks, progress = bars()
    for event in events_of_a_study():
        tasks.draw(event)
    tasks.draw(Event("finish", "a/seed-1: train easy", 100, 100))
    assert len(progress.tasks) == 3
    tasks.draw(Event("finish", "a/seed-1: run"))
    assert {task.description for task in progress.tasks} == {"runs", "b/seed-1: train all"}


def test_quick_work_outside_a_terminal_says_nothing(capsys):
    with watching() as events:
        events(Event("start", "score om", 0, 10))
        events(Event("advance", "score om", 5, 10))
        events(Event("finish", "score om", 10, 10))
    assert capsys.readouterr() == ("", "")


def test_long_work_outside_a_terminal_leaves_one_line_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr(module, "NOTABLE", 0.0)
    with watching() as events:
        events(Event("start", "score om", 0, 10))
        events(Event("advance", "score om", 5, 10))
        events(Event("finish", "score om", 10, 10))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "score om: done in 0 s\n"


def test_a_note_is_shown_as_it_is_written(capsys):
    with watching() as events:
        events(Event("note", "environment", text="torch: [1] -> [2]"))
    assert capsys.readouterr().err == "gradatim: torch: [1] -> [2]\n"


def test_an_advance_of_a_task_that_was_never_started_is_no_error():
    tasks, progress = bars()
    tasks.draw(Event("advance", "output", 3, 10))
    assert progress.tasks[0].completed == 3


TRAINING = Event("advance", "train easy", 3000, 9000, unit="tokens", loss=2.3104, stage="stage 1 of 3")


def test_a_row_names_elapsed_and_left_beside_their_times_with_loss_speed_and_stage(monkeypatch):
    row = Row("train easy", TRAINING, first_done=1000, started=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 80.0)
    assert row.line == ("stage 1 of 3, train easy: 33%, loss 2.310, 25 tokens/s, 1 min 20 s elapsed, 4 min 0 s left")
    of_study = Row("a", replace(TRAINING, task="hybrid/seed-1: train easy"), 1000, 0.0)
    assert of_study.label == "hybrid/seed-1: stage 1 of 3, train easy"


def test_nothing_is_left_to_estimate_before_the_first_step(monkeypatch):
    row = Row("train easy", Event("start", "train easy", 0, 9000, unit="tokens"), 0, 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert row.line == "train easy: 0%, 5 s elapsed"


def test_without_a_terminal_every_task_is_a_line_in_intervals_even_when_it_sends_no_events(capsys, monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    with watching() as events:
        time.sleep(0.2)
        events(Event("start", "train easy", 0, 9000, unit="tokens", stage="stage 1 of 3"))
        time.sleep(0.2)
        events(TRAINING)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    patterns = (
        rf"{IDLE}: \d s elapsed",
        r"stage 1 of 3, train easy: 0%, \d s elapsed",
        r"stage 1 of 3, train easy: 33%, loss 2.310, [\d,]+ tokens/s, \d s elapsed, \d s left",
    )
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, lines)


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_a_row_before_the_first_task_and_between_tasks(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with drawing(console) as tasks:
        assert list(tasks.bars) == [IDLE]
        tasks.draw(TRAINING)
        assert list(tasks.bars) == ["train easy"]
        tasks.progress.refresh()
        tasks.draw(Event("finish", "train easy"))
        assert list(tasks.bars) == [IDLE]
    shown = console.file.getvalue()
    assert "stage 1 of 3, train easy" in shown
    assert "loss 2.310" in shown


def test_training_sends_its_loss_and_the_position_of_its_stage(tmp_path):
    sent = []
    changes = ["data.count=200", "data.split.test=10", "data.split.validation=10", "budget.tokens=3000"]
    recipe = load("smoke/sequential", [*changes, "evaluate.suites=[]", "train.evaluations_per_stage=0"])
    run(recipe, tmp_path / "run", events=sent.append)
    training = [event for event in sent if event.task.startswith("train ") and event.kind == "advance"]
    assert list(dict.fromkeys(event.stage for event in training)) == [f"stage {n} of 3" for n in (1, 2, 3)]
    assert all(event.unit == "tokens" and event.loss is not None and event.loss > 0 for event in training)
