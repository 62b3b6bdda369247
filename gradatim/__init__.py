"""Gradatim trains small code language models step by step: it decides what they learn next.

Four functions do what the command line does; each is a few lines over the modules below (see ``gradatim.api``):

    gradatim.score(samples, ["om"])             how hard is each sample?
    gradatim.plan("curriculum/hybrid")          what would this recipe do, and what would it cost?
    gradatim.run("curriculum/hybrid", folder)   train it, or go on where it stopped
    gradatim.evaluate(model, "test.parquet")    how good is a student?

Two classes carry a curriculum into training loops that are not ours (see ``gradatim.integrate``):

    gradatim.CurriculumSampler                  for PyTorch's DataLoader
    gradatim.CurriculumMixin                    for transformers' Trainer and TRL's SFTTrainer

``import gradatim`` imports nothing else. Three of these functions share their name with the module they come from;
here the function is meant, and ``from gradatim.run import run`` reaches into the module as usual.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import evaluate, plan, run, score
    from .integrate import CurriculumMixin as CurriculumMixin
    from .integrate import CurriculumSampler as CurriculumSampler

__all__ = ["evaluate", "plan", "run", "score"]


def _function(name: str, module: str = ".api") -> property:
    def get(package: ModuleType) -> Any:
        return getattr(importlib.import_module(module, __name__), name)

    def keep(package: ModuleType, module: ModuleType) -> None:
        """The import system binds a submodule to its package, which would hide the function of that name."""

    return property(get, keep)


class _Package(ModuleType):
    """This package with its names fetched at first use; a module-level ``__getattr__`` would lose to submodules."""

    evaluate = _function("evaluate")
    plan = _function("plan")
    run = _function("run")
    score = _function("score")
    CurriculumMixin = _function("CurriculumMixin", ".integrate")
    CurriculumSampler = _function("CurriculumSampler", ".integrate")


sys.modules[__name__].__class__ = _Package
