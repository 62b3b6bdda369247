"""Dropping of root's privileges before bubblewrap starts.

The kernel enforces no process limit for root, and files that bubblewrap creates for root are owned by root. So root
starts bubblewrap as an unused, unprivileged user, a different one for each slot (``drop_privileges``). A folder that
such a user cannot reach, such as one below ``/root``, is first mounted in a reachable place, in a mount namespace that
ends with the run (``reachable``). For other users, nothing precedes bubblewrap.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError

__all__ = ["SLOTS", "drop_privileges", "reachable", "spare_user"]

SLOTS = 62
"""Number of simultaneous runs of one process with a separate user; further runs share the last one."""

STAGES = ("/mnt", "/media", "/srv", "/opt")
"""Folders present on every system; one is covered by an empty file system, in the run's own mount namespace."""


def drop_privileges(slot: int) -> list[str]:
    """Command prefix with which root starts a command as an unprivileged user; empty for other users."""
    if os.geteuid() != 0:
        return []
    user = str(spare_user(os.getpid(), slot))
    setpriv = shutil.which("setpriv") or "setpriv"
    return [setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--"]


def spare_user(process: int, slot: int) -> int:
    """Unused user id: far above the usual ones, or at the end of the ids that this user namespace maps."""
    last = 0
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        inside, _, count = map(int, line.split())
        last = max(last, inside + count - 1)
    if last >= 3_000_000_000:
        return 2_000_000_000 + (process % (1 << 22)) * 64 + slot % 64
    return max(1, last - 1 - (process * 64 + slot) % 512)


def reachable(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Paths as the unprivileged user reaches them, and the command prefix that mounts them there.

    Raises ``UserError`` for a missing path.
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
    stage = next(folder for folder in STAGES if not any(source.is_relative_to(folder) for source in sources))
    steps = [f"mount -t tmpfs -o mode=755,size=1m none {stage}"]
    staged = {source: f"{stage}/{number}" for number, source in enumerate(closed)}
    for source, target in staged.items():
        steps.append(f"{'mkdir -p' if source.is_dir() else 'touch'} {target}")
        steps.append(f"mount --bind {shlex.quote(str(source))} {target}")
    unshare = shutil.which("unshare") or "unshare"
    prefix = [unshare, "--mount", "--", "/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), "stage"]
    return [staged.get(source, str(source)) for source in sources], prefix


def _open_to_all(path: Path) -> bool:
    """Whether all users may traverse every parent folder."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)
