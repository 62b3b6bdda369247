"""What must happen before bubblewrap when root starts it?

The kernel keeps no process limit for root, and what bubblewrap makes for root is owned by root. So bubblewrap is
started as a user that nobody is and that has no rights, a different one for every slot (``drop_rights``). A folder that
such a user cannot get to, as one below ``/root``, is first mounted where it can, in a mount namespace that ends with
the run (``reachable``). For ordinary users nothing is put before bubblewrap.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError

__all__ = ["SLOTS", "drop_rights", "reachable", "spare_user"]

SLOTS = 62
"""How many runs of one process get a user of their own; more share the last one."""

STAGES = ("/mnt", "/media", "/srv", "/opt")
"""Folders that every system has. One is covered by an empty file system, in the run's own mount namespace."""


def drop_rights(slot: int) -> list[str]:
    """What to put before a command so that root starts it as a user without rights; nothing for other users."""
    if os.geteuid() != 0:
        return []
    user = str(spare_user(os.getpid(), slot))
    setpriv = shutil.which("setpriv") or "setpriv"
    return [setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--"]


def spare_user(process: int, slot: int) -> int:
    """A user number that nobody has: far above the usual ones, or at the end of what this user namespace maps."""
    last = 0
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        inside, _, count = map(int, line.split())
        last = max(last, inside + count - 1)
    if last >= 3_000_000_000:
        return 2_000_000_000 + (process % (1 << 22)) * 64 + slot % 64
    return max(1, last - 1 - (process * 64 + slot) % 512)


def reachable(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Each path as the user without rights gets to it, and the words to put before the command so that it does.

    Raises ``UserError`` for a path that is not there.
    """
    sources = []
    for path in paths:
        try:
            sources.append(Path(path).resolve(strict=True))
        except (OSError, ValueError) as error:
            raise UserError("this cannot be mounted in a sandbox", given=str(path)[:200], hint=str(error)) from error
    closed = [source for source in sources if os.geteuid() == 0 and not _open_to_all(source)]
    if not closed:
        return [str(source) for source in sources], []
    stage = next(each for each in STAGES if not any(source.is_relative_to(each) for source in sources))
    steps = [f"mount -t tmpfs -o mode=755,size=1m none {stage}"]
    staged = {source: f"{stage}/{number}" for number, source in enumerate(closed)}
    for source, place in staged.items():
        steps.append(f"{'mkdir -p' if source.is_dir() else 'touch'} {place}")
        steps.append(f"mount --bind {shlex.quote(str(source))} {place}")
    unshare = shutil.which("unshare") or "unshare"
    words = [unshare, "--mount", "--", "/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), "stage"]
    return [staged.get(source, str(source)) for source in sources], words


def _open_to_all(path: Path) -> bool:
    """Whether every folder above lets everybody through."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)
