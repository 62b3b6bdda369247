"""Programming languages of candidates: extraction, parsing, compilation and judging of their code.

    language      the contract of a language; code in a reply; parsing (tree-sitter); compile, run and judge a program
    thinking      fenced blocks as CommonMark defines them, and removal of a model's thinking from its reply
    toolchain     compilers and runtimes, and the cache of their results
    static        properties of code without tests: complete, parses, compiles, runs, warnings
    gcc           C and C++ (``gcc_harness``: the texts around a program and its tests)
    go, java, javascript, python, typescript     one language each

``LANGUAGES.get("cpp")`` is a ``Language``; ``named("c++")`` finds one by any of its names. This package runs nothing
without a sandbox and installs nothing: ``Language.missing()`` returns the command that would.
"""

from __future__ import annotations

from ..registry import Registry
from .language import Built, Examined, Extracted, Fault, Language, Program

__all__ = ["LANGUAGES", "Built", "Examined", "Extracted", "Fault", "Language", "Program", "named"]

LANGUAGES: Registry[Language] = Registry("language", instance=Language)

for _name, _attribute, _summary in (
    ("c", "C", "gcc; tests are plain asserts."),
    ("cpp", "CPP", "g++ on a precompiled header; tests are plain asserts."),
    ("go", "GO", "The Go compiler and linker; tests are functions TestX(t *testing.T) with testify's assert."),
    ("java", "JAVA", "javac and java; tests are a class Main that throws."),
    ("javascript", "JAVASCRIPT", "node; tests use console.assert or node:assert."),
    ("python", "PYTHON", "Python; verdicts on untrusted code are the PythonChecker's."),
    ("typescript", "TYPESCRIPT", "tsc, then node; types are not checked before running."),
):
    _module = "gcc" if _name in ("c", "cpp") else _name
    LANGUAGES.lazy(_name, f"{__name__}.{_module}:{_attribute}", _summary)


def named(name: str, where: str | None = None) -> Language:
    """The language with the name or alias ``name``; ``UnknownPart`` with the nearest name otherwise."""
    plain = name.strip().lower()
    if plain not in LANGUAGES:
        for entry in LANGUAGES:
            language = LANGUAGES.get(entry.name)
            if plain in language.aliases:
                return language
    return LANGUAGES.get(plain, where)
