"""``gradatim evaluate``: how good is a student?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json

if TYPE_CHECKING:
    from ..stage import SuiteResult

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "gradatim evaluate runs/smoke-baseline --data programs.parquet",
    "gradatim evaluate MODEL --suite output --protocol paper --data programs.parquet --limit 1000 --json",
)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder: its last model.")],
    data: Annotated[Path, typer.Option(help="The samples to ask about: .parquet, .jsonl or .txt.")],
    suite: Annotated[str, typer.Option(help="What is asked (gradatim list suites).")] = "output",
    protocol: Annotated[str | None, typer.Option(help="greedy, or paper: sampled. (default: greedy)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many samples, chosen by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask a student about samples and count what it gets right.

    Intervals are Wilson's at 95 %: how sure the figure is for this one model, were it asked about other samples.
    """
    from .progress import watching
    from .show import output, print_json

    options: dict[str, Any] = {"protocol": protocol, "limit": limit}
    with watching() as events:
        from ..api import evaluate as ask
        from ..evaluate import summary

        given = {name: value for name, value in options.items() if value is not None}
        result = ask(model, data, suite, seed=seed, events=events, **given)
    if as_json:
        print_json(summary(result))
        return
    for block in _tables(result):
        output().print(block)


def _tables(result: SuiteResult) -> list[Any]:
    from ..evaluate import summary, wilson
    from .show import table

    found = summary(result)
    scores = [
        (name, f"{each['value']:.1%}", f"{each['low']:.1%} to {each['high']:.1%}")
        for name, each in found["scores"].items()
    ]
    counts = ", ".join(f"{number:,} {name}" for name, number in found["counts"].items() if number)
    blocks: list[Any] = [table((f"{result.suite} ({result.protocol})", "value", "95 % interval"), scores), counts]
    for group, members in result.counts.items():
        if group in ("all", "outcome") or set(members) == {"none"}:
            continue
        rows = []
        for value, each in members.items():
            low, high = wilson(each.passed, each.total)
            share = f"{each.passed / each.total:.1%}" if each.total else None
            rows.append((value, each.passed, each.total, share, f"{low:.1%} to {high:.1%}"))
        blocks.append(table((group, "right", "of", "accuracy", "95 % interval"), rows))
    return blocks
