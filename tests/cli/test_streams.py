"""Standard input, output and error that are closed, full or no terminal: real processes, real descriptors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradatim.sandbox.command import sandbox_support

GRADATIM = f"{sys.executable} -m gradatim"
LIST = f"{GRADATIM} list schedules"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (f"{LIST} > /dev/full", 1, "stdout: cannot write (No space left on device)"),
        (f"{LIST} --json > /dev/full", 1, "stdout: cannot write (No space left on device)"),
        (f"{GRADATIM} --help > /dev/full", 1, "stdout: cannot write (No space left on device)"),
        (f"{LIST} >&-", 2, "standard output is closed"),
        (f"{GRADATIM} generate a.txt --count 3 >&-", 2, "standard output is closed"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, command, status, words):
    done = shell(command, tmp_path)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_a_lost_standard_error_or_input_ends_nothing(tmp_path, stream):
    done = shell(f"{LIST} {stream}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "baseline" in done.stdout
    assert shell(f"{GRADATIM} list nonsense {stream}", tmp_path).returncode == 2


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    done = shell(f"set -o pipefail; {GRADATIM} list | head -n 1", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


SLOW = {
    "task_id": "slow",
    "prompt": "def slow(a):\n",
    "entry_point": "slow",
    "test": "def check(candidate):\n    assert candidate(1) == 1\n",
}
WAIT = "    from time import monotonic\n    end = monotonic() + 0.3\n    while monotonic() < end: pass\n    return a\n"


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_what_is_said_at_ctrl_c_does_not_go_into_the_verdicts(tmp_path, closed):
    """A file that is opened takes the lowest free descriptor, and the words at Ctrl-C are written to descriptor 2."""
    if not sandbox_support().available:
        pytest.skip("no walls")
    (tmp_path / "p.jsonl").write_text(json.dumps(SLOW) + "\n")
    rows = [json.dumps({"task_id": "slow", "completion": f"{WAIT}# {number}\n"}) for number in range(60)]
    (tmp_path / "s.jsonl").write_text("\n".join(rows) + "\n")
    command = f"exec {GRADATIM} check s.jsonl --problems p.jsonl > out {closed}"
    process = subprocess.Popen(["bash", "-c", command], cwd=tmp_path)
    kept = tmp_path / "s.verdicts.jsonl"
    deadline = time.monotonic() + 60
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    lines = kept.read_text().splitlines()
    assert {json.loads(line)["task_id"] for line in lines} == {"slow"}


def test_files_that_are_opened_never_take_the_places_of_the_streams(tmp_path):
    lines = (
        "from gradatim.cli.output import open_streams",
        "open_streams()",
        "print(open('x', 'w').fileno(), file=open('y', 'w'))",
    )
    code = "\n".join(lines)
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        assert shell(f'{sys.executable} -c "{code}" {closed}', tmp_path).returncode == 0
        assert int((tmp_path / "y").read_text()) > 2


def test_a_letter_that_the_terminal_has_not_is_escaped(tmp_path):
    done = shell(f"PYTHONIOENCODING=ascii:strict {GRADATIM} plan curriculum/hybrid --no-data", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", ["report", "run smoke/baseline --out", "score", "generate --count 3", "plan"])
def test_a_name_that_is_no_utf_8_is_one_line(tmp_path, verb):
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe.txt")
    done = shell(f"{GRADATIM} {verb} $'\\xff\\xfe.txt'", tmp_path)
    assert done.returncode == 2
    assert "a name is not UTF-8" in done.stderr
    assert "\\udcff\\udcfe.txt" in done.stderr
    assert done.stderr.count("\n") == 1


def test_work_in_a_folder_whose_name_is_no_utf_8_is_done(gradatim, tmp_path, monkeypatch):
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.makedirs(folder + b"/code")
    with open(folder + b"/code/\xff.py", "w") as file:
        file.write("a = 1\n")
    monkeypatch.chdir(os.fsdecode(folder))
    for command in ("generate a.parquet --count 3", "score a.parquet --out b.parquet", "score code --hardest 1"):
        said = gradatim(*command.split())
        assert said.status == 0, said.err
    assert "\\udcff.py" in said.out
