"""What a person sees while work is done: bars on a terminal, hardly anything elsewhere."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress

from gradatim.cli import output as module
from gradatim.cli.output import _Tasks, watching
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


def bars() -> tuple[_Tasks, Progress]:
    progress = Progress(console=Console(file=io.StringIO(), force_terminal=True))
    return _Tasks(progress.console, progress), progress


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
