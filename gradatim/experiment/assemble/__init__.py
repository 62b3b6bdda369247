"""Construction of a run's components from the names and options of a recipe.

The only place that turns recipe names into objects; all other modules take plain keyword arguments. ``components``
builds those of every run, ``teaching`` those of runs with several cycles (teacher, rejected answers, judges),
``designing`` the LLM-designed schedule, and ``difficulties`` a difficulty with the scorer or chat that it needs.
``check`` builds all cheap components and reports all errors at once, before any costly work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .components import Components, assemble, check, corpus_maker, drawn, schedules_of, stage_seed
    from .designing import only_designs
    from .difficulties import make_difficulty

__all__ = [
    "Components",
    "assemble",
    "check",
    "corpus_maker",
    "drawn",
    "make_difficulty",
    "only_designs",
    "schedules_of",
    "stage_seed",
]

__getattr__ = lazy_names(
    __name__,
    {
        "components": ("Components", "assemble", "check", "corpus_maker", "drawn", "schedules_of", "stage_seed"),
        "designing": ("only_designs",),
        "difficulties": ("make_difficulty",),  # apart from the rest, since a scoring of a table needs nothing else
    },
)
