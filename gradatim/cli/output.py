"""Results on standard output, and checks of the files that a command will write.

Results are tables, or JSON with ``--json``; a pipe gets plain text, wide enough that no cell wraps. Output files are
checked before the work: an output must not be an input of the same command under any name, nor replace content that
this package has not written, and it must be writable (see ``files``).
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
    """The console for results."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON; NaN raises ``ValueError``, as JSON has none."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, left: int = 1) -> Table:
    """A table with ``left`` left-aligned columns, then right-aligned ones; None is shown as a dash."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title and Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        result.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        result.add_row(*[Text("–" if cell is None else amount(cell)) for cell in row])
    return result


def amount(value: object) -> str:
    """An integer with thousands separators; any other value as text."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def size(count: float) -> str:
    """A number of bytes with its unit: 4.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min 20 s, 2 h 5 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


Inputs = Iterable[str | os.PathLike[str] | None]


def check_samples_file(path: Path, option: str, inputs: Inputs = (), *, rejected: bool = False) -> None:
    """Check an output file of samples, and with ``rejected`` the file of rejected rows beside it."""
    from ..table.write import is_written

    paths = list(inputs)
    check_output(path, option, ours=lambda file: not _is_part_of_run(file) and is_written(file), inputs=paths)
    if rejected:
        _check_rejected(path, option, paths)


def check_verdicts_file(path: Path, option: str, inputs: Inputs) -> None:
    """Check a file of verdicts, which is appended to, and the file of rejected rows beside it."""
    from ..evaluation.verdicts import check_verdicts

    paths = list(inputs)
    check_output(path, option, ours=lambda file: True, inputs=paths)
    check_verdicts(path)
    _check_rejected(path, option, paths)


def check_page(path: Path, option: str, inputs: Inputs = ()) -> None:
    """Check the output file of a report."""
    from ..reporting.html import is_report

    check_output(path, option, ours=is_report, inputs=inputs)


def check_run_output(folder: Path, option: str, inputs: Inputs = ()) -> None:
    """Check the folder of a run or study; ``inputs`` are recipe files."""
    from ..experiment.run_lock import check_run_folder

    check_output_folder(folder, option)
    if not (folder / "environment.json").is_file():  # the recipe.yaml of a run resumes that run
        check_not_input(folder / "recipe.yaml", option, inputs)
    check_run_folder(folder)
    check_page(folder / "report.html", option)


def _check_rejected(path: Path, option: str, inputs: Inputs) -> None:
    from ..table.read import is_rejected_file, rejected_file

    check_output(rejected_file(path), f"{option}, rejected rows", ours=is_rejected_file, inputs=inputs)


def _is_part_of_run(path: Path) -> bool:
    """Whether the file belongs to a run or study folder."""
    real = Path(os.path.realpath(path))
    signs = (("recipe.yaml", "environment.json"), ("study.json",))
    return any(all((folder / sign).is_file() for sign in names) for folder in real.parents for names in signs)
