"""The mark by which a page or a text is known to be a report of this package."""

from __future__ import annotations

from pathlib import Path

from ..files import open_input

__all__ = ["BRAND", "GENERATOR", "TITLE", "is_report"]

GENERATOR = '<meta name="generator" content="Gradatim">'
BRAND = '<p class="brand">Gradatim'
"""What pages of former versions have."""
TITLE = "# How the difficulties of "
"""How a report of correlations in Markdown begins."""
_HEAD = 1 << 18


def is_report(path: Path) -> bool:
    """Whether the file ``path`` is a report that was written here."""
    with open_input(path) as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    return GENERATOR in head or BRAND in head or head.startswith(TITLE)
