"""``gradatim export``: a trained model as a plain Hugging Face folder."""

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
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder (its last model).")],
    out: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    merge: Annotated[bool, typer.Option("--merge", help="Merge the LoRA adapter into the base model.")] = False,
    as_json: Json = False,
) -> None:
    """Export a model as a plain Hugging Face folder; loading it does not need Gradatim.

    Without --merge, a LoRA adapter is exported as an adapter, which needs its base model.
    """
    from .output import output, print_json
    from .progress import watching

    with watching():
        from ..api import model_folder
        from ..model.merge import export as write

        source = model_folder(model)
        check_new_folder(out, "--out", [source])
        exported = write(source, out, merge=merge)
    if as_json:
        print_json(asdict(exported))
        return
    merged = f": {exported.parameters:,} parameters, adapter merged into {exported.merged}" if exported.merged else ""
    output().print(f"{exported.folder}{merged}", markup=False, highlight=False)
