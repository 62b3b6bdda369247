"""Training questions that are problems of the evaluation in other words, found by execution.

A reference answer that passes the tests of a problem solves that problem, however differently the question is worded;
runs of 13 words and similar texts (``novelty``) miss such pairs. Every function of an answer is run, in the sandbox, as
each problem's entry point, with its arguments in every order where it has up to ``MOST_PERMUTED``. Python only.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from ..evaluation.problems import Problem, Sample
from ..evaluation.verdicts import Candidate, judge
from ..sandbox.limits import Limits
from ..stage import Events, ignore_events

if TYPE_CHECKING:
    from ..sandbox.limits import Verdict


MOST_PERMUTED = 3
"""Most arguments that are tried in every order: 6 orders."""


@dataclass(frozen=True)
class SolvedProblem:
    """The answer at ``row`` solves the evaluation's problem ``problem`` by its function ``function``.

    ``order``: the position in the problem's arguments of each argument of the function; ascending unless permuted.
    """

    row: int
    problem: str
    function: str
    order: tuple[int, ...]


def solved_problems(
    answers: Sequence[str],
    problems: Mapping[str, Problem],
    *,
    workers: int = 1,
    seconds: float = 2.0,
    unsafe: bool = False,
    events: Events = ignore_events,
) -> tuple[SolvedProblem, ...]:
    """The problems that answers solve, in the order of answers and problems; each pair once.

    ``answers``: Python programs; one that does not parse solves nothing. Problems in other languages or without an
    entry point are skipped. ``seconds``: CPU time per program. Raises ``SandboxMissing`` without a sandbox.
    """
    trials = list(_trials(answers, problems))

    def candidate(problem: Problem, sample: Sample) -> Candidate | Verdict:
        return Candidate("", sample.text)

    samples = [Sample(trial.problem, _program(answers[trial.row], trial, problems), draw=n) for n, trial in trials]
    limits = Limits(cpu_seconds=seconds)
    judged = judge(
        problems, samples, workers=workers, limits=limits, unsafe=unsafe, events=events, candidate=candidate
    )
    passed = {item.sample.draw for item in judged if item.verdict.outcome == "passed"}
    solved: dict[tuple[int, str], SolvedProblem] = {}
    for number, trial in trials:
        if number in passed:
            solved.setdefault((trial.row, trial.problem), trial)
    return tuple(solved.values())


def _trials(
    answers: Sequence[str], problems: Mapping[str, Problem]
) -> Iterator[tuple[int, SolvedProblem]]:
    """Numbered pairs of an answer's function and a problem with as many arguments, in every order of those."""
    arity = {
        id: count
        for id, problem in problems.items()
        if problem.language == "python"
        and problem.entry_point is not None
        and (count := dict(_functions(problem.prompt)).get(problem.entry_point)) is not None
    }
    number = 0
    for row, answer in enumerate(answers):
        for name, (least, most) in _functions(answer):
            for id, (needed, _) in arity.items():
                if not least <= needed <= most:
                    continue
                orders = permutations(range(needed)) if needed <= MOST_PERMUTED else [tuple(range(needed))]
                for order in orders:
                    yield number, SolvedProblem(row, id, name, tuple(order))
                    number += 1


def _functions(program: str) -> list[tuple[str, tuple[int, int]]]:
    """The functions of a program at its top level, with the least and the largest number of positional arguments.

    A prompt that ends after its docstring is a program too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    functions = []
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and not statement.args.kwonlyargs:
            most = len(statement.args.posonlyargs) + len(statement.args.args)
            functions.append((statement.name, (most - len(statement.args.defaults), most)))
    return functions


def _program(answer: str, trial: SolvedProblem, problems: Mapping[str, Problem]) -> str:
    """The answer with its function under the name of the problem's entry point."""
    entry = problems[trial.problem].entry_point
    names = [f"argument_{number}" for number in range(len(trial.order))]
    call = ", ".join(names[position] for position in trial.order)
    # The inner name is bound first, since both functions may have one name.
    return (
        f"{answer}\n\n_answer = {trial.function}\n\n\ndef {entry}({', '.join(names)}):\n    return _answer({call})\n"
    )
