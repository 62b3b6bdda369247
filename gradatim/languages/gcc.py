"""How is a program compiled only once?

``compile_once`` looks in the cache first; else it lets a compiler run behind the walls, keeps what it made, and tells
its errors otherwise. Failures are not kept: a compiler that was stopped may do better on a quieter machine.

How do C and C++ programs become executables, once per content?

One call of the compiler inside the walls: compile and link with the harness ``mark.o``, in C++ on top of a precompiled
header (measured: 0.13 s instead of 0.75 s for a short program). ``main`` is wrapped by the linker (``--wrap``), so the
tests' own ``main`` needs no change and the mark is written after it returned 0.

The harness takes the token before any constructor, and defines ``__assert_fail`` itself: a candidate that brings its
own, to make ``assert`` do nothing, does not link. What it cannot guard is in ``check``: the candidate can read this
process's memory. Tests are a translation unit of their own where the prompt says enough for it (``Program.declared``);
where they share the candidate's, every macro that it defined is undefined first (``gcc_harness``).

``mark.o`` and the header are made outside the walls, from our own texts only; nothing untrusted is compiled there.

C: one file, compiled by gcc; ``main`` is the tests' own, or the program's. See ``gcc`` for how it is built.

C++: one file, compiled by Debian's g++ on top of a precompiled header. See ``gcc`` for how it is built.

The header holds what HumanEval-X puts before every C++ program, so a candidate that forgets ``#include <string>`` is
judged as it is there. Two of its problems need Boost (``boost/any.hpp``) and one OpenSSL: Debian's ``libboost-dev``
and ``libssl-dev``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ToolchainMissing
from ..sandbox.verdict import Execution
from .gcc_harness import ASSERT, COMPARING, HARNESS, TESTS, undefined
from .language import Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import find, made_once, mounts, need, stored, tell_version

__all__ = [
    "CALL",
    "CPP",
    "DEFINITION",
    "HEADERS",
    "C",
    "Gcc",
    "assemble",
    "compile_once",
    "diagnostics",
    "keep",
    "runnable",
]


def compile_once(
    key: Iterable[str | bytes],
    run: Callable[[], Execution],
    wanted: tuple[str, ...],
    faults: Callable[[bytes], tuple[Fault, ...]],
    unpack: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] = dict,
) -> Built:
    """What ``run`` compiles, from the cache when it was made before.

    ``key`` is everything the result depends on. ``wanted`` are the files that a successful run leaves; ``unpack``
    makes of them the files to keep. ``faults`` reads the errors from stderr, at least one.
    """
    key = tuple(key)
    if (folder := stored("compiled", key)) is not None:
        return Built(folder)
    done = run()
    if not done.ok or any(name not in done.files for name in wanted):
        stopped = done.ending if done.ending in ("timeout", "memory") else ""
        return Built(None, faults(done.stderr or done.stdout), stopped, done.cpu_seconds)
    return Built(keep(key, unpack(done.files)), cpu_seconds=done.cpu_seconds)


def keep(key: Iterable[str | bytes], files: Mapping[str, bytes]) -> Path:
    """Put compiled ``files`` into the cache under ``key``; the folder they are in."""
    return made_once("compiled", key, lambda folder: _write(folder, files))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"a compiled file cannot be called {name!r}")
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)


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


DEFINITION = (
    r"^[ \t]*(?!(?:return|else|new|throw|case|goto)\b)\w[\w:<>,\[\]&* \t]{0,200}(?<=[ \t&*>])"
    r"(?P<name>\w{1,200})[ \t]{0,20}\([^;{}()]{0,2000}\)[ \t\r\n]{0,200}(?:const[ \t]{0,20})?\{"
)
"""A type, a name, parameters and an open brace. Every repetition is bounded: a model writes what is searched."""
_DEFINITION = re.compile(DEFINITION, re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)")
_DECLARING = re.compile(r"\s*+(?:$|#|using\b[^;{}]*+;\s*+$)")
_LOCAL = re.compile(r"(?:static|inline|template|constexpr|auto)\b")
_MAIN = re.compile(r"^[ \t]*(?:int|auto|void)\s+main\s*\(", re.MULTILINE)
CALL = "gradatim_candidate_main"


def _c_grammar() -> Any:
    import tree_sitter_c

    return tree_sitter_c.language()


def runnable(code: str) -> bool:
    """Whether ``code`` has a ``main`` of its own."""
    return _MAIN.search(code) is not None


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "", wanted: str = "") -> Program:
    """The prompt, what follows it, and tests with ``main``.

    A ``main`` that the candidate wrote as an example goes by another name, so that the tests' is the only one.
    ``wanted``: the whole prompt of the problem, where ``prompt`` is a part of it only.
    """
    code, given = f"{setup}{prompt}{completion}", len(setup) + len(prompt)
    if runnable(completion) and runnable(tests):
        begin = f"#define main {CALL}\n"
        code, given = f"{begin}{code}\n#undef main\n", given + len(begin)
    return Program(code, tests, given, declaration(f"{setup}{wanted or prompt}", code))


def declaration(prompt: str, code: str) -> str:
    """What the prompt says before its last function, and that function's declaration; empty where it says more.

    Only includes, ``using``, comments and macros may come before the function: anything else would be defined twice.
    The program must define the function with the very words of the prompt.
    """
    found = list(_DEFINITION.finditer(prompt))
    if len(found) != 1 or _COMMENT.sub("", prompt[found[0].end() :]).strip():
        return ""
    head, signature = prompt[: found[0].start()], found[0][0].rstrip("{").strip()
    plain = _COMMENT.sub("", head).replace("\\\n", " ")
    if not all(_DECLARING.match(line) for line in plain.split("\n")) or _LOCAL.match(signature):
        return ""
    words = signature.split()
    same = any(each[0].rstrip("{").split() == words for each in _DEFINITION.finditer(code))
    return f"{head}\n{signature};" if same else ""


_GCC_C = Gcc("C", "gcc", "program.c", ("-std=gnu17", "-O1"), "apt-get install gcc libc6-dev")

C = Language(
    name="c",
    title="C",
    aliases=("h",),
    suffix=".c",
    grammar=_c_grammar,
    openers=r"^(?:#\s*(?:include|define)\b"
    r"|(?:static |unsigned |const |struct |enum |typedef )*\w+[ *]++\w+\s*+\([^;]*+$)",
    definition=DEFINITION,
    missing=_GCC_C.missing,
    version=_GCC_C.version,
    assemble=assemble,
    build=_GCC_C.build,
    start=_GCC_C.start,
    examine=_GCC_C.examine,
    runnable=runnable,
)


HEADERS = ("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream", "map")


def _cpp_grammar() -> Any:
    import tree_sitter_cpp

    return tree_sitter_cpp.language()


_GCC_CPP = Gcc("C++", "g++", "program.cpp", ("-std=gnu++17", "-O1"), "apt-get install g++ libc6-dev", HEADERS)

CPP = Language(
    name="cpp",
    title="C++",
    aliases=("c++", "cxx", "cc", "hpp", "cplusplus"),
    suffix=".cpp",
    grammar=_cpp_grammar,
    openers=r"^(?:#\s*(?:include|define)\b|using namespace |template\s*<|class \w+|struct \w+"
    r"|(?:static |unsigned |const |inline )*[\w:<>,]++[ *&]++\w+\s*+\([^;]*+$)",
    definition=DEFINITION,
    missing=_GCC_CPP.missing,
    version=_GCC_CPP.version,
    assemble=assemble,
    build=_GCC_CPP.build,
    start=_GCC_CPP.start,
    examine=_GCC_CPP.examine,
    runnable=runnable,
)
