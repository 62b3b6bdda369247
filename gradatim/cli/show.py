"""How is a result written to the terminal?

Results go to stdout: tables for people, JSON for programs. A pipe gets plain text, wide enough that no cell wraps.
Nothing here computes a result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["amount", "duration", "output", "print_json", "size", "table"]

PIPE_WIDTH = 160


def output() -> Console:
    """Where results are written."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=wide, highlight=False)


def print_json(value: Any) -> None:
    """``value`` as indented JSON on stdout; NaN is refused, since it is not JSON."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, left: int = 1) -> Table:
    """A table whose first ``left`` columns are words and whose others are figures; None is shown as a dash."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title and Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        made.add_column(name, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*[Text("–" if cell is None else amount(cell)) for cell in row])
    return made


def amount(value: object) -> str:
    """A whole number with separators; anything else as it is."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def size(count: float) -> str:
    """Bytes in the unit that suits them: 4.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
