"""Which of the same problems do several models solve? As a page of docs/results tells it.

    python docs/write_passes.py docs/results/coder.md "TITLE" \
        "Student before=kept/before" "Full cycle=kept/full,runs/full" "Teacher=kept/teacher"

Each model is a title and the folder that ``gradatim evaluate … --keep`` filled, and where it was trained here the run's
folder. The first is what the others are compared with, problem by problem; so is each run with the run before it. The
questions must be the same. What explains the figures is written by hand between the notes' markers and kept.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from write_study import END, START, share, table

from gradatim.evaluation.paired_items import compare_items
from gradatim.evaluation.statistics import wilson
from gradatim.reporting import p_value, points


@dataclass(frozen=True)
class Asked:
    """One model: what became of each problem (greedy, one draw), the settings, and the run that made it."""

    title: str
    outcomes: dict[str, str]
    settings: dict[str, Any]
    run: Path | None

    @property
    def passed(self) -> dict[str, bool]:
        return {problem: outcome == "passed" for problem, outcome in self.outcomes.items()}


def asked(argument: str) -> Asked:
    """``TITLE=KEPT[,RUN]``; ``SystemExit`` when the folder holds not exactly one evaluation of one draw."""
    title, _, folders = argument.partition("=")
    kept, _, run = folders.partition(",")
    found = sorted(Path(kept).glob("**/verdicts.jsonl"))
    if len(found) != 1:
        sys.exit(f"{kept}: {len(found)} evaluations are kept there; allowed: one")
    verdicts = [json.loads(line) for line in found[0].read_text().splitlines()]
    if any(verdict["draw"] for verdict in verdicts):
        sys.exit(f"{kept}: several draws a problem; allowed: one")
    settings = json.loads((found[0].parent / "settings.json").read_text())
    return Asked(title, {each["task_id"]: each["outcome"] for each in verdicts}, settings, Path(run) if run else None)


def passes(models: list[Asked]) -> str:
    """pass@1 of each, with Wilson's interval over the problems, and why the others failed."""
    rows = []
    for model in models:
        counts = Counter(model.outcomes.values())
        low, high = wilson(counts["passed"], len(model.outcomes))
        rows.append(
            [
                model.title,
                f"{counts['passed']} of {len(model.outcomes)}",
                f"{share(counts['passed'] / len(model.outcomes))} %",
                f"{share(low)} to {share(high)}",
                *(str(counts[outcome]) for outcome in ("failed", "invalid", "timeout")),
            ]
        )
    return table(["model", "solved", "pass@1", "95 % interval", "wrong", "no whole program", "timeout"], rows)


def differences(models: list[Asked]) -> str:
    """McNemar's exact test of each model against the first and of each run against the run before it, after Holm."""
    runs = [model for model in models if model.run]
    pairs = [(model, models[0]) for model in models[1:]] + [(after, before) for before, after in pairwise(runs)]
    names = [(model.title, against.title) for model, against in pairs]
    rows = [
        [
            row.model,
            row.reference,
            str(row.won),
            str(row.lost),
            points(row.difference),
            p_value(row.p),
            p_value(row.p_holm),
        ]
        for row in compare_items({model.title: model.passed for model in models}, list(dict.fromkeys(names)))
    ]
    return table(["model", "against", "won", "lost", "points", "p", "p, Holm"], rows)


def costs(models: list[Asked]) -> str:
    """What each run learnt from, and what its teacher wrote, added over its cycles."""
    rows = []
    for model in models:
        if model.run is None:
            continue
        samples = tokens = requests = replies = 0
        cycles = sorted(model.run.glob("cycle-*"))
        for cycle in cycles:
            source = json.loads((cycle / "table.json").read_text())["facts"]["source"]
            spent = source.get("teacher", {})
            requests += spent.get("requests", 0)
            replies += spent.get("completion_tokens", 0)
            for path in cycle.glob("stage-*/result.json"):
                stage = json.loads(path.read_text())
                samples += stage["samples"]
                tokens += stage["fitted"]["tokens"]
        commit = json.loads((model.run / "environment.json").read_text())["commit"]
        rows.append(
            [model.title, *(f"{n:,}" for n in (len(cycles), samples, tokens, requests, replies)), f"`{commit}`"]
        )
    head = ["run", "cycles", "samples learnt", "answer tokens learnt", "requests", "tokens the teacher wrote", "commit"]
    return table(head, rows)


def main(arguments: list[str]) -> None:
    """Write the page."""
    page, title, *told = arguments
    models = [asked(each) for each in told]
    if len({model.settings["questions"] for model in models}) != 1:
        sys.exit("the models were not asked the same questions")
    place = Path(page)
    old = place.read_text() if place.exists() else ""
    notes = old.partition(START)[2].partition(END)[0].strip() if START in old else ""
    settings = {key: models[0].settings[key] for key in ("protocol", "tokens", "chat", "seed")}
    parts = [
        f"# {title}",
        f"Asked alike: {json.dumps(settings)[1:-1]}. Written by `docs/write_passes.py` from what"
        " `gradatim evaluate … --keep` left and from the run folders.",
        passes(models),
        "Problem by problem, by McNemar's exact test and Holm's correction over all rows:",
        differences(models),
        "What it took:",
        costs(models),
        f"{START}\n{notes}\n{END}",
    ]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
