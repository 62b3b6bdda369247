"""Write docs/log.md, the table of measured figures, from docs/figures.jsonl.

    python docs/write_log.py
    python docs/write_log.py add --area speed --metric "checks per second" --value 352 --command "benchmarks/check.py" \
        --interval "3 rounds" --supersedes 12

The first form writes the page. ``add`` appends a figure to the data file and writes the page again. Machine, commit and
date are those of the call where no option gives them. A line of the data file is one figure, a JSON object with the
fields of `Figure`. A figure that another one supersedes stands in the second table of the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

DOCS = Path(__file__).resolve().parent
FIGURES = DOCS / "figures.jsonl"
PAGE = DOCS / "log.md"
CPUINFO = Path("/proc/cpuinfo")

AREAS = ("accuracy", "speed", "sandbox", "start-up", "code style")
COLUMNS = ("id", "area", "metric", "value", "interval or runs", "command", "machine", "date", "commit")
COMMIT = re.compile(r"~?[0-9a-f]{7,40}(-dirty)?(, [0-9a-f]{7,40}(-dirty)?)*")

INTRODUCTION = """\
# Log

Measured figures, written by `python docs/write_log.py` from `docs/figures.jsonl`. A new figure is added by
`python docs/write_log.py add --area … --metric … --value … --command …`. Attempts, predictions and outcomes are in
[the journal](journal.md).

- **Value**: accuracy is the share of test programs whose whole output is predicted, greedily, unless the metric names
  another one. Several values in a row belong to the parts that the metric lists, in its order.
- **Interval or runs**: the 95 % interval, or the runs behind the value. One seed differs from the next by some two
  points, so rows of one seed are a screening. *Loaded*: other work ran on the same cores; ratios hold, absolute figures
  are low.
- **Command**: with the present names of the recipes, where they were renamed.
- **Machine**: rates of different machines do not compare. None had a GPU.
- **Commit**: the measured commit; after `~`, the commit that noted the figure, where the measured one was not noted.
"""


class FigureError(ValueError):
    """Invalid figure; the message is one line."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    ``id`` is positive and unique, ``date`` is YYYY-MM-DD, ``value`` has its unit where the metric does not give it,
    ``interval`` is an interval or the runs behind the value, ``supersedes`` the ids of earlier figures.
    """

    id: int
    area: str
    date: str
    commit: str
    machine: str
    command: str
    metric: str
    value: str
    interval: str
    supersedes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("area", "date", "commit", "machine", "command", "metric", "value", "interval"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip() or len(text.splitlines()) != 1:
                raise FigureError(f"{name}: {text!r} is not one line of text")
        if self.area not in AREAS:
            raise FigureError(f"area: {self.area!r} is none of {', '.join(AREAS)}")
        if not COMMIT.fullmatch(self.commit):
            raise FigureError(f"commit: {self.commit!r} is not 7 to 40 hexadecimal digits")
        if not re.search(r"\d", self.value):
            raise FigureError(f"value: {self.value!r} has no digit")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", self.date):
            raise FigureError(f"date: {self.date!r} is not YYYY-MM-DD")


def check_references(figures: Sequence[Figure]) -> None:
    """Check that ids are unique and that each superseded figure is an earlier one, superseded once.

    Raises:
        FigureError: for the first figure that breaks one of these rules.
    """
    earlier: set[int] = set()
    superseded: dict[int, int] = {}
    for figure in figures:
        if figure.id < 1 or figure.id in earlier:
            raise FigureError(f"id: {figure.id} is not positive or stands twice")
        for number in figure.supersedes:
            if number not in earlier:
                raise FigureError(f"supersedes: no figure above {figure.id} has the id {number}")
            if number in superseded:
                raise FigureError(f"supersedes: figure {superseded[number]} supersedes {number} already")
            superseded[number] = figure.id
        earlier.add(figure.id)


def read_figures(path: Path = FIGURES) -> list[Figure]:
    """The figures of a data file, in its order.

    Raises:
        FigureError: for a missing file or a line that is no figure, with the line's number.
    """
    if not path.exists():
        raise FigureError(f"{path}: no such file")
    figures = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            fields: dict[str, Any] = json.loads(line)
            figures.append(Figure(**{**fields, "supersedes": tuple(fields.get("supersedes", ()))}))
        except (FigureError, TypeError, ValueError, AttributeError) as error:
            raise FigureError(f"{path.name}, line {number}: {error}") from error
    check_references(figures)
    return figures


def figure_line(figure: Figure) -> str:
    """The figure as a line of the data file."""
    return json.dumps(dataclasses.asdict(figure), ensure_ascii=False) + "\n"


def table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def figure_cells(figure: Figure) -> list[str]:
    """The cells of the figure under `COLUMNS`."""
    mark = "~" if figure.commit.startswith("~") else ""
    commits = ", ".join(f"`{commit}`" for commit in figure.commit.removeprefix("~").split(", "))
    cells = [str(figure.id), figure.area, figure.metric, figure.value, figure.interval, figure.command]
    return [*cells, figure.machine, figure.date, mark + commits]


def newest_first(figures: Sequence[Figure]) -> list[Figure]:
    """Figures by area; within an area by date, newest first, in the file's order where dates are equal."""
    by_date = sorted(figures, key=lambda figure: figure.date, reverse=True)
    return sorted(by_date, key=lambda figure: AREAS.index(figure.area))


def write_page(figures: Sequence[Figure]) -> str:
    """The text of docs/log.md."""
    successors = {number: figure.id for figure in figures for number in figure.supersedes}
    current = [figure for figure in figures if figure.id not in successors]
    earlier = [figure for figure in figures if figure.id in successors]
    divider = ["---"] * (len(COLUMNS) + 1)
    lines = ["## Current figures", "", table_row([*COLUMNS, "supersedes"]), table_row(divider)]
    for figure in newest_first(current):
        lines.append(table_row([*figure_cells(figure), ", ".join(map(str, figure.supersedes)) or "–"]))
    lines += ["", "## Earlier figures", "", table_row([*COLUMNS, "superseded by"]), table_row(divider)]
    lines += [table_row([*figure_cells(figure), str(successors[figure.id])]) for figure in newest_first(earlier)]
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def machine_name(cpuinfo: str) -> str:
    """Core count, processor and its matrix formats from the text of /proc/cpuinfo, as "2 cores, AMD EPYC, AVX-512".

    Raises:
        FigureError: if the text names no processor.
    """
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())]
    models = [value for key, value in fields if key == "model name"]
    flags = next((set(value.split()) for key, value in fields if key == "flags"), set())
    if not models:
        raise FigureError(f"machine: {CPUINFO} names no processor; give --machine")
    names = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX bf16"}
    formats = [name for flag, name in names.items() if flag in flags]
    if "AVX-512 bf16" in formats:
        formats.remove("AVX-512")
    cores = f"{len(models)} core" + ("s" if len(models) > 1 else "")
    return ", ".join([cores, models[0], *(formats or ["no AVX-512"])])


def current_machine() -> str:
    """The name of this machine.

    Raises:
        FigureError: if the system has no /proc/cpuinfo.
    """
    if not CPUINFO.exists():
        raise FigureError(f"machine: no {CPUINFO} here; give --machine")
    return machine_name(CPUINFO.read_text("utf-8"))


def current_commit() -> str:
    """The short hash of the checked-out commit, with ``-dirty`` where tracked files differ from it.

    Raises:
        FigureError: if docs/ is in no Git repository.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=DOCS, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FigureError("commit: Git reads no commit here; give --commit") from error
    return done.stdout.strip()


def area_of(area: str | None, supersedes: Sequence[int], figures: Sequence[Figure]) -> str:
    """The given area, or that of the superseded figures.

    Raises:
        FigureError: if neither is there, or the superseded figures have several areas.
    """
    areas = {figure.area for figure in figures if figure.id in supersedes}
    if area is None and len(areas) != 1:
        raise FigureError(f"area: not given, and no superseded figure decides it; one of {', '.join(AREAS)}")
    return area or areas.pop()


def add_figure(options: argparse.Namespace) -> None:
    """Append the figure of the options to the data file.

    Raises:
        FigureError: for an invalid option; the data file stays as it was.
    """
    figures = read_figures()
    missing = sorted(set(options.supersedes) - {figure.id for figure in figures})
    if missing:
        raise FigureError(f"supersedes: no figure has the id {missing[0]} (1 to {len(figures)})")
    figure = Figure(
        id=max((figure.id for figure in figures), default=0) + 1,
        area=area_of(options.area, options.supersedes, figures),
        date=datetime.date.today().isoformat(),
        commit=options.commit if options.commit is not None else current_commit(),
        machine=options.machine if options.machine is not None else current_machine(),
        command=options.command,
        metric=options.metric,
        value=options.value,
        interval=options.interval,
        supersedes=tuple(options.supersedes),
    )
    check_references([*figures, figure])
    with FIGURES.open("a", encoding="utf-8") as file:
        file.write(figure_line(figure))


class OneLineParser(argparse.ArgumentParser):
    """Parser whose errors are one line, without the usage, and end with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"write_log.py: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = OneLineParser(prog="write_log.py", description="Write docs/log.md from docs/figures.jsonl.")
    add = top.add_subparsers(dest="verb", metavar="add").add_parser("add", help="append a figure, then write the page")
    add.add_argument("--metric", required=True, help="measured quantity, with its setting")
    add.add_argument("--value", required=True, help="figure with its unit")
    add.add_argument("--command", required=True, help="command that printed the figure")
    add.add_argument("--area", help=f"{', '.join(AREAS)}; default: that of the superseded figures")
    add.add_argument("--interval", default="1 run", help="interval, seeds or rounds; default: 1 run")
    add.add_argument("--supersedes", type=int, action="append", default=[], metavar="ID", help="may stand repeatedly")
    add.add_argument("--machine", help="default: this one, from /proc/cpuinfo")
    add.add_argument("--commit", help="default: the checked-out one, from Git")
    return top


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    top = parser()
    options = top.parse_args(arguments)
    try:
        if options.verb == "add":
            add_figure(options)
        PAGE.write_text(write_page(read_figures()), "utf-8")
    except FigureError as error:
        top.error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
