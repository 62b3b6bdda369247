"""``gradatim run``: train a recipe, or resume it.

``gradatim plan``: the stages, data and cost of a recipe, without training.

``gradatim study``: several recipes with several seeds, compared statistically.

``gradatim report``: one HTML page or Markdown table that compares runs.

``gradatim compare``: models on the same test items, by McNemar's exact test.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import evaluation, reporting
from .. import show as show_package
from ..api import default_folder, study_plan
from ..errors import UserError, WorkFailed
from ..experiment import assemble, parts, ranks
from ..experiment import plan as plan_module
from ..experiment import recipe as recipe_module
from ..experiment import run as run_module
from ..experiment import study as study_module
from ..experiment import timing as timing_module
from ..experiment.recipe import load
from ..experiment.recipe_files import files_of, find_study
from ..experiment.run_lock import start_afresh
from ..files import check_output
from ..model import hub
from ..processes import is_other_rank, launch
from .output import (
    Changes,
    Force,
    Fresh,
    Json,
    On,
    check_page,
    check_run_output,
    output,
    print_json,
    print_notes,
    size,
    table,
    watching,
    words,
)
from .progress import duration
from .track import Track, check_trackers, tracking

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiment.plan import PlannedCycle, PlannedStage, RunPlan
    from ..experiment.recipe import Recipe
    from ..experiment.study import Plan
    from ..experiment.timing import RunTime


RUN_EXAMPLES = (
    "gradatim run demo/baseline",
    "gradatim run paper/baseline --processes 4",
    "gradatim run curriculum/hybrid --server 'vllm serve {model} --port {port}'",
    "gradatim run curriculum/hybrid --set seed=2 --out runs/hybrid-2",
)


Server = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Start this server for the model after each stage, and let it write the texts of attempts and suites: "
        "'vllm serve {model} --port {port}'.",
    ),
]


def run(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE…", help="Recipes by name (gradatim list recipes) or file, run in sequence."),
    ],
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/NAME, after the recipe)")] = None,
    fresh: Fresh = False,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes of this machine that train one model together, one per accelerator if there are any. They "
            "change the time and the last bits, not the batches.",
        ),
    ] = 1,
    server: Server = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate a model by a recipe, stage by stage.

    Repeat the command to resume, or give gradatim resume FOLDER; Ctrl-C saves the state first. Ends with the result
    table and report.html in the run folder. Over several machines, torchrun or another launcher that sets RANK and
    WORLD_SIZE starts the processes.
    """
    if out is not None and len(recipes) > 1:
        raise UserError("one folder holds one run", where="--out", given=f"{len(recipes)} recipes")
    trackers = check_trackers(track)
    loaded = {name: load(name, changes or (), events=print_notes) for name in recipes}
    launched = _launched(processes)
    for name, recipe in loaded.items():
        assemble.check(recipe, name)
        run_module.check_processes_of(recipe, launched or processes)
        if server is not None:
            run_module.check_server(recipe, server)
    folders = [out or default_folder(name) for name in loaded]
    if not is_other_rank():
        for name, folder in zip(loaded, folders, strict=True):
            check_run_output(folder, "--out", files_of(name))
        for folder in folders if fresh else ():
            start_afresh(folder)
    if processes > 1 and not launched:
        options = ["--out", str(out)] if out else []
        options += [word for change in changes or () for word in ("--set", change)]
        options += ["--server", server] if server else []
        options += ["--json"] if as_json else []
        words = ["run", *recipes, "--processes", str(processes), *options]
        from .launch import command, supervise  # here, so that a plan imports no multiprocessing

        with tracking(folders, trackers):
            code = supervise(partial(command, words), processes, lambda: ranks.resume_hint(folders))
        raise typer.Exit(code)
    with tracking(folders, trackers):
        results = [
            run_recipe(recipe, out or default_folder(name), as_json, server=server) for name, recipe in loaded.items()
        ]
    if as_json and not is_other_rank():
        print_json(results)


def _launched(processes: int) -> int:
    """The number of processes that a launcher started, 0 without one; ``UserError`` when ``--processes`` differs."""
    launched = launch().size
    if launched > 1 and processes not in (1, launched):
        raise UserError(
            "a launcher has started another number of processes",
            where="--processes",
            given=f"{processes}, and WORLD_SIZE={launched}",
            hint="without --processes",
        )
    return launched if launched > 1 else 0


Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="PERCENT",
        help="Accuracy in percent to which tokens and training seconds are given, comma-separated; best with "
        "evaluate.every.",
    ),
]


def _targets(values: Sequence[str] | None) -> list[float]:
    """The accuracies of ``--target`` as fractions. Raises ``UserError``."""
    targets = []
    for word in words(values or ()):
        try:
            share = float(word.removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise UserError(
                "an accuracy in percent is needed", where="--target", given=word, allowed="above 0, up to 100"
            )
        targets.append(share)
    return targets


def run_recipe(
    recipe: Recipe, folder: Path, quiet: bool, store: Path | None = None, server: str | None = None
) -> dict[str, Any]:
    """Run one recipe, write its report and print its result; return the entry for ``--json``."""
    with watching(resumable=True) as events:
        stages = run_module.run(recipe, folder, store=store, events=events, server=server)
    if is_other_rank():
        return {}
    report = print_report([folder], folder / "report.html", quiet)
    return {
        "folder": str(folder),
        "report": str(report),
        "stages": [
            {
                "stage": stage.spec.name,
                "samples": stage.samples,
                "tokens": stage.fitted.tokens,
                "steps": stage.fitted.steps,
                "loss": stage.fitted.loss,
                "results": {
                    f"{result.suite}-{result.protocol}{'-validation' * (result.split == 'validation')}": (
                        evaluation.summary(result)
                    )
                    for result in stage.evaluations
                },
            }
            for stage in stages
        ],
    }


def print_report(
    folders: list[Path], page: Path, quiet: bool = False, targets: Sequence[float] = (), play: bool = False
) -> Path:
    """Write the report of ``folders``, print the result table and return the path of the report.

    ``play``: with the map of test programs and the playground of ``gradatim show``.
    """
    write = show_package.write_report if play else reporting.write_report
    path = write(folders, page, targets=targets)
    if not quiet:
        study = reporting.collect(folders, targets=targets)
        for note in study.notes:
            output().print(f"note: {note}", markup=False, soft_wrap=True)
        output().print(reporting.terminal_table(study))
        output().print(f"report: {path}", markup=False, soft_wrap=True)
    return path


PLAN_EXAMPLES = (
    "gradatim plan curriculum/hybrid",
    "gradatim plan curriculum/hybrid --set schedule.replay=0.25 --data",
    "gradatim plan demo/baseline --examples",
    "gradatim plan demo --time",
)


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe or study by name (gradatim list) or file.")],
    changes: Changes = None,
    data: Annotated[
        bool | None,
        typer.Option(
            "--data/--no-data", help="Draw and score the samples to count them. (default: if a run has done so)"
        ),
    ] = None,
    examples: Annotated[
        bool,
        typer.Option("--examples", help="Also show three formatted training samples with their loss mask."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; samples already drawn there are read.")] = None,
    measure: Annotated[
        bool,
        typer.Option("--time", help="Train a few steps in a temporary folder and estimate how long a run takes here."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the stages, data and cost of a recipe without training.

    Shares, tokens and steps come from the recipe alone. Sample and character counts need the data: --data draws it, a
    finished draw of a run is read; nothing is stored. With several cycles the plan has the questions of each, the
    number of completions and teacher requests, and an estimate of tokens and cost, without contacting the teacher.
    An LLM-designed schedule is requested with --data (one or two requests; cached, so a run does not pay again);
    --no-data sends no requests. Of a study, the differences between its arms and the tokens of each are shown. --time
    makes the data, trains a few steps and runs the suites on a few samples.
    """
    if (study := find_study(recipe)) is not None:
        if data or examples:
            option = "--examples" if examples else "--data"
            hint = f"gradatim plan {study.address(next(iter(study.arms)))} {option}"
            raise UserError("the samples of one arm are drawn, not those of a study", where=option, hint=hint)
        _plan_study(recipe, changes or (), measure, as_json)
        return
    loaded = load(recipe, changes or (), events=print_notes)
    with watching() as events:
        store = (out or default_folder(recipe)) / "data"
        planned = plan_module.plan_run(loaded, data=data, examples=examples, store=store, events=events)
        estimate = timing_module.measure_run(loaded, store=store, events=events) if measure else None
    if as_json:
        print_json(planned.plain() | ({} if estimate is None else {"time": estimate.plain()}))
        return
    _print(planned, loaded, output())
    if estimate is not None:
        output().print(f"time on this machine: {_time_line(estimate)}", markup=False)


def _time_line(estimate: RunTime) -> str:
    """An estimated duration with its parts."""
    parts = {
        "data": estimate.preparation,
        "training": estimate.training,
        "validation": estimate.validation,
        "evaluation at most": estimate.evaluation,
    }
    line = (
        f"about {duration(estimate.total)}: {', '.join(f'{name} {duration(value)}' for name, value in parts.items())}"
    )
    line += f"; {estimate.steps:,} steps of {estimate.step * 1000:,.0f} ms, measured over {estimate.measured}"
    return line + (f"; without {', '.join(estimate.omitted)}" if estimate.omitted else "")


def _plan_study(name: str, changes: Sequence[str], measure: bool, as_json: bool) -> None:
    """Print the arms of a study: their differences, the tokens and steps of a run, and the sum over all seeds."""
    study, folder = study_plan(name, changes=changes, events=print_notes)
    arms = {arm: (recipe, plan_module.plan_run(recipe, data=False)) for arm, recipe in study.arms.items()}
    seeds = len(study.seeds)
    tokens = seeds * sum(plan.tokens for _, plan in arms.values())
    estimate = None
    if measure:
        with watching() as events:
            estimate = timing_module.measure_study(study, events=events)
    if as_json:
        plain = [{"arm": arm, "seeds": seeds, **plan.plain()} for arm, (_, plan) in arms.items()]
        content = {"title": study.title, "baseline": study.baseline, "tokens": tokens, "arms": plain}
        print_json(content | ({} if estimate is None else {"time": estimate.plain()}))
        return
    console = output()
    console.print(f"{study.title}: {len(arms)} arms, {seeds} seeds, in {folder}", markup=False, soft_wrap=True)
    rows = [
        (arm + (" (baseline)" if arm == study.baseline else ""), _differences(study, arm), plan.tokens, plan.steps)
        for arm, (_, plan) in arms.items()
    ]
    console.print(table(("arm", "differs from the baseline in", "tokens", "steps"), rows, left=2))
    console.print(f"{tokens:,} tokens in {seeds * len(arms)} runs", markup=False)
    if estimate is not None:
        for arm, of_arm in estimate.arms.items():
            console.print(f"{arm}, one run: {_time_line(of_arm)}", markup=False)
        runs = f"{estimate.parallel} at a time" if estimate.parallel > 1 else "one after the other"
        console.print(f"time on this machine: about {duration(estimate.total)}, {runs}", markup=False)
    for arm, (_, plan) in arms.items():
        for line in _teacher_lines(plan.teacher) if plan.teacher is not None else ():
            console.print(f"{arm}, one run: {line}", markup=False)


def _differences(study: Plan, arm: str) -> str:
    """The keys and values in which an arm differs from the baseline."""
    lines = recipe_module.changed_keys(study.arms[study.baseline], study.arms[arm])
    return ", ".join("=".join((key, line.rpartition(" -> ")[2])) for line in lines for key in [line.partition(":")[0]])


def _print(plan: RunPlan, recipe: Recipe, console: Console) -> None:
    has_counts = plan.data is not None
    console.print(f"{plan.title or 'recipe'}: schedule {plan.schedule}, difficulty {plan.metric}", markup=False)
    bands = [(band.name, _range(band.low, band.high), band.samples) for band in plan.bands]
    console.print(table(("band", "difficulty", "samples"), bands, left=2))
    several = len(plan.cycles) > 1
    columns = [*(["cycle"] if several else []), "stage", *(band.name for band in plan.bands), "order"]
    columns += ["samples", "characters", "passes"] if has_counts else []
    rows = [[*([stage.cycle] if several else []), *_row(stage, has_counts)] for stage in plan.stages]
    if rows:
        console.print(table([*columns, f"{plan.unit}s", _updates(plan)], rows, left=len(plan.bands) + 2 + several))
    for line in _design(plan):
        console.print(line, markup=False)
    if plan.cycles:
        _print_cycles(plan, console)
    disk = [f"{name} {size(bytes_)}" for name, bytes_ in plan.disk.items() if bytes_ is not None]
    console.print(
        f"{plan.tokens:,} {plan.unit}s in at least {plan.steps:,} {_updates(plan)}; "
        f"model {plan.preset}: {_model_size(plan, recipe)}" + (f"; disk: {', '.join(disk)}" if disk else ""),
        markup=False,
    )
    if plan.data is not None:
        splits = [f"{plan.data[split]:,} {split}" for split in ("train", "validation", "test")]
        console.print(f"samples: {', '.join(splits)}; {plan.data['unscored']:,} without a difficulty", markup=False)
    else:
        console.print("samples were not counted (--data draws and counts them)", style="dim")
    for number, example in enumerate(plan.examples, 1):
        console.print(f"training example {number}: {example.loss_tokens} of {example.tokens} tokens have a loss")
        for segment, line in zip(example.segments, example.lines(), strict=True):
            console.print(f"  {line}", style=None if segment.loss else "dim", markup=False, soft_wrap=True)


def _updates(plan: RunPlan) -> str:
    """The noun of the updates of the model."""
    return "steps" if plan.unit == "token" else "rollouts"


def _model_size(plan: RunPlan, recipe: Recipe) -> str:
    """Parameters of the model: "0.33 M parameters", of a LoRA adapter "4.9 M trainable of 134.5 M parameters"."""
    if plan.parameters is None:
        return "unknown size until it is downloaded"
    if (
        recipe.is_language
        and recipe.model.lora is not None
        and (size := hub.model_size(str(recipe.base), recipe.model.lora)) is not None
    ):
        return f"{_millions(size.trainable)} trainable of {_millions(size.total)} parameters"
    return f"{_millions(plan.parameters)} parameters"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M" if count < 1e6 else f"{count / 1e6:,.1f} M"


def _print_cycles(plan: RunPlan, console: Console) -> None:
    """The completions and teacher requests of each cycle, and their cost."""
    kinds = [
        kind
        for kind in ("questions", "answers", "faults", "rubric", "designs")
        if any(cycle.requests.get(kind) for cycle in plan.cycles)
    ]
    columns = ("cycle", "new questions", "by grade", "max samples", "completions before", "completions after")
    rows = [(*_cycle(cycle), *(cycle.requests.get(kind, 0) for kind in kinds)) for cycle in plan.cycles]
    console.print(table([*columns, *(f"teacher: {kind}" for kind in kinds)], rows))
    if plan.teacher is not None:
        for line in _teacher_lines(plan.teacher):
            console.print(line, markup=False)


def _design(plan: RunPlan) -> Iterator[str]:
    """The lines about an LLM-designed schedule: its designer, reason and requests."""
    design, teacher = plan.design, None if plan.teacher is None else plan.teacher["name"]
    if design is None:
        return
    revision = ", and 1 or 2 before each later cycle, to revise it by the model's progress" if design["revises"] else ""
    if not design["asked"]:
        yield f"stages: designed by the teacher {teacher} when the samples are drawn (--data requests the design now)"
    else:
        requests = "1 request" if design["requests"] == 1 else f"{design['requests']} requests"
        yield f"stages: designed by the teacher {teacher} ({requests}; cached, a run does not pay again)"
        yield f"reason: {design['reason']}"
    yield f"a design takes 1 or 2 requests before the first cycle{revision}; they count towards the cost"


def _cycle(cycle: PlannedCycle) -> tuple[object, ...]:
    grades = ", ".join(f"{number:,} {grade}" for grade, number in cycle.by_grade.items()) or None
    return (cycle.cycle, cycle.questions, grades, cycle.samples, cycle.attempts, cycle.feedback)


def _teacher_lines(estimate: Mapping[str, Any]) -> Iterator[str]:
    """The lines about the teacher's requests, tokens, cost and budget."""
    requests = sum(estimate["requests"].values())
    if estimate["prompt_tokens"] is None:
        yield f"teacher {estimate['name']}: {requests:,} calls, no tokens, no cost"
        return
    yield (
        f"teacher {estimate['name']}: about {requests:,} requests, {estimate['prompt_tokens']:,} prompt tokens, "
        f"at most {estimate['completion_tokens']:,} completion tokens ({estimate['max_tokens']} per request)"
    )
    if estimate["prices"] is not None:
        yield f"cost: about {estimate['cost']:.4g} if every completion has the maximum length, in the prices' unit"
    else:
        yield "cost: 0" if estimate["cost"] is not None else "cost: unknown, the recipe has no prices"
    lengths = "measured on the samples" if estimate["characters"]["measured"] else "assumed, no samples were read"
    yield (
        f"estimated with question lengths {lengths}; unreadable replies and duplicate questions are requested again, "
        "cached replies cost nothing"
    )
    limits = [
        f"{estimate[name]:,} {unit}"
        for name, unit in (("budget_tokens", "tokens"), ("budget_money", "money"))
        if estimate.get(name)
    ]
    if limits:
        yield f"budget of the teacher: {' and '.join(limits)}"


def _row(stage: PlannedStage, has_counts: bool) -> list[object]:
    row: list[object] = [stage.stage, *(_share(stage, band) for band in stage.fractions), stage.order]
    if has_counts:
        row += [stage.samples, stage.characters, None if stage.passes is None else f"{stage.passes:.2f}"]
    return [*row, stage.tokens, stage.steps]


def _share(stage: PlannedStage, band: str) -> str:
    """A cell of the matrix: the share of the band, which end of it, and the number of samples."""
    fraction = stage.fractions[band]
    if not fraction:
        return "·"
    end = f" {stage.ends[band]}" if band in stage.ends else ""
    count = f" ({stage.bands[band]:,})" if stage.bands is not None else ""
    return f"{fraction:.0%}{end}{count}"


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "quantiles of the data"
    if low is None:
        return f"below {high:g}"
    return f"from {low:g}" if high is None else f"{low:g} to {high:g}"


STUDY_EXAMPLES = (
    "gradatim study demo",
    "gradatim study adaptive --arms baseline,mastery --seeds 5",
    "gradatim study curriculum/baseline curriculum/reverse --out runs/direction --set budget.tokens=500000",
    "gradatim study demo --out runs/demo --part 1/4",
)


def study(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY…",
            help="A study by name (gradatim list studies) or file, or the arms: recipes by name or file.",
        ),
    ],
    arms: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Arms of the study, comma-separated. (default: all)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Study folder. (default: runs/NAME, after the study)")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds per arm; at least 5 to claim a difference. (default: the study's, or 3)"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Arm to compare with. (default: the study's, or the one with schedule `baseline`)"),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Parallel runs (0 = auto).")] = 0,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="N/COUNT",
            help="Do every COUNT-th run from the N-th on; slurm: the part of this task of a job array. Parts may run "
            "at the same time in a shared folder; gradatim report joins them.",
        ),
    ] = None,
    on: On = None,
    server: Server = None,
    power: Annotated[
        bool,
        typer.Option(
            "--power", help="Run nothing; print the difference that the folder's runs, or --seeds, can detect."
        ),
    ] = False,
    target: Targets = None,
    changes: Changes = None,
    fresh: Fresh = False,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Run the arms of a study with several seeds each and compare them.

    All arms share the data and the test set. Repeat the command to resume it or to add seeds and arms; gradatim resume
    FOLDER resumes it as it is. Ends with the result table and report.html.
    """
    targets = _targets(target)
    trackers = check_trackers(track)
    share = None if part is None else parts.parse_part(part)
    if share is not None and fresh:
        raise UserError("a part does not discard what other parts have made", where="--fresh", given=f"--part {part}")
    plan, folder = study_plan(
        recipes,
        out,
        arms=None if arms is None else words(arms),
        seeds=seeds,
        baseline=baseline,
        changes=changes or (),
        events=print_notes,
    )
    if power:
        _print_power(folder, seeds)
        return
    check_run_output(folder, "--out", [file for name in recipes for file in files_of(name)])
    if fresh:
        start_afresh(folder)
    with tracking([folder], trackers):
        if share is not None:
            run_part(plan, folder, workers, share, on, as_json, server)
        else:
            run_study(plan, folder, workers, targets, as_json, on, server)


def run_part(
    plan: Plan, folder: Path, workers: int, part: parts.Part, on: str | None, as_json: bool, server: str | None
) -> None:
    """Run the unfinished runs of one part of a study, and print how many runs of the study are finished."""
    with watching(resumable=True) as events:
        study_module.study(plan, folder, workers=workers, part=part, on=on, events=events, server=server)
    runs, finished, total = len(part.select(plan.runs())), study_module.finished_runs(plan, folder), len(plan.runs())
    if as_json:
        print_json({"part": str(part), "runs": runs, "finished": finished, "total": total})
        return
    output().print(
        f"part {part}: {runs} of {total} runs; finished so far: {finished} of {total}; gradatim report {folder}",
        markup=False,
        soft_wrap=True,
    )


def run_study(
    plan: Plan,
    folder: Path,
    workers: int,
    targets: Sequence[float] = (),
    as_json: bool = False,
    on: str | None = None,
    server: str | None = None,
) -> None:
    """Run the unfinished runs of a study, write its report and print its result, also when runs failed."""
    try:
        with watching(resumable=True) as events:
            study_module.study(plan, folder, workers=workers, on=on, events=events, server=server)
    except WorkFailed:
        # Finished runs are reported even when others failed.
        print_report([folder], folder / "report.html", as_json, targets)
        raise
    print_report([folder], folder / "report.html", as_json, targets)
    if as_json:
        print_json(reporting.results(reporting.collect([folder])))
    else:
        output().print(
            f"map of test programs, playground: gradatim show {shlex.quote(str(folder))}", markup=False, soft_wrap=True
        )


def _print_power(folder: Path, seeds: int | None) -> None:
    """Print the differences that the study in ``folder`` detects, with its seeds or with ``seeds``."""
    if not folder.is_dir():
        raise UserError("there is no study to take the spread from", where=folder, hint="a pilot: --seeds 2")
    lines = reporting.power_lines(reporting.summarise(reporting.collect([folder])), seeds)
    if not lines:
        raise UserError("power needs a baseline and another arm with two finished seeds", where=folder)
    for line in lines:
        output().print(line, markup=False, soft_wrap=True)


REPORT_EXAMPLES = (
    "gradatim report runs/hybrid-study",
    "gradatim report runs/a runs/b --out compared.html",
    "gradatim report runs/hybrid-study --play --out playground.html",
    "gradatim report runs/hybrid-study --markdown > result.md",
    "gradatim report runs/hybrid-study --target 75",
    "gradatim report runs/hybrid-study --watch 30",
    "gradatim report runs/hybrid-study --csv > counts.csv",
)


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run or study folders, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write. (default: report.html in the folder; with several folders, in the current one)"
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the result table as Markdown; write a page only with --out.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON (stable form); a page only with --out.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the counts of every evaluation as CSV; a page only with --out.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Also write outcomes and stored predictions on every test item (.csv or .jsonl)."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(min=1, help="Write the page again after so many seconds until all runs are finished."),
    ] = None,
    play: Annotated[
        bool,
        typer.Option("--play", help="Add the map of test programs and a playground with the students to the page."),
    ] = False,
    target: Targets = None,
    force: Force = False,
) -> None:
    """Compare runs on one self-contained HTML page.

    The run folders are only read, so runs in progress can be reported too. The report.html inside the folder of a run
    or study is brought up to date by each report; any other existing file is replaced with --force only.
    """
    targets = _targets(target)
    printed = _printed_form(markdown, as_json, as_csv)
    page = out or (folders[0] / "report.html" if len(folders) == 1 else Path("report.html"))
    if printed is None or out is not None:
        check_page(page, "--out", force=force or page == folders[0] / "report.html")
    elif play:
        hint = "--out FILE, or --play alone"
        raise UserError("the playground is a part of the page", where="--play", given=f"--{printed}", hint=hint)
    if predictions is not None:
        _check_predictions(predictions, folders)
    if watch is not None:
        if printed is not None:
            raise UserError("only a page is written again", where="--watch", given=f"--{printed}")
        if play:
            hint = "gradatim show, which follows a run"
            raise UserError("a page with a playground is written once", where="--watch", given="--play", hint=hint)
        _watch(folders, page, targets, watch)
    study = reporting.collect(folders, targets=targets)
    if predictions is not None:
        reporting.write_predictions(study, predictions)
    match printed:
        case None:
            print_report(folders, page, targets=targets, play=play)
        case "markdown":
            typer.echo(reporting.markdown_table(study), nl=False)
        case "json":
            print_json(reporting.results(study))
        case "csv":
            typer.echo(reporting.as_csv(reporting.COUNTS, reporting.count_rows(study)), nl=False)
    if printed is not None and out is not None:
        if play:
            show_package.write_report(folders, out, targets=targets)
        else:
            reporting.write_page(study, out)


def _printed_form(markdown: bool, as_json: bool, as_csv: bool) -> str | None:
    """The form in which the result is printed instead of a page; None for a page. Raises ``UserError`` for several."""
    forms = [name for name, chosen in (("markdown", markdown), ("json", as_json), ("csv", as_csv)) if chosen]
    if len(forms) > 1:
        raise UserError("one form can be printed", where="report", given=" and ".join(f"--{name}" for name in forms))
    return next(iter(forms), None)


def _check_predictions(path: Path, folders: Sequence[Path]) -> None:
    """Raise ``UserError`` for a file of another kind, or one that is not of this package."""
    if path.suffix.lower() not in reporting.PREDICTION_FORMATS:
        allowed = ", ".join(reporting.PREDICTION_FORMATS)
        raise UserError("predictions are CSV or JSON Lines", where="--predictions", given=path, allowed=allowed)
    check_output(path, "--predictions", ours=reporting.is_predictions, inputs=list(folders))


def _watch(folders: Sequence[Path], page: Path, targets: Sequence[float], seconds: float) -> None:
    """Write the page every ``seconds`` until all runs are finished; browsers load it again."""
    while missing := (study := reporting.collect(folders, targets=targets)).missing:
        reporting.write_page(study, page, refresh=seconds)
        output().print(f"{page}: {len(missing)} runs are not finished; {missing[0]}", markup=False, soft_wrap=True)
        time.sleep(seconds)


COMPARE_EXAMPLES = (
    "gradatim compare runs/smoke-sequential",
    "gradatim compare runs/demo --suite output",
    "gradatim compare before.parquet after.parquet",
)


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…",
            help="A run (its stages) or a study (its arms); or several runs or files of verdicts, the reference first.",
        ),
    ],
    suite: Annotated[str, typer.Option(help="Suite of the run folders, by name or label.")] = "output",
    as_json: Json = False,
) -> None:
    """Compare models on the same test items by McNemar's exact test.

    Of a run, each stage is compared with the one before it; of a study, each arm with the baseline, seed by seed; of
    several evaluations, each with the first. Verdicts per item come from run folders, evaluate --verdicts, evaluate
    --keep and check. p values are corrected by Holm over all comparisons. They concern these models on other items of
    the same kind; report compares training methods over seeds.
    """
    comparisons = reporting.compare_models(models, suite)
    if as_json:
        print_json([{**asdict(row), "items": row.items, "difference": row.difference} for row in comparisons])
        return
    rows = [
        (
            row.model, row.reference, row.items, row.both, row.won, row.lost, row.neither,
            reporting.points(row.difference), reporting.p_value(row.p), reporting.p_value(row.p_holm),
        )
        for row in comparisons
    ]  # fmt: skip
    columns = (
        "model",
        "reference",
        "items",
        "both",
        "only model",
        "only reference",
        "neither",
        "points",
        "p",
        "p Holm",
    )
    output().print(table(columns, rows, left=2))
    for row in comparisons:
        if row.unmatched:
            note = f"{row.model}: {row.unmatched:,} items are in one of the two evaluations only and left out"
            output().print(f"note: {note}", markup=False, soft_wrap=True)
