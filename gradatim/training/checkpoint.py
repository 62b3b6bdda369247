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
from .sharding import divided, gathered, is_sharded
from .weight_averaging import WeightAverage

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


@dataclass(frozen=True)
class Snapshot:
    """The tensors of a checkpoint; of a sharded model whole ones, which all processes gather and one writes."""

    weights: Mapping[str, torch.Tensor]
    optimizers: Mapping[str, torch.Tensor]
    base: dict[str, str] | None
    rng_state: Mapping[str, torch.Tensor]
    average: Mapping[str, torch.Tensor]


def take_snapshot(
    model: PreTrainedModel,
    optimizers: Optimizers,
    average: WeightAverage | None = None,
    rng_state: Mapping[str, torch.Tensor] | None = None,
) -> Snapshot:
    """The present tensors. ``rng_state``: ``hardware.random_state`` at the beginning of the next step, by default now.

    Of a model with a LoRA adapter only the adapter, with a fingerprint of its base model.
    """
    base = {"base": fingerprint(model)} if adapter_names(model) is not None else None
    return Snapshot(
        {name: value.contiguous() for name, value in gathered_weights(model).items()},
        optimizers.tensors(),
        base,
        random_state() if rng_state is None else rng_state,
        {} if average is None else average.tensors(),
    )


def save_checkpoint(folder: Path, snapshot: Snapshot, state: State) -> None:
    """Write the checkpoint ``folder``, replacing an older one.

    ``checkpoint`` holds ``model.safetensors``, ``optimizer.safetensors``, ``random.safetensors``, ``state.json`` and,
    once weights are averaged, ``average.safetensors``. It is written to a temporary folder, flushed and renamed, so
    that an interrupted process leaves either the old checkpoint or the new one. There are no pickles, which could
    execute code.
    """

    def fill(target: Path) -> None:
        save_file(dict(snapshot.weights), target / "model.safetensors", snapshot.base)
        save_optimizers(snapshot.optimizers, target)
        save_file(dict(snapshot.rng_state), target / "random.safetensors")
        if snapshot.average:
            save_file(dict(snapshot.average), target / _AVERAGE)
        write_json(target / "state.json", asdict(state))

    write_folder(folder, fill)


_AVERAGE = "average.safetensors"


def gathered_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """``weights_of`` as whole tensors on the CPU; of a sharded model a collective."""
    return {name: gathered(value.detach()).cpu() for name, value in weights_of(model).items()}


def save_optimizers(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the state of the optimizers (``Optimizers.tensors``) into ``folder``."""
    save_file(dict(tensors), folder / "optimizer.safetensors")


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


def load_checkpoint(
    folder: Path, model: PreTrainedModel, optimizers: Optimizers, average: WeightAverage | None = None
) -> State | None:
    """Restore ``model``, ``optimizers`` and ``average`` in place and return the state; None without a checkpoint.

    Raises ``RunFolderError`` when the checkpoint is damaged or belongs to another model.
    """
    settle(folder)
    if not (folder / "state.json").exists():
        return None
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            check_base(model, (file.metadata() or {}).get("base"), folder)
        weights = load_file(folder / "model.safetensors")
        present = weights_of(model)
        if differing := set(present) ^ set(weights):
            raise KeyError(min(differing))
        model.load_state_dict({name: divided(weights[name], present[name]) for name in present}, strict=False)
        optimizers.load(load_file(folder / "optimizer.safetensors"))
        if average is not None and (folder / _AVERAGE).exists():
            average.load(load_file(folder / _AVERAGE))
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
    for name, value in model.state_dict(keep_vars=True).items():
        if adapter is not None and name not in adapter:
            continue
        address = id(value) if is_sharded(value) else value.data_ptr()
        if address not in addresses or value.numel() == 0:
            addresses.add(address)
            unique[name] = value
    return unique
