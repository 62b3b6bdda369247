"""Inputs, results and errors of ``Sandbox.run``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from attacking import SMALL, processes
from waiting import wait_until

import gradatim.sandbox.supervise as supervise
from gradatim.errors import Stopped, StorageFailed, UserError, WorkFailed
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.limits import MIB, Limits, Verdict, printable


@pytest.fixture(params=["isolated", "unsafe"])
def either(request, sandbox):
    """Behaviour with and without isolation."""
    if request.param == "isolated":
        return sandbox
    return Sandbox(unsafe=True)


def shell(sandbox, text, **options):
    return sandbox.run(["/bin/sh", "-c", text], **{"limits": SMALL, **options})


def test_a_program_gets_its_files_stdin_and_environment(either):
    execution = shell(
        either,
        'cat a/b.txt - && printf "%s" "$GIVEN" >&2; test -x a/b.txt && exit 3',
        files={"a/b.txt": b"file \xff\0 "},
        stdin=b"stdin",
        environment={"GIVEN": "given"},
    )
    assert (execution.ending, execution.code, execution.ok) == ("exited", 3, False)
    assert (execution.stdout, execution.stderr) == (b"file \xff\0 stdin", b"given")
    assert execution.how == "exited with 3"


def test_a_program_starts_in_its_work_folder_with_a_plain_environment(sandbox):
    execution = shell(sandbox, "pwd; env | sort")
    lines = execution.stdout.decode().split()
    assert lines[0] == "/work"
    assert [line.partition("=")[0] for line in lines[1:]] == ["HOME", "LANG", "PATH", "PWD", "TMPDIR"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_told_as_one(either, number):
    execution = shell(either, f"kill -{int(number)} $$")
    assert (execution.ending, execution.code) == ("signalled", number)
    assert number.name in execution.how


def test_the_words_of_the_first_shell_are_not_the_programs(either):
    assert either.run(["/bin/sh", "-c", "kill -9 $$"], limits=SMALL).stderr == b""


def test_asked_files_come_back_and_others_do_not(either):
    execution = shell(
        either,
        "mkdir d; printf one > d/a; printf two > b; mkdir c; head -c 3000000 /dev/full > big 2>&1; exit 0",
        collect=["d/a", "missing", "c", "big"],
        limits=replace(SMALL, file_bytes=1 * MIB),
    )
    files = dict(execution.files)
    assert len(files.pop("big", b"")) <= 1 * MIB
    assert files == {"d/a": b"one"}


def test_a_large_file_comes_back_whole(either):
    content = os.urandom(3 * MIB)
    limits = Limits(cpu_seconds=5)
    execution = shell(either, "cp in out", files={"in": content}, collect=["out"], limits=limits)
    assert execution.files == {"out": content}


def test_a_folder_is_mounted_to_be_read_only(sandbox, tmp_path):
    (tmp_path / "file").write_text("mounted", "utf-8")
    tmp_path.chmod(0o755)
    execution = shell(sandbox, "cat /cache/file; echo x > /cache/file", mounts={tmp_path: "/cache"})
    assert (execution.stdout, execution.code != 0) == (b"mounted", True)
    assert (tmp_path / "file").read_text("utf-8") == "mounted"


def test_without_walls_places_are_replaced_in_commands(tmp_path):
    (tmp_path / "file").write_text("mounted", "utf-8")
    words = ["/bin/sh", "-c", 'cat "$1" "$2"', "sh", "/cache/file", "/work/own"]
    execution = Sandbox(unsafe=True).run(words, files={"own": b" own"}, mounts={tmp_path: "/cache"})
    assert execution.stdout == b"mounted own"


def test_outputs_are_kept_up_to_their_limit_each(either):
    text = "head -c 50000 /dev/full; head -c 50000 /dev/full >&2; exit 0"
    execution = shell(either, text, limits=replace(SMALL, output_bytes=1000))
    assert (len(execution.stdout), len(execution.stderr), execution.cut, execution.ok) == (1000, 1000, True, True)
    assert not shell(either, "head -c 1000 /dev/full", limits=replace(SMALL, output_bytes=1000)).cut


def test_a_large_output_is_not_slow(either):
    limits = Limits(cpu_seconds=10, output_bytes=60 * MIB)
    execution = shell(either, "head -c 50000000 /dev/full", limits=limits)
    assert (len(execution.stdout), execution.ok) == (50_000_000, True)
    assert execution.wall_seconds < 10


def test_a_program_that_reads_little_of_much_stdin_is_not_stalled(either):
    execution = shell(either, "head -c 10", stdin=b"0123456789" * 1_000_000)
    assert (execution.stdout, execution.ok) == (b"0123456789", True)


def test_stdin_goes_through_whole_while_output_comes_back(either):
    data = os.urandom(2_000_000)
    assert shell(either, "cat", stdin=data, limits=Limits(cpu_seconds=5, output_bytes=3 * MIB)).stdout == data


def test_cpu_time_decides_a_timeout_and_sleeping_does_not(either):
    slept = shell(either, "sleep 0.4", limits=replace(SMALL, cpu_seconds=0.3))
    assert slept.ok
    assert slept.cpu_seconds < 0.3 < slept.wall_seconds
    spun = shell(either, "while :; do :; done", limits=replace(SMALL, cpu_seconds=0.3))
    assert (spun.ending, spun.how) == ("timeout", "ran out of time")
    assert 0.3 <= spun.cpu_seconds < 1.5


def test_the_clock_ends_what_only_waits(either):
    execution = shell(either, "sleep 30", limits=replace(SMALL, wall_seconds=0.2))
    assert execution.ending == "timeout"
    assert execution.wall_seconds < 5


def test_children_that_have_ended_count_too(either):
    text = 'for i in 1 2 3 4 5 6 7 8 9; do sh -c "i=0; while test \\$i -lt 100000; do i=\\$((i+1)); done"; done'
    execution = shell(either, text, limits=replace(SMALL, cpu_seconds=0.2))
    assert execution.ending == "timeout"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"command": []}, "a list of words"),
        ({"command": "ls"}, "a list of words"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"command": ["echo", "x" * 10_000_000]}, "too long"),
        ({"environment": {"A": "\0"}}, "NUL"),
        ({"environment": {"A=B": "c"}}, "environment"),
        ({"files": {"../x": b""}}, "work folder"),
        ({"files": {"/etc/x": b""}}, "work folder"),
        ({"files": {"a\0b": b""}}, "work folder"),
        ({"files": {"": b""}}, "work folder"),
        ({"collect": ["/etc/passwd"]}, "work folder"),
        ({"collect": ["a", "a"]}, "twice"),
    ],
)
def test_what_cannot_be_run_is_a_users_error_in_one_line(either, given, what):
    with pytest.raises(UserError, match=what) as caught:
        either.run(**{"command": ["/bin/true"], **given})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_a_mount_that_is_not_there_is_a_users_error(sandbox, tmp_path):
    with pytest.raises(UserError, match="mounted"):
        sandbox.run(["/bin/true"], mounts={tmp_path / "nowhere": "/cache"})
    with pytest.raises(UserError, match="absolute"):
        sandbox.run(["/bin/true"], mounts={tmp_path: "cache"})


@pytest.mark.parametrize(
    "given",
    [
        {"cpu_seconds": 0},
        {"cpu_seconds": float("nan")},
        {"cpu_seconds": float("inf")},
        {"wall_seconds": -1},
        {"memory_bytes": 0},
        {"memory_bytes": 1.5},
        {"processes": True},
        {"processes": "9"},
        {"output_bytes": -1},
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(given):
    with pytest.raises(UserError, match=next(iter(given))):
        Limits(**given)


def test_a_command_that_is_not_there_exits_as_in_a_shell(either):
    assert either.run(["/nowhere/program"], limits=SMALL).code == 127


def test_sources_with_nul_bytes_and_ten_megabytes_are_just_files(either):
    content = b"\0source\xff" * 1_300_000
    execution = shell(either, "wc -c < source", files={"source": content}, limits=Limits(cpu_seconds=5))
    assert int(execution.stdout) == len(content)


def test_a_full_work_folder_is_the_programs_problem(sandbox):
    text = "cat /dev/full > a; cat /dev/full > b; cat /dev/full > c; echo still here"
    execution = shell(sandbox, text, limits=replace(SMALL, folder_bytes=1 * MIB, cpu_seconds=5))
    assert execution.stdout == b"still here\n"
    assert b"No space left" in execution.stderr


def test_a_full_disk_without_sandbox_is_one_error(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(StorageFailed, match="TMPDIR"):
        Sandbox(unsafe=True).run(["/bin/true"])


def test_a_sandbox_that_cannot_be_set_up_is_an_error_and_no_verdict(sandbox, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkFailed, match="could not be set up"):
        sandbox.run(["/bin/true"], mounts={tmp_path / "file": "/usr/file"})


def test_runs_side_by_side_do_not_meet(sandbox):
    def one(number):
        text = f"echo {number} > mine; sleep 0.1; cat *; ls /proc | grep -c '^[0-9]'"
        return shell(sandbox, text).stdout.split()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, range(8)))
    assert [int(answer[0]) for answer in answers] == list(range(8))
    assert {len(answer) for answer in answers} == {2}
    assert max(int(answer[1]) for answer in answers) <= 4


def test_closing_a_sandbox_ends_what_other_threads_run(sandbox):
    other = Sandbox()
    caught = []

    def wait():
        try:
            other.run(["/bin/sleep", "30"])
        except Stopped as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    before = processes()
    thread.start()
    time.sleep(0.2)
    other.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(caught) == 1
    assert processes() <= before
    with pytest.raises(Stopped):
        other.run(["/bin/true"])


INTERRUPTED = """
import sys
from gradatim.sandbox.command import Sandbox
with Sandbox(unsafe=sys.argv[1] == "unsafe") as sandbox:
    print("ready", flush=True)
    try:
        sandbox.run(["/bin/sh", "-c", "(setsid sleep 77.125 &) ; sleep 77.125"])
    except KeyboardInterrupt:
        import os
        print(len(os.listdir("/proc/self/fd")), flush=True)
        raise SystemExit(130)
"""


def sleepers() -> int:
    """Number of processes of the sleeping program above on this machine."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += path.read_bytes() == b"sleep\x0077.125\0"
        except OSError:
            continue
    return count


@pytest.mark.parametrize("kind", ["isolated", "unsafe"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_no_folder(sandbox, kind, number, tmp_path):
    if number == signal.SIGKILL and kind == "unsafe":
        pytest.skip("without sandbox there is no process to clean up after a killed one")
    command = [sys.executable, "-c", INTERRUPTED, kind]
    # A test run that was started in the background ignores Ctrl-C, and its children would too.
    restore_interrupt = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, preexec_fn=restore_interrupt) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: sleepers() == 2)
        process.send_signal(number)
        process.wait(20)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert int(process.stdout.read()) <= 5
    wait_until(lambda: sleepers() == 0)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_nothing(sandbox, monkeypatch):
    def broken(*_):
        raise RuntimeError("in the middle")

    before, descriptors = processes(), len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(supervise, "usage", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        shell(sandbox, "sleep 30")
    assert processes() <= before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_many_runs_leave_no_descriptor_process_or_slot(sandbox):
    shell(sandbox, "true")
    before, descriptors = processes(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        shell(sandbox, "cat > out", stdin=b"x", collect=["out"])
    assert processes() <= before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_daemon_without_sandbox_is_found_by_its_nonce():
    text = "(setsid sh -c 'sleep 77.125' >/dev/null 2>&1 </dev/null &); sleep 0.1"
    assert shell(Sandbox(unsafe=True), text).ok
    wait_until(lambda: sleepers() == 0)


def test_a_reason_is_one_line_and_safe_to_print():
    reason = Verdict("failed", "first\nsecond \x1b[31m\u202e" + "x" * 1000).reason
    assert reason.isprintable()
    assert reason.startswith("first second \\x1b[31m\\u202e")
    assert len(reason) <= 300
    assert printable(b"\xff\n\0") == "\\xff \\x00"
