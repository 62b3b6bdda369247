"""``gradatim evaluate``: accuracy of a model on a dataset, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..files import check_output_folder
from ..options import override
from .options import Columns, Json, mapping_of

if TYPE_CHECKING:
    from ..stage import SuiteResult

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "gradatim evaluate runs/smoke-baseline --data programs.parquet",
    "gradatim evaluate MODEL --suite output --protocol paper --data programs.parquet --limit 1000 --json",
    "gradatim evaluate MODEL --suite functional --problems humaneval --keep samples/",
    "gradatim evaluate http://localhost:8000/v1#NAME --suite functional --problems humaneval --set chat=true",
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model folder, run folder (its last model), or http://HOST/v1#NAME."),
    ],
    data: Annotated[Path | None, typer.Option(help="Dataset: .parquet, .jsonl, .csv or .txt.")] = None,
    columns: Columns = None,
    suite: Annotated[str, typer.Option(help="Evaluation suite (gradatim list suites).")] = "output",
    protocol: Annotated[
        str | None, typer.Option(help="greedy, or a sampled protocol (paper in most suites). (default: greedy)")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="functional, cruxeval: problem file or benchmark name.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="functional, cruxeval: folder for completions and verdicts, from which the command resumes."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of the suite; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples to evaluate, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a dataset; report accuracy with 95 % Wilson intervals.

    The intervals cover the sampling of test items for this one model, not the variation between training seeds.
    """
    from .output import output, print_json
    from .progress import watching

    options: dict[str, Any] = {"protocol": protocol, "limit": limit, "problems": problems}
    options |= {"keep": None if keep is None else str(keep), **_options(changes or [])}
    if data is None and problems is None and suite != "cruxeval":
        raise UserError("a dataset is needed", where="--data", allowed="a file", hint="--data FILE")
    if keep is not None:
        check_output_folder(keep, "--keep")
    with watching(resumable=keep is not None) as events:
        from ..api import evaluate as run_suite
        from ..evaluation import summary

        options = {name: value for name, value in options.items() if value is not None}
        result = run_suite(model, data, suite, seed=seed, columns=mapping_of(columns), events=events, **options)
    if as_json:
        print_json(summary(result))
        return
    for block in _tables(result):
        output().print(block)


ARGUMENTS = {
    "model": "MODEL",
    "data": "--data FILE",
    "suite": "--suite NAME",
    "seed": "--seed NUMBER",
    "columns": "--columns OURS=THEIRS",
    "events": None,
}
"""Parameters of ``api.evaluate`` that are no options of a suite, and the command's own way to set them."""


def _options(changes: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for change in changes:
        (outer, *inner), value = override(change, hint="--set samples=10")
        if outer in ARGUMENTS:
            raise UserError("no suite has this option", where="--set", given=change, hint=ARGUMENTS[outer])
        if not inner:
            options[outer] = value
        elif isinstance(options.setdefault(outer, {}), dict):
            options[outer][".".join(inner)] = value
        else:
            raise UserError("this option has no nested options", where="--set", given=change)
    return options


def _tables(result: SuiteResult) -> list[Any]:
    from ..evaluation import summary, wilson
    from .output import table

    plain = summary(result)
    scores = [
        (name, f"{score['value']:.1%}", f"{score['low']:.1%} to {score['high']:.1%}")
        for name, score in plain["scores"].items()
    ]
    counts = ", ".join(f"{number:,} {name}" for name, number in plain["counts"].items() if number)
    blocks: list[Any] = [table((f"{result.suite} ({result.protocol})", "value", "95 % interval"), scores), counts]
    for group, members in result.counts.items():
        if group in ("all", "outcome") or set(members) == {"none"}:
            continue
        rows = []
        for value, count in members.items():
            low, high = wilson(count.passed, count.total)
            share = f"{count.passed / count.total:.1%}" if count.total else None
            rows.append((value, count.passed, count.total, share, f"{low:.1%} to {high:.1%}"))
        blocks.append(table((group, "correct", "total", "accuracy", "95 % interval"), rows))
    return blocks
