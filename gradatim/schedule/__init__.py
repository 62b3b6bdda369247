"""Schedules: bands of difficulty, the stages of a curriculum, and the rows of each stage.

A difficulty column is cut into *bands*, easiest first (``bands``); a *schedule* gives for each stage the share of each
band and the tokens of the budget. Static schedules are a matrix that may shift gradually (``matrix``); ``adaptive``
ones depend on the results of earlier stages or are written by a teacher. ``select_rows`` turns one ``StageSpec`` into
row numbers, arranged by an *order* or drawn with weights (``selection``).

Everything here is pure: no files, no model, no hidden randomness.
"""

from . import adaptive, mixtures  # noqa: F401  (registration of their schedules)
from .adaptive import Designed, is_designed
from .bands import PAPER_THRESHOLDS, Bands, check_cuts, make_bands
from .matrix import SCHEDULES, Matrix, ScheduleFactory, fixed_schedule, split_budget
from .selection import (
    ORDERS,
    Order,
    OrderContext,
    OrderFactory,
    category_codes,
    needs_whole_samples,
    next_stage,
    preview,
    probe_rows,
    select_rows,
    stage_table,
)

__all__ = [
    "ORDERS",
    "PAPER_THRESHOLDS",
    "SCHEDULES",
    "Bands",
    "Designed",
    "Matrix",
    "Order",
    "OrderContext",
    "OrderFactory",
    "ScheduleFactory",
    "category_codes",
    "check_cuts",
    "fixed_schedule",
    "is_designed",
    "make_bands",
    "needs_whole_samples",
    "next_stage",
    "preview",
    "probe_rows",
    "select_rows",
    "split_budget",
    "stage_table",
]
