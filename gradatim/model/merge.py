"""How does a student leave Gradatim?

A finished model folder is plain already, but for the student that learnt an adapter: ``export`` merges that into its
base and writes one whole model, weights and tokenizer, that opens anywhere. Without ``merge`` a folder is copied.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..files import check_new_folder
from ..record import write_new_folder
from .files import read_model_json
from .hardware import quiet
from .hub import base_below, is_adapter

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """What was written: where, numbers in the model, and the base whose adapter was merged; None where none was."""

    folder: str
    parameters: int | None
    merged: str | None


def export(model: Path, out: Path, *, merge: bool = False) -> Exported:
    """Write the model folder ``model`` to the new or empty folder ``out``.

    ``merge`` puts an adapter into its base; weights keep the type that they were trained beside. Raises ``UserError``
    when ``out`` holds anything, ``DataError`` when the model cannot be opened.
    """
    check_new_folder(out, "--out", [model])
    if not merge or not is_adapter(model):
        write_new_folder(out, lambda target: _copied(model, target))
        return Exported(str(out), None, None)
    from .load import open_adapter

    base = base_below(model)
    whole: Any = open_adapter(model, dtype=_dtype(model)).merge_and_unload()

    def fill(target: Path) -> None:
        with quiet():
            whole.save_pretrained(target)
        for file in model.iterdir():
            if file.is_file() and not (target / file.name).exists() and not file.name.startswith(("adapter_", "base.")):
                shutil.copy2(file, target / file.name)

    write_new_folder(out, fill)
    return Exported(str(out), sum(parameter.numel() for parameter in whole.parameters()), str(base))


def _copied(model: Path, target: Path) -> None:
    try:
        shutil.copytree(model, target, dirs_exist_ok=True)
    except OSError as error:
        raise DataError("the model cannot be copied", where=model, given=error) from error


def _dtype(folder: Path) -> torch.dtype:
    """The type of the base's weights, as its configuration beside the adapter says."""
    try:
        config = read_model_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise DataError("the model cannot be opened", where=folder, given=error) from error
    named = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return named if isinstance(named, torch.dtype) else torch.float32
