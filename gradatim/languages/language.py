"""What is a programming language to Gradatim?

A ``Language`` is a plain value: names, a grammar, and a few functions that one file per language gives it. What all
languages do the same way is done once, here and in the modules it calls: find code in a reply (``extract``), parse it
(``grammar``), judge a program (``check``).

A ``Program`` is what is judged: the candidate's code and the tests that follow it. They are kept apart because some
languages can keep them apart (two scripts, two files); ``Program.text`` is both. A plain text is a program whose tests
are in it already.

``Built`` is a program made ready to run: a folder of compiled files, or the faults that stopped it. ``Start`` says how
a built program is started. This module compiles and runs nothing itself.

Does the code parse, and if not, where does it stop?

tree-sitter reads every language the same way and never gives up, so the first node that it marks as wrong or missing
is the place to tell. A grammar is a little more lenient than a compiler; what it refuses no compiler takes. Code is
read, never run. Grammars come as one wheel per language and are loaded at first use.

Did a program whose tests run in its own process pass them?

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

Where in a model's reply is the program?

Thinking is taken out first (``thinking``): a draft in it is no answer. Then fenced blocks, read as CommonMark has them
(``fences``). A block counts when its fence names the language or nothing, blocks
that name it before those that name nothing. Of several, the first that defines the entry point is taken, or the
longest when none does or no entry point is given: replies mostly show the solution once and short examples beside it.
A last block that is never closed was cut off: it is ``incomplete`` unless a closed block was chosen.

Without any fence the code begins at the first line that looks like code in that language; paragraphs of prose after
it are dropped while that makes it parse. A reply that is neither is ``none``. Nothing is repaired.
"""

from __future__ import annotations

import functools
import re
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import ToolchainMissing
from ..sandbox.limits import Limits
from ..sandbox.verdict import Execution, Verdict
from .thinking import Block, fenced_blocks, strip_thinking

__all__ = [
    "LONGEST_PROGRAM",
    "LONGEST_SOURCE",
    "MARK",
    "Built",
    "Examined",
    "Extracted",
    "Fault",
    "Language",
    "Program",
    "Runner",
    "Start",
    "check",
    "compile_limits",
    "extract",
    "first_fault",
    "unusable",
]


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

        return extract(self, reply, entry_point)

    def parses(self, code: str) -> Fault | None:
        """None when the grammar takes the whole code, else the first place where it does not."""

        return first_fault(self, code)

    def check(self, sandbox: Runner, program: Program | str, *, limits: Limits | None = None) -> Verdict:
        """Compile, run and judge: passed when everything up to the last assertion went well. See ``check.check``."""

        return check(self, sandbox, program, limits=limits)

    def defined(self, code: str) -> tuple[str, ...]:
        """Names of the functions that ``code`` defines, in their order."""
        found = re.finditer(self.definition, code, re.MULTILINE)
        return tuple(next(name for name in each.groups() if name) for each in found)


LONGEST_SOURCE = 1 << 20
"""Bytes of code that are parsed: more is a fault. Programs that answer a question are a thousand times shorter."""
STEPS = 20_000
"""Reports of progress after which the parser is stopped; a program of ``LONGEST_SOURCE`` bytes needs fewer.
Recovery from
errors takes far longer for a byte than a program does, and grows faster than the text."""


def first_fault(language: Language, code: str) -> Fault | None:
    """The first place that the grammar does not take; None when it takes the whole code."""
    try:
        source = code.encode()
    except UnicodeEncodeError as error:
        return _at(code, error.start, "a lone surrogate is not a character")
    if "\0" in code:
        return _at(code, code.index("\0"), "a NUL byte is not code")
    if len(source) > LONGEST_SOURCE:
        return Fault(0, 0, f"{len(source)} bytes of code; at most {LONGEST_SOURCE} are read")
    tree = _tree(language, source)
    if tree is None:
        return Fault(0, 0, "the grammar needs too many steps to recover from its errors", "steps")
    node = _first_wrong(tree.root_node, frozenset(language.refused))
    if node is None:
        return None
    line, column = node.start_point
    if node.is_missing:
        return Fault(line + 1, column + 1, f"syntax error: {node.type!r} is missing", "missing")
    text = source[node.start_byte : node.end_byte].decode("utf-8", "replace").strip().split("\n")[0][:40]
    return Fault(line + 1, column + 1, f"syntax error near {text!r}", "syntax")


def _at(code: str, index: int, message: str) -> Fault:
    line = code.count("\n", 0, index)
    return Fault(line + 1, index - (code.rfind("\n", 0, index) + 1) + 1, message, "character")


def _first_wrong(root: Any, refused: frozenset[str]) -> Any:
    """The first node in reading order that is an error, missing, or of a refused type."""
    if not root.has_error and not refused:
        return None
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing or node.type in refused:
            return node
        if node.has_error or refused:
            stack.extend(reversed(node.children))
    return None


@functools.cache
def _grammar(name: str, load: Any) -> Any:
    try:
        import tree_sitter

        return tree_sitter.Language(load())
    except ImportError as error:
        raise ToolchainMissing(
            f"the grammar of {name} is not installed", given=error, hint="pip install 'gradatim[languages]'"
        ) from error


def _tree(language: Language, source: bytes) -> Any:
    """The tree of ``source``; None when it needs more than ``STEPS``. Counted, not timed: the same on any machine."""
    grammar = _grammar(language.name, language.grammar)
    import tree_sitter

    steps = 0

    def stop(*progress: object) -> bool:
        nonlocal steps
        steps += 1
        return steps > STEPS

    # A parser holds state: one each time, because checks run in several threads and making one costs microseconds.
    parser = tree_sitter.Parser(grammar)
    try:
        return parser.parse(lambda offset, point: source[offset : offset + 4096], progress_callback=stop)
    except ValueError:  # the parser was stopped
        return None
    except TypeError:  # tree-sitter 0.24 reports no progress
        return parser.parse(source)


MARK = "success.mark"
"""The file in the work folder that holds the token when all went well."""

LONGEST_PROGRAM = 4 << 20
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
    if size > LONGEST_PROGRAM:
        return f"the program has {size} bytes; at most {LONGEST_PROGRAM} are compiled"
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


LONGEST_REPLY = 1 << 20
"""Characters of a reply that are searched: a thousand times what an answer needs."""
TAIL_TRIES = 12
"""How many paragraphs after bare code are tried as prose."""
TAIL_CHARACTERS = 1 << 17
"""Characters that are parsed for it, all tries together."""


def extract(language: Language, reply: str, entry_point: str | None = None) -> Extracted:
    """The program in ``reply``; ``Extracted.state`` says how it was found."""
    if len(reply) > LONGEST_REPLY:
        return Extracted("", "none", 0)
    reply = strip_thinking(reply.replace("\r\n", "\n"))
    blocks = fenced_blocks(reply)
    if not blocks:
        return _bare(language, reply)
    named = [block for block in blocks if block.label in (language.name, *language.aliases)]
    fitting = named or [block for block in blocks if not block.label]
    if not fitting:
        return Extracted("", "none", 0)
    closed = [block for block in fitting if block.closed]
    chosen = _chosen(language, closed or fitting, entry_point)
    cut = [block for block in fitting if not block.closed]
    # The block that was cut off is the answer when it defines what was asked for and no whole block does.
    if closed and cut and entry_point and not _defines(language, chosen, entry_point):
        chosen = cut[0] if _defines(language, cut[0], entry_point) else chosen
    return Extracted(chosen.code, "fenced" if chosen.closed else "incomplete", len(fitting))


def _joined(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _defines(language: Language, block: Block, entry_point: str) -> bool:
    return entry_point in language.defined(block.code)


def _chosen(language: Language, blocks: Sequence[Block], entry_point: str | None) -> Block:
    for block in blocks:
        if entry_point and _defines(language, block, entry_point):
            return block
    return max(blocks, key=lambda block: len(block.code.strip()))


def _bare(language: Language, reply: str) -> Extracted:
    opener = re.compile(language.openers)
    lines = reply.strip("\n").split("\n")
    start = next((index for index, line in enumerate(lines) if opener.match(line)), None)
    if start is None:
        return Extracted("", "none", 0)
    code = lines[start:]
    kept, parsed = code, 0
    for _ in range(TAIL_TRIES):
        text = _joined(kept)
        parsed += len(text)
        if parsed > TAIL_CHARACTERS:
            break
        if language.parses(text) is None:
            return Extracted(text, "bare", 1)
        blank = next((index for index in reversed(range(1, len(kept))) if not kept[index].strip()), None)
        if blank is None:
            break
        kept = kept[:blank]
    return Extracted(_joined(code), "bare", 1)
