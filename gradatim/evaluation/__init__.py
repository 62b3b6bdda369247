"""Evaluation suites and their confidence intervals.

A *suite* evaluates a student on a fixed table and counts correct results: whole outputs (``output``), the next
character after every prefix (``token``), the next line (``line``). Each of these has two protocols: ``greedy``, and
``paper``, which samples as 2407.10194 does. Two more use the problems of a file: programs that pass their tests
(``functional``), and the prediction of a function's output or input (``cruxeval``). One compares the log-likelihoods of
the options of multiple-choice questions (``choice``). A suite is made by name with plain options and then called:

    suite = SUITES.get("output")(protocol="greedy", limit=1000)
    result = suite(load_student(folder), samples, seed=0)
    summary(result)["scores"]["accuracy"]       # {"value": 0.79, "low": 0.76, "high": 0.81}

Suites train nothing, and write files only with the option ``keep``. They share ``statistics`` (selection of samples,
counts, intervals, pass@k); ``inference.decode`` generates texts.

Stages of the evaluation of code, one module each: ``problems`` (files of problems and samples), ``generation``
(completions of a model), ``verdicts`` (the program of a completion, its execution, and a store of verdicts).
`gradatim check` runs them without a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..lazy import lazy_names
from ..registry import Contract, Registry
from ..stage import Suite

if TYPE_CHECKING:
    from .statistics import summary, wilson

__all__ = ["SUITES", "summary", "wilson"]


# Lazy members: listing the suites and checking a recipe load no heavy package.
SUITES: Registry[Callable[..., Suite]] = Registry("suite", contracts=(Contract(Suite, ("__call__",)),), arguments=0)
SUITES.lazy("output", "gradatim.evaluation.output:output", "the output of a program: exact match")
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
    "cruxeval", "gradatim.evaluation.cruxeval:cruxeval", "the output or an input of a Python function (CRUXEval)"
)
SUITES.lazy("episodes", "gradatim.evaluation.episodes:episodes", "the utility of a policy in a mobile network")
SUITES.lazy("choice", "gradatim.evaluation.choice:choice", "multiple-choice questions: the likeliest option")

__getattr__ = lazy_names(__name__, {"statistics": ("summary", "wilson")})
