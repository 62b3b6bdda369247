"""Programs that are right, wrong and crashing, made from HumanEval's own solutions: always the same ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy

from gradatim.evaluation.problems import Problem, Sample

__all__ = ["mixed", "wrong"]

CRASHING = (
    "    raise ValueError('no')\n",
    "    return undefined_name\n",
    "    return 1 / 0\n",
    "    import sys\n    sys.exit(0)\n",
    "    assert False\n",
    "    return {name}(\n",
    "    return {name}(*[None] * 9)\n",
    "    this is no Python\n",
)
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
MUTANTS = 10


def mixed(problem: Problem) -> list[Sample]:
    """Right ones (the reference, and three that say the same otherwise), mutants, crashing ones."""
    reference = problem.reference
    right = [
        reference,
        f"    # a remark\n    unused = 'x'\n{reference}",
        f"{reference}\n\ndef helper_of_nobody():\n    return 1 / 0\n",
        f"    print('talking')\n{reference}",
    ]
    number = sum(map(ord, problem.id))
    crashing = [CRASHING[number % len(CRASHING)], CRASHING[(number + 3) % len(CRASHING)]]
    found = [*right, *mutants(problem), *(text.format(name=problem.entry_point) for text in crashing)]
    return [Sample(problem.id, text, draw=draw) for draw, text in enumerate(found)]


def wrong(problem: Problem) -> Sample:
    """A program whose result is none of any problem's."""
    return Sample(problem.id, "    return ('this is', 'not it', 1.5)\n")


def mutants(problem: Problem) -> list[str]:
    """Up to ``MUTANTS`` bodies, each with one operator, constant or result changed, spread over the body."""
    tree = ast.parse(problem.prompt + problem.reference)
    places = list(_places(_asked(tree, problem)))
    step = max(1, len(places) // MUTANTS)
    found = []
    for place in places[::step][:MUTANTS]:
        copy = deepcopy(tree)
        function = _asked(copy, problem)
        _change(list(_places(function))[places.index(place)])
        body = ast.unparse(ast.fix_missing_locations(function)).split("\n", 1)[1]
        found.append(body + "\n")
    return found


def _asked(tree: ast.Module, problem: Problem) -> ast.FunctionDef:
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == problem.entry_point]
    return functions[-1]


def _places(function: ast.FunctionDef) -> Iterator[ast.AST]:
    for statement in function.body:
        for node in ast.walk(statement):
            changeable = isinstance(node, ast.Return) and node.value is not None
            if isinstance(node, ast.Constant):
                changeable = isinstance(node.value, int | float)
            elif isinstance(node, ast.BinOp | ast.BoolOp):
                changeable = type(node.op) in SWAPPED
            elif isinstance(node, ast.Compare):
                changeable = type(node.ops[0]) in SWAPPED
            if changeable:
                yield node


def _change(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=value):
            node.value = value + 1  # type: ignore[operator]
        case ast.BinOp() | ast.BoolOp():
            node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
        case ast.Compare():
            node.ops[0] = SWAPPED[type(node.ops[0])]()  # type: ignore[assignment]
        case ast.Return(value=value):
            node.value = ast.List([value], ast.Load())  # type: ignore[list-item]
