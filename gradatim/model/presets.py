"""Which architectures can a student have?

A preset is one row of numbers; ``architecture.create`` turns it into a Hugging Face causal model. This module
imports no torch, so that recipes and `gradatim list presets` stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry

__all__ = ["PRESETS", "Shape"]


@dataclass(frozen=True)
class Shape:
    """One architecture as data. ``family`` is gpt (the published model), gpt2, llama or qwen3; ``mlp`` is the width
    inside the feed-forward part.

    With a ``window`` every other layer, the first among them, attends to so many tokens only, its own included. When
    ``tied``, one matrix reads tokens and writes them; what cannot be guessed then shakes the names that are read, and
    they find their values late (docs/log.md).
    """

    family: str
    width: int
    layers: int
    heads: int
    mlp: int
    window: int = 0
    tied: bool = True


PRESETS: Registry[Shape] = Registry("preset")
PRESETS.constant(
    "paper",
    Shape("gpt", 120, 6, 6, 480, tied=False),
    "1.08M: the published GPT of characters; a head of its own with a bias, torch's first weights (arXiv 2407.10194)",
)
PRESETS.constant(
    "gpt2-tied",
    Shape("gpt2", 120, 6, 6, 480),
    "1.08M: the size of paper as GPT-2: tied embeddings, no bias, weights from N(0, 0.02); paper's earlier meaning",
)
PRESETS.constant(
    "modern",
    Shape("qwen3", 96, 8, 3, 256, 3, tied=False),
    "0.9M: RoPE, SwiGLU, normalised queries and keys, a head of its own; every other layer sees three tokens",
)
PRESETS.constant(
    "modern-small",
    Shape("qwen3", 64, 6, 2, 192, 3, tied=False),
    "0.3M: modern, narrower and less deep, for comparisons of many runs",
)
PRESETS.constant(
    "llama",
    Shape("llama", 96, 4, 3, 256),
    "0.5M: four layers without windows and normalised queries; what the published studies of cycles were run with",
)
PRESETS.constant("small", Shape("gpt2", 64, 3, 2, 256), "0.16M: gpt2-tied, smaller, for laptops and demonstrations")
PRESETS.constant("tiny", Shape("llama", 32, 2, 2, 64), "0.02M: two layers of 32, for tests")
