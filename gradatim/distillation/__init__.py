"""Iterative distillation (arXiv 2408.03680): judges, rejected answers, the student's completions, and new questions.

    mutations, python_mutations    small mistakes in a program
    rejected                       the rejected answer of each sample: the student's, a mutation, or the teacher's
    judge, judges, scoring_judge   the contract of a judge, ``JUDGES`` by name, judgements combined to scores and grades
    attempts                       the student's completions under every judge, one table row each (``FEEDBACK``)
    question_options, questions    the source ``taught``: seed questions, then new ones from the feedback
    novelty                        whether a question is new, and in no evaluation problem

A judge without a verdict returns ``unjudged`` with the cause and no score; a question without any verdict is neither
easy nor hard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .attempts import FEEDBACK
    from .judge import JUDGES, Judge, View
    from .mutations import Mutant, mutants
    from .novelty import Contamination, Known, Refusals, problem_texts, rouge_l
    from .python_mutations import KINDS, Kind
    from .questions import NoNewQuestions
    from .rejected import PLACES, Delivered, Right, deliver

__all__ = [
    "FEEDBACK",
    "JUDGES",
    "KINDS",
    "PLACES",
    "Contamination",
    "Delivered",
    "Judge",
    "Kind",
    "Known",
    "Mutant",
    "NoNewQuestions",
    "Refusals",
    "Right",
    "View",
    "deliver",
    "mutants",
    "problem_texts",
    "rouge_l",
]

__getattr__ = lazy_names(
    __name__,
    {
        "attempts": ("FEEDBACK",),
        "judge": ("JUDGES", "Judge", "View"),
        "python_mutations": ("KINDS", "Kind"),
        "mutations": ("Mutant", "mutants"),
        "novelty": ("Contamination", "Known", "Refusals", "problem_texts", "rouge_l"),
        "questions": ("NoNewQuestions",),
        "rejected": ("PLACES", "Delivered", "Right", "deliver"),
    },
)
