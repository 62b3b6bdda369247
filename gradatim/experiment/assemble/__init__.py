"""The objects that the names in a recipe stand for.

The only place that turns recipe names into objects; the parts below take plain keyword arguments. ``parts`` builds the
components of every run, ``teaching`` what runs of several cycles add (a teacher, rejected answers, judges),
``designing`` the schedule that a teacher writes, ``difficulties`` a difficulty with the scorer or chat that it needs.
``check`` builds every component that costs nothing and reports all faults at once, so that a wrong recipe stops before
anything costly. Nothing here trains, samples or scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .designing import only_designs
    from .difficulties import make_difficulty
    from .parts import Parts, assemble, check, corpus_maker, drawn, schedules_of, stage_seed

__all__ = [
    "Parts",
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
        "designing": ("only_designs",),
        "difficulties": ("make_difficulty",),  # apart from the rest, since a scoring of a table needs nothing else
        "parts": ("Parts", "assemble", "check", "corpus_maker", "drawn", "schedules_of", "stage_seed"),
    },
)
