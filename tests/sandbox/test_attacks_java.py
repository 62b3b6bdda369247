"""What programs in Java must not achieve. A virtual machine takes a third of a second to start: so do these tests."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace

import pytest
from attacking import RUNTIME, Attack, Build, answers

from gradatim.sandbox.limits import MIB

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="no java on this machine")
JAVA = ("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "/work")


@pytest.fixture(scope="session")
def compiled(build: Build) -> Mapping[str, bytes]:
    return build("javac", "Attack.java", ["Attack.java"])


@pytest.fixture
def attack(sandbox, compiled, attack_host) -> Attack:
    def attack(*words, limits=RUNTIME, options=(), **more):
        command = [*JAVA, *options, "Attack", *map(str, words)]
        return sandbox.run(command, files=compiled, limits=limits, **more)

    return attack


def test_an_endless_loop_does_not_run_on(attack):
    assert attack("spin", limits=replace(RUNTIME, cpu_seconds=0.8)).ending == "timeout"


def test_an_endless_shutdown_hook_does_not_keep_a_program_alive(attack):
    assert attack("shutdown", limits=replace(RUNTIME, cpu_seconds=0.8)).ending == "timeout"


def test_sleeping_does_not_hold_a_check_up(attack):
    assert attack("sleep", limits=replace(RUNTIME, wall_seconds=1)).ending == "timeout"


def test_a_heap_does_not_grow_past_its_option(attack):
    execution = attack("memory", options=["-Xmx32m"])
    assert execution.code == 1
    assert b"OutOfMemoryError" in execution.stderr


def test_memory_outside_the_heap_does_not_pass_the_watch(attack):
    limits = replace(RUNTIME, memory_bytes=160 * MIB)
    assert attack("direct", options=["-XX:MaxDirectMemorySize=4g", "-Xmx32m"], limits=limits).ending == "memory"


def test_threads_do_not_exceed_the_process_limit(attack):
    assert 0 < int(answers(attack("threads"))["threads"]) < RUNTIME.processes


def test_endless_recursion_does_not_crash_more_than_itself(attack):
    assert answers(attack("recursion")) == {"recursion": "StackOverflowError"}


def test_endless_output_is_not_kept(attack):
    execution = attack("output", limits=replace(RUNTIME, cpu_seconds=0.8))
    assert (execution.ending, execution.cut, len(execution.stdout)) == ("timeout", True, RUNTIME.output_bytes)


def test_secrets_of_the_environment_are_not_seen(attack):
    execution = attack("environment")
    assert b"do-not-tell" not in execution.stdout
    assert b"HOME=/work" in execution.stdout


def test_files_of_the_host_are_not_read(attack, canary):
    assert answers(attack("read", canary)) == {str(canary): "NoSuchFileException"}


def test_nothing_outside_the_folder_is_written(attack):
    assert answers(attack("write", "/usr/bin/attack"))["/usr/bin/attack"] == "FileSystemException"


def test_files_do_not_fill_the_disk(attack):
    assert answers(attack("disk")) == {"disk": "IOException"}


def test_no_network_is_reached_not_even_the_loopback(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        execution = attack("connect", server.getsockname()[1])
    assert answers(execution) == {"connect": "SocketException", "lookup": "UnknownHostException"}


def test_a_daemon_does_not_outlive_the_program(attack):
    assert attack("orphan").ok


def test_the_parent_is_not_killed_and_nobody_else(attack):
    assert attack("parent").ending == "signalled"
