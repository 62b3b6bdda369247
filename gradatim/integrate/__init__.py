"""How do training loops that are not ours follow a curriculum?

    columns        how hard is each row of somebody's dataset, and of which category?
    parts          which stages, and how many samples of each, for a budget in steps, epochs, samples or tokens
    sampler        ``CurriculumSampler``: the rows in that order, for PyTorch's ``DataLoader``
    trainer        ``CurriculumMixin``: the same inside transformers' ``Trainer`` and TRL's ``SFTTrainer``

Loop, optimizer, processes and checkpoints are the other trainer's; only the order of the samples is ours. Importing
this imports no torch.
"""

from .sampler import CurriculumSampler
from .trainer import CurriculumMixin

__all__ = ["CurriculumMixin", "CurriculumSampler"]
