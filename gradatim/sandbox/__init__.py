"""Sandboxed execution of untrusted programs: a program and limits in, an execution record out.

The modules in the order in which a run uses them:

    limits, verdict     values: limits of a run, its command, its execution, the verdict on a candidate
    seccomp, privileges, cgroup
                        layers of the isolation: system call filter, unprivileged user, control group
    bwrap               the bubblewrap command line that combines them
    preflight           test of the isolation on this machine, with the reason if it is incomplete
    supervise           process tree: usage, streams, time and memory limits, termination
    runners             one run in the sandbox, or without it (``--unsafe``)
    command             ``Sandbox``: many runs, from many threads

Python candidates whose tests call functions are run by interpreters that stay in the same kind of sandbox: ``checker``,
``workers`` and ``interpreter`` on the host, ``inside`` in the sandbox. Correctness is decided by callers and by
``inside.tester``.
"""
