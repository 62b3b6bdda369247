"""Test of the sandbox on this machine, with the reason and the remedy if it is incomplete.

``sandbox_support`` runs a small program in the sandbox, once per process and exactly as ``Sandbox`` would; the program
tests every layer from inside. Version numbers and settings are not relied upon. If a layer is missing, the result
contains the reason and the command that fixes it; only the user can decide to run programs anyway (``--unsafe``).
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
from .bwrap import isolate
from .limits import Limits

__all__ = ["SandboxSupport", "advice", "require_sandbox", "sandbox_support"]


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
"""Script for the sandbox: prints the name of every ineffective layer, then ``done``."""


@dataclass(frozen=True)
class SandboxSupport:
    """Result of the test. ``missing``: layers that are unavailable, empty if none; ``advice``: how to get them."""

    missing: tuple[str, ...]
    reason: str = ""
    advice: str = ""

    @property
    def available(self) -> bool:
        """Whether the sandbox has all layers."""
        return not self.missing


@functools.cache
def sandbox_support() -> SandboxSupport:
    """Support of this machine, determined by a trial; about 50 ms, once."""
    if not sys.platform.startswith("linux"):
        return SandboxSupport(
            ("all",), f"the sandbox needs Linux; this is {platform.system()}", "Linux, or a virtual machine"
        )
    if platform.machine() not in seccomp.ARCHITECTURES:
        return SandboxSupport(
            ("seccomp",), f"there is no system call filter for {platform.machine()}", "x86-64 or aarch64"
        )
    if shutil.which("bwrap") is None:
        return SandboxSupport(("bubblewrap",), "bubblewrap is not installed", "apt install bubblewrap")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return SandboxSupport(
            ("user",),
            "setpriv, which starts programs as an unprivileged user, is not installed",
            "apt install util-linux",
        )
    return _test_layers()


def require_sandbox() -> None:
    """Raise ``SandboxMissing`` with the reason and the remedy unless the sandbox has all layers."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Every child process would inherit it, and the CPU time of their children would not be counted.
        raise SandboxMissing(
            "untrusted programs are not run: this process ignores SIGCHLD, so their CPU time cannot be counted",
            where="sandbox",
            hint="start gradatim from a shell or service that does not ignore SIGCHLD",
        )
    support = sandbox_support()
    if not support.available:
        raise SandboxMissing(
            f"untrusted programs are not run: {support.reason}",
            where="sandbox",
            given=f"missing: {', '.join(support.missing)}",
            hint=f"{support.advice}; or --unsafe, to run them without sandbox as your own user",
        )


def _test_layers() -> SandboxSupport:
    limits = Limits(cpu_seconds=5, processes=16)
    try:
        with isolate(["/bin/sh", "-c", PROBE], limits=limits, slot=63) as isolated:
            done = subprocess.run(
                isolated.argv,
                pass_fds=isolated.pass_fds,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return SandboxSupport(("bubblewrap",), f"bubblewrap cannot be started: {error}", "gradatim doctor")
    layers = done.stdout.decode("utf-8", "replace").split()
    if layers == ["done"]:
        return SandboxSupport(())
    complaint = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0] or f"exit code {done.returncode}"
    if layers[-1:] != ["done"]:
        return SandboxSupport(("namespaces",), complaint, advice(complaint))
    return SandboxSupport(
        tuple(layers[:-1]),
        f"these layers of the sandbox have no effect: {', '.join(layers[:-1])}",
        "report this machine's kernel",
    )


def advice(complaint: str, settings: Path = Path("/proc/sys")) -> str:
    """Remedy if an ordinary user cannot create namespaces: the setting that forbids it here, or the usual cause."""
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
