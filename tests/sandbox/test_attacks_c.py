"""Attacks by programs in C, each run with limits so small that it fails quickly."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from attacking import ATTACKS, SMALL, Attack, Build, answers

from gradatim.sandbox.limits import MIB


@pytest.fixture(scope="session")
def compiled(build: Build) -> Mapping[str, bytes]:
    return build("gcc", "attack.c", ["-O1", "-o", "attack", "attack.c", "-lpthread"])


@pytest.fixture
def attack(sandbox, compiled, attack_host) -> Attack:
    def attack(*words, limits=SMALL, **options):
        return sandbox.run(["./attack", *map(str, words)], files=compiled, limits=limits, **options)

    return attack


def test_a_fork_bomb_does_not_outlive_its_cpu_time(attack):
    execution = attack("fork-bomb")
    assert execution.ending == "timeout"
    assert execution.wall_seconds < 10


def test_forks_do_not_exceed_the_process_limit(attack):
    execution = attack("fork-count")
    assert execution.ok
    assert 0 < int(execution.stdout) < SMALL.processes


def test_threads_do_not_exceed_the_process_limit(attack):
    assert 0 < int(attack("threads", limits=replace(SMALL, memory_bytes=512 * MIB)).stdout) < SMALL.processes


def test_a_memory_bomb_does_not_pass_the_address_space_limit(attack):
    execution = attack("memory")
    assert (execution.ending, execution.code) == ("exited", 7)
    assert int(execution.stdout) < SMALL.memory_bytes


def test_a_memory_bomb_without_address_space_limit_does_not_pass_the_watch(attack):
    execution = attack("memory", limits=replace(SMALL, address_space=False, cpu_seconds=5))
    assert execution.ending == "memory"


def test_children_together_do_not_hold_more_memory_than_one_may(attack):
    execution = attack("shared-memory", limits=replace(SMALL, cpu_seconds=5))
    assert execution.ending == "memory"


def test_memory_that_no_limit_counts_is_not_given(attack):
    assert answers(attack("unnamed-memory")) == {"memfd": "ENOSYS", "shmget": "EPERM"}


def test_memory_that_is_counted_for_no_process_is_not_given(attack):
    assert answers(attack("uncounted-memory")) == {"shared": "EPERM", "huge": "EPERM", "zero": "ENOENT"}


def test_buffers_of_sockets_count_as_memory(attack):
    execution = attack("socket-buffers", limits=replace(SMALL, memory_bytes=64 * MIB, cpu_seconds=5))
    assert execution.ending == "memory"


def test_page_tables_count_as_memory(attack):
    execution = attack("page-tables", limits=replace(SMALL, address_space=False, memory_bytes=64 * MIB, cpu_seconds=5))
    assert execution.ending == "memory"


@pytest.mark.parametrize("path", ["/dev/null", "/usr/bin/env"])
def test_nothing_is_told_or_left_by_a_shared_file(attack, path):
    before = os.stat(path)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        outcomes = answers(attack("shared-objects", path))
    granted, refused = {"flock", "lock", "description-lock", "times"}, {"query", "description-query", "lease", "hint"}
    assert {outcomes[call] for call in granted} == {"done"}
    assert {outcomes[call] for call in refused | {"notification"}} == {"EPERM"}
    assert outcomes["inotify"] == "ENOSYS"
    after = os.stat(path)
    assert (after.st_mtime_ns, after.st_atime_ns) == (before.st_mtime_ns, before.st_atime_ns)


def test_the_first_process_is_not_read_or_written(attack):
    outcomes = answers(attack("first-process"))
    assert outcomes.pop("mode") == "EROFS"
    assert set(outcomes.values()) == {"EACCES"}


def test_paths_and_boot_parameters_of_the_host_are_not_told(attack):
    assert answers(attack("host-paths")) == {"boot": "EACCES", "statmount": "ENOSYS", "listmount": "ENOSYS"}


def test_many_files_do_not_fill_the_disk(attack):
    execution = attack("disk")
    assert answers(execution) == {"disk": "ENOSPC"}
    assert int(execution.stdout.split()[0]) <= SMALL.folder_bytes + 2 * MIB


def test_a_file_does_not_grow_past_its_limit(attack):
    execution = attack("large-file")
    assert (execution.ending, execution.code) == ("signalled", signal.SIGXFSZ)


def test_empty_files_do_not_fill_the_kernel(attack):
    execution = attack("many-files", limits=replace(SMALL, cpu_seconds=20))
    assert execution.ending == "memory"


@pytest.mark.parametrize("kind", ["output", "one-line", "errors"])
def test_endless_output_is_not_kept(attack, kind):
    execution = attack(kind, limits=replace(SMALL, cpu_seconds=0.2))
    assert execution.ending == "timeout"
    assert execution.cut
    assert max(len(execution.stdout), len(execution.stderr)) == SMALL.output_bytes


def test_sleeping_forever_does_not_hold_a_check_up(attack):
    execution = attack("sleep", limits=replace(SMALL, wall_seconds=0.3))
    assert execution.ending == "timeout"
    assert execution.wall_seconds < 5
    assert execution.cpu_seconds < 0.3


def test_an_endless_loop_does_not_run_on(attack):
    assert attack("spin", limits=replace(SMALL, cpu_seconds=0.2)).ending == "timeout"


def test_children_do_not_each_get_the_cpu_time_of_the_whole(attack):
    execution = attack("spin-in-children")
    assert execution.ending == "timeout"
    assert execution.cpu_seconds < 2 * SMALL.cpu_seconds


@pytest.mark.parametrize("how", ["ignored", "not-waited-for", "orphans"])
def test_cpu_time_of_children_that_nobody_waits_for_counts(attack, how):
    execution = attack("children-without-parents", how)
    assert execution.ending == "timeout"
    assert execution.cpu_seconds < 3 * SMALL.cpu_seconds


def test_ignored_signals_do_not_save_a_program(attack):
    assert attack("ignore-signals", limits=replace(SMALL, cpu_seconds=0.2)).ending == "timeout"


@pytest.mark.parametrize("kind", ["orphan", "orphan-with-output"])
def test_a_daemon_does_not_outlive_the_program(attack, kind):
    started = time.monotonic()
    execution = attack(kind)
    assert execution.ok
    assert time.monotonic() - started < 10


def test_a_listener_on_the_loopback_is_not_reached(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        execution = attack("connect", server.getsockname()[1])
    refused = "EAFNOSUPPORT"
    assert answers(execution) == {
        "socket": refused,
        "connect": "EBADF",
        "socket6": refused,
        "raw": refused,
        "netlink": refused,
        "vsock": refused,
        "getaddrinfo": "failed",
    }


def test_an_abstract_socket_of_the_host_is_not_reached(attack):
    name = f"gradatim-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert answers(attack("connect-abstract", name)) == {"connect": "ECONNREFUSED"}


def test_secrets_of_the_environment_are_not_seen(attack):
    execution = attack("show", "/proc/self/environ", "/proc/1/environ", "/proc/1/cmdline")
    assert b"do-not-tell" not in execution.stdout
    assert b"HOME=/work" in execution.stdout


def test_files_of_the_host_are_not_read(attack, canary):
    paths = [str(canary), "/etc/shadow", "/etc/hostname", f"/proc/1/root{canary}", "/proc/1/cwd/../etc/shadow"]
    execution = attack("show", *paths)
    assert set(answers(execution).values()) <= {"ENOENT", "EACCES"}
    assert len(answers(execution)) == len(paths)


@pytest.mark.parametrize(
    "path", ["/usr/bin/attack", "/etc/attack", "/attack", "/dev/attack", "/proc/sys/kernel/core_pattern"]
)
def test_nothing_outside_the_folder_is_written(attack, path):
    assert answers(attack("write", path))[path] in ("EROFS", "EACCES", "EPERM", "ENOENT")
    assert not Path(path).exists() or path.startswith("/proc")


def test_a_link_out_of_the_folder_does_not_bring_a_file_back(attack, canary):
    for target in (str(canary), "/etc/shadow", "/proc/1/environ"):
        execution = attack("link", target, collect=["result"])
        assert execution.ok
        assert b"secret" not in execution.files.get("result", b"")
        assert b"root:" not in execution.files.get("result", b"")
        assert b"do-not-tell" not in execution.files.get("result", b"")


def test_processes_of_others_are_not_seen(sandbox, attack_host):
    execution = sandbox.run(["/bin/ls", "/proc"], limits=SMALL)
    numbers = [int(name) for name in execution.stdout.decode().split() if name.isdigit()]
    assert 0 < len(numbers) <= 3
    assert max(numbers) < 100


def test_the_parent_is_not_traced_read_or_killed(attack):
    execution = attack("touch-others")
    assert execution.ok
    assert answers(execution) == {
        "attach": "EPERM",
        "read": "EPERM",
        "write": "EPERM",
        "alive": "done",
        "alone": "done",
    }


def test_killing_its_whole_group_does_not_kill_who_waits_for_it(attack):
    execution = attack("kill-group")
    assert (execution.ending, execution.code) == ("signalled", signal.SIGKILL)


def test_the_kernels_dangerous_calls_are_not_answered(attack):
    outcomes = answers(attack("refused"))
    assert len(outcomes) == 20
    assert {outcomes.pop("clone3"), outcomes.pop("io_uring")} == {"ENOSYS"}
    assert outcomes.pop("priority") in ("EACCES", "EPERM")
    assert outcomes.pop("setuid") in ("EINVAL", "EPERM")
    assert set(outcomes.values()) == {"EPERM"}


def test_limits_are_not_raised(attack):
    assert attack("raise-limits").stdout == b"raise EPERM\n" * 5


@pytest.mark.parametrize("kind", ["other-architecture", "x32"])
def test_another_set_of_call_numbers_does_not_pass_the_filter(attack, kind):
    execution = attack(kind)
    assert (execution.ending, execution.code) == ("signalled", signal.SIGSYS)


def test_deleting_its_own_folder_does_not_hurt(attack):
    execution = attack("leave-folder", collect=["attack"])
    assert set(answers(execution).values()) <= {"EBUSY", "EROFS"}
    assert execution.files == {}


def test_stdin_is_not_the_terminal(attack):
    assert answers(attack("read-stdin"))["terminal"] in ("ENOENT", "ENXIO")
    assert attack("read-stdin", stdin=b"1234").stdout.endswith(b"4\n")


def test_unread_stdin_does_not_stall_the_run(attack):
    execution = attack("close-all", stdin=b"x" * 5_000_000)
    assert execution.ok


def test_endless_recursion_does_not_crash_more_than_itself(attack):
    execution = attack("recursion")
    assert (execution.ending, execution.code) == ("signalled", signal.SIGSEGV)


def test_an_abort_is_not_mistaken_for_something_else(attack):
    execution = attack("abort")
    assert (execution.ending, execution.code) == ("signalled", signal.SIGABRT)


def test_descriptors_of_the_host_do_not_get_in(sandbox, attack_host):
    descriptor = os.open("/proc/self/environ", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        execution = sandbox.run(["/bin/sh", "-c", "ls /proc/self/fd"], limits=SMALL)
    finally:
        os.close(descriptor)
    assert execution.stdout.split() == [b"0", b"1", b"2", b"3"]  # the last is ls's own, of the folder


def test_every_kind_of_attack_in_the_source_is_tried():
    import re

    kinds = set(re.findall(r'strcmp\(what, "([a-z0-9-]+)"', (ATTACKS / "attack.c").read_text("utf-8")))
    text = Path(__file__).read_text("utf-8")
    assert {kind for kind in kinds if f'"{kind}"' not in text} == set()
