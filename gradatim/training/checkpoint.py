"""Checkpoints of a stage: weights, optimizer, random state and progress, as safetensors and JSON.

A checkpoint is a folder, written beside the old one and renamed. The state of an optimizer and the weights of auxiliary
modules, with which a later stage continues, are stored the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialised
from torch import nn

from ..errors import RunFolderError
from ..model.hardware import random_state, set_random_state
from ..model.load import adapter_names, check_base, fingerprint
from ..record import read_json, settle, write_atomically, write_folder, write_json
from .optimizers import Optimizers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class State:
    """The progress of training. ``position`` belongs to the batcher; ``loss`` is the last logged mean.

    ``pending``: sum and count of each term of the loss (``objective.Term``) since then, one pair after the other.
    """

    step: int
    tokens: int
    position: dict[str, int]
    loss: float
    seconds: float
    pending: tuple[float, ...] = (0.0, 0.0)


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    optimizers: Optimizers,
    state: State,
    rng_state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the checkpoint ``folder``, replacing an older one.

    ``rng_state``: ``hardware.random_state`` at the beginning of the next step; the present one by default.

    ``checkpoint`` holds ``model.safetensors``, ``optimizer.safetensors``, ``random.safetensors`` and
    ``state.json``. It is written to a temporary folder, flushed and renamed, so that an interrupted process leaves
    either the old checkpoint or the new one. There are no pickles, which could execute code. Of a model with a LoRA
    adapter only the adapter is stored, with a fingerprint of its base model.
    """

    def fill(target: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in weights_of(model).items()}
        base = {"base": fingerprint(model)} if adapter_names(model) is not None else None
        save_file(weights, target / "model.safetensors", base)
        save_optimizers(optimizers, target)
        save_file(dict(random_state() if rng_state is None else rng_state), target / "random.safetensors")
        write_json(target / "state.json", asdict(state))

    write_folder(folder, fill)


def save_optimizers(optimizers: Optimizers, folder: Path) -> None:
    """Write the state of the optimizers into ``folder``."""
    save_file(optimizers.tensors(), folder / "optimizer.safetensors")


def save_auxiliary(module: nn.Module, file: Path) -> None:
    """Write the weights of auxiliary modules (``objective.Loss.auxiliary``) to ``file``."""
    write_atomically(file, serialised({name: value.cpu().contiguous() for name, value in module.state_dict().items()}))


def load_optimizers(folder: Path, optimizers: Optimizers) -> None:
    """Load the state that ``save_optimizers`` wrote; ``RunFolderError`` when it is damaged or incomplete."""
    try:
        optimizers.load(load_file(folder / "optimizer.safetensors"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the optimizer state of the stage before is damaged",
            where=folder,
            given=error,
            hint="remove that stage's folder: it is trained again",
        ) from error


def load_checkpoint(folder: Path, model: PreTrainedModel, optimizers: Optimizers) -> State | None:
    """Restore ``model`` and ``optimizers`` in place and return the state; None when there is no checkpoint.

    Raises ``RunFolderError`` when the checkpoint is damaged or belongs to another model.
    """
    settle(folder)
    if not (folder / "state.json").exists():
        return None
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            check_base(model, (file.metadata() or {}).get("base"), folder)
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict(weights, strict=False)
        if differing := set(weights_of(model)) ^ set(weights):
            raise KeyError(min(differing))
        optimizers.load(load_file(folder / "optimizer.safetensors"))
        set_random_state(load_file(folder / "random.safetensors"))
        state: State = read_json(folder / "state.json", _state)
    except (SafetensorError, RuntimeError, KeyError, OSError) as error:
        raise RunFolderError(
            "this checkpoint is damaged or belongs to another model",
            where=folder,
            given=error,
            hint="remove the folder: the stage starts again from its beginning",
        ) from error
    return state


def _state(values: Any) -> State:
    from pydantic import TypeAdapter

    return TypeAdapter(State).validate_python(values)


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, tied ones once: safetensors refuses tensors that share memory.

    Of a model with an adapter only the parameters of the adapter.
    """
    adapter = adapter_names(model)
    addresses: set[int] = set()
    unique: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if adapter is not None and name not in adapter:
            continue
        if value.data_ptr() not in addresses or value.numel() == 0:
            addresses.add(value.data_ptr())
            unique[name] = value
    return unique
