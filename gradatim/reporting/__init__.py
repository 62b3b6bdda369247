"""Reports: run folders in; one HTML page, tables and figures out.

``collect`` reads run folders into ``data``; ``summary`` has the rows and the headline; ``cycles`` has the results by
cycle; ``verdicts`` reads the verdict on every item, ``compared_items`` compares models by them; ``figures`` show them
and ``html`` combines them into one self-contained page. ``correlation``
serves ``gradatim score --correlate``. Runs are only read. matplotlib and scipy are imported at first use.
"""

from __future__ import annotations

from ..lazy import lazy_names
from .collect import collect, run_folders
from .compared_items import compare_models
from .data import RunData, StudyData
from .export import COUNTS, PREDICTION_FORMATS, as_csv, count_rows, is_predictions, results, write_predictions
from .headline import headline, power_lines
from .html import Insert, is_report, write_page, write_report
from .summary import Summary, p_value, points, summarise
from .target import accuracy_curves, target_tables, to_target
from .text_tables import markdown_table, terminal_table
from .verdicts import Evaluation, evaluation_samples, evaluations, read_verdicts

__all__ = [
    "COUNTS",
    "PREDICTION_FORMATS",
    "Evaluation",
    "Insert",
    "RunData",
    "StudyData",
    "Summary",
    "accuracy_curves",
    "as_csv",
    "collect",
    "compare_models",
    "count_rows",
    "evaluation_samples",
    "evaluations",
    "headline",
    "is_predictions",
    "is_report",
    "markdown_table",
    "p_value",
    "points",
    "power_lines",
    "read_verdicts",
    "results",
    "run_folders",
    "summarise",
    "target_tables",
    "terminal_table",
    "to_target",
    "write_page",
    "write_predictions",
    "write_report",
]

__getattr__ = lazy_names(__name__)
