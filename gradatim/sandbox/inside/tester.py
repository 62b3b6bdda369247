"""Does the program do what the tests say? The one place where that is decided.

A process of its own, in walls of its own, that holds the tests and never runs the candidate's code. For each job it
runs the problem's trusted prompt (helper functions), binds the entry point to a proxy, and runs the tests (``suite``).
A call through the proxy goes to the candidate's process (``program``); what comes back is plain data rebuilt here
(``codec``), so the tests compare builtin values with builtin methods. An object without a plain form (``objects``) can
be held, called and asked for attributes, but never compared with a value: that ends the check, and no ``except`` of
the tests can undo it.

The tests are code somebody wrote, so they too have walls and limits; but they are trusted not to spoil each other:
one process runs those of many jobs, each in a namespace of its own. This module answers ``passed`` only after the
last line of the tests has run.
"""

from __future__ import annotations

import _socket
import gc
import importlib
import linecache
import os
import random
import resource
import signal
import struct
import sys
import time
from typing import NoReturn

from .codec import decode
from .nest import ANCILLARY, receive_control, receive_settings
from .program import Fault, Program
from .suite import compiled

__all__ = ["ANSWER", "Fault", "Job", "main"]

Job = tuple[str, str, str, str | None]
"""Prompt, completion, tests, entry point."""

ANSWER = struct.Struct("<c?I")
"""The verdict (``p`` passed, ``f`` failed, ``i`` invalid, ``u`` unjudged, ``t`` the tests were too slow, ``l`` the
program was lost), whether the tester should be replaced, and the length of the reason."""

LENGTH = struct.Struct("<I")
PORTION = 1 << 16
PAGE = resource.getpagesize()
LARGE = 256 << 20
"""Bytes; a tester that still holds more after a job is worn: they would be missing to the tests of the next program."""

WARM = ("collections", "copy", "itertools", "math", "re", "string", "typing")


def main() -> None:
    """Take jobs until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    if settings["packages"]:
        sys.path.append(settings["packages"])
    for name in WARM:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (settings["tests_memory_bytes"],) * 2)
    signal.signal(signal.SIGPROF, _time_is_up)
    held = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    _answer(control, held, settings["cpu_seconds"])


def _answer(control: _socket.socket, held: int, cpu_seconds: float) -> None:
    """Take jobs, one after another."""
    connection = -1
    while True:
        data, ancillary, _, _ = control.recvmsg(PORTION, ANCILLARY)
        if not data or not ancillary:
            return
        if connection >= 0:  # not before: a program that is killed while it waits is cheaper than one that hears of it
            os.close(connection)
        connection = int.from_bytes(ancillary[0][2], sys.byteorder)
        data += _exactly(control, LENGTH.size - len(data))
        (length,) = LENGTH.unpack_from(data)
        job = decode(data[LENGTH.size :] + _exactly(control, LENGTH.size + length - len(data)))[0]
        verdict, reason = _timed(job, connection, cpu_seconds)
        text = reason[:2000].encode("utf-8", "backslashreplace")
        worn = int(os.pread(held, 100, 0).split()[1]) * PAGE > LARGE
        control.sendall(ANSWER.pack(verdict, worn, len(text)) + text)


def _exactly(control: _socket.socket, length: int) -> bytes:
    parts = []
    while length > 0:
        part = control.recv(min(length, 1 << 20))
        if not part:
            sys.exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _timed(job: Job, connection: int, cpu_seconds: float) -> tuple[bytes, str]:
    """``check``, started from the same state each time and ended when it has used up its CPU time.

    The signal ends Python code; a single long operation of the interpreter does not hear it. For that the kernel's
    own limit stands behind, which ends the whole tester; it is then replaced.
    """
    random.seed(0)
    sys.setrecursionlimit(1000)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + int(cpu_seconds) + 3, resource.RLIM_INFINITY))
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds + 0.05, 0.1)
        result = check(job, connection)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return result
    except Fault as fault:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return fault.verdict, fault.reason


def _time_is_up(*_: object) -> NoReturn:
    raise Fault(b"t", "")


def check(job: Job, connection: int) -> tuple[bytes, str]:
    """The verdict's letter and the reason."""
    prompt, completion, tests, entry_point = job
    program = Program(connection)
    try:
        compiled(prompt, tests, entry_point).run(program, prompt + completion, entry_point)
    except Fault as fault:
        program.fault = program.fault or fault
    except BaseException as error:
        if program.fault is None:
            if isinstance(error, MemoryError) and not _of_program(error):
                return b"f", "the answers are larger than the tests can hold"
            return b"f", _described(error)
    if program.fault is not None:  # also when the tests have swallowed it
        return program.fault.verdict, program.fault.reason
    return b"p", "all tests passed"


def _of_program(error: BaseException) -> bool:
    return getattr(error, "_of_program", False) is True


def _described(error: BaseException) -> str:
    """Which line of the tests, and what it met."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        said = str(error)[:500]
    except BaseException:
        said = ""
    source = linecache.getline("<tests>", line).strip() if line else ""
    parts = [f"{type(error).__name__}{': ' + said if said else ''}"]
    if _of_program(error):
        parts.append("raised by the program")
    if source:
        parts.append(f"tests, line {line}: {source}")
    return " · ".join(parts)
