"""Which samples does each stage learn, in what order, and for how long?

A difficulty column is cut into *bands*, easiest first (``bands``); a *schedule* says which share of which band
each stage takes and how many tokens of the budget. The plain ones are a matrix (``matrix``); ``fade`` and ``pacing``
move continuously; ``mastery``, ``self_paced``, ``frontier`` and ``bandit`` look at what the student can do by then
(``adaptive``); what is ``designed`` a teacher writes. ``realise`` turns one ``StageSpec`` into row numbers, arranged by
an *order* (``orders``) or drawn with weights. ``gradatim plan`` walks all of it without training: ``preview`` and
``stage_table``.

Everything here is pure: no files, no model, no hidden randomness. It does not score samples (``difficulty``), does
not batch them or measure progress (``student``) and does not say what happens between stages (``run``).
"""

from . import adaptive, continuous  # noqa: F401  (registration of their schedules)
from .bands import PAPER_THRESHOLDS, Bands, check_cuts, make_bands
from .designed import Designed
from .matrix import SCHEDULES, Matrix, ScheduleFactory, split_budget
from .orders import ORDERS, Arranged, Order, OrderFactory, category_codes
from .preview import needs_of, needs_whole_samples, preview
from .selection import probe_rows, realise, stage_seed, stage_table

__all__ = [
    "ORDERS",
    "PAPER_THRESHOLDS",
    "SCHEDULES",
    "Arranged",
    "Bands",
    "Designed",
    "Matrix",
    "Order",
    "OrderFactory",
    "ScheduleFactory",
    "category_codes",
    "check_cuts",
    "make_bands",
    "needs_of",
    "needs_whole_samples",
    "preview",
    "probe_rows",
    "realise",
    "split_budget",
    "stage_seed",
    "stage_table",
]
