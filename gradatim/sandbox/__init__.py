"""Sandboxed execution of untrusted programs: a program and limits in, an execution record out.

    limits           values: limits of a run, its command, its execution, the verdict on a candidate; control groups
    seccomp, bwrap   the system call filter, and the bubblewrap command line that combines the layers of the isolation
    supervise        process tree: usage, streams, time and memory limits, termination
    command          ``Sandbox``: one run, in the sandbox or without it (``--unsafe``), and many from many threads

Python candidates whose tests call functions are run by interpreters that stay in the same kind of sandbox:
``interpreter`` on the host, ``inside`` in the sandbox. Correctness is decided by callers and by ``inside.tester``.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
