"""How do C and C++ programs become executables, once per content?

One call of the compiler inside the walls: compile and link with the harness ``mark.o``, in C++ on top of a precompiled
header (measured: 0.13 s instead of 0.75 s for a short program). ``main`` is wrapped by the linker (``--wrap``), so the
tests' own ``main`` needs no change and the mark is written after it returned 0.

The harness takes the token before any constructor, and defines ``__assert_fail`` itself: a candidate that brings its
own, to make ``assert`` do nothing, does not link. What it cannot guard is in ``check``: the candidate can read this
process's memory. Tests are a translation unit of their own where the prompt says enough for it (``Program.declared``);
where they share the candidate's, every macro that it defined is undefined first (``gcc_harness``).

``mark.o`` and the header are made outside the walls, from our own texts only; nothing untrusted is compiled there.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolchainMissing
from ..sandbox.execution import Execution
from .check import compile_limits
from .compiled import compile_once
from .gcc_harness import ASSERT, COMPARING, HARNESS, TESTS, undefined
from .language import Built, Examined, Fault, Program, Runner, Start
from .toolchain import find, made_once, mounts, need, tell_version

__all__ = ["Gcc", "diagnostics"]

SUPPORT, PROGRAM = "/support", "/program"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": "/work"}

_DIAGNOSTIC = re.compile(
    r"^(?P<file>[^:\n]+):(?P<line>\d{1,9}):(?:(?P<column>\d{1,9}):)? (?P<kind>warning|error|fatal error): "
    r"(?P<message>.*?)(?: \[(?P<rule>-W[\w=+-]+)\])?$",
    re.MULTILINE,
)
_INCLUDE = re.compile(r"^[ \t]*+#[ \t]*+include\b[^\n]*\n", re.MULTILINE)
_LINKER = re.compile(r"undefined reference to .*|multiple definition of [^;]*", re.MULTILINE)


@dataclass(frozen=True)
class Gcc:
    """One of the two compilers: ``gcc`` or ``g++``, its flags, and the headers that are precompiled."""

    title: str
    compiler: str
    source: str
    flags: tuple[str, ...]
    advice: str
    headers: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """None when the compiler is there, else the command that installs it."""
        return None if find(self.compiler) else self.advice

    def version(self) -> str:
        """The compiler's version."""
        return tell_version((str(self._path()), "--version"))

    def build(self, sandbox: Runner, program: Program) -> Built:
        """The executable ``program`` in a folder of the cache, or the compiler's errors."""
        support, sources = self._support(), self._sources(program)
        # The harness comes first, so that its turn before all constructors is the first of those too.
        arguments = [*self.flags, "-w", "-fmax-errors=3", *self._included(), f"{SUPPORT}/mark.o", *sources]
        arguments += ["-Wl,--wrap=main", "-o", "program", "-lm", *(["-lcrypto"] if "openssl/" in program.code else [])]
        key = (self.title, self.version(), support.name, *arguments, *sources.values())
        return compile_once(
            key, lambda: self._run(sandbox, arguments, sources, support, ("program",)), ("program",), diagnostics
        )

    def start(self, built: Built, program: Program) -> Start:
        """Run the executable."""
        if built.folder is None:
            raise ValueError("a program that was not built cannot be started")
        return Start((f"{PROGRAM}/program",), mounts={built.folder: PROGRAM})

    def examine(self, sandbox: Runner, code: str) -> Examined:
        """The compiler's errors and its warnings (``-Wall -Wextra``); nothing is linked or run."""
        arguments = [*self.flags, "-fsyntax-only", "-Wall", "-Wextra", *self._included(), self.source]
        done = self._run(sandbox, arguments, {self.source: code}, self._support(), ())
        errors = () if done.ok else diagnostics(done.stderr)
        return Examined(errors, diagnostics(done.stderr, ("warning",)) if b"warning" in done.stderr else ())

    def _run(
        self,
        sandbox: Runner,
        arguments: Sequence[str],
        sources: Mapping[str, str],
        support: Path,
        collect: tuple[str, ...],
    ) -> Execution:
        path = self._path()
        return sandbox.run(
            [str(path), *arguments],
            files={name: text.encode() for name, text in sources.items()},
            limits=compile_limits(),
            mounts={support: SUPPORT, **mounts(path)},
            environment=ENVIRONMENT,
            collect=collect,
        )

    def _path(self) -> Path:
        return need(self.title, find(self.compiler), self.advice)

    def _included(self) -> list[str]:
        return [f"-I{SUPPORT}", *(["-include", f"{SUPPORT}/headers.h"] if self.headers else [])]

    def _sources(self, program: Program) -> dict[str, str]:
        """Program and tests, as two units where the tests need no more of the program than a declaration."""
        if not program.tests:
            return {self.source: program.code}
        end = max((found.end() for found in _INCLUDE.finditer(program.tests)), default=0)
        headers, rest = program.tests[:end], program.tests[end:]
        tests = f"#include <gradatim_tests.h>\n{headers}#include <gradatim_compare.h>\n{rest}"
        if program.declared:
            suffix = self.source.rpartition(".")[2]
            return {self.source: program.code, f"tests.{suffix}": f"{program.declared}\n{tests}"}
        # A candidate that turned assertions off, or redefined them, does not do so for the tests; nor can its last line
        # go on into the next: that one is empty.
        return {self.source: f"{program.code}\n\n{undefined(program.code[program.given :])}{tests}"}

    def _support(self) -> Path:
        headers = "".join(f"#include <{name}>\n" for name in self.headers)

        def fill(folder: Path) -> None:
            (folder / "mark.c").write_text(HARNESS)
            (folder / "assert.h").write_text(ASSERT)
            (folder / "gradatim_tests.h").write_text(TESTS)
            (folder / "gradatim_compare.h").write_text(COMPARING)
            self._make(folder, find("gcc") or self._path(), ["-x", "c", "-O1", "-c", "mark.c", "-o", "mark.o"])
            if headers:
                (folder / "headers.h").write_text(headers)
                header = ["-x", "c++-header", *self.flags, "-w", "headers.h", "-o", "headers.h.gch"]
                self._make(folder, self._path(), header)

        return made_once(
            "support", (self.title, self.version(), HARNESS, ASSERT, TESTS, COMPARING, headers, *self.flags), fill
        )

    def _make(self, folder: Path, compiler: Path, arguments: Sequence[str]) -> None:
        done = subprocess.run([str(compiler), *arguments], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolchainMissing(
                f"the toolchain of {self.title} cannot compile a small program", given=done.stderr, hint=self.advice
            )


def diagnostics(stderr: bytes, kinds: Sequence[str] = ("error",)) -> tuple[Fault, ...]:
    """The compiler's messages of the given kinds, else the linker's, else the first line: never nothing."""
    text = stderr.decode("utf-8", "replace")
    found = tuple(
        Fault(int(each["line"]), int(each["column"] or 0), each["message"], each["rule"] or each["kind"])
        for each in _DIAGNOSTIC.finditer(text)
        if each["kind"].split()[-1] in kinds
    )
    if found or "error" not in kinds:
        return found
    linked = tuple(Fault(0, 0, each[0], "link") for each in _LINKER.finditer(text))
    return linked or (Fault(0, 0, text.strip().split("\n")[0] or "the compiler failed without a word"),)
