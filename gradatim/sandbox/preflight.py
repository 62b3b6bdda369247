"""Can this machine wall off untrusted programs, and if not, what is missing?

``find_walls`` tries it, once in a process: it runs a small program behind the walls exactly as ``Sandbox`` would,
which looks from inside whether each wall stands. What a file or a version number promises is not believed. When
something is missing the answer holds the reason and the command that mends it; whether to go on is for the user to say
(``--unsafe``).
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import SandboxMissing
from . import seccomp
from .bwrap import enclose
from .limits import Limits

__all__ = ["Walls", "advice", "find_walls", "require_walls"]


PROBE = """
test ! -e /root && test ! -e /home && test ! -e /etc/shadow || echo root
(: >/usr/probe) 2>/dev/null && echo read-only
(: >probe) || echo folder
before=$(stat -c %Y%y /dev/null); touch /dev/null; test "$before" = "$(stat -c %Y%y /dev/null)" || echo devices
(: </proc/cmdline) 2>/dev/null && echo boot-parameters
(: <>/proc/1/mem) 2>/dev/null && echo first-process
test "$(id -u)" = 1000 || echo user
test "$(ls /proc | grep -c '^[0-9]')" -lt 8 || echo processes
grep -q '^NoNewPrivs:.*1' /proc/self/status || echo privileges
grep -q '^CapEff:.*0000000000000000' /proc/self/status || echo capabilities
grep -q '^Seccomp:.*2' /proc/self/status || echo seccomp
test "$(grep -c : /proc/net/dev)" -le 1 || echo network
test "$(env | wc -l)" -le 8 || echo environment
grep -q "^Max processes  *17 " /proc/self/limits || echo limits
(n=0; while test $n -lt 40; do sleep 2 >/dev/null 2>&1 & n=$((n + 1)); done; echo process-limit) 2>/dev/null
echo done
"""
"""Run inside: names every wall that does not stand, then ``done``."""


@dataclass(frozen=True)
class Walls:
    """``missing`` names the walls that cannot be had, and is empty when all stand; ``advice`` says how to get them."""

    missing: tuple[str, ...]
    reason: str = ""
    advice: str = ""

    @property
    def stand(self) -> bool:
        """Whether programs can be run behind all walls."""
        return not self.missing


@functools.cache
def find_walls() -> Walls:
    """What this machine gives, found out by trying it; about 50 ms, once."""
    if not sys.platform.startswith("linux"):
        return Walls(
            ("all",), f"{platform.system()} has none of the walls that are used here", "Linux, or a virtual machine"
        )
    if platform.machine() not in seccomp.ARCHITECTURES:
        return Walls(
            ("seccomp",), f"no filter of system calls is written for {platform.machine()}", "x86-64 or aarch64"
        )
    if shutil.which("bwrap") is None:
        return Walls(("bubblewrap",), "bubblewrap is not installed", "apt install bubblewrap")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return Walls(
            ("user",), "setpriv, to start programs as a user without rights, is not there", "apt install util-linux"
        )
    return _try()


def require_walls() -> None:
    """``SandboxMissing`` with the reason and what to do, unless all walls stand."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Every process below would inherit it, and what its children used would be counted for none.
        raise SandboxMissing(
            "untrusted programs are not run: this process ignores SIGCHLD, so their CPU time cannot be counted",
            where="sandbox",
            hint="start gradatim from a shell or service that does not ignore SIGCHLD",
        )
    walls = find_walls()
    if not walls.stand:
        raise SandboxMissing(
            f"untrusted programs are not run: {walls.reason}",
            where="sandbox",
            given=f"missing: {', '.join(walls.missing)}",
            hint=f"{walls.advice}; or --unsafe, to run them without walls as your own user",
        )


def _try() -> Walls:
    limits = Limits(cpu_seconds=5, processes=16)
    try:
        with enclose(["/bin/sh", "-c", PROBE], limits=limits, slot=63) as enclosed:
            done = subprocess.run(
                enclosed.argv,
                pass_fds=enclosed.pass_fds,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Walls(("bubblewrap",), f"it could not be tried: {error}", "gradatim doctor")
    said = done.stdout.decode("utf-8", "replace").split()
    if said == ["done"]:
        return Walls(())
    complaint = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0] or f"exit code {done.returncode}"
    if said[-1:] != ["done"]:
        return Walls(("namespaces",), complaint, advice(complaint))
    return Walls(tuple(said[:-1]), f"these walls do not stand: {', '.join(said[:-1])}", "report this machine's kernel")


def advice(complaint: str, settings: Path = Path("/proc/sys")) -> str:
    """What lets an ordinary user make namespaces: the setting that forbids it here, or what usually does."""
    for setting, bad, good in (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
    ):
        try:
            value = (settings / setting).read_text("ascii").strip()
        except OSError:
            continue
        if value == bad:
            return f"sudo sysctl -w {setting.replace('/', '.')}={good}"
    if "nknown option" in complaint:
        return "bubblewrap 0.6 or later"
    if "fork" in complaint:
        return "Linux 5.14 or later, which counts the processes of a sandbox apart from its user's others; or root"
    return "in a container: docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
