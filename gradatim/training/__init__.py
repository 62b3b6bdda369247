"""Training: objectives and losses, batches, optimizers, checkpoints and the trainer."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
