"""How does a batch go through a model?

The one place that knows how lines, segments and masks become what a Hugging Face causal model is called with. It knows
neither objectives nor optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..errors import RecipeError
from ..model.hardware import attention, compute_type, cpp_compiler, device
from ..model.kv_cache import additive_mask, sliding_window_of, window_mask
from ..model.settings import TrainSettings
from .batches import Batch
from .losses import token_losses

__all__ = ["Forward", "compiled", "labels_of", "make_logits", "make_losses", "make_outputs", "tensors"]


Forward = Callable[..., torch.Tensor]


def labels_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and answer mask on the device."""
    place = device()
    return torch.from_numpy(batch.labels).to(place), torch.from_numpy(batch.answer).to(place)


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    """Inputs, labels and answer mask, and with segments the positions and who may attend to whom."""
    place = device()
    parts = [torch.from_numpy(batch.inputs).to(place), *labels_of(batch)]
    if batch.segments is not None:
        segments = torch.from_numpy(batch.segments).to(place)
        places = torch.arange(segments.shape[1], device=place)
        opens = torch.ones_like(segments, dtype=torch.bool)
        opens[:, 1:] = segments[:, 1:] != segments[:, :-1]
        first = torch.where(opens, places, 0).cummax(dim=1).values
        same = (segments[:, :, None] == segments[:, None, :]) & (places[:, None] >= places[None, :])
        parts += [places - first, same[:, None]]
    return tuple(parts)


def make_outputs(model: Any, settings: TrainSettings, *, hidden: bool = False) -> Callable[..., Any]:
    """(inputs, [positions, mask]) -> what the model's class gives: ``logits`` of shape (size, length, vocabulary), and
    with ``hidden`` also ``hidden_states``, the embeddings and what each layer made of them (size, length, width).
    """
    kind = compute_type(settings.precision)
    plain = attention(settings.length) == "eager"
    window = sliding_window_of(model)
    # Known before a step is traced: what asks the machine inside of it cannot be compiled.
    cast = partial(torch.autocast, device().type, dtype=torch.bfloat16, enabled=kind is torch.bfloat16)

    def shown(mask: torch.Tensor) -> torch.Tensor:
        # Plain attention adds its mask to the scores; the fused one takes truth values.
        return additive_mask(mask, kind) if plain else mask

    if hidden:
        # transformers puts its hooks into the layers at the first such call, which must not be a compiled one.
        with torch.no_grad():
            one = torch.ones(1, 1, dtype=torch.long, device=device())
            model(input_ids=one, attention_mask=one, use_cache=False, output_hidden_states=True)

    def outputs(inputs: torch.Tensor, *context: torch.Tensor) -> Any:
        more: dict[str, Any] = {"output_hidden_states": True} if hidden else {}
        if context:
            positions, mask = context
            more |= {"position_ids": positions, "attention_mask": shown(mask)}
            if window:
                more["attention_mask"] = {
                    "full_attention": shown(mask),
                    "sliding_attention": shown(window_mask(mask, window)),
                }
        with cast():
            return model(input_ids=inputs, use_cache=False, **more)

    return outputs


def make_logits(model: Any, settings: TrainSettings) -> Forward:
    """(inputs, [positions, mask]) -> logits of shape (size, length, vocabulary)."""
    outputs = make_outputs(model, settings)

    def logits(inputs: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = outputs(inputs, *context).logits
        return made

    return logits


def make_losses(model: Any, settings: TrainSettings) -> Forward:
    """(inputs, labels, [positions, mask]) -> cross-entropy of each place, see ``token_losses``."""
    logits = make_logits(model, settings)

    def losses(inputs: torch.Tensor, labels: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        return token_losses(logits(inputs, *context), labels)

    return losses


def compiled(function: Forward, settings: TrainSettings) -> Forward:
    """``function``, compiled when the settings ask for it; ``RecipeError`` where nothing can compile."""
    if not settings.compile:
        return function
    if device().type == "cpu" and cpp_compiler() is None:
        raise RecipeError(
            "a compiled step needs a C++ compiler, and there is none",
            where="train.compile",
            given="true",
            allowed="false, or true with g++ or clang++ on the PATH",
            hint="apt install g++, or --set train.compile=false",
        )
    made: Forward = torch.compile(function, dynamic=False)
    return made
