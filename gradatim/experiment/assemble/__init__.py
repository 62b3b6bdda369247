"""How do the names in a recipe become the parts of a run?

The only place that turns recipe names into objects; below it, parts take plain keyword arguments. ``parts`` makes what
every run has; ``teaching`` makes what runs of several cycles add: a teacher, faulty answers, judges; ``designing`` lets
the teacher write the stages. ``check`` builds every part that costs nothing and tells all faults at once, so a recipe
that is wrong stops before anything costly. Nothing here trains, draws or scores.
"""

from .designing import only_designs
from .parts import Parts, assemble, check, corpus_maker, drawn, schedules_of, stage_seed

__all__ = ["Parts", "assemble", "check", "corpus_maker", "drawn", "only_designs", "schedules_of", "stage_seed"]
