"""Curricula for other training loops.

    columns        difficulties, categories and digests of the rows of any dataset
    sampler        ``CurriculumSampler``: the sample order of a curriculum for PyTorch's ``DataLoader``
    trainer        ``CurriculumMixin``: the same in transformers' ``Trainer`` and TRL's ``SFTTrainer``

Loop, optimizer, processes and checkpoints belong to the other trainer; only the order of the samples is set here. The
import needs no torch.
"""

from .sampler import CurriculumSampler
from .trainer import CurriculumMixin

__all__ = ["CurriculumMixin", "CurriculumSampler"]
