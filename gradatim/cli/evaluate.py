"""``gradatim evaluate``: how good is a student?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..files import check_output_folder
from ..parsing import parse_yaml
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
        typer.Argument(metavar="MODEL", help="A model folder, a run folder (its last model), or http://HOST/v1#NAME."),
    ],
    data: Annotated[Path | None, typer.Option(help="The samples to ask about: .parquet, .jsonl, .csv or .txt.")] = None,
    columns: Columns = None,
    suite: Annotated[str, typer.Option(help="What is asked (gradatim list suites).")] = "output",
    protocol: Annotated[
        str | None, typer.Option(help="greedy, or sampled: paper for most suites. (default: greedy)")
    ] = None,
    problems: Annotated[
        str | None, typer.Option(help="For functional and cruxeval: a file of problems, or a benchmark's name.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="For the same: the folder that keeps texts and verdicts; the command resumes.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another option of the suite; may be given many times."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many samples, chosen by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask a student about samples and count what it gets right.

    Intervals are Wilson's at 95 %: how sure the figure is for this one model, were it asked about other samples.
    """
    from .output import output, print_json
    from .progress import watching

    options: dict[str, Any] = {"protocol": protocol, "limit": limit, "problems": problems}
    options |= {"keep": None if keep is None else str(keep), **_options(changes or [])}
    if data is None and problems is None and suite != "cruxeval":
        raise UserError("which samples is it asked about?", where="--data", allowed="a file", hint="--data FILE")
    if keep is not None:
        check_output_folder(keep, "--keep")
    with watching(resumable=keep is not None) as events:
        from ..api import evaluate as ask
        from ..evaluation import summary

        given = {name: value for name, value in options.items() if value is not None}
        result = ask(model, data, suite, seed=seed, columns=mapping_of(columns), events=events, **given)
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
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError("an option is written key=value", where="--set", given=change, hint="--set samples=10")
        try:
            outer, _, inner = key.strip().partition(".")
            if outer in ARGUMENTS:
                raise UserError("no suite has this option", where="--set", given=change, hint=ARGUMENTS[outer])
            option = parse_yaml(value)
            if not inner:
                options[outer] = option
            elif isinstance(options.setdefault(outer, {}), dict):
                options[outer][inner] = option
            else:
                raise UserError("this option has no options of its own", where="--set", given=change)
        except ValueError as error:
            raise UserError("the value is not YAML", where=f"--set {key[:100]}", given=error) from error
    return options


def _tables(result: SuiteResult) -> list[Any]:
    from ..evaluation import summary, wilson
    from .output import table

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
