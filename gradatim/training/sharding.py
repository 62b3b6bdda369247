"""Sharded training (FSDP2): weights, gradients and optimizer state divided among the processes of a training.

For pretrained models larger than a device. Each layer's weights are gathered for its forward and backward pass only
(``torch.distributed.fsdp.fully_shard``). Files hold whole tensors, as without sharding, so that a run may change
between both. The functions for tensors accept plain ones and return them unchanged. Gathering is a collective: all
processes call it, in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..model.hardware import device
from ..processes import Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard(model: PreTrainedModel, processes: Processes) -> None:
    """Divide the parameters of ``model`` among ``processes``, layer by layer, on their devices."""
    from torch.distributed.fsdp import fully_shard

    mesh = processes.mesh(device().type)
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether the elements of ``tensor`` are divided among processes."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """All elements of ``tensor``."""
    whole: torch.Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def divided(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``whole``, divided as ``like`` where that is sharded and has its shape."""
    if not is_sharded(like) or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(whole.to(like.device), mesh, placements)


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and configuration without weights, to save gathered ones with."""
    with torch.device("meta"):
        empty: PreTrainedModel = type(model)(model.config)
    empty.generation_config = model.generation_config
    return empty


def reshard(model: nn.Module) -> None:
    """Drop the gathered parameters of ``model``: the next forward pass gathers the present ones.

    FSDP keeps those of the root gathered after a forward pass, so a change of the divided ones would not be seen.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def unsharded_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters whose gradients are added over the processes; FSDP adds those of sharded ones."""
    return [p for p in model.parameters() if p.requires_grad and not is_sharded(p)]
