"""Which samples does each stage learn, in what order, and for how long?

A difficulty column is cut into *bands*, easiest first (``bands``); a *schedule* says which share of which band
each stage takes and how many tokens of the budget (``matrix``); ``realise`` turns one such ``StageSpec`` into row
numbers in an *order*. ``gradatim plan`` walks all three without training: ``preview`` and ``stage_table``.

Everything here is pure: no files, no model, no hidden randomness. It does not score samples (``difficulty``), does
not batch them (``student``) and does not say what happens between stages (``run``).
"""

from .bands import PAPER_THRESHOLDS, Bands, check_cuts, make_bands
from .matrix import SCHEDULES, Matrix, ScheduleFactory, preview, split_budget
from .realise import ORDERS, Order, realise, stage_table

__all__ = [
    "ORDERS",
    "PAPER_THRESHOLDS",
    "SCHEDULES",
    "Bands",
    "Matrix",
    "Order",
    "ScheduleFactory",
    "check_cuts",
    "make_bands",
    "preview",
    "realise",
    "split_budget",
    "stage_table",
]
