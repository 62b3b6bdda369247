"""What is a programming language to Gradatim?

A ``Language`` is a plain value: names, a grammar, and a few functions that one file per language gives it. What all
languages do the same way is done once, here and in the modules it calls: find code in a reply (``extract``), parse it
(``grammar``), judge a program (``check``).

A ``Program`` is what is judged: the candidate's code and the tests that follow it. They are kept apart because some
languages can keep them apart (two scripts, two files); ``Program.text`` is both. A plain text is a program whose tests
are in it already.

``Built`` is a program made ready to run: a folder of compiled files, or the faults that stopped it. ``Start`` says how
a built program is started. This module compiles and runs nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..sandbox.execution import Execution
from ..sandbox.limits import Limits
from ..sandbox.verdict import Verdict

__all__ = ["Built", "Examined", "Extracted", "Fault", "Language", "Program", "Runner", "Start"]


class Runner(Protocol):
    """What a language needs of a sandbox: see ``sandbox.Sandbox.run``."""

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes] = ...,
        stdin: bytes = ...,
        limits: Limits = ...,
        mounts: Mapping[Path, str] = ...,
        environment: Mapping[str, str] = ...,
        collect: Sequence[str] = ...,
    ) -> Execution: ...


@dataclass(frozen=True)
class Extracted:
    """Code found in a reply. ``state``: ``fenced``, ``bare`` (code without a fence), ``incomplete`` (the fence was
    never closed) or ``none``, with empty code. ``blocks`` counts the blocks of this language."""

    code: str
    state: str
    blocks: int


@dataclass(frozen=True)
class Fault:
    """Something wrong at one place: line and column count from 1; 0 where the tool tells none. ``rule`` is the
    tool's own name for it, such as a warning's option or an error's number."""

    line: int
    column: int
    message: str
    rule: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return where + self.message


@dataclass(frozen=True)
class Program:
    """The candidate's ``code`` and the trusted ``tests`` that follow it; tests may be empty.

    ``given``: characters at the beginning of ``code`` that are the problem's own. ``declared``: what a unit of the
    tests alone begins with, where they can be compiled apart; empty where they cannot.
    """

    code: str
    tests: str = ""
    given: int = 0
    declared: str = ""

    @property
    def text(self) -> str:
        """Both, as one source."""
        return f"{self.code}\n{self.tests}" if self.tests else self.code


@dataclass(frozen=True)
class Built:
    """A program ready to run, or why it is not.

    ``folder`` on the host holds what was compiled; None where nothing is. ``faults`` are the compiler's errors.
    ``stopped`` is set when the compiler itself was ended by a limit: ``timeout`` or ``memory``.
    """

    folder: Path | None = None
    faults: tuple[Fault, ...] = ()
    stopped: str = ""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Start:
    """How a program is started: the command inside the walls, files for the work folder, folders mounted read-only."""

    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """What a compiler or linter says of code that is not run. ``errors`` keep it from compiling."""

    errors: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Language:
    """One language. See the module; the functions raise ``ToolchainMissing`` where the toolchain is not there.

    ``grammar``: the tree-sitter language, as its wheel gives it. ``openers``: a pattern of lines that begin code.
    ``definition``: a pattern of a function's definition, with the name as its only group that matches. ``missing``:
    None when the toolchain is there, else the command that installs it. ``assemble(prompt, completion, tests, setup=)``
    makes a program of a problem and what follows its prompt. ``examine``: what compiler and linter say of code alone.
    ``runnable``: whether code can be started without tests. ``fit``: limits with what the runtime needs.
    ``prepare``: compile several programs at once into the cache, where that is faster; nothing elsewhere.
    ``refused``: node types that the grammar takes and the language does not.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    suffix: str
    grammar: Callable[[], Any]
    openers: str
    definition: str
    missing: Callable[[], str | None]
    version: Callable[[], str]
    assemble: Callable[..., Program]
    build: Callable[[Runner, Program], Built]
    start: Callable[[Built, Program], Start]
    examine: Callable[[Runner, str], Examined]
    runnable: Callable[[str], bool]
    fit: Callable[[Limits], Limits] = lambda limits: limits
    prepare: Callable[[Runner, Sequence[Program]], None] = lambda sandbox, programs: None
    refused: tuple[str, ...] = ()

    def extract(self, reply: str, entry_point: str | None = None) -> Extracted:
        """The code in a model's reply; see ``extract.extract``."""
        from .extract import extract

        return extract(self, reply, entry_point)

    def parses(self, code: str) -> Fault | None:
        """None when the grammar takes the whole code, else the first place where it does not."""
        from .grammar import first_fault

        return first_fault(self, code)

    def check(self, sandbox: Runner, program: Program | str, *, limits: Limits | None = None) -> Verdict:
        """Compile, run and judge: passed when everything up to the last assertion went well. See ``check.check``."""
        from .check import check

        return check(self, sandbox, program, limits=limits)

    def defined(self, code: str) -> tuple[str, ...]:
        """Names of the functions that ``code`` defines, in their order."""
        found = re.finditer(self.definition, code, re.MULTILINE)
        return tuple(next(name for name in each.groups() if name) for each in found)
