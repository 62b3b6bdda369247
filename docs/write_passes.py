"""Write a page of docs/results that compares models on the same programming problems.

    python docs/write_passes.py PAGE TITLE "Student before=kept/base" \
        "Right answers=runs/f0-s1,runs/f1-s1;runs/f0-s2,runs/f1-s2" "Teacher=kept/teacher"

An argument is a title and the trained models of one arm: folders of a training seed separated by commas, seeds by
semicolons. A folder is either a run folder, whose last evaluations with verdicts per problem are read, or a folder that
``gradatim evaluate … --keep`` filled. Several folders of one seed are the folds of a cross-validation: each has the
problems that its model was not trained on. The first arm is the reference of all others.

Three tables: problems solved, with Wilson's interval over the problems; each trained model against the reference by
McNemar's exact test; and each arm against the reference over all its models, with Student's t interval over problems,
whose verdicts of several models are one mean, corrected by Holm over the rows. A fourth has the costs of the runs.
Notes between the markers of the page are written by hand and kept.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pyarrow.parquet as pq
from write_study import END, START, share, table

from gradatim.evaluation.paired_items import compare_items
from gradatim.evaluation.statistics import holm, t_interval, wilson
from gradatim.reporting import p_value, points

Outcomes = dict[str, str]
"""The outcome of each problem, by the problem's id."""


@dataclass(frozen=True)
class TrainedModel:
    """One model: its folder, and the outcomes of each benchmark (the part of the ids before the slash)."""

    folder: Path
    outcomes: dict[str, Outcomes]

    @property
    def is_run(self) -> bool:
        """Whether the folder is that of a run."""
        return (self.folder / "recipe.yaml").is_file()


@dataclass(frozen=True)
class Arm:
    """The trained models of one title: for each seed those of its folds."""

    title: str
    seeds: tuple[tuple[TrainedModel, ...], ...]

    @property
    def models(self) -> list[TrainedModel]:
        """The models of all seeds."""
        return [model for seed in self.seeds for model in seed]

    def verdicts(self, benchmark: str) -> dict[str, list[bool]]:
        """For each problem whether each model that was evaluated on it solves it."""
        verdicts: dict[str, list[bool]] = defaultdict(list)
        for model in self.models:
            for problem, outcome in model.outcomes.get(benchmark, {}).items():
                verdicts[problem].append(outcome == "passed")
        return dict(verdicts)


def read_kept(folder: Path) -> Outcomes:
    """The outcomes of greedy samples below ``folder``. ``SystemExit`` for several samples per problem."""
    outcomes: Outcomes = {}
    for path in sorted(folder.glob("**/verdicts.jsonl")):
        for line in path.read_text().splitlines():
            verdict = json.loads(line)
            if verdict["draw"] or verdict["task_id"] in outcomes:
                sys.exit(f"{path}: several samples of {verdict['task_id']}; allowed: one per problem")
            outcomes[verdict["task_id"]] = verdict["outcome"]
    return outcomes


def read_run(folder: Path) -> Outcomes:
    """The outcomes of the last stage of a run, all suites with verdicts per problem together."""
    stages = [path.parent for path in folder.glob("cycle-*/stage-*/evaluation-*.parquet")]
    outcomes: Outcomes = {}
    for path in sorted(max(stages).glob("evaluation-*.parquet")) if stages else []:
        rows = pq.read_table(path, columns=["id", "outcome"]).to_pydict()
        outcomes |= dict(zip(rows["id"], map(str, rows["outcome"]), strict=True))
    return outcomes


def read_model(name: str) -> TrainedModel:
    """The model of a folder. ``SystemExit`` for a folder without verdicts."""
    folder = Path(name)
    outcomes = read_run(folder) if (folder / "recipe.yaml").is_file() else read_kept(folder)
    if not outcomes:
        sys.exit(f"{folder}: no verdicts per problem; allowed: a finished run, or a folder of `evaluate --keep`")
    benchmarks: dict[str, Outcomes] = defaultdict(dict)
    for problem, outcome in outcomes.items():
        benchmarks[problem.partition("/")[0]][problem] = outcome
    return TrainedModel(folder, dict(benchmarks))


def read_arm(argument: str) -> Arm:
    """``TITLE=FOLDER[,FOLDER …][;FOLDER …]``."""
    title, _, folders = argument.partition("=")
    return Arm(title, tuple(tuple(map(read_model, seed.split(","))) for seed in folders.split(";")))


def benchmarks_of(arms: list[Arm]) -> list[str]:
    """The benchmarks on which the reference was evaluated."""
    return list(dict.fromkeys(name for model in arms[0].models for name in model.outcomes))


def solved(arms: list[Arm], benchmark: str) -> str:
    """The problems that each arm solves, the mean over its models where there are several of a problem."""
    rows = []
    for arm in arms:
        verdicts = arm.verdicts(benchmark)
        if not verdicts:
            continue
        by_seed = [[o for model in seed for o in model.outcomes.get(benchmark, {}).values()] for seed in arm.seeds]
        seeds = [outcomes.count("passed") / len(outcomes) for outcomes in by_seed if outcomes]
        total = sum(map(fmean, verdicts.values()))
        low, high = wilson(total, len(verdicts))
        counts = Counter(outcome for outcomes in by_seed for outcome in outcomes)
        evaluated = sum(counts.values())
        rows.append(
            [
                arm.title,
                f"{total:.4g} of {len(verdicts)}",
                f"{share(total / len(verdicts))} %",
                f"{share(low)} to {share(high)}",
                " ".join(map(share, seeds)) if len(seeds) > 1 else "–",
                *(f"{share(counts[outcome] / evaluated)} %" for outcome in ("failed", "invalid", "timeout")),
            ]
        )
    names = ["solved", "pass@1", "95 % interval", "each seed", "wrong", "no whole program", "timeout"]
    return table([benchmark, *names], rows)


def by_model(arms: list[Arm], benchmark: str) -> str:
    """McNemar's exact test of each trained model against the reference, corrected by Holm over the rows."""
    reference = {problem: all(verdicts) for problem, verdicts in arms[0].verdicts(benchmark).items()}
    items = {"": reference}
    for arm in arms[1:]:
        for number, seed in enumerate(arm.seeds, start=1):
            for fold, model in enumerate(seed):
                outcomes = model.outcomes.get(benchmark, {})
                name = arm.title + (f", seed {number}" if len(arm.seeds) > 1 else "")
                name += f", fold {fold}" if len(seed) > 1 else ""
                if outcomes:
                    items[name] = {problem: outcome == "passed" for problem, outcome in outcomes.items()}
    rows = [
        [row.model, str(row.items), str(row.won), str(row.lost), points(row.difference), p_value(row.p),
         p_value(row.p_holm)]
        for row in compare_items(items, [(name, "") for name in items if name])
    ]  # fmt: skip
    return table([f"model, {benchmark}", "problems", "won", "lost", "points", "p", "p, Holm"], rows)


def by_arm(arms: list[Arm], benchmark: str) -> str:
    """Each arm against the reference and against the arm before it, with the problem as the unit."""
    pairs = [(arm, arms[0]) for arm in arms[1:]] + [(arms[n], arms[n - 1]) for n in range(2, len(arms))]
    rows: list[tuple[str, str, list[float]]] = []
    for arm, reference in pairs:
        new, old = arm.verdicts(benchmark), reference.verdicts(benchmark)
        common = sorted(new.keys() & old.keys())
        if common:
            rows.append((arm.title, reference.title, [fmean(new[name]) - fmean(old[name]) for name in common]))
    levels = {str(number): _p_of_mean(values) for number, (_, _, values) in enumerate(rows)}
    corrected = holm(levels)
    lines = []
    for number, (title, reference_title, values) in enumerate(rows):
        interval = t_interval(values)
        bounds = "–" if interval is None else f"{points(interval.low)} to {points(interval.high)}"
        p = corrected[str(number)]
        lines.append([title, reference_title, str(len(values)), points(fmean(values)), bounds, p_value(p)])
    return table([f"arm, {benchmark}", "against", "problems", "points", "95 % interval", "p, Holm"], lines)


def _p_of_mean(values: list[float]) -> float:
    """Two-sided p of Student's t test that the mean of ``values`` is zero."""
    from scipy.special import stdtr

    if len(values) < 2 or not any(values):
        return 1.0
    error = stdev(values) / len(values) ** 0.5
    return float(2 * stdtr(len(values) - 1, -abs(fmean(values)) / error)) if error else 0.0


def costs(arms: list[Arm]) -> str:
    """Samples, answer tokens and teacher tokens of each arm, the mean over its runs."""
    rows = []
    for arm in arms:
        runs = [model.folder for model in arm.models if model.is_run]
        if not runs:
            continue
        totals: Counter[str] = Counter()
        for run in runs:
            for cycle in sorted(run.glob("cycle-*")):
                source = json.loads((cycle / "table.json").read_text())["facts"]["source"]
                teacher = source.get("teacher", {})
                totals["cycles"] += 1
                totals["requests"] += teacher.get("requests", 0) or source.get("replies", 0)
                for path in cycle.glob("stage-*/result.json"):
                    stage = json.loads(path.read_text())
                    totals["samples"] += stage["samples"]
                    totals["tokens"] += stage["fitted"]["tokens"]
        commits = sorted({json.loads((run / "environment.json").read_text())["commit"] for run in runs})
        means = [f"{totals[name] / len(runs):,.0f}" for name in ("cycles", "samples", "tokens", "requests")]
        rows.append([arm.title, str(len(runs)), *means, ", ".join(f"`{commit}`" for commit in commits)])
    return table(["arm", "runs", "cycles", "samples", "answer tokens", "replies or requests", "commit"], rows)


def main(arguments: list[str]) -> None:
    """Write the page."""
    name, title, *arms_given = arguments
    arms = list(map(read_arm, arms_given))
    page = Path(name)
    old = page.read_text() if page.exists() else ""
    notes = old.partition(START)[2].partition(END)[0].strip() if START in old else ""
    parts = [f"# {title}", "Written by `docs/write_passes.py` from run folders and kept verdicts."]
    for benchmark in benchmarks_of(arms):
        parts += [f"## {benchmark}", solved(arms, benchmark), by_arm(arms, benchmark), by_model(arms, benchmark)]
    parts += ["## Costs", costs(arms), f"{START}\n{notes}\n{END}"]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
