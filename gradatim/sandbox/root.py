"""Which part of the host does a program see?

``minimal_root`` names, as arguments of bubblewrap, what is the same for every run: the system's programs and libraries,
the few files of ``/etc`` that they do not work without, a few devices, a fresh ``/proc``. All of it can be read only.
Nothing of it belongs to a user: no home, no configuration, no name of the machine. The work folder is ``enclosure``'s.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["WORK", "minimal_root"]

WORK = "/work"
ETC = ("ld.so.cache", "alternatives", "java-*")
"""The library index, and what Debian's compilers and Java are links to."""

DEVICES = ("null", "full", "random", "urandom")
"""No ``/dev/zero``: mapped as shared it is memory that is counted for no process. ``/dev/full`` reads as zeros, too."""

COVERED = ("/proc/cmdline",)
"""Files of /proc that tell of the host. A device file on a mount without devices covers each: it cannot be opened."""


@functools.cache
def minimal_root() -> tuple[str, ...]:
    """The part of the root that is the same for all: the system's programs, few files of /etc, few devices."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for path in sorted(Path("/").glob("*bin")) + sorted(Path("/").glob("lib*")):
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for pattern in ETC:
        for path in sorted(Path("/etc").glob(pattern)):
            arguments += ["--ro-bind", str(path.resolve()), str(path)]
    for device in DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd"]
    # What libraries expect to write to is the work folder by other names: one file system, one limit.
    arguments += ["--symlink", WORK, "/dev/shm", "--symlink", WORK, "/tmp"]
    arguments += ["--proc", "/proc"]
    for covered in COVERED:
        arguments += ["--ro-bind", "/dev/null", covered]
    return tuple(arguments)
