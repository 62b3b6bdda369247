"""Ctrl-C on a real process: the state is saved, the exit code is 130, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_commands import ForkedCommand, run_command

from gradatim.cli.output import heeding_signals, watching
from gradatim.errors import Stopped
from gradatim.stage import Event

COMMAND = [
    *("run", "smoke/baseline", "--out", "here"),
    *("--set", "data.count=300", "--set", "data.split.test=5", "--set", "data.split.validation=20"),
    *("--set", "budget.tokens=12000", "--set", "train.logging_steps=1"),
]


def rows(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def wait_for_rows(process: ForkedCommand, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while rows(folder) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_saves_the_run_and_the_same_command_goes_on(tmp_path):
    process = ForkedCommand(COMMAND, tmp_path)
    wait_for_rows(process, tmp_path / "here", 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "gradatim: stopped; the state is saved; resume with: gradatim run smoke/baseline --out here" in err
    assert "Traceback" not in err
    assert (tmp_path / "here" / "cycle-00" / "stage-00-all" / "checkpoint").is_dir()

    again = run_command(COMMAND, tmp_path)
    assert again.returncode == 0, again.stderr
    assert "report.html" in again.stdout
    result = json.loads((tmp_path / "here" / "cycle-00" / "stage-00-all" / "result.json").read_text())
    assert result["fitted"]["resumed_at"] > 0


def test_a_second_ctrl_c_ends_the_process_at_once():
    code = (
        "import time\nfrom gradatim.cli.output import heeding_signals\n"
        "with heeding_signals():\n print('ready', flush=True)\n time.sleep(60)\n time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "stopped at once" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_work_at_its_next_event_and_not_before(number):
    heard = []

    def work() -> None:
        with watching() as events:
            events(Event("start", "work", 0, 2))
            os.kill(os.getpid(), number)
            heard.append("still here")
            events(Event("advance", "work", 1, 2))
            heard.append("never here")

    with pytest.raises(Stopped, match="nothing was written"):
        work()
    assert heard == ["still here"]


def test_the_handlers_of_the_caller_come_back():
    before = signal.getsignal(signal.SIGINT)
    with heeding_signals() as asked:
        assert signal.getsignal(signal.SIGINT) is not before
        assert not asked()
    assert signal.getsignal(signal.SIGINT) is before
