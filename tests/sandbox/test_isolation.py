"""Layers of the sandbox, as root and as an ordinary user, and the errors where they are unavailable."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from waiting import wait_until

import gradatim
from gradatim.errors import SandboxMissing, WorkFailed
from gradatim.sandbox import command as preflight
from gradatim.sandbox import seccomp
from gradatim.sandbox.bwrap import drop_privileges, isolate, reachable, spare_user
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.limits import Limits
from gradatim.sandbox.supervise import descendants, usage


@pytest.fixture
def fresh():
    """Clear the cached result of ``sandbox_support`` before and after the test."""
    preflight.sandbox_support.cache_clear()
    yield
    preflight.sandbox_support.cache_clear()


AS_USER = """
import os
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.limits import Limits
assert os.geteuid() != 0
bomb = "i=0; while test $i -lt 60; do sleep 1 & i=$((i + 1)); done; echo all"
with Sandbox() as sandbox:
    done = sandbox.run(["/bin/sh", "-c", "id -u; cat /etc/shadow; " + bomb], limits=Limits(cpu_seconds=1, processes=12))
    assert done.stdout == b"1000\\n", done
    assert b"fork" in done.stderr, done
    assert sandbox.run(["/bin/sh", "-c", "while :; do :; done"], limits=Limits(cpu_seconds=0.2)).ending == "timeout"
    assert sandbox.run(["/bin/sh", "-c", "echo x > a; ln -s /etc/passwd b"], collect=["a"]).files == {"a": b"x\\n"}
print("good")
"""


def user_python() -> str | None:
    """An interpreter that a user without rights can start: not one below root's home."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        words = f"{path} -c 'import sys; assert sys.version_info >= (3, 11)'"
        test = [*drop_privileges(61), "/bin/sh", "-c", f"exec {words}"]
        if Path(path).exists() and subprocess.run(test, capture_output=True).returncode == 0:
            return path
    return None


def open_to_everybody(folder):
    """Let every user reach ``folder``; pytest creates private folders above it, one more in each worker."""
    for path in (folder, *folder.parents):
        if path == Path(tempfile.gettempdir()):
            return
        path.chmod(path.stat().st_mode | 0o055)


def test_the_sandbox_is_complete_for_an_ordinary_user_with_many_processes(sandbox, tmp_path):
    python = user_python()
    if python is None:
        pytest.skip("no Python 3.11 that an ordinary user of this machine can start")
    source = tmp_path / "source" / "gradatim"
    shutil.copytree(Path(gradatim.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    open_to_everybody(tmp_path)
    # The user has more processes than the sandbox allows: only those inside may count.
    script = (
        f"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 20 & done; {python} -c '{AS_USER}'; kill $(jobs -p)"
    )
    script = script.replace(AS_USER, AS_USER.replace("'", '"'))
    done = subprocess.run(
        [*drop_privileges(61), "/bin/bash", "-c", script],
        env={"PYTHONPATH": str(source.parent), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "good\n", done.stderr


def test_the_sandbox_is_complete_here(sandbox):
    assert preflight.sandbox_support() == preflight.SandboxSupport(())
    assert preflight.sandbox_support().available


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_root_is_not_the_user_of_a_program(sandbox):
    with isolate(["/bin/true"], limits=Limits(), slot=5) as isolated:
        assert isolated.argv[1:3] == ("--reuid", str(spare_user(os.getpid(), 5)))
    assert spare_user(os.getpid(), 1) != spare_user(os.getpid(), 2)
    execution = sandbox.run(["/bin/cat", "/proc/self/uid_map"])
    assert int(execution.stdout.split()[1]) != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_a_folder_that_only_root_reaches_is_mounted(sandbox, tmp_path):
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    (closed / "open" / "file").write_text("reached", "utf-8")
    closed.chmod(0o700)
    execution = sandbox.run(
        ["/bin/cat", "/there/file", "/one"], mounts={closed / "open": "/there", closed / "open/file": "/one"}
    )
    assert execution.stdout == b"reachedreached"
    assert str(closed) not in Path("/proc/mounts").read_text("utf-8")


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_a_closed_folder_does_not_hide_an_open_one_of_the_same_stage(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "inner").mkdir()
    sources, words = reachable([closed / "inner", Path("/mnt")])
    assert sources == ["/media/0", "/mnt"]
    assert words[0].endswith("unshare")
    assert reachable([Path("/usr")]) == (["/usr"], [])


def test_files_beyond_the_descriptors_of_this_process_are_one_error(sandbox):
    descriptors = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors + 20, hard))
    try:
        with pytest.raises(WorkFailed, match="passed to the sandbox"):
            sandbox.run(["/bin/true"], files={f"f{number}": b"" for number in range(40)})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_without_bubblewrap_running_is_refused_with_the_command_that_installs_it(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxMissing, match=r"not installed.*apt install bubblewrap") as caught:
        Sandbox()
    assert caught.value.exit_code == 2
    assert "--unsafe" in str(caught.value)


def test_unsafe_goes_on_without_bubblewrap(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with Sandbox(unsafe=True) as sandbox:
        assert sandbox.run(["/bin/echo", "done"]).stdout == b"done\n"


@pytest.fixture
def instead_of_bwrap(fresh, monkeypatch, tmp_path):
    """Put a script before bubblewrap in PATH."""

    def instead(text):
        open_to_everybody(tmp_path)
        script = tmp_path / "bwrap"
        script.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return instead


def test_without_user_namespaces_the_kernels_error_is_reported(instead_of_bwrap):
    instead_of_bwrap('echo "bwrap: No permissions to create a new namespace" >&2; exit 1')
    with pytest.raises(SandboxMissing, match="No permissions to create a new namespace"):
        Sandbox()


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named_with_its_fix(setting, value, fix, tmp_path):
    (tmp_path / setting).parent.mkdir()
    (tmp_path / setting).write_text(value + "\n", "ascii")
    assert preflight.advice("bwrap: setting up uid map: Permission denied", settings=tmp_path).startswith(
        f"sudo sysctl -w {fix}"
    )


def test_a_layer_without_effect_is_reported_as_missing(instead_of_bwrap):
    instead_of_bwrap('while test "$1" != --; do shift; done; shift 5; exec /bin/sh "$@"')
    missing = set(preflight.sandbox_support().missing)
    assert {"seccomp", "user", "network", "devices", "boot-parameters"} <= missing
    with pytest.raises(SandboxMissing, match="have no effect"):
        Sandbox()


def test_another_system_has_no_sandbox(fresh, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert preflight.sandbox_support().missing == ("all",)


def test_an_unknown_machine_has_no_filter(fresh, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    assert preflight.sandbox_support().missing == ("seccomp",)


def run_filter(code: bytes, number: int, architecture: int, *arguments: int) -> int:
    """Result of the filter, by a small interpreter of its instructions."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", code))
    index, value = 0, 0
    while True:
        operation, if_true, if_false, operand = steps[index]
        index += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            value &= operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[operation]
            index += if_true if holds else if_false


@pytest.mark.parametrize(("machine", "audit", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)])
def test_the_filter_refuses_what_it_lists_and_allows_the_rest(machine, audit, column):
    code = seccomp.program(machine)
    allow, error = 0x7FFF0000, 0x00050000
    for name, numbers in seccomp.NUMBERS.items():
        if numbers[column] >= 0:
            assert run_filter(code, numbers[column], audit) == error | 1, name
    for name, numbers in seccomp.ABSENT.items():
        if numbers[column] >= 0:
            assert run_filter(code, numbers[column], audit) == error | 38, name
    read, clone, socket = (0, 63)[column], (56, 220)[column], (41, 198)[column]
    assert run_filter(code, read, audit) == allow
    assert run_filter(code, clone, audit, 0x3D0F00) == allow  # the flags of a new thread
    assert run_filter(code, clone, audit, 0x10000011) == error | 1
    assert run_filter(code, socket, audit, 1) == allow
    assert run_filter(code, socket, audit, 2) == error | 97
    assert run_filter(code, read, 0x40000003) == 0x80000000
    assert run_filter(code, seccomp.NEWER, audit) == error | 38
    for numbers in seccomp.FILE_TIMES.values():
        if numbers[column] >= 0:
            assert run_filter(code, numbers[column], audit) == error
            assert run_filter(seccomp.program(machine, file_times=True), numbers[column], audit) == allow


@pytest.mark.parametrize(("machine", "audit", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)])
def test_the_filter_decides_by_the_arguments(machine, audit, column):
    code = seccomp.program(machine)
    allow, granted, forbidden = 0x7FFF0000, 0x00050000, 0x00050001

    def answer(call, *arguments):
        return run_filter(code, call[column], audit, *arguments)

    private, shared, huge = 0x22, 0x21, 0x40022
    assert [answer(seccomp.MMAP, 0, 1, 3, flags) for flags in (private, 0x01, 0x02)] == [allow] * 3
    assert [answer(seccomp.MMAP, 0, 1, 3, flags) for flags in (shared, shared | 0x4000, huge)] == [forbidden] * 3
    assert [answer(seccomp.FCNTL, 3, command) for command in (1, 3, 4, 1030)] == [allow] * 4
    assert [answer(seccomp.FCNTL, 3, command) for command in (6, 7, 37, 38)] == [granted] * 4
    assert [answer(seccomp.FCNTL, 3, command) for command in (5, 36, 1024, 1026, 1036)] == [forbidden] * 5
    assert answer(seccomp.FLOCK, 3, 2) == granted
    assert answer(seccomp.SIGACTION, 17, 0) == answer(seccomp.SIGACTION, 15, 1) == allow
    assert answer(seccomp.SIGACTION, 17, 1) == answer(seccomp.SIGACTION, 17, 1 << 32) == granted
    assert answer(seccomp.SETSOCKOPT, 3, 1, 7) == granted
    assert answer(seccomp.SETSOCKOPT, 3, 1, 2) == answer(seccomp.SETSOCKOPT, 3, 6, 7) == allow
    assert answer(seccomp.IOCTL, 3, 0xC0506617) == forbidden


def test_numbers_of_calls_are_the_kernels():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers on this machine")
    numbers_by_name = dict(
        line.split()[1:3] for line in header.read_text("ascii").splitlines() if line.startswith("#define __NR_")
    )
    for name, numbers in {**seccomp.NUMBERS, **seccomp.ABSENT, **seccomp.FILE_TIMES}.items():
        number = int(numbers_by_name.get(f"__NR_{name}", numbers[0]))  # these headers may be older than the call
        assert number == numbers[0], name
        assert number < seccomp.NEWER


def test_a_process_that_ignores_the_end_of_children_runs_no_program(sandbox):
    usual = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SandboxMissing, match="ignores SIGCHLD"):
            Sandbox()
    finally:
        signal.signal(signal.SIGCHLD, usual)


def test_usage_counts_the_whole_tree():
    spin = "i=0; while test $i -lt 300000; do i=$((i+1)); done"
    with subprocess.Popen(
        ["/bin/sh", "-c", f"sh -c '{spin}'; sh -c '{spin}; echo; sleep 9' ; :"], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        wait_until(lambda: len(list(descendants(process.pid))) == 3)
        used, tree = usage(process.pid), list(descendants(process.pid))
        for process_id in tree:  # parents first: a shell whose command is killed goes on, and may end by itself
            os.kill(process_id, 9)
    assert used.cpu_seconds >= 0.05
    assert used.processes == len(tree) == 3
    assert usage(process.pid).processes <= 1
