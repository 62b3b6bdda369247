"""C++: one file, compiled by Debian's g++ on top of a precompiled header. See ``gcc`` for how it is built.

The header holds what HumanEval-X puts before every C++ program, so a candidate that forgets ``#include <string>`` is
judged as it is there. Two of its problems need Boost (``boost/any.hpp``) and one OpenSSL: Debian's ``libboost-dev``
and ``libssl-dev``.
"""

from __future__ import annotations

from typing import Any

from .c import DEFINITION, assemble, runnable
from .gcc import Gcc
from .language import Language

__all__ = ["CPP", "HEADERS"]

HEADERS = ("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream", "map")


def _grammar() -> Any:
    import tree_sitter_cpp

    return tree_sitter_cpp.language()


_GCC = Gcc("C++", "g++", "program.cpp", ("-std=gnu++17", "-O1"), "apt-get install g++ libc6-dev", HEADERS)

CPP = Language(
    name="cpp",
    title="C++",
    aliases=("c++", "cxx", "cc", "hpp", "cplusplus"),
    suffix=".cpp",
    grammar=_grammar,
    openers=r"^(?:#\s*(?:include|define)\b|using namespace |template\s*<|class \w+|struct \w+"
    r"|(?:static |unsigned |const |inline )*[\w:<>,]++[ *&]++\w+\s*+\([^;]*+$)",
    definition=DEFINITION,
    missing=_GCC.missing,
    version=_GCC.version,
    assemble=assemble,
    build=_GCC.build,
    start=_GCC.start,
    examine=_GCC.examine,
    runnable=runnable,
)
