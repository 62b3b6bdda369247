"""The contract of a programming language, and the steps that are the same for all of them.

A ``Language`` is a plain value: names, a grammar, and a few functions from the module of the language. A ``Program`` is
the candidate's code and the tests that follow it, separate because some languages can keep them apart (two scripts, two
files). ``Built`` is a compiled program or the faults that prevented it; ``Start`` describes how it is started.
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
from ..sandbox.limits import Execution, Limits, Verdict
from .thinking import Block, fenced_blocks, strip_thinking


class Runner(Protocol):
    """The method of a sandbox that a language needs; see ``sandbox.Sandbox.run``."""

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
    """Code extracted from a reply. ``state``: ``fenced``, ``bare`` (code without a fence), ``incomplete`` (the fence
    was never closed) or ``none``, with empty code. ``blocks`` counts the blocks of this language."""

    code: str
    state: str
    blocks: int


@dataclass(frozen=True)
class Fault:
    """An error or warning at a position: line and column count from 1; 0 where the tool reports none. ``rule`` is the
    tool's identifier, such as a warning's option or an error's number."""

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

    ``prompt_length``: number of characters at the beginning of ``code`` that belong to the problem. ``declared``: the
    beginning of a unit with the tests alone, where they can be compiled apart; empty where they cannot.
    """

    code: str
    tests: str = ""
    prompt_length: int = 0
    declared: str = ""

    @property
    def text(self) -> str:
        """Code and tests as one source."""
        return f"{self.code}\n{self.tests}" if self.tests else self.code


@dataclass(frozen=True)
class Built:
    """A program ready to run, or the faults that prevented it.

    ``folder`` on the host holds the compiled files; None where there are none. ``faults`` are the compiler's errors.
    ``stopped`` is set when a limit ended the compiler itself: ``timeout`` or ``memory``.
    """

    folder: Path | None = None
    faults: tuple[Fault, ...] = ()
    stopped: str = ""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Start:
    """The start of a program: the command inside the sandbox, files for the work folder, folders mounted read-only."""

    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """The diagnostics of a compiler or linter for code that is not run. ``errors`` prevent compilation."""

    errors: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Language:
    """One language. See the module; the functions raise ``ToolchainMissing`` where the toolchain is not installed.

    ``grammar``: the tree-sitter language of its wheel. ``openers``: a pattern of lines that begin code. ``definition``:
    a pattern of a function's definition, with the name as its only group that matches. ``missing``: None when the
    toolchain is installed, else the command that installs it. ``assemble(prompt, completion, tests, setup=)`` makes a
    program of a problem and a completion of its prompt. ``examine``: diagnostics of compiler and linter. ``runnable``:
    whether code can be started without tests. ``fit``: limits adapted to the runtime. ``prepare``: compile several
    programs at once into the cache, where that is faster; a no-op elsewhere. ``refused``: node types that the grammar
    accepts and the language does not.
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
        """The code in a model's reply; see ``extract``."""
        return extract(self, reply, entry_point)

    def parses(self, code: str) -> Fault | None:
        """None when the grammar accepts the whole code, else the first fault."""
        return first_fault(self, code)

    def check(self, sandbox: Runner, program: Program | str, *, limits: Limits | None = None) -> Verdict:
        """Compile, run and judge: passed when everything up to the last assertion held. See ``check``."""
        return check(self, sandbox, program, limits=limits)

    def defined(self, code: str) -> tuple[str, ...]:
        """Names of the functions that ``code`` defines, in order."""
        matches = re.finditer(self.definition, code, re.MULTILINE)
        return tuple(next(name for name in match.groups() if name) for match in matches)


LONGEST_SOURCE = 1 << 20
"""Bytes of code that are parsed; more is a fault. Programs that solve a problem are a thousand times shorter."""
STEPS = 20_000
"""Progress reports after which the parser is stopped; a program of ``LONGEST_SOURCE`` bytes needs fewer. Recovery from
errors takes far longer per byte than a program does, and grows faster than the text."""


def first_fault(language: Language, code: str) -> Fault | None:
    """The first fault by the grammar; None when it accepts the whole code.

    *Parsing* (``first_fault``): tree-sitter never gives up, so the first node marked as wrong or missing is the fault.
    A grammar is slightly more lenient than a compiler; a program that it refuses never compiles. Code is read, never
    run.
    """
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

    # A parser holds state: a new one per call, because checks run in several threads and one costs microseconds.
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
    """Limits of a compiler: it reads untrusted text, and templates can keep it busy forever."""
    least = {"cpu_seconds": 30.0, "memory_bytes": 2 << 30, "file_bytes": 64 << 20, "folder_bytes": 256 << 20}
    return Limits(**{**least, "open_files": 256, **values})  # type: ignore[arg-type]


def check(language: Language, sandbox: Runner, program: Program | str, *, limits: Limits | None = None) -> Verdict:
    """Compile, run and judge one program. ``limits`` are those of the run; compiling has its own.

    ``invalid``: not a program. ``failed``: it does not compile, crashes, or an assertion does not hold. ``timeout``:
    it, or its compilation, used up its time. Raises ``ToolchainMissing``.

    *Judging* (``check``): the program is compiled, started in the sandbox, and passes when it exits by itself with 0
    and leaves the *nonce*, a random token of this run that no text can contain. A small harness of the language takes
    it from stdin before any code of the candidate runs, and writes it to the file ``MARK`` after the last assertion
    held. A program that ends early leaves no nonce.

    **The remaining risk.** Candidate and tests share a process. A candidate that searches its own memory or
    ``/proc/self/mem`` for the nonce (in Java a guard refuses it), reads stdin before the harness (in C, by code that a
    linker runs first, or a ``read`` of its own), overwrites the harness, or makes every comparison of the tests true
    (an object equal to everything) can still pass. Code written to solve a problem does not do this; code trained on
    passing tests may learn to. Where that matters use Python, whose tests run in another process
    (``sandbox.PythonChecker``), and read the passing programs. The sandbox holds either way: a forged nonce harms the
    score, not the machine.
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
    verdict = _verdict(done, token)
    return replace(verdict, cpu_seconds=built.cpu_seconds + done.cpu_seconds)


def unusable(source: str) -> str:
    """The reason why ``source`` is no input for a compiler; empty when it is one."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        return "the program is not Unicode: it has half of a surrogate pair"
    if "\0" in source:
        return "the program holds a NUL character"
    if size > LONGEST_PROGRAM:
        return f"the program has {size} bytes; at most {LONGEST_PROGRAM} are compiled"
    return "" if source.strip() else "the program is empty"


def _verdict(done: Execution, token: str) -> Verdict:
    detail = _error_line(done.stderr)
    if done.ending == "timeout":
        return Verdict("timeout", f"used up its time after {done.cpu_seconds:.1f} s of CPU")
    if done.ending == "memory":
        return Verdict("failed", "used more memory than it may")
    if done.ending == "signalled":
        return Verdict("failed", f"killed by {_signal_name(done.code)}{detail}")
    if done.code:
        return Verdict("failed", f"exit code {done.code}{detail}")
    if done.files.get(MARK, b"").strip() != token.encode():
        return Verdict("failed", f"ended before the last assertion{detail}")
    return Verdict("passed", "every assertion held")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error_line(stderr: bytes) -> str:
    """The most informative line of stderr, after a colon."""
    text = stderr[:20_000].decode("utf-8", "replace")
    # Java's runtime warns that its security manager, which the harness sets, will be removed.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING: ")]
    line = next((line for line in lines if _TELLING.search(line)), lines[-1] if lines else "")
    return f": {line}" if line else ""


LONGEST_REPLY = 1 << 20
"""Characters of a reply that are searched: a thousand times the length of an answer."""
TAIL_TRIES = 12
"""Number of paragraphs after bare code that are tried as prose."""
TAIL_CHARACTERS = 1 << 17
"""Characters that are parsed for that in total."""


def extract(language: Language, reply: str, entry_point: str | None = None) -> Extracted:
    """The program in ``reply``; ``Extracted.state`` gives its form.

    *Extraction* (``extract``): thinking is removed first, then fenced blocks are read. A block counts when its fence
    names the language or nothing, the former before the latter. Of several, the first that defines the entry point is
    chosen, else the longest: replies mostly contain the solution once and short examples beside it. A last block
    without a closing fence was cut off: it is ``incomplete`` unless a closed block was chosen. Without any fence the
    code begins at the first line that looks like code in that language; paragraphs of prose after it are dropped while
    that makes it parse. A reply that is neither is ``none``. Nothing is repaired.
    """
    if len(reply) > LONGEST_REPLY:
        return Extracted("", "none", 0)
    reply = strip_thinking(reply.replace("\r\n", "\n"))
    blocks = fenced_blocks(reply)
    if not blocks:
        return _bare(language, reply)
    labelled = [block for block in blocks if block.label in (language.name, *language.aliases)]
    candidates = labelled or [block for block in blocks if not block.label]
    if not candidates:
        return Extracted("", "none", 0)
    closed = [block for block in candidates if block.closed]
    block = _select(language, closed or candidates, entry_point)
    open_blocks = [block for block in candidates if not block.closed]
    # The block that was cut off is the answer when it defines the entry point and no complete block does.
    if closed and open_blocks and entry_point and not _defines(language, block, entry_point):
        block = open_blocks[0] if _defines(language, open_blocks[0], entry_point) else block
    return Extracted(block.code, "fenced" if block.closed else "incomplete", len(candidates))


def program_in(language: Language, text: str) -> str | None:
    """The program of a reply, ended by a newline, or a bare program unchanged; None without a complete one."""
    text = text.replace("\r\n", "\n")
    if text.strip() and not fenced_blocks(text) and language.parses(text) is None:
        return text
    extracted = language.extract(text)
    if extracted.state not in ("fenced", "bare") or not extracted.code.strip():
        return None
    return extracted.code.strip("\n") + "\n"


def fenced(language: Language, program: str) -> str:
    """``program`` in a fenced block, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", program)), default=0)
    fence = "`" * max(3, longest + 1)
    code = program.strip("\n")
    return f"{fence}{language.name}\n{code}\n{fence}"


def _joined(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _defines(language: Language, block: Block, entry_point: str) -> bool:
    return entry_point in language.defined(block.code)


def _select(language: Language, blocks: Sequence[Block], entry_point: str | None) -> Block:
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
    remaining, characters = code, 0
    for _ in range(TAIL_TRIES):
        text = _joined(remaining)
        characters += len(text)
        if characters > TAIL_CHARACTERS:
            break
        if language.parses(text) is None:
            return Extracted(text, "bare", 1)
        blank = next((index for index in reversed(range(1, len(remaining))) if not remaining[index].strip()), None)
        if blank is None:
            break
        remaining = remaining[:blank]
    return Extracted(_joined(code), "bare", 1)
