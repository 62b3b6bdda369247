"""Export of a finished model folder, with an adapter merged into its base on request.

With ``merge``, ``export`` writes the weights of an adapter and its base as one standalone model with the tokenizer.
Other model folders are already standalone, and are copied.
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
from .hardware import quiet
from .hub import base_of_adapter, is_adapter, read_model_json
from .load import open_adapter


@dataclass(frozen=True)
class Exported:
    """The result of an export: the folder, and after a merge the parameter count and the base."""

    folder: str
    parameters: int | None
    merged: str | None


def export(model: Path, out: Path, *, merge: bool = False) -> Exported:
    """Write the model folder ``model`` to the new or empty folder ``out``.

    ``merge`` merges an adapter into its base; the weights keep the dtype of the base in training. Raises ``UserError``
    when ``out`` is not empty, ``DataError`` when the model cannot be opened.
    """
    check_new_folder(out, "--out", [model])
    if not merge or not is_adapter(model):
        write_new_folder(out, lambda target: _copy(model, target))
        return Exported(str(out), None, None)

    base = base_of_adapter(model)
    merged_model: Any = open_adapter(model, dtype=_dtype(model)).merge_and_unload()

    def fill(target: Path) -> None:
        with quiet():
            merged_model.save_pretrained(target)
        for file in model.iterdir():
            if file.is_file() and not (target / file.name).exists() and not file.name.startswith(("adapter_", "base.")):
                shutil.copy2(file, target / file.name)

    write_new_folder(out, fill)
    return Exported(str(out), sum(parameter.numel() for parameter in merged_model.parameters()), str(base))


def _copy(model: Path, target: Path) -> None:
    try:
        shutil.copytree(model, target, dirs_exist_ok=True)
    except OSError as error:
        raise DataError("the model cannot be copied", where=model, given=error) from error


def _dtype(folder: Path) -> torch.dtype:
    """The dtype of the base's weights, from the configuration in the adapter folder."""
    try:
        config = read_model_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise DataError("the model cannot be opened", where=folder, given=error) from error
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
