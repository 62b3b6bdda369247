"""Which languages can a candidate be written in, and what can be done with code in each?

    language      what a language is: names, grammar, toolchain; ``Program``, ``Fault``, ``Extracted``
    thinking      a model's thinking, taken out of its reply
    fences        fenced blocks, as CommonMark has them
    extract       the code in a model's reply
    grammar       does it parse (tree-sitter)
    toolchain     compilers, runtimes, and the cache of what they made
    compiled      a program is compiled once
    check         compile, run, judge; the success mark and the risk that remains
    static        what can be told without tests: complete, parses, compiles, runs, warnings
    c, cpp (gcc, gcc_harness), go, java, javascript, python, typescript (javascript)     one language each

``LANGUAGES.get("cpp")`` is a ``Language``; ``named("c++")`` finds one by any of its names. This package runs nothing
without a sandbox, and installs nothing: ``Language.missing()`` tells the command that would.
"""

from __future__ import annotations

from ..registry import Registry
from .language import Built, Examined, Extracted, Fault, Language, Program

__all__ = ["LANGUAGES", "Built", "Examined", "Extracted", "Fault", "Language", "Program", "named"]

LANGUAGES: Registry[Language] = Registry("language")

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
    """The language called ``name`` in any of its spellings; ``UnknownPart`` with the nearest otherwise."""
    plain = name.strip().lower()
    if plain not in LANGUAGES:
        for entry in LANGUAGES:
            language = LANGUAGES.get(entry.name)
            if plain in language.aliases:
                return language
    return LANGUAGES.get(plain, where)
