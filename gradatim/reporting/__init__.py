"""Reports: run folders in; one HTML page, tables and figures out.

``collect`` reads run folders into ``data``; ``summary`` has the rows and the headline; ``cycles`` has the results by
cycle; ``verdicts`` reads the verdict on every item; ``figures`` show them and ``html`` combines them into one
self-contained page. ``correlation`` serves ``gradatim score --correlate``. Runs are only read. matplotlib and scipy are imported at first use.
"""

from __future__ import annotations

from ..lazy import lazy_names
from .collect import collect
from .data import RunData, StudyData
from .html import is_report, markdown_table, terminal_table, write_report
from .summary import Summary, headline, power_lines, summarise
from .verdicts import Evaluation, evaluations, read_verdicts, test_samples

__all__ = [
    "Evaluation",
    "RunData",
    "StudyData",
    "Summary",
    "collect",
    "evaluations",
    "headline",
    "is_report",
    "markdown_table",
    "power_lines",
    "read_verdicts",
    "summarise",
    "terminal_table",
    "test_samples",
    "write_report",
]

__getattr__ = lazy_names(__name__)
