"""Run untrusted programs safely: a program and limits in, what happened out.

The road of one program, each step a module:

    limits, execution, verdict      the plain values: what it may use, what happened, what is known of a candidate
    seccomp, root, rights, cgroup   the walls one by one: system calls, visible files, the user, a control group
    enclosure                       the command line that puts a command behind all of them
    watch, supervise                what its tree of processes uses; feeding, reading, timing, ending it
    walled, bare                    one run behind walls; one without, when the user said so
    command                         ``Sandbox``: many runs, from many threads
    walls                           can this machine do it, and if not, what is missing?

Python candidates whose tests call functions take another road, on interpreters that stay behind the same walls:
``checker``. Nothing here decides what a right answer is.
"""
