"""What programs in JavaScript must not achieve."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace

import pytest
from attacking import ATTACKS, RUNTIME, Attack, answers

from gradatim.sandbox.limits import MIB

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")


@pytest.fixture
def attack(sandbox, attack_host) -> Attack:
    source = {"attack.js": (ATTACKS / "attack.js").read_bytes()}

    def attack(*words, limits=RUNTIME, **options):
        return sandbox.run(["node", "attack.js", *map(str, words)], files=source, limits=limits, **options)

    return attack


@pytest.mark.parametrize("kind", ["spin", "ignore-signals"])
def test_an_endless_loop_does_not_run_on(attack, kind):
    assert attack(kind, limits=replace(RUNTIME, cpu_seconds=0.6)).ending == "timeout"


def test_waiting_forever_does_not_hold_a_check_up(attack):
    assert attack("sleep", limits=replace(RUNTIME, wall_seconds=1)).ending == "timeout"


def test_buffers_outside_the_heap_do_not_pass_the_memory_watch(attack):
    assert attack("memory", limits=replace(RUNTIME, memory_bytes=192 * MIB)).ending == "memory"


def test_endless_output_is_not_kept(attack):
    execution = attack("output", limits=replace(RUNTIME, cpu_seconds=0.6))
    assert (execution.ending, execution.cut, len(execution.stdout)) == ("timeout", True, RUNTIME.output_bytes)


def test_files_do_not_fill_the_disk(attack):
    assert answers(attack("disk"))["disk"] in ("ENOSPC", "EFBIG")


def test_endless_recursion_does_not_crash_more_than_itself(attack):
    assert "recursion Maximum call stack size exceeded" in attack("recursion").stdout.decode()


def test_files_of_the_host_are_not_read(attack, canary):
    execution = attack("show", canary, "/etc/shadow", f"/proc/1/root{canary}")
    assert set(answers(execution).values()) <= {"ENOENT", "EACCES"}


@pytest.mark.parametrize("path", ["/usr/bin/attack", "/attack"])
def test_nothing_outside_the_folder_is_written(attack, path):
    assert answers(attack("write", path))[path] == "EROFS"


def test_secrets_of_the_environment_are_not_seen(attack):
    execution = attack("environment")
    assert b"do-not-tell" not in execution.stdout
    assert b"/work" in execution.stdout


def test_no_network_is_reached_not_even_the_loopback(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        execution = attack("connect", server.getsockname()[1])
    assert answers(execution) == {"connect": "EAFNOSUPPORT", "lookup": "failed"}


def test_a_daemon_does_not_outlive_the_program(attack):
    assert attack("orphan").ok


@pytest.mark.slow
def test_a_fork_bomb_does_not_outlive_its_cpu_time(attack):
    execution = attack("fork-bomb", limits=replace(RUNTIME, cpu_seconds=1))
    assert execution.ending in ("timeout", "memory")


def test_the_parent_is_not_killed_and_nobody_else(attack):
    assert attack("parent").ending in ("exited", "signalled")


def test_deleting_its_own_folder_does_not_hurt(attack):
    execution = attack("folder")
    assert answers(execution)["rm"] == "done"
    assert answers(execution)["rmdir"] in ("EBUSY", "EROFS")
