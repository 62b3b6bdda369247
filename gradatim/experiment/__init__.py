"""Experiments: recipes, the training loop, studies, plans, their cost and duration.

``recipe`` reads and checks the YAML; ``assemble`` makes its components; ``run`` is the training loop; ``run_lock``
guards the run folder; ``study`` runs arms × seeds, all or a share (``parts``), in processes or on an executor
(``workers``); ``plan`` predicts a run, ``timing`` its duration on this machine.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
