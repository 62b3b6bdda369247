"""Write the results of the demonstration into docs/reproduce.md.

    python docs/write_results.py runs/demo [MINUTES]

Writes the study's table between the results markers of the page, with the command and the commits that made it, so
that no figure there is typed by hand. ``report.html`` has the details.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gradatim.reporting import collect, markdown_table

PAGE = Path(__file__).parent / "reproduce.md"
START, END = "<!-- results:start -->", "<!-- results:end -->"


def section(folder: Path, minutes: str | None) -> str:
    """The results section for the study in ``folder``."""
    commits = {json.loads(path.read_text())["commit"] for path in folder.glob("*/seed-*/environment.json")}
    took = f", {minutes} minutes on two cores" if minutes else ""
    made = f"`make demo` at commit {', '.join(f'`{commit}`' for commit in sorted(commits))}{took}"
    table = markdown_table(collect([folder])).strip()
    return "\n".join([START, table, "", f"{made}; written by `docs/write_results.py`.", END])


def main(arguments: list[str]) -> None:
    """Replace the section of the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + section(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None) + after)


if __name__ == "__main__":
    main(sys.argv[1:])
