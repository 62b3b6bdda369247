"""C: one file, compiled by gcc; ``main`` is the tests' own, or the program's. See ``gcc`` for how it is built."""

from __future__ import annotations

import re
from typing import Any

from .gcc import Gcc
from .language import Language, Program

__all__ = ["CALL", "DEFINITION", "C", "assemble", "runnable"]

DEFINITION = (
    r"^[ \t]*(?!(?:return|else|new|throw|case|goto)\b)\w[\w:<>,\[\]&* \t]{0,200}(?<=[ \t&*>])"
    r"(?P<name>\w{1,200})[ \t]{0,20}\([^;{}()]{0,2000}\)[ \t\r\n]{0,200}(?:const[ \t]{0,20})?\{"
)
"""A type, a name, parameters and an open brace. Every repetition is bounded: a model writes what is searched."""
_MAIN = re.compile(r"^[ \t]*(?:int|auto|void)\s+main\s*\(", re.MULTILINE)
CALL = "gradatim_candidate_main"


def _grammar() -> Any:
    import tree_sitter_c

    return tree_sitter_c.language()


def runnable(code: str) -> bool:
    """Whether ``code`` has a ``main`` of its own."""
    return _MAIN.search(code) is not None


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "") -> Program:
    """The prompt, what follows it, and tests with ``main``.

    A ``main`` that the candidate wrote as an example goes by another name, so that the tests' is the only one.
    """
    code = f"{setup}{prompt}{completion}"
    if runnable(completion) and runnable(tests):
        code = f"#define main {CALL}\n{code}\n#undef main\n"
    return Program(code, tests)


_GCC = Gcc("C", "gcc", "program.c", ("-std=gnu17", "-O1"), "apt-get install gcc libc6-dev")

C = Language(
    name="c",
    title="C",
    aliases=("h",),
    suffix=".c",
    grammar=_grammar,
    openers=r"^(?:#\s*(?:include|define)\b"
    r"|(?:static |unsigned |const |struct |enum |typedef )*\w+[ *]++\w+\s*+\([^;]*+$)",
    definition=DEFINITION,
    missing=_GCC.missing,
    version=_GCC.version,
    assemble=assemble,
    build=_GCC.build,
    start=_GCC.start,
    examine=_GCC.examine,
    runnable=runnable,
)
