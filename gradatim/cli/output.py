"""How is a result written to the terminal?

Results go to stdout: tables for people, JSON for programs. A pipe gets plain text, wide enough that no cell wraps.
Nothing here computes a result.

Files that a verb is about to write, checked before its work.

What is refused: a file that the same command reads, under whichever name; a file with something in it that this package
has not written; a place that cannot be written. ``files`` has the checks, this module knows the verbs' files.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import check_not_input, check_output, check_output_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "amount",
    "check_page",
    "check_run_output",
    "check_samples_file",
    "check_verdicts_file",
    "duration",
    "output",
    "print_json",
    "size",
    "table",
]


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


Inputs = Iterable[str | os.PathLike[str] | None]


def check_samples_file(path: Path, option: str, inputs: Inputs = (), *, rejected: bool = False) -> None:
    """Refuse a file of samples that cannot be written without a loss; ``rejected``: and the list beside it."""
    from ..table.write import is_written

    read = list(inputs)
    check_output(path, option, ours=lambda file: not _is_part_of_run(file) and is_written(file), inputs=read)
    if rejected:
        _check_rejected(path, option, read)


def check_verdicts_file(path: Path, option: str, inputs: Inputs) -> None:
    """The same of a file of verdicts, which is added to, and of the list of rejected rows beside it."""
    from ..evaluation.verdicts import check_verdicts

    read = list(inputs)
    check_output(path, option, ours=lambda file: True, inputs=read)
    check_verdicts(path)
    _check_rejected(path, option, read)


def check_page(path: Path, option: str, inputs: Inputs = ()) -> None:
    """The same of a report."""
    from ..reporting.html import is_report

    check_output(path, option, ours=is_report, inputs=inputs)


def check_run_output(folder: Path, option: str, inputs: Inputs = ()) -> None:
    """The same of a run's or a study's folder; ``inputs`` are recipes."""
    from ..experiment.run_lock import check_run_folder

    check_output_folder(folder, option)
    if not (folder / "environment.json").is_file():  # a finished run's own recipe.yaml is what goes on with it
        check_not_input(folder / "recipe.yaml", option, inputs)
    check_run_folder(folder)
    check_page(folder / "report.html", option)


def _check_rejected(path: Path, option: str, inputs: Inputs) -> None:
    from ..table.read import is_rejected_file, rejected_file

    check_output(rejected_file(path), f"{option}, rejected rows", ours=is_rejected_file, inputs=inputs)


def _is_part_of_run(path: Path) -> bool:
    """Whether a run or a study keeps the file in its folder."""
    inside = Path(os.path.realpath(path))
    signs = (("recipe.yaml", "environment.json"), ("study.json",))
    return any(all((folder / sign).is_file() for sign in some) for folder in inside.parents for some in signs)
