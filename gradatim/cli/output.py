"""Files that a verb is about to write, checked before its work.

What is refused: a file that the same command reads, under whichever name; a file with something in it that this package
has not written; a place that cannot be written. ``files`` has the checks, this module knows the verbs' files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..files import check_not_input, check_output, check_output_folder

__all__ = ["check_page", "check_run_output", "check_samples_file", "check_verdicts_file"]

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
    from ..evaluate.verdicts import check_verdicts

    read = list(inputs)
    check_output(path, option, ours=lambda file: True, inputs=read)
    check_verdicts(path)
    _check_rejected(path, option, read)


def check_page(path: Path, option: str, inputs: Inputs = ()) -> None:
    """The same of a report."""
    from ..report.mark import is_report

    check_output(path, option, ours=is_report, inputs=inputs)


def check_run_output(folder: Path, option: str, inputs: Inputs = ()) -> None:
    """The same of a run's or a study's folder; ``inputs`` are recipes."""
    from ..claim import check_run_folder

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
