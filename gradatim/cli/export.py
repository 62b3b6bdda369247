"""``gradatim export``: how does a student leave Gradatim?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..files import check_new_folder
from .options import Json

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "gradatim export runs/distill-coder --merge --out my-coder",
    "gradatim export runs/distill-coder/cycle-00/stage-00-all/model --out adapter",
)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder: its last model.")],
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.")],
    merge: Annotated[bool, typer.Option("--merge", help="Put an adapter into its base: one whole model.")] = False,
    as_json: Json = False,
) -> None:
    """Write a student as a plain Hugging Face folder that opens with nothing of Gradatim's.

    Without --merge, a student that learnt an adapter is written as that: it needs its base beside it.
    """
    from .output import output, print_json
    from .progress import watching

    with watching():
        from ..api import model_folder
        from ..model.merge import export as write

        source = model_folder(model)
        check_new_folder(out, "--out", [source])
        found = write(source, out, merge=merge)
    if as_json:
        print_json(asdict(found))
        return
    told = "" if found.parameters is None else f": {found.parameters:,} numbers, an adapter merged into {found.merged}"
    output().print(f"{found.folder}{told}", markup=False, highlight=False)
