"""Curricula for other training loops: a sampler for PyTorch's ``DataLoader``, a mixin for transformers' trainers.

Loop, optimizer, processes and checkpoints belong to the other trainer; only the order of the samples is set here. The
import needs no torch.
"""

from .sampler import CurriculumSampler
from .trainer import CurriculumMixin

__all__ = ["CurriculumMixin", "CurriculumSampler"]
