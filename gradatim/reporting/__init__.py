"""What came out, for a person to read?

Pure functions over run folders: ``run_folder`` reads one, ``collect`` gathers them to a study, ``statistics``
compares arms, ``summary`` holds what every view shows, ``wording`` says it in plain words, ``tables`` writes Markdown
and terminal tables, ``figures`` and ``curves`` draw with ``ink``, and ``page`` binds it all into one HTML file that
opens without a network. Nothing here trains, evaluates or changes a run. Plotting and statistics libraries are
imported when first used, so the command line starts fast.
"""

from __future__ import annotations

from .collect import collect
from .data import RunData, StudyData
from .html import write_report
from .summary import Summary, headline, summarise
from .tables import markdown_table, terminal_table

__all__ = [
    "RunData",
    "StudyData",
    "Summary",
    "collect",
    "headline",
    "markdown_table",
    "summarise",
    "terminal_table",
    "write_report",
]
