"""How good is a student, and how sure can one be of that?

A *suite* asks a student about a fixed table and counts what it gets right: whole outputs (``output``), the next
character after every prefix (``token``), the next line (``line``). Each of these has two protocols: ``greedy``, and
``paper``, which samples as 2407.10194 does. Two more ask about problems of a file: do the programs that a student
writes pass their tests (``functional``), and can it tell what a function does (``cruxeval``). One compares
the options of multiple-choice questions by how likely a model finds them (``choice``, whose file ``questions`` reads).
A suite is made by name with plain options and then called:

    suite = SUITES.get("output")(protocol="greedy", limit=1000)
    result = suite(load_student(folder), samples, seed=0)
    summary(result)["scores"]["accuracy"]       # {"value": 0.79, "low": 0.76, "high": 0.81}

Suites train nothing, and write no files unless they are told to keep what a student wrote. What they share:
``attempts`` (choosing samples, counting), ``intervals``, ``similarity``. How texts are written is ``student.decode``.

The road of code that is to be run, each a module: ``benchmarks`` (where a file is) → ``rows`` → ``problems``,
``samples`` (what it holds) → ``generation`` (what a model writes) → ``candidate`` (the program that a text makes) →
``judge`` (is it right) → ``verdicts`` (what is known already) → ``passk`` (the score). `gradatim check` walks it
without a model.
"""

from __future__ import annotations

from collections.abc import Callable

from ..registry import Registry
from ..stage import Suite
from .intervals import summary, wilson

__all__ = ["SUITES", "summary", "wilson"]


# Lazy members: listing the suites' names and checking a recipe must not wait for anything heavy.
SUITES: Registry[Callable[..., Suite]] = Registry("suite")
SUITES.lazy("output", "gradatim.evaluation.output:output", "what the program prints: whole outputs that are right")
SUITES.lazy("token", "gradatim.evaluation.completion:token", "the next character after every true prefix of a program")
SUITES.lazy(
    "line", "gradatim.evaluation.completion:line", "the next line after every true line: exact, and edit similarity"
)
SUITES.lazy(
    "functional",
    "gradatim.evaluation.functional:functional",
    "programs that pass their tests, run in a sandbox: pass@k",
)
SUITES.lazy(
    "cruxeval", "gradatim.evaluation.cruxeval:cruxeval", "what a Python function returns, or for which input (CRUXEval)"
)
SUITES.lazy("choice", "gradatim.evaluation.choice:choice", "multiple-choice questions: which option is likeliest")
