"""The tester: the sandboxed process that runs the tests and decides the verdict of a Python candidate.

It never runs the candidate's code. For each job it runs the problem's trusted prompt (helper functions), binds the
entry point to a proxy, and runs the tests (``suite``). A call through the proxy goes to the candidate's process
(``program``); the result is plain data rebuilt here (``reader``), so that the tests compare builtin values with builtin
methods. An object without a plain form (``objects``) can be stored and called and its attributes read, but a comparison
with a value ends the check, and no ``except`` of the tests can undo that.

Tests come from a dataset, so they are sandboxed and limited too, but they are trusted not to disturb each other: one
process runs the tests of many jobs, each in its own namespace. ``passed`` is returned only after the last line of the
tests has run.
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

from .fork_server import ANCILLARY, receive_control, receive_settings
from .program import CheckEnded, RemoteProgram
from .reader import decode
from .suite import compile_suite

__all__ = ["ANSWER", "CheckEnded", "Job", "main"]

Job = tuple[str, str, str, str | None]
"""Prompt, completion, tests, entry point."""

ANSWER = struct.Struct("<c?I")
"""Verdict (``p`` passed, ``f`` failed, ``i`` invalid, ``u`` unjudged, ``t`` tests too slow, ``l`` connection to the
program lost), whether the tester must be replaced, and the length of the reason."""

LENGTH = struct.Struct("<I")
PORTION = 1 << 16
PAGE = resource.getpagesize()
MAX_RESIDENT = 256 << 20
"""Bytes; a tester with more resident memory after a job is replaced, because the next tests would have less."""

WARM = ("collections", "copy", "itertools", "math", "re", "string", "typing")


def main() -> None:
    """Run jobs until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    if settings["packages"]:
        sys.path.append(settings["packages"])
    for name in WARM:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (settings["tests_memory_bytes"],) * 2)
    signal.signal(signal.SIGPROF, _time_is_up)
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    _serve(control, statm, settings["cpu_seconds"])


def _serve(control: _socket.socket, statm: int, cpu_seconds: float) -> None:
    """Run jobs one after another."""
    connection = -1
    while True:
        data, ancillary, _, _ = control.recvmsg(PORTION, ANCILLARY)
        if not data or not ancillary:
            return
        if connection >= 0:  # not earlier: killing a waiting program is cheaper than letting it notice
            os.close(connection)
        connection = int.from_bytes(ancillary[0][2], sys.byteorder)
        data += _receive_exactly(control, LENGTH.size - len(data))
        (length,) = LENGTH.unpack_from(data)
        job = decode(data[LENGTH.size :] + _receive_exactly(control, LENGTH.size + length - len(data)))[0]
        verdict, reason = _timed(job, connection, cpu_seconds)
        text = reason[:2000].encode("utf-8", "backslashreplace")
        exhausted = int(os.pread(statm, 100, 0).split()[1]) * PAGE > MAX_RESIDENT
        control.sendall(ANSWER.pack(verdict, exhausted, len(text)) + text)


def _receive_exactly(control: _socket.socket, length: int) -> bytes:
    chunks = []
    while length > 0:
        chunk = control.recv(min(length, 1 << 20))
        if not chunk:
            sys.exit(0)
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _timed(job: Job, connection: int, cpu_seconds: float) -> tuple[bytes, str]:
    """Run ``check`` from the same initial state each time and end it when its CPU time is used up.

    The signal ends Python code, but not a single long operation of the interpreter. For that case the kernel's CPU
    limit ends the whole tester, which is then replaced.
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
    except CheckEnded as ended:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return ended.verdict, ended.reason


def _time_is_up(*_: object) -> NoReturn:
    raise CheckEnded(b"t", "")


def check(job: Job, connection: int) -> tuple[bytes, str]:
    """Run the tests of one job; the verdict's letter and the reason."""
    prompt, completion, tests, entry_point = job
    program = RemoteProgram(connection)
    try:
        compile_suite(prompt, tests, entry_point).run(program, prompt + completion, entry_point)
    except CheckEnded as ended:
        program.ending = program.ending or ended
    except BaseException as error:
        if program.ending is None:
            if isinstance(error, MemoryError) and not _of_program(error):
                return b"f", "the answers are larger than the tests can hold"
            return b"f", _failure(error)
    if program.ending is not None:  # also when the tests have suppressed it
        return program.ending.verdict, program.ending.reason
    return b"p", "all tests passed"


def _of_program(error: BaseException) -> bool:
    return getattr(error, "_of_program", False) is True


def _failure(error: BaseException) -> str:
    """Exception and line of the tests that failed."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error)[:500]
    except BaseException:
        text = ""
    source = linecache.getline("<tests>", line).strip() if line else ""
    segments = [f"{type(error).__name__}{': ' + text if text else ''}"]
    if _of_program(error):
        segments.append("raised by the program")
    if source:
        segments.append(f"tests, line {line}: {source}")
    return " · ".join(segments)
