"""``gradatim generate``: write TinyPy programs with what they print to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Workers, words

__all__ = ["EXAMPLES", "generate"]

EXAMPLES = (
    "gradatim generate programs.parquet --count 100000 --workers 2",
    "gradatim generate easy.txt --count 500 --level 1.1,1.2 --seed 3",
)


def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .parquet, .jsonl or .txt.")],
    count: Annotated[int, typer.Option(min=1, help="How many programs, spread evenly over the levels.")],
    level: Annotated[
        list[str] | None,
        typer.Option(help="Levels, with commas or given many times: 1.1 … 4.1, or all. (default: all)"),
    ] = None,
    digits: Annotated[int, typer.Option(help="The greatest number that a program says.")] = 9,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same file, byte for byte.")] = 0,
    dedupe: Annotated[bool, typer.Option(help="Leave out programs that were written before.")] = True,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Write random TinyPy programs, each with what it prints, to a file.

    The file is written whole or not at all. Programs that were dropped are counted by cause.
    """
    from ..programs import stream
    from ..table import SCHEMA, write_stream
    from ..table.write import check_format
    from .output import check_samples_file, output, print_json, table
    from .progress import watching

    levels = tuple(words(level or ["all"]))
    check_format(out)
    check_samples_file(out, "OUT")
    with watching() as events:
        programs = stream(count, levels=levels, digits=digits, seed=seed, dedupe=dedupe, workers=workers, events=events)
        write_stream(programs, out, schema=SCHEMA)
    facts = programs.facts
    if as_json:
        found = {
            name: {"kept": each.kept, "duplicates": each.duplicates, "dropped": dict(each.dropped)}
            for name, each in facts.levels.items()
        }
        print_json({"path": str(out), "kept": facts.kept, "levels": found})
        return
    rows = [
        (name, each.kept, each.duplicates, ", ".join(f"{why} {n:,}" for why, n in each.dropped.items()) or "0")
        for name, each in facts.levels.items()
    ]
    output().print(table(("level", "programs", "duplicates left out", "dropped"), rows))
    output().print(f"{facts.kept:,} programs in {out}", markup=False)
