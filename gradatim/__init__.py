"""Gradatim: curriculum learning and iterative distillation for small code language models.

Six functions mirror the commands of the same names (see ``gradatim.api``):

    gradatim.score(samples, ["om"])                       difficulty scores, one column per metric
    gradatim.plan("curriculum/hybrid")                    the stages, data and cost of a recipe
    gradatim.run("curriculum/hybrid", folder)             train a recipe, or resume it
    gradatim.study([recipe, another], folder, seeds=5)    train several recipes with several seeds and compare them
    gradatim.report(folder, "report.html")                compare finished runs
    gradatim.evaluate(model, "test.parquet")              the accuracy of a model

Two classes bring a curriculum into other training loops (see ``gradatim.integrate``):

    gradatim.CurriculumSampler                            for PyTorch's DataLoader
    gradatim.CurriculumMixin                              for transformers' Trainer and TRL's SFTTrainer

``import gradatim`` imports no other package; the names are imported at first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .api import evaluate, plan, report, run, score, study
    from .integrate import CurriculumMixin as CurriculumMixin
    from .integrate import CurriculumSampler as CurriculumSampler

__all__ = ["evaluate", "plan", "report", "run", "score", "study"]

__getattr__ = lazy_names(__name__, {"api": __all__, "integrate": ["CurriculumMixin", "CurriculumSampler"]})
