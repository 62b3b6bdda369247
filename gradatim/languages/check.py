"""Did a program whose tests run in its own process pass them?

The program is compiled (``Language.build``), started behind the walls and judged from outside by two things it must
both show: it exited by itself with 0, and it left the *success mark*. The mark is a random token made for this one
run, so no text can hold it. It is handed to the program on stdin; a small harness of the language takes it from there
before any code of the candidate runs, keeps it where the candidate's code has no name for it, and writes it to the
file ``MARK`` once everything up to the last assertion went well. A program that ends early leaves no mark.

**The risk that remains.** Candidate and tests share a process, and no mark can change that. A candidate that searches
its own memory or ``/proc/self/mem`` for the token (in Java a guard refuses it), gets at stdin before the harness (in C,
by the code that a linker runs first, or a ``read`` of its own), overwrites the harness, or makes every comparison of
the tests come out true (an object equal to everything) can still pass unjustly. Code that models write
to solve a problem does not do this; code that was rewarded for passing
may learn to. Where that matters use Python, whose tests run in another process (``sandbox.PythonChecker``), and read
what passed. The walls hold either way: a forged mark harms the score, not the machine.

Each language's file says what its harness guards beyond this. Nothing here retries or repairs.
"""

from __future__ import annotations

import re
import secrets
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from ..sandbox.execution import Execution
from ..sandbox.limits import Limits
from ..sandbox.verdict import Verdict
from .language import Program, Runner

if TYPE_CHECKING:
    from .language import Language

__all__ = ["LONGEST", "MARK", "check", "compile_limits", "unusable"]

MARK = "success.mark"
"""The file in the work folder that holds the token when all went well."""

LONGEST = 4 << 20
"""Bytes of source that are compiled."""

_TELLING = re.compile(
    r"\b\w*(?:Error|Exception)\b(?: \[\w+\])?:|^[\w.]*(?:Error|Exception)$|[Aa]ssertion .{0,1000}failed"
    r"|^panic:|^fatal error:"
)


def compile_limits(**values: object) -> Limits:
    """What a compiler may use: it reads untrusted text, and templates can make it work forever."""
    least = {"cpu_seconds": 30.0, "memory_bytes": 2 << 30, "file_bytes": 64 << 20, "folder_bytes": 256 << 20}
    return Limits(**{**least, "open_files": 256, **values})  # type: ignore[arg-type]


def check(language: Language, sandbox: Runner, program: Program | str, *, limits: Limits | None = None) -> Verdict:
    """Compile, run and judge one program. ``limits`` are those of the run; compiling has its own.

    ``invalid``: nothing that could be tried. ``failed``: it does not compile, crashes, or an assertion is wrong.
    ``timeout``: it, or its compilation, used up its time. Raises ``ToolchainMissing``.
    """
    if isinstance(program, str):
        program = Program(program)
    if reason := unusable(program.text):
        return Verdict("invalid", reason)
    built = language.build(sandbox, program)
    if built.stopped:
        outcome = "timeout" if built.stopped == "timeout" else "failed"
        return Verdict(outcome, f"compiling was stopped: {built.stopped}", built.cpu_seconds)  # type: ignore[arg-type]
    if built.faults:
        return Verdict("failed", f"does not compile: {built.faults[0]}", built.cpu_seconds)
    token = secrets.token_hex(16)
    start = language.start(built, program)
    done = sandbox.run(
        list(start.command),
        files=start.files,
        stdin=token.encode() + b"\n",
        limits=language.fit(limits or Limits()),
        mounts=start.mounts,
        environment=start.environment,
        collect=(MARK,),
    )
    verdict = _judged(done, token)
    return replace(verdict, cpu_seconds=built.cpu_seconds + done.cpu_seconds)


def unusable(source: str) -> str:
    """Why ``source`` is no text that a compiler could be given; empty when it is one."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        return "the program is not Unicode: it has half of a surrogate pair"
    if "\0" in source:
        return "the program holds a NUL character"
    if size > LONGEST:
        return f"the program has {size} bytes; at most {LONGEST} are compiled"
    return "" if source.strip() else "the program is empty"


def _judged(done: Execution, token: str) -> Verdict:
    told = _telling(done.stderr)
    if done.ending == "timeout":
        return Verdict("timeout", f"used up its time after {done.cpu_seconds:.1f} s of CPU")
    if done.ending == "memory":
        return Verdict("failed", "used more memory than it may")
    if done.ending == "signalled":
        return Verdict("failed", f"killed by {_signal_name(done.code)}{told}")
    if done.code:
        return Verdict("failed", f"exit code {done.code}{told}")
    if done.files.get(MARK, b"").strip() != token.encode():
        return Verdict("failed", f"ended before the last assertion{told}")
    return Verdict("passed", "every assertion held")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _telling(stderr: bytes) -> str:
    """The line of stderr that says most, led by a colon."""
    text = stderr[:20_000].decode("utf-8", "replace")
    # Java's runtime warns that its security manager, which the harness sets, will be removed.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING: ")]
    chosen = next((line for line in lines if _TELLING.search(line)), lines[-1] if lines else "")
    return f": {chosen}" if chosen else ""
