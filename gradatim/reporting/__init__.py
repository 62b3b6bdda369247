"""Reports: run folders in; one HTML page, tables and figures out.

``collect`` reads run folders into ``data``; ``summary`` has the rows and the headline; ``cycles`` has the results by
cycle; ``figures`` show them and ``html`` combines them into one self-contained page. ``correlation``
serves ``gradatim score --correlate``. Runs are only read. matplotlib and scipy are imported at first use.
"""

from __future__ import annotations

from ..lazy import lazy_names
from .collect import collect
from .data import RunData, StudyData
from .headline import headline, power_lines
from .html import is_report, write_page, write_report
from .summary import Summary, summarise
from .text_tables import markdown_table, terminal_table

__all__ = [
    "RunData",
    "StudyData",
    "Summary",
    "collect",
    "headline",
    "is_report",
    "markdown_table",
    "power_lines",
    "summarise",
    "terminal_table",
    "write_page",
    "write_report",
]

__getattr__ = lazy_names(__name__)
