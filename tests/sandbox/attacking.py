"""Limits for attacks, and the state of the host that is compared before and after each of them."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gradatim.sandbox.bwrap import spare_user
from gradatim.sandbox.limits import MIB, Execution, Limits
from gradatim.sandbox.supervise import descendants

Attack = Callable[..., Execution]
Build = Callable[[str, str, list[str]], Mapping[str, bytes]]

PR_SET_CHILD_SUBREAPER = 36
ATTACKS = Path(__file__).with_name("attacks")
SMALL = Limits(
    cpu_seconds=0.5,
    wall_seconds=20,
    memory_bytes=96 * MIB,
    file_bytes=2 * MIB,
    folder_bytes=4 * MIB,
    output_bytes=20_000,
    open_files=32,
    processes=12,
)
"""Small limits that an attack exhausts quickly."""

RUNTIME = replace(
    SMALL,
    cpu_seconds=5,
    memory_bytes=512 * MIB,
    address_space=False,
    open_files=256,
    processes=64,
    folder_bytes=24 * MIB,
)
"""Limits for a runtime with threads and a large heap."""


@dataclass(frozen=True)
class Host:
    """State of the host that an attack must not change."""

    processes: frozenset[str]
    temporary: frozenset[str]
    descriptors: int
    canary: bytes


@cache
def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it, so that none is attributed to another test."""
    assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def processes() -> frozenset[str]:
    """Every process that sandboxes of this one may have left: descendants, orphans, or processes of their users."""
    adopt_orphans()
    mine = set(descendants(os.getpid())) - {os.getpid()}
    users = range(spare_user(os.getpid(), 0), spare_user(os.getpid(), 0) + 64) if os.geteuid() == 0 else range(0)
    names = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                name = (folder / "comm").read_text("utf-8", "replace").strip()
                state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
                ours = int(folder.name) in mine or folder.stat().st_uid in users
                if ours and state != b"Z":
                    names.add(f"{folder.name} {name}")
    return frozenset(names)


def look(canary: Path) -> Host:
    """Current state of the host."""
    return Host(
        processes=processes(),
        temporary=frozenset(name for name in os.listdir(tempfile.gettempdir()) if name.startswith("gradatim-")),
        descriptors=len(os.listdir("/proc/self/fd")),
        canary=canary.read_bytes(),
    )


def answers(execution: Execution) -> dict[str, str]:
    """Output of an attack: per line the attempt, and the word with its result."""
    return dict(line.rsplit(" ", 1) for line in execution.stdout.decode().splitlines() if " " in line)
