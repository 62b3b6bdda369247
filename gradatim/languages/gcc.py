"""C and C++: executables by gcc and g++, compiled once per content.

One call of the compiler inside the sandbox compiles and links with the harness ``mark.o``, in C++ on top of a
precompiled header (measured: 0.13 s instead of 0.75 s for a short program). The linker wraps ``main`` (``--wrap``), so
that the tests' ``main`` needs no change and the nonce is written after it returned 0.

The harness takes the nonce before any constructor runs, and defines ``__assert_fail`` itself: a candidate with its own
definition, to disable ``assert``, does not link. The remaining risk is in ``language``: the candidate can read the
memory of this process. Tests are a translation unit of their own where the prompt suffices to declare the function
(``Program.declared``); where they share the candidate's, every macro that it defined is undefined first
(``gcc_harness``). ``mark.o`` and the header are made outside the sandbox, from texts of this package only.

The header of C++ holds what HumanEval-X puts before every program, so that a candidate without ``#include <string>`` is
judged as it is there. Two of its problems need Boost (``boost/any.hpp``) and one OpenSSL: Debian's ``libboost-dev`` and
``libssl-dev``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ToolchainMissing
from ..sandbox.verdict import Execution
from .gcc_harness import ASSERT, COMPARING, HARNESS, TESTS, undefined
from .language import Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import cached_folder, compile_once, find, mounts, need, tool_version

__all__ = [
    "CALL",
    "CPP",
    "DEFINITION",
    "HEADERS",
    "C",
    "Gcc",
    "assemble",
    "diagnostics",
    "runnable",
]


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
        """None when the compiler is installed, else the command that installs it."""
        return None if find(self.compiler) else self.advice

    def version(self) -> str:
        """The compiler's version."""
        return tool_version((str(self._path()), "--version"))

    def build(self, sandbox: Runner, program: Program) -> Built:
        """The executable ``program`` in a folder of the cache, or the compiler's errors."""
        support, sources = self._support(), self._sources(program)
        # The harness is linked first, so that it also runs first among the functions before all constructors.
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
        """Program and tests, as two units where the tests need only a declaration of the program."""
        if not program.tests:
            return {self.source: program.code}
        end = max((match.end() for match in _INCLUDE.finditer(program.tests)), default=0)
        headers, body = program.tests[:end], program.tests[end:]
        tests = f"#include <gradatim_tests.h>\n{headers}#include <gradatim_compare.h>\n{body}"
        if program.declared:
            suffix = self.source.rpartition(".")[2]
            return {self.source: program.code, f"tests.{suffix}": f"{program.declared}\n{tests}"}
        # Assertions that the candidate disabled or redefined are restored for the tests; the empty line keeps its last
        # line from continuing into them.
        return {self.source: f"{program.code}\n\n{undefined(program.code[program.prompt_length :])}{tests}"}

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

        return cached_folder(
            "support", (self.title, self.version(), HARNESS, ASSERT, TESTS, COMPARING, headers, *self.flags), fill
        )

    def _make(self, folder: Path, compiler: Path, arguments: Sequence[str]) -> None:
        done = subprocess.run([str(compiler), *arguments], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolchainMissing(
                f"the toolchain of {self.title} cannot compile a small program", given=done.stderr, hint=self.advice
            )


def diagnostics(stderr: bytes, kinds: Sequence[str] = ("error",)) -> tuple[Fault, ...]:
    """The compiler's messages of ``kinds``, else the linker's, else the first line; never empty."""
    text = stderr.decode("utf-8", "replace")
    faults = tuple(
        Fault(int(match["line"]), int(match["column"] or 0), match["message"], match["rule"] or match["kind"])
        for match in _DIAGNOSTIC.finditer(text)
        if match["kind"].split()[-1] in kinds
    )
    if faults or "error" not in kinds:
        return faults
    linked = tuple(Fault(0, 0, match[0], "link") for match in _LINKER.finditer(text))
    return linked or (Fault(0, 0, text.strip().split("\n")[0] or "the compiler failed without a message"),)


DEFINITION = (
    r"^[ \t]*(?!(?:return|else|new|throw|case|goto)\b)\w[\w:<>,\[\]&* \t]{0,200}(?<=[ \t&*>])"
    r"(?P<name>\w{1,200})[ \t]{0,20}\([^;{}()]{0,2000}\)[ \t\r\n]{0,200}(?:const[ \t]{0,20})?\{"
)
"""A type, a name, parameters and an open brace. Every repetition is bounded, because the text is a model's output."""
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
    """The prompt, its completion, and tests with ``main``.

    A ``main`` that the candidate wrote as an example is renamed, so that the tests' is the only one. ``wanted``: the
    whole prompt of the problem, where ``prompt`` is only a part of it.
    """
    code, prompt_length = f"{setup}{prompt}{completion}", len(setup) + len(prompt)
    if runnable(completion) and runnable(tests):
        begin = f"#define main {CALL}\n"
        code, prompt_length = f"{begin}{code}\n#undef main\n", prompt_length + len(begin)
    return Program(code, tests, prompt_length, declaration(f"{setup}{wanted or prompt}", code))


def declaration(prompt: str, code: str) -> str:
    """The prompt's text before its last function, and that function's declaration; empty where that is not enough.

    Only includes, ``using``, comments and macros may come before the function: anything else would be defined twice.
    The program must define the function with exactly the signature of the prompt.
    """
    definitions = list(_DEFINITION.finditer(prompt))
    if len(definitions) != 1 or _COMMENT.sub("", prompt[definitions[0].end() :]).strip():
        return ""
    head, signature = prompt[: definitions[0].start()], definitions[0][0].rstrip("{").strip()
    plain = _COMMENT.sub("", head).replace("\\\n", " ")
    if not all(_DECLARING.match(line) for line in plain.split("\n")) or _LOCAL.match(signature):
        return ""
    words = signature.split()
    same = any(match[0].rstrip("{").split() == words for match in _DEFINITION.finditer(code))
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
