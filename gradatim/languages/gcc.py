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

C and C++ texts beside and between a program and its tests.

``HARNESS`` takes the nonce and writes it at the end. ``ASSERT`` replaces ``assert.h``. ``TESTS`` comes before the tests
and ``COMPARING`` after their headers: from there on keywords and comparison functions have their standard meaning.
``undefined`` undefines every macro that a candidate defined, pushed and popped ones too: an additional ``#undef`` does
no harm, so the word ``define`` is searched everywhere, comments and conditions included.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ToolchainMissing
from ..sandbox.limits import Execution
from .language import MARK, Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import cached_folder, compile_once, find, mounts, need, tool_version

COMPARED = ("strcmp", "strncmp", "memcmp", "strlen", "abs", "fabs")

HARNESS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char token[64];
static ssize_t length;
static int place;

static void take(void) {
    length = read(0, token, sizeof token);
    place = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = take;

void __assert_fail(const char *claim, const char *file, unsigned line, const char *function) {
    fflush(stdout);
    dprintf(2, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function ? function : "", claim);
    kill(getpid(), SIGABRT);
    _exit(134);
}

int __real_main(int, char **, char **);

int __wrap_main(int count, char **words, char **environment) {
    int code = __real_main(count, words, environment);
    if (code == 0) {
        int file = openat(place, "MARK", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || write(file, token, length) != length || close(file)) return 111;
    }
    return code;
}
""".replace("MARK", MARK)

ASSERT = r"""
#undef assert
#undef __assert_fail
#undef __builtin_FILE
#undef __builtin_FUNCTION
#undef __builtin_LINE
#ifdef __cplusplus
extern "C"
#elif !defined static_assert
#define static_assert _Static_assert
#endif
void __assert_fail(const char *, const char *, unsigned, const char *);
#ifdef NDEBUG
#define assert(claim) ((void)0)
#else
#define assert(claim) \
    ((claim) ? (void)0 \
             : (__assert_fail(#claim, __builtin_FILE(), __builtin_LINE(), __builtin_FUNCTION()), __builtin_trap()))
#endif
"""
"""Replacement of ``assert.h``, whose macro contains words that a candidate could have redefined. The trap is for a
``__assert_fail`` that became another function and returns."""


_WORDS = "auto break case char class const constexpr continue decltype do double else enum extern float for goto if "
_WORDS += "inline int long main namespace operator return short signed sizeof static static_cast std struct switch "
_WORDS += "template typedef typename union unsigned using void volatile while NDEBUG "
_WORDS += " ".join(f"{name} gradatim_{name}" for name in COMPARED)
TESTS = (
    "".join(f"#undef {word}\n" for word in _WORDS.split())
    + r"""
#ifdef __cplusplus
#undef bool
#undef true
#undef false
#elif defined bool
#undef bool
#undef true
#undef false
#define bool _Bool
#define true 1
#define false 0
#endif
#include <assert.h>
"""
)
"""Text between program and tests: restores the meaning of keywords, whatever was defined."""
COMPARING = r"""
static int gradatim_strncmp(const char *a, const char *b, unsigned long size) {
    for (; size; a++, b++, size--) {
        if (*a != *b || !*a) return (int)(unsigned char)*a - (int)(unsigned char)*b;
    }
    return 0;
}
static int gradatim_strcmp(const char *a, const char *b) { return gradatim_strncmp(a, b, -1UL); }
static int gradatim_memcmp(const void *one, const void *two, unsigned long size) {
    const unsigned char *a = (const unsigned char *)one, *b = (const unsigned char *)two;
    for (; size; a++, b++, size--) {
        if (*a != *b) return (int)*a - (int)*b;
    }
    return 0;
}
static unsigned long gradatim_strlen(const char *a) {
    unsigned long size = 0;
    while (a[size]) size++;
    return size;
}
#ifdef __cplusplus
#define GRADATIM_ABS(name, type, result) static inline result name(type a) { return a < 0 ? -(result)a : (result)a; }
#define GRADATIM_REALS(name) \
    GRADATIM_ABS(name, float, float) GRADATIM_ABS(name, double, double) GRADATIM_ABS(name, long double, long double)
GRADATIM_REALS(gradatim_abs)
GRADATIM_ABS(gradatim_abs, int, int)
GRADATIM_ABS(gradatim_abs, long, long)
GRADATIM_ABS(gradatim_abs, long long, long long)
GRADATIM_REALS(gradatim_fabs)
GRADATIM_ABS(gradatim_fabs, int, double)
GRADATIM_ABS(gradatim_fabs, long, double)
GRADATIM_ABS(gradatim_fabs, long long, double)
namespace std {
using ::gradatim_strncmp;
using ::gradatim_strcmp;
using ::gradatim_memcmp;
using ::gradatim_strlen;
using ::gradatim_abs;
using ::gradatim_fabs;
}
#else
static int gradatim_abs(int a) { return a < 0 ? -a : a; }
static double gradatim_fabs(double a) { return __builtin_fabs(a); }
#endif
""" + "".join(f"#define {name} gradatim_{name}\n" for name in COMPARED)
"""Text after the last header of the tests: their comparison functions, in their own unit, so that no function or macro
of a candidate replaces them."""

CONSTANTS = {
    "INT_MAX": "__INT_MAX__",
    "INT_MIN": "(-__INT_MAX__ - 1)",
    "UINT_MAX": "(__INT_MAX__ * 2U + 1U)",
    "LONG_MAX": "__LONG_MAX__",
    "LONG_MIN": "(-__LONG_MAX__ - 1L)",
    "ULONG_MAX": "(__LONG_MAX__ * 2UL + 1UL)",
    "LLONG_MAX": "__LONG_LONG_MAX__",
    "LLONG_MIN": "(-__LONG_LONG_MAX__ - 1LL)",
    "ULLONG_MAX": "(__LONG_LONG_MAX__ * 2ULL + 1ULL)",
    "FLT_MAX": "__FLT_MAX__",
    "FLT_MIN": "__FLT_MIN__",
    "FLT_EPSILON": "__FLT_EPSILON__",
    "DBL_MAX": "((double)__DBL_MAX__)",
    "DBL_MIN": "((double)__DBL_MIN__)",
    "DBL_EPSILON": "((double)__DBL_EPSILON__)",
    "INFINITY": "(__builtin_inff())",
    "NAN": '(__builtin_nanf(""))',
    "M_PI": "3.14159265358979323846",
    "M_E": "2.7182818284590452354",
    "EOF": "(-1)",
}
"""Macros of the standard headers that programs often define themselves; their meaning is restored."""

_SPLICE = re.compile(r"(?:\\|\?\?/)[ \t\f\v]*+\r?\n")
_DEFINE = re.compile(r"define(?![\w$])")
_NAME = re.compile(r"(?!\d)[\w$]+")


def undefined(code: str) -> str:
    """Lines that undefine every macro that ``code`` may define."""
    text = _SPLICE.sub("", code)
    names: set[str] = set()
    close = -1
    for match in _DEFINE.finditer(text):
        index = match.end()
        while True:
            while text[index : index + 1] in (" ", "\t", "\f", "\v"):
                index += 1
            if not text.startswith("/*", index):
                break
            if close < index + 2:  # searched once, however many comments are opened before it
                close = text.find("*/", index + 2)
                close = len(text) if close < 0 else close
            index = close + 2
        if name := _NAME.match(text, index):
            names.add(name[0])
    lines = (f"#undef {name}\n" for name in sorted(names - {"defined"}))
    restored = (f"#define {name} {CONSTANTS[name]}\n" for name in sorted(names & CONSTANTS.keys()))
    return "".join((*lines, *restored))


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
