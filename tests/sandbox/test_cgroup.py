"""Control groups: detection of delegated groups, real use where the machine has one, removal afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from attacking import SMALL

from gradatim.errors import WorkFailed
from gradatim.sandbox.command import run_isolated
from gradatim.sandbox.limits import MIB, Cgroup, Invocation, Limits, find_cgroup, group, parent_of


def tree(root: Path, **delegated: str) -> str:
    """Create groups below ``root`` with their delegated controllers; the line of ``mountinfo`` for them."""
    for path, controllers in delegated.items():
        folder = root / path.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(controllers, "ascii")
    return f"30 23 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw\n"


def test_a_group_that_delegates_both_controllers_is_used(tmp_path):
    mounts = tree(tmp_path, user__own="cpu memory pids")
    assert parent_of("0::/user/own\n", mounts) == tmp_path / "user" / "own"
    assert parent_of("4:memory:/x\n0::/user/own\n", "29 23 0:25 / /sys/x rw - cgroup cgroup rw\n" + mounts) is not None


def test_one_controller_is_not_enough(tmp_path):
    assert parent_of("0::/own\n", tree(tmp_path, own="pids")) is None


@pytest.mark.parametrize("own", ["", "4:memory:/\n", "0::/../elsewhere\n"])
def test_no_group_of_version_two_is_no_group(tmp_path, own):
    assert parent_of(own, tree(tmp_path, own="memory pids")) is None
    assert parent_of("0::/own\n", "") is None


def test_the_parent_group_is_used_only_by_the_user_that_it_is_delegated_to(tmp_path, monkeypatch):
    mounts = tree(tmp_path, slice="memory pids", slice__own="")
    owner = (tmp_path / "slice").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert parent_of("0::/slice/own\n", mounts) is None
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert parent_of("0::/slice/own\n", mounts) is None
    os.chown(tmp_path / "slice", 1234, -1) if owner == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "slice").stat().st_uid)
    assert parent_of("0::/slice/own\n", mounts) == tmp_path / "slice"


def test_limits_are_written_to_the_controllers_that_are_there(tmp_path, monkeypatch):
    make = Path.mkdir

    def with_files(self, *arguments, **options):
        make(self, *arguments, **options)
        for name in ("memory.max", "pids.max", "cgroup.kill"):
            (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", with_files)
    with group(tmp_path, Limits(memory_bytes=100 * MIB, folder_bytes=10 * MIB, processes=20)) as cgroup:
        assert 110 * MIB <= int((cgroup.folder / "memory.max").read_text("ascii")) <= 200 * MIB
        assert 20 <= int((cgroup.folder / "pids.max").read_text("ascii")) <= 40
        assert not (cgroup.folder / "memory.swap.max").exists()


def test_a_group_reports_a_kill_for_memory(tmp_path):
    cgroup = Cgroup(tmp_path)
    assert not cgroup.full()
    (tmp_path / "memory.events").write_text("low 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n", "ascii")
    assert not cgroup.full()
    (tmp_path / "memory.events").write_text("low 0\nmax 9\noom 1\noom_kill 2\n", "ascii")
    assert cgroup.full()


@pytest.fixture
def real() -> Path:
    """Group of this machine below which groups can be created, possibly without controllers."""
    own, mounts = Path("/proc/self/cgroup").read_text("utf-8"), Path("/proc/self/mountinfo").read_text("utf-8")
    parent = find_cgroup() or parent_of(own, mounts, frozenset())
    if parent is None:
        pytest.skip("this user can make no control group of version 2 here")
    return parent


def test_a_command_joins_its_group_and_all_in_it_die_with_it(real):
    before = set(real.glob("gradatim-*"))
    with group(real, Limits()) as cgroup:
        command = [*cgroup.prefix(), "/bin/sh", "-c", "setsid sleep 99 >/dev/null 2>&1 & cat /proc/self/cgroup"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert cgroup.folder.name in done.stdout
        remaining = (cgroup.folder / "cgroup.procs").read_text("ascii").split()
        assert len(remaining) == 1
    assert not cgroup.folder.exists()
    assert set(real.glob("gradatim-*")) == before
    deadline = time.monotonic() + 5
    while Path("/proc", remaining[0]).exists():
        with suppress(ChildProcessError):  # an orphan that this process has adopted is gone when it is waited for
            os.waitpid(int(remaining[0]), os.WNOHANG)
        assert time.monotonic() < deadline


def test_a_sandboxed_run_is_in_a_group_that_is_removed_afterwards(sandbox, real):
    before = set(real.glob("gradatim-*"))
    groups = []

    def register(tree):
        groups.extend(set(real.glob("gradatim-*")) - before)
        return nullcontext()

    invocation = Invocation(["/bin/sh", "-c", "setsid sleep 99 & echo out"], {}, b"", SMALL, {}, {}, ())
    assert run_isolated(invocation, 3, register, real).stdout == b"out\n"
    assert len(groups) == 1
    assert set(real.glob("gradatim-*")) == before


def test_a_memory_bomb_in_a_group_ends_for_memory(sandbox):
    parent = find_cgroup()
    if parent is None:
        pytest.skip("no control group with memory and pids is handed to this user here")
    limits = replace(SMALL, address_space=False, cpu_seconds=20)
    invocation = Invocation(["/bin/sh", "-c", "a=x; while :; do a=$a$a; done"], {}, b"", limits, {}, {}, ())
    assert run_isolated(invocation, 3, lambda tree: nullcontext(), parent).ending == "memory"


def test_a_group_that_cannot_be_made_is_one_error(sandbox, tmp_path):
    invocation = Invocation(["/bin/true"], {}, b"", SMALL, {}, {}, ())
    with pytest.raises(WorkFailed, match="control group"):
        run_isolated(invocation, 3, lambda tree: nullcontext(), tmp_path / "nowhere")
