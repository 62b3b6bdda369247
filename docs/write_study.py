"""Write a page of docs/results from the folder of a study or of a single run.

    python docs/write_study.py runs/paper-small docs/results/paper-small.md "TITLE WITH THE SCALE" ["COMMAND"]

Writes the page from the study's run folders: the comparison, accuracy by level and by band, the other measures, and the
published figures beside ours where an arm has one. ``COMMAND`` made the study, where that was not all recipes of a
folder named like the runs. What explains the figures is written by hand between the notes' markers and kept when the
page is written again; no figure outside them is typed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from gradatim.evaluation.statistics import t_interval
from gradatim.reporting import StudyData, collect, markdown_table, summarise
from gradatim.reporting.summary import group_scores, groups
from gradatim.reporting.text_tables import metric_table

START, END = "<!-- notes:start -->", "<!-- notes:end -->"
PUBLISHED = {"baseline": 0.7458, "hybrid": 0.7923, "hard-only": 0.6178}
"""Output prediction of arXiv 2407.10194, second-hand; hard-only probably on the hard subset (docs/methods.md)."""


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def mean_and_interval(values: list[float]) -> str:
    """The mean in percent, with Student's 95 % interval over seeds."""
    if not values:
        return "–"
    interval = t_interval(values)
    if interval is None:
        return share(fmean(values))
    return f"{share(fmean(values))} [{share(max(interval.low, 0.0))}, {share(min(interval.high, 1.0))}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TRACES = (
    "Ours learnt with trace supervision, from the intermediate values of each program; the published model learnt from "
    "texts alone."
)


def beside_the_paper(study: StudyData) -> list[str]:
    """Each arm under both protocols, with the published figure; nothing where no arm has one to stand beside."""
    if not {"greedy", "paper"} <= {protocol for suite, protocol in study.evaluations() if suite == "output"}:
        return []
    rows = []
    for row in summarise(study).rows:
        shares = {}
        for protocol in ("greedy", "paper"):
            counts = [run.evaluation("output", protocol) for run in study.finished(row.arm)]
            shares[protocol] = [each.counts["all"]["all"] for each in counts if each]
        published = next((value for name, value in PUBLISHED.items() if row.arm == name), None)
        ours = [mean_and_interval([c.passed / c.total for c in shares[protocol]]) for protocol in ("greedy", "paper")]
        rows.append([row.title, share(published), ours[1], ours[0]])
    return [
        "## Beside the paper",
        "Percent of test programs whose output is right; in brackets Student's 95 % interval over seeds."
        + (f" {TRACES}" if any("objective: trace_supervision" in run.recipe for run in study.runs) else ""),
        table(["arm", "published, sampled", "ours, sampled as published", "ours, greedy"], rows),
    ]


def by_group(study: StudyData, protocol: str, group: str) -> str:
    """Outputs by level or band: the mean over seeds in percent, with its interval."""
    values = groups(study, "output", protocol).get(group, ())
    found = group_scores(study, "output", protocol, group)
    rows = []
    for row in summarise(study).rows:
        cells = [[score.share for score in found[row.arm][value]] for value in values]
        rows.append([row.title, *(mean_and_interval(cell) for cell in cells)])
    return table([group, *values], rows)


def measures(study: StudyData) -> str:
    """Other measures, described and not tested."""
    summary = summarise(study)
    rows = [[m.name, *(share(m.means[row.arm]) for row in summary.rows)] for m in summary.measures]
    return table(["mean over seeds", *(row.title for row in summary.rows)], rows)


def unseen_layouts(study: StudyData) -> list[str]:
    """The comparison of policies in layouts of the stations that no training environment has."""
    if ("episodes", "unseen") not in study.evaluations():
        return []
    return ["## In unseen layouts of the stations", metric_table(study, "episodes", "unseen").strip()]


def designs(folder: Path) -> list[str]:
    """The stages that a language model wrote, once for all runs with the same design, and its reasons."""
    runs: dict[tuple[str, int, str], list[str]] = {}
    for path in sorted(folder.glob("*/seed-*/cycle-*/design.json")):
        cycle, seed, arm = int(path.parts[-2].removeprefix("cycle-")), path.parts[-3], path.parts[-4]
        bands = json.loads((path.parent / "table.json").read_text())["bands"]["names"]
        text = _design(json.loads(path.read_text()), cycle, bands)
        runs.setdefault((arm, cycle, text), []).append(seed.removeprefix("seed-"))
    if not runs:
        return []
    texts = [
        f"**{arm}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}, before cycle {cycle}**\n\n{text}"
        for (arm, cycle, text), seeds in sorted(runs.items(), key=lambda entry: entry[0][:2])
    ]
    return ["## The designs", *texts]


def _design(content: dict[str, Any], first: int, bands: list[str]) -> str:
    """Reason, stages and number of replies of one ``design.json``, whose first cycle is ``first``."""
    reason = " ".join(content["reason"].split())
    count = len(content["replies"])
    lines = [f"> {reason}", "", f"{'One reply' if count == 1 else f'{count} replies'}."]
    for faults in content["faults"]:
        lines += [f"Fault: {fault}." for fault in faults]
    if content["kept"]:
        return "\n".join([*lines, "The plan stays as it was."])
    rows = []
    for number, cycle in enumerate(content["cycles"], first):
        for spec in cycle["stages"]:
            pairs = zip(bands, spec["fractions"], strict=True)
            parts = ", ".join(f"{fraction:.0%} of {band}" for band, fraction in pairs if fraction)
            row = [str(number), spec["name"], f"{spec['tokens']:,}", parts, spec["order"], spec["objective"]]
            rows.append([cell or "default" for cell in row])
    head = ["cycle", "stage", "budget", "samples", "order", "objective"]
    return "\n".join([*lines, "", table(head, rows)])


def made(folder: Path, study: StudyData) -> str:
    """Where the figures come from."""
    folders = [*sorted(folder.glob("*/seed-*")), folder]  # a study's, or a single run's
    facts = [json.loads(file.read_text()) for each in folders if (file := each / "environment.json").exists()]
    commits = ", ".join(sorted({f"`{fact['commit']}`" for fact in facts}))
    processor = ", ".join(sorted({fact["processor"] for fact in facts}))
    threads = ", ".join(sorted({str(fact["threads"]) for fact in facts}))
    run = max(study.runs, key=lambda run: run.tokens)
    tokens, parameters = run.tokens, run.stages[-1].fitted.parameters
    auxiliary = run.stages[-1].fitted.auxiliary_parameters
    beside = f" (and {auxiliary:,} auxiliary ones in training)" if auxiliary else ""
    minutes = fmean(sum(s.fitted.seconds for s in run.stages) for run in study.runs if run.finished) / 60
    unit = "agent steps" if any(suite == "episodes" for suite, _ in study.evaluations()) else "tokens"
    return (
        f"{len(study.runs)} run(s), seed(s) {', '.join(map(str, study.seeds))}; {tokens:,} {unit}, {parameters:,}"
        f" parameters each{beside}; {minutes:.1f} minutes of training a run; commit {commits};"
        f" {processor}, {threads} thread(s) a run."
    )


def _command(folder: Path, study: StudyData) -> str:
    return f"gradatim study {folder.name}/… --seeds {len(study.seeds)} --out runs/{folder.name}"


def main(arguments: list[str]) -> None:
    """Write the page."""
    folder, page, title = Path(arguments[0]), Path(arguments[1]), arguments[2]
    study = collect([folder])
    old = page.read_text() if page.exists() else ""
    notes = old.partition(START)[2].partition(END)[0].strip() if START in old else ""
    command = arguments[3] if len(arguments) > 3 else _command(folder, study)
    again = " ".join(f'"{word}"' if " " in word else word for word in arguments[2:])
    parts = [
        f"# {title}",
        made(folder, study),
        f"`{command}`, then `python docs/write_study.py runs/{folder.name} {page.as_posix()} {again}`.",
        "## The comparison",
        markdown_table(study).strip(),
        *unseen_layouts(study),
        *beside_the_paper(study),
        f"{START}\n{notes}\n{END}",
    ]
    asked = [protocol for suite, protocol in study.evaluations() if suite == "output"]
    if asked:
        parts += [
            "## By level and by band",
            "Whole outputs, percent: mean over seeds, Student's 95 % interval in brackets.",
        ]
    for protocol in sorted(asked):
        parts.append({"greedy": "Greedy:", "paper": "Sampled as published:"}.get(protocol, f"{protocol}:"))
        parts += [by_group(study, protocol, group) for group in ("level", "band")]
    if summarise(study).measures:
        parts += ["## Other measures", measures(study)]
    parts += designs(folder)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
