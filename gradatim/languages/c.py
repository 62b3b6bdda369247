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
_DEFINITION = re.compile(DEFINITION, re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)")
_DECLARING = re.compile(r"\s*+(?:$|#|using\b[^;{}]*+;\s*+$)")
_LOCAL = re.compile(r"(?:static|inline|template|constexpr|auto)\b")
_MAIN = re.compile(r"^[ \t]*(?:int|auto|void)\s+main\s*\(", re.MULTILINE)
CALL = "gradatim_candidate_main"


def _grammar() -> Any:
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
