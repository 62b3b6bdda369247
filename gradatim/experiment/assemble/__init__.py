"""Construction of a run's components from the names and options of a recipe.

The only place that turns recipe names into objects; all other modules take plain keyword arguments. ``components``
builds those of every run, ``teaching`` those of runs with several cycles (teacher, rejected answers, judges), and
``designing`` the LLM-designed schedule. ``check`` builds all cheap components and reports all errors at once, before
any costly work.
"""

from .components import Components, assemble, check, corpus_maker, drawn, schedules_of, stage_seed
from .designing import only_designs

__all__ = ["Components", "assemble", "check", "corpus_maker", "drawn", "only_designs", "schedules_of", "stage_seed"]
