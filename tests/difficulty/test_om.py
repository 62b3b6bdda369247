"""Cyclomatic complexity, Halstead difficulty and OM against radon: TinyPy, the standard library, odd cases."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
from radon.metrics import h_visit_ast
from radon.visitors import ComplexityVisitor

from gradatim.difficulty.complexity import overall_metric, radon_scores
from gradatim.difficulty.python_source import scored_text
from gradatim.programs import generate


def ours(tree: ast.Module) -> tuple[float, float, float]:
    return *radon_scores(tree), overall_metric(tree)


def radons(tree: ast.Module) -> tuple[float, float, float]:
    """What radon makes of the tree that it would parse from the same text."""
    complexity = ComplexityVisitor.from_ast(tree).total_complexity
    halstead = h_visit_ast(tree).total.difficulty
    return complexity, halstead, (complexity + halstead) / 2


def library_files() -> list[Path]:
    """The standard library in a fixed order, its own tests included, installed packages not."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]


def compare(files: Iterable[Path]) -> tuple[int, int, list[str]]:
    """Files compared, files that radon cannot process, and those whose figures differ."""
    compared, skipped, different = 0, 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                with tokenize.open(path) as file:
                    tree = ast.parse(file.read())
                expected = radons(tree)
            except (SyntaxError, UnicodeError, ValueError, RecursionError):
                skipped += 1
                continue
            compared += 1
            if ours(tree) != expected:
                different.append(path.name)
    return compared, skipped, different


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_om_is_radons_on_tinypy_programs(count: int) -> None:
    table = generate(count, seed=11).table
    texts = list(map(scored_text, table["prompt"].to_pylist(), table["answer"].to_pylist()))
    assert len(set(texts)) == count
    different = []
    for text in texts:
        tree = ast.parse(text)
        if overall_metric(tree) != radons(tree)[2]:
            different.append(text)
    assert not different


def test_om_is_radons_on_one_in_forty_files_of_the_standard_library() -> None:
    compared, skipped, different = compare(library_files()[::40])
    assert not different
    assert compared > 15
    assert skipped < compared / 20


@pytest.mark.slow
def test_om_is_radons_on_every_file_of_the_standard_library() -> None:
    compared, skipped, different = compare(library_files())
    print(f"{compared} files compared, {skipped} that radon cannot process")
    assert not different
    assert skipped < compared / 20


@pytest.mark.parametrize(
    "source",
    [
        "",
        "'only a docstring'\n",
        "x = 1 + 1.0 + True\n",  # equal constants are one operand
        "x = a + b.a + 'a'\n",  # so are a name, an attribute and a string spelt alike
        "x = f(1) + f(1)\n",  # two calls are not
        "x = -(-a)\ny = not a\nx += a\n",
        "x = 1 < a < 3 <= b != c\n",
        "def f(x=1 + 2 if y else 3):\n    return x * 2\n\ndef g(x):\n    return x * 2\n",
        "def f():\n    return x + y\n\ndef f():\n    return x + y\n",
        "def f():\n    def g():\n        if a: b\n    class C:\n        if a: b\n    return [x for x in y if x]\n",
        "class A(B if c else D):\n  x = 1 if y else 2\n  def m(self):\n    if a: b\n  class I:\n    if a: b\n",
        "class A:\n    if x:\n        def m(self):\n            while a: b\n",
        "@d(1 + 2)\nclass A:\n    pass\n\n@d(1 + 2)\ndef f(): pass\n",
        "async def f():\n    async for x in y:\n        pass\n    else:\n        pass\n    async with a: b\n",
        "try:\n    a\nexcept B:\n    c\nexcept D:\n    e\nelse:\n    f\nfinally:\n    g\n",
        "try:\n    a\nexcept* B:\n    if c: d\n",
        "assert a and b, [x for x in y]\n",
        "f = lambda x: x if x else (y and z or w)\n",
        "match x:\n    case 1:\n        pass\n    case [a, *b]:\n        pass\n    case _:\n        pass\n",
        "match x:\n    case _:\n        a + b\n",
        "match x:\n    case {'k': 1, **r}:\n        pass\n    case P(1, k=2) if x > 3:\n        pass\n",
        "x = [a for a in b if c if d for e in f]\ny = {a: b for a in b}\nz = (a for a in b)\n",
        "for i in range(9):\n    if i: continue\nelse:\n    pass\nwhile x: break\nelse:\n    y\n",
        "x = f'{a + b} {c!r:>{w}}'\ny: int = a @ b\nz = a[1:2] << 3\nx = (y := 5) + y\n",
        "if a:\n    def f(): return 1 + 1\nelif b:\n    class C:\n        def m(self): return 2 * 2\n",
    ],
)
def test_om_is_radons_where_radon_is_odd(source: str) -> None:
    tree = ast.parse(source)
    assert ours(tree) == radons(tree)


def test_a_plain_loop_is_easy_for_om_as_the_paper_has_it() -> None:
    assert ours(ast.parse("for i in range(2, 8, 2) :\n\tprint(i)\n")) == (2, 0, 1)
