"""Reports: run folders in; one HTML page, tables and figures out.

``collect`` reads run folders into ``data``; ``summary`` has the rows and the headline; ``cycles`` has the results by
cycle; ``verdicts`` reads the verdict on every item, ``compared_items`` compares models by them; ``figures`` show them
and ``html`` combines them into one self-contained page. ``correlation``
serves ``gradatim score --correlate``. Runs are only read. matplotlib and scipy are imported at first use.
"""

from __future__ import annotations

from ..lazy import lazy_names
from .collect import collect
from .compared_items import compare_models
from .data import RunData, StudyData
from .html import is_report, markdown_table, terminal_table, write_report
from .summary import Summary, headline, p_value, points, power_lines, summarise
from .target import accuracy_curves, target_tables, to_target
from .verdicts import Evaluation, evaluation_samples, evaluations, read_verdicts

__all__ = [
    "Evaluation",
    "RunData",
    "StudyData",
    "Summary",
    "accuracy_curves",
    "collect",
    "compare_models",
    "evaluation_samples",
    "evaluations",
    "headline",
    "is_report",
    "markdown_table",
    "p_value",
    "points",
    "power_lines",
    "read_verdicts",
    "summarise",
    "target_tables",
    "terminal_table",
    "to_target",
    "write_report",
]

__getattr__ = lazy_names(__name__)
