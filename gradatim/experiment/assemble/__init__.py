"""Construction of a run's components from the names and options of a recipe.

The only place that turns recipe names into objects; all other modules take plain keyword arguments. ``components``
builds those of every run and a difficulty with its scorer or chat, ``teaching`` those of runs with several cycles
(teacher, rejected answers, judges) and of the LLM-designed schedule.
``check`` builds all cheap components and reports all errors at once, before any costly work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .components import Components, assemble, check, corpus_maker, drawn, make_difficulty, schedules_of
    from .teaching import only_designs

__all__ = [
    "Components",
    "assemble",
    "check",
    "corpus_maker",
    "drawn",
    "make_difficulty",
    "only_designs",
    "schedules_of",
]

__getattr__ = lazy_names(
    __name__,
    {
        "components": ("Components", "assemble", "check", "corpus_maker", "drawn", "make_difficulty", "schedules_of"),
        "teaching": ("only_designs",),
    },
)
