"""Model presets: the dimensions of the built-in architectures.

``architecture.create`` builds a Hugging Face causal model from a preset. This module imports no torch, so that recipes
and `gradatim list presets` stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Dimensions of one architecture. ``family`` is gpt (the published model), gpt2, llama or qwen3; ``mlp`` is the
    width of the feed-forward block.

    ``window``: every other layer, from the first, attends only to that many tokens, the current one included. ``tied``
    shares input and output embeddings: the loss on unpredictable tokens then also moves the input embeddings, and
    variable binding is learned later (docs/log.md).
    """

    family: str
    width: int
    layers: int
    heads: int
    mlp: int
    window: int = 0
    tied: bool = True


PRESETS: Registry[Preset] = Registry("preset")
PRESETS.constant(
    "paper",
    Preset("gpt", 120, 6, 6, 480, tied=False),
    "1.08M: the published character-level GPT; untied head with a bias, torch's initial weights (arXiv 2407.10194)",
)
PRESETS.constant(
    "gpt2-tied",
    Preset("gpt2", 120, 6, 6, 480),
    "1.08M: GPT-2 of the same size as paper: tied embeddings, no bias, weights from N(0, 0.02); formerly called paper",
)
PRESETS.constant(
    "modern",
    Preset("qwen3", 96, 8, 3, 256, 3, tied=False),
    "0.9M: RoPE, SwiGLU, QK norm, untied head; every other layer attends to three tokens",
)
PRESETS.constant(
    "modern-small",
    Preset("qwen3", 64, 6, 2, 192, 3, tied=False),
    "0.3M: modern, narrower and shallower, for comparisons over many runs",
)
PRESETS.constant(
    "llama",
    Preset("llama", 96, 4, 3, 256),
    "0.5M: four layers without windows or QK norm; the model of the published studies of cycles",
)
PRESETS.constant("small", Preset("gpt2", 64, 3, 2, 256), "0.16M: gpt2-tied, smaller, for laptops and demonstrations")
PRESETS.constant("tiny", Preset("llama", 32, 2, 2, 64), "0.02M: two layers of 32, for tests")
