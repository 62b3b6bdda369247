"""Training questions that are problems of the evaluation in other words, found by execution.

An answer that passes the tests of a problem solves that problem, and a problem's reference solution that passes the
tests of a question answers that question, however differently both are worded; runs of 13 words and similar texts
(``novelty``) miss such pairs. Functions are run in the sandbox under the name that the tests use, with their arguments
in every order where there are up to ``MOST_PERMUTED``. Python only. Tests of a question may be few, so a pair that only
``solves_question`` finds is to be read before it is dropped.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from ..evaluation.problems import Problem, Sample
from ..evaluation.verdicts import Candidate, judge
from ..sandbox.limits import Limits
from ..stage import Events, ignore_events

if TYPE_CHECKING:
    from ..sandbox.limits import Verdict


MOST_PERMUTED = 3
"""Most arguments that are tried in every order: 6 orders."""


@dataclass(frozen=True)
class SameProblem:
    """The question at ``row`` and the evaluation's problem ``problem``, of which one is solved by the other's program.

    ``solves_problem``: the question's answer passes the problem's tests. ``solves_question``: the problem's reference
    solution passes the question's tests.
    """

    row: int
    problem: str
    solves_problem: bool
    solves_question: bool


@dataclass(frozen=True)
class _Trial:
    """A program that is run against the tests of another: ``function`` under the name ``entry`` in this ``order``."""

    row: int
    problem: str
    forward: bool
    function: str
    entry: str
    order: tuple[int, ...]


def same_problems(
    questions: Sequence[Mapping[str, Any]],
    problems: Mapping[str, Problem],
    *,
    workers: int = 1,
    seconds: float = 2.0,
    unsafe: bool = False,
    events: Events = ignore_events,
) -> tuple[SameProblem, ...]:
    """The pairs of a question and a problem of which one solves the other, in the order of questions and problems.

    ``questions``: rows with ``answer``, a Python program, and ``tests`` or None. A program that does not parse solves
    nothing; problems in other languages or without an entry point are skipped. ``seconds``: CPU time per program.
    Raises ``SandboxMissing`` without a sandbox.
    """
    trials = list(_trials(questions, problems))
    tested = {
        **{f"problem {id}": problem for id, problem in problems.items()},
        **{
            f"question {row}": Problem(f"question {row}", "python", "", str(question.get("tests") or ""))
            for row, question in enumerate(questions)
        },
    }
    samples = [
        Sample(f"problem {trial.problem}" if trial.forward else f"question {trial.row}", text, draw=number)
        for number, trial in enumerate(trials)
        for text in [_program(trial, questions, problems)]
    ]

    def candidate(problem: Problem, sample: Sample) -> Candidate | Verdict:
        return Candidate("", sample.text)

    judged = judge(
        tested, samples, workers=workers, limits=Limits(cpu_seconds=seconds), unsafe=unsafe, events=events,
        candidate=candidate,
    )  # fmt: skip
    solved = {item.sample.draw for item in judged if item.verdict.outcome == "passed"}
    directions: dict[tuple[int, str], set[bool]] = {}
    for number, trial in enumerate(trials):
        if number in solved:
            directions.setdefault((trial.row, trial.problem), set()).add(trial.forward)
    order = list(problems)
    return tuple(
        SameProblem(row, problem, True in forward, False in forward)
        for (row, problem), forward in sorted(
            directions.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    )


def _trials(questions: Sequence[Mapping[str, Any]], problems: Mapping[str, Problem]) -> Iterator[_Trial]:
    """Every function of one side as every function of the other with as many arguments, in every order of those."""
    entries = {
        id: (problem.entry_point, signature)
        for id, problem in problems.items()
        if problem.language == "python"
        and problem.entry_point is not None
        and (signature := _functions(problem.prompt).get(problem.entry_point)) is not None
    }
    for row, question in enumerate(questions):
        functions = _functions(str(question.get("answer") or ""))
        asked = {name: most for name, (_, most) in functions.items() if name in str(question.get("tests") or "")}
        for id, (entry, (least, most)) in entries.items():
            for name, (fewest, largest) in functions.items():
                if fewest <= most <= largest:
                    yield from (_Trial(row, id, True, name, entry, order) for order in _orders(most))
            if problems[id].reference:
                for name, arguments in asked.items():
                    if least <= arguments <= most:
                        yield from (_Trial(row, id, False, entry, name, order) for order in _orders(arguments))


def _orders(arguments: int) -> Iterator[tuple[int, ...]]:
    """The orders in which arguments are passed."""
    yield from permutations(range(arguments)) if arguments <= MOST_PERMUTED else [tuple(range(arguments))]


def _functions(program: str) -> dict[str, tuple[int, int]]:
    """The functions at the top level of a program, with the least and the largest number of positional arguments.

    A prompt that ends after its docstring is a program too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    functions = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and not statement.args.kwonlyargs:
            most = len(statement.args.posonlyargs) + len(statement.args.args)
            functions[statement.name] = (most - len(statement.args.defaults), most)
    return functions


def _program(trial: _Trial, questions: Sequence[Mapping[str, Any]], problems: Mapping[str, Problem]) -> str:
    """The program of one side with its function under the name that the other's tests use."""
    problem = problems[trial.problem]
    reference = problem.reference if problem.whole else problem.prompt + problem.reference
    program = str(questions[trial.row]["answer"]) if trial.forward else reference
    names = [f"argument_{number}" for number in range(len(trial.order))]
    call = ", ".join(names[position] for position in trial.order)
    # The function is bound to another name first, since both may have the same.
    return (
        f"{program}\n\n_answer = {trial.function}\n\n\n"
        f"def {trial.entry}({', '.join(names)}):\n    return _answer({call})\n"
    )
