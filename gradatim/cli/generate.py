"""``gradatim generate``: random TinyPy programs with their output, written to a file."""

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
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output file: .parquet, .jsonl or .txt.")],
    count: Annotated[int, typer.Option(min=1, help="Number of programs, spread evenly over the levels.")],
    level: Annotated[
        list[str] | None,
        typer.Option(help="Levels (1.1 … 4.1, or all), comma-separated or repeated. (default: all)"),
    ] = None,
    digits: Annotated[int, typer.Option(help="Largest integer literal.")] = 9,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; the same seed gives the same file, byte for byte.")
    ] = 0,
    dedupe: Annotated[bool, typer.Option(help="Drop duplicate programs.")] = True,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Generate random TinyPy programs with their output.

    The file is written atomically. Dropped programs are counted by cause.
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
        counts = {
            name: {"kept": level.kept, "duplicates": level.duplicates, "dropped": dict(level.dropped)}
            for name, level in facts.levels.items()
        }
        print_json({"path": str(out), "kept": facts.kept, "levels": counts})
        return
    rows = [
        (name, level.kept, level.duplicates, ", ".join(f"{why} {n:,}" for why, n in level.dropped.items()) or "0")
        for name, level in facts.levels.items()
    ]
    output().print(table(("level", "programs", "duplicates dropped", "dropped"), rows))
    output().print(f"{facts.kept:,} programs in {out}", markup=False)
