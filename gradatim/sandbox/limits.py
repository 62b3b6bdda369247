"""Resource limits of an untrusted program.

``Limits`` is a plain value. Kernel resource limits, the size of the work folder's file system (``bwrap``) and
measurements from outside (``supervise``) enforce it. CPU time decides whether a program was too slow, because it does
not depend on the load of the machine; the wall clock limit is a generous fallback for programs that wait instead of
computing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UserError

__all__ = ["MIB", "Limits"]

MIB = 1 << 20
STACK_BYTES = 8 * MIB
"""Stack size of the main thread: the usual value, set so that a recursion ends at the same depth everywhere."""


@dataclass(frozen=True)
class Limits:
    """The limits of one run; all whole-tree limits count the program with everything it starts.

    ``cpu_seconds``: CPU time of the tree, in seconds; more is the ending ``timeout``.
    ``wall_seconds``: seconds on the clock; None is four times the CPU time and ten seconds.
    ``memory_bytes``: memory of the tree and, with ``address_space``, the address space of each process.
    ``address_space``: False for runtimes that map far more than they use (Java, Go, node); only the tree is measured.
    ``file_bytes``: the size of one file; ``folder_bytes``: of all files that the program writes, together.
    ``output_bytes``: bytes kept of stdout and of stderr; further output is read and discarded.
    ``open_files``: descriptors of one process. ``processes``: processes and threads of the tree.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float | None = None
    memory_bytes: int = 1 << 30
    address_space: bool = True
    file_bytes: int = 16 * MIB
    folder_bytes: int = 64 * MIB
    output_bytes: int = MIB
    open_files: int = 64
    processes: int = 64

    def __post_init__(self) -> None:
        floors = {
            "cpu_seconds": 0.01,
            "wall_seconds": 0.01,
            "memory_bytes": 4 * MIB,
            "file_bytes": 0,
            "folder_bytes": 0,
            "output_bytes": 0,
            "open_files": 8,
            "processes": 1,
        }
        for name, minimum in floors.items():
            value = getattr(self, name)
            if name == "wall_seconds" and value is None:
                continue
            integral = name not in ("cpu_seconds", "wall_seconds")
            number = isinstance(value, int if integral else int | float) and not isinstance(value, bool)
            if not number or not minimum <= value < 1 << 62 or not math.isfinite(value):
                allowed = f"{'a integral number' if integral else 'a number'} of at least {minimum}"
                raise UserError(f"the limit {name} has an invalid value", given=repr(value), allowed=allowed)

    @property
    def wall(self) -> float:
        """Wall clock limit in seconds, with the default applied."""
        return 4 * self.cpu_seconds + 10 if self.wall_seconds is None else float(self.wall_seconds)
