"""How does training survive being killed?

A checkpoint is a folder, ``checkpoint``, that holds everything the next step depends on: ``model.safetensors``,
``optimizer.safetensors``, ``random.safetensors`` and ``state.json``. It is written to a temporary folder, flushed
and renamed, so a kill leaves the old one or the new one, never half of each. No pickles: nothing here can run code.
Of a student that learns an adapter only the adapter is kept, with a fingerprint of the base that it belongs to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialised
from torch import nn
from transformers import PreTrainedModel

from ..errors import RunFolderError
from ..model.load import adapter_names, check_base, fingerprint
from ..record import read_json, settle, write_atomically, write_folder, write_json
from .optimizers import Optimizers

__all__ = ["State", "load", "load_optimizers", "save", "save_auxiliary", "save_optimizers"]


@dataclass(frozen=True)
class State:
    """Where training stands. ``position`` is the batcher's; ``loss`` the last logged mean.

    ``pending``: sum and count of each column of the measure (``objective``) since then, one pair after the other.
    """

    step: int
    tokens: int
    position: dict[str, int]
    loss: float
    seconds: float
    pending: tuple[float, ...] = (0.0, 0.0)


def save(
    folder: Path, model: PreTrainedModel, optimizers: Optimizers, state: State, chance: torch.Tensor | None = None
) -> None:
    """Write the checkpoint ``folder``, replacing an older one. ``chance``: the random state that the next step begins
    with, the present one when left out."""

    def fill(target: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in _weights(model).items()}
        base = {"base": fingerprint(model)} if adapter_names(model) is not None else None
        save_file(weights, target / "model.safetensors", base)
        save_optimizers(optimizers, target)
        save_file({"cpu": torch.get_rng_state() if chance is None else chance}, target / "random.safetensors")
        write_json(target / "state.json", asdict(state))

    write_folder(folder, fill)


def save_optimizers(optimizers: Optimizers, folder: Path) -> None:
    """Write the state of the optimizers into ``folder``."""
    save_file(optimizers.tensors(), folder / "optimizer.safetensors")


def save_auxiliary(module: nn.Module, file: Path) -> None:
    """Write what was learnt beside the student (``objective.Measure``) to ``file``."""
    write_atomically(file, serialised({name: value.cpu().contiguous() for name, value in module.state_dict().items()}))


def load_optimizers(folder: Path, optimizers: Optimizers) -> None:
    """Take over the state that ``save_optimizers`` wrote; ``RunFolderError`` when it is not whole."""
    try:
        optimizers.load(load_file(folder / "optimizer.safetensors"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the optimizer that the stage before left is damaged",
            where=folder,
            given=error,
            hint="remove that stage's folder: it is learnt again",
        ) from error


def load(folder: Path, model: PreTrainedModel, optimizers: Optimizers) -> State | None:
    """Restore ``model`` and ``optimizers`` in place and return where they stood; None when there is no checkpoint.

    Raises ``RunFolderError`` when the checkpoint is damaged or of another model.
    """
    settle(folder)
    if not (folder / "state.json").exists():
        return None
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            check_base(model, (file.metadata() or {}).get("base"), folder)
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict(weights, strict=False)
        if differing := set(_weights(model)) ^ set(weights):
            raise KeyError(min(differing))
        optimizers.load(load_file(folder / "optimizer.safetensors"))
        torch.set_rng_state(load_file(folder / "random.safetensors")["cpu"])
        state: State = read_json(folder / "state.json", _state)
    except (SafetensorError, RuntimeError, KeyError, OSError) as error:
        raise RunFolderError(
            "this checkpoint is damaged or of another model",
            where=folder,
            given=error,
            hint="remove the folder: the stage starts again from its beginning",
        ) from error
    return state


def _state(values: Any) -> State:
    from pydantic import TypeAdapter

    return TypeAdapter(State).validate_python(values)


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, tied ones once: safetensors refuses tensors that share memory.

    Of a model with an adapter only what the adapter learns.
    """
    learnt = adapter_names(model)
    seen: set[int] = set()
    unique: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if learnt is not None and name not in learnt:
            continue
        if value.data_ptr() not in seen or value.numel() == 0:
            seen.add(value.data_ptr())
            unique[name] = value
    return unique
