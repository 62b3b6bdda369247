"""Construction of a run's components from the names and options of a recipe.

The only place that turns recipe names into objects; all other modules take plain keyword arguments. ``components``
builds those of every run and a difficulty with its scorer or chat, ``student`` is the contract of a kind of student,
``language`` and ``policy`` are the kinds, ``teaching`` those of runs with several cycles
(teacher, rejected answers, judges) and of the LLM-designed schedule.
``check`` builds all cheap components and reports all errors at once, before any costly work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .components import (
        Components,
        NamedSuite,
        assemble,
        check,
        corpus_maker,
        difficulty_of,
        drawn,
        make_difficulty,
    )
    from .student import STUDENTS, Student, StudentContext, student_of
    from .teaching import attempts_before_training, judges_of, only_designs, schedules_of, source, teacher

__all__ = [
    "STUDENTS",
    "Components",
    "NamedSuite",
    "Student",
    "StudentContext",
    "assemble",
    "attempts_before_training",
    "check",
    "corpus_maker",
    "difficulty_of",
    "drawn",
    "judges_of",
    "make_difficulty",
    "only_designs",
    "schedules_of",
    "source",
    "student_of",
    "teacher",
]

__getattr__ = lazy_names(
    __name__,
    {
        "components": (
            "Components",
            "NamedSuite",
            "assemble",
            "check",
            "corpus_maker",
            "difficulty_of",
            "drawn",
            "make_difficulty",
        ),
        "student": ("STUDENTS", "Student", "StudentContext", "student_of"),
        "teaching": ("attempts_before_training", "judges_of", "only_designs", "schedules_of", "source", "teacher"),
    },
)
