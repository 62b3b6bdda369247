"""What programs in Go must not achieve."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace

import pytest
from attacking import RUNTIME, Attack, Build, answers

from gradatim.sandbox.limits import MIB


@pytest.fixture(scope="session")
def compiled(build: Build) -> Mapping[str, bytes]:
    return build("go", "attack.go", ["build", "-o", "attack", "attack.go"])


@pytest.fixture
def attack(sandbox, compiled, attack_host) -> Attack:
    def attack(*words, limits=RUNTIME, **options):
        return sandbox.run(["./attack", *map(str, words)], files=compiled, limits=limits, **options)

    return attack


@pytest.mark.parametrize("kind", ["spin", "goroutines", "ignore-signals"])
def test_an_endless_loop_does_not_run_on(attack, kind):
    assert attack(kind, limits=replace(RUNTIME, cpu_seconds=0.3)).ending == "timeout"


def test_sleeping_does_not_hold_a_check_up(attack):
    assert attack("sleep", limits=replace(RUNTIME, wall_seconds=0.3)).ending == "timeout"


def test_a_memory_bomb_does_not_pass_the_watch(attack):
    assert attack("memory", limits=replace(RUNTIME, memory_bytes=96 * MIB)).ending == "memory"


def test_threads_do_not_exceed_the_process_limit(attack):
    execution = attack("threads", limits=replace(RUNTIME, wall_seconds=5))
    assert not execution.ok
    # In the words of the runtime, or of the C library when that makes the threads.
    assert any(words in execution.stderr for words in (b"failed to create new OS thread", b"pthread_create failed"))


def test_endless_recursion_does_not_crash_more_than_itself(attack):
    execution = attack("recursion", limits=replace(RUNTIME, memory_bytes=256 * MIB))
    assert not execution.ok


def test_endless_output_is_not_kept(attack):
    execution = attack("output", limits=replace(RUNTIME, cpu_seconds=0.3))
    assert (execution.ending, execution.cut, len(execution.stdout)) == ("timeout", True, RUNTIME.output_bytes)


def test_secrets_of_the_environment_are_not_seen(attack):
    execution = attack("environment")
    assert b"do-not-tell" not in execution.stdout
    assert b"HOME=/work" in execution.stdout


@pytest.mark.parametrize("action", ["read", "write"])
def test_files_of_the_host_are_not_reached(attack, canary, action):
    assert answers(attack(action, canary)) == {str(canary): "failed"}


def test_files_do_not_fill_the_disk(attack):
    assert answers(attack("disk")) == {"disk": "failed"}


def test_no_network_is_reached_not_even_the_loopback(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        execution = attack("connect", server.getsockname()[1])
    assert answers(execution) == {"connect": "failed", "lookup": "failed"}


def test_a_daemon_does_not_outlive_the_program(attack):
    assert answers(attack("orphan")) == {"start": "done"}


def test_a_namespace_of_its_own_is_not_given(attack):
    assert answers(attack("namespace")) == {"start": "failed"}


def test_the_parent_is_not_traced_and_nobody_else_killed(attack):
    execution = attack("parent")
    assert execution.ok
    assert answers(execution)["ptrace"] == "failed"
