"""``gradatim check``: run generated code against tests and estimate pass@k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import executors
from ..errors import UserError, WorkFailed
from ..evaluation.problems import locate, parse_field, read_problems, read_samples, row_name
from ..evaluation.statistics import estimate
from ..evaluation.verdicts import failure_causes, fenced_completions, judge_once, problem_for, tallies
from ..sandbox.limits import Limits, printable
from ..table.rows import ReadReport, Rejected
from .output import Json, On, Workers, check_verdicts_file, output, print_json, table, watching, words

if TYPE_CHECKING:
    from ..evaluation.problems import Problem, ProblemSet, SampleSet
    from ..evaluation.statistics import Estimate
    from ..evaluation.verdicts import FailureCause, Judged


CHECK_EXAMPLES = (
    "gradatim check samples.jsonl --problems humaneval",
    "gradatim check samples.jsonl --problems problems.jsonl.gz --k 1,10 --workers 2 --json",
)

NAMED = 10
"""Rejected samples and problems that are listed one by one."""


def check(
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help='JSON lines: {"task_id", "completion"} (code after the prompt), "reply" (of a chat model) or '
            '"solution" (a whole program); or one array of lists of programs.',
        ),
    ],
    problems: Annotated[
        str,
        typer.Option(help="Problem file (HumanEval, HumanEval-X, MBPP and their + versions), a folder, or humaneval."),
    ],
    field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=FORM]",
            help="Field of the text under another name, and its form: completion, reply or solution. (default: a reply "
            "if the text has a fenced block, else a solution)",
        ),
    ] = None,
    k: Annotated[
        list[str] | None, typer.Option("--k", help="The k of pass@k, comma-separated or repeated. (default: 1)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the verdicts. (default: NAME.verdicts.jsonl beside SAMPLES)")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="CPU seconds per program. (default: 3 for Python, 10 for other languages)")
    ] = None,
    workers: Workers = 1,
    on: On = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run all samples again, and replace an existing file of verdicts.")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run without a sandbox: programs get all rights of your account.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run generated programs against the tests of their problems and estimate pass@k.

    Programs run in a sandbox (see gradatim doctor). Verdicts are saved as they arrive, so the command can be repeated
    to resume. Unusable samples are reported and counted as invalid; rows that are no samples are also written to a
    file beside the verdicts.
    """
    ks = _numbers(k or ["1"])
    problem_set = read_problems(problems)
    text_field = None if field is None else parse_field(field)
    sample_set = read_samples(samples, [] if problem_set.rejected else list(problem_set.problems), text_field)
    path = out or samples.with_name(f"{samples.name.removesuffix('.gz').removesuffix('.jsonl')}.verdicts.jsonl")
    _check_counts(problem_set, sample_set, ks)
    check_verdicts_file(path, "--out", [samples, *locate(problems)])
    limits = None if seconds is None else Limits(cpu_seconds=seconds)
    rejected = _write_rejected(problem_set, sample_set, path)
    with watching(resumable=True) as events, executors.use(on):
        options: dict[str, Any] = {
            "limits": limits,
            "workers": workers,
            "unsafe": unsafe,
            "force": force,
            "events": events,
        }
        results = judge_once(path, problem_set.problems, sample_set.samples, **options)
    totals = tallies(problem_set.problems, results)
    largest = max((tally.samples for tally in totals.values()), default=0)
    estimates = [estimate(totals, k) for k in ks if k <= largest]
    _print_notes(problem_set, sample_set, results, estimates, rejected)
    counts = _counts(sample_set, results)
    causes = failure_causes(results)
    if as_json:
        scores = {
            f"pass@{score.k}": {"value": score.value, "low": score.low, "high": score.high} for score in estimates
        }
        tasks = _by_task(problem_set.problems, results)
        print_json({"counts": counts, "scores": scores, "causes": [asdict(cause) for cause in causes], "tasks": tasks})
    else:
        for block in _result_blocks(problem_set.problems, results, estimates, counts, causes):
            output().print(block)
        output().print(f"verdicts: {path}", markup=False)
    unjudged = sum(result.verdict.outcome == "unjudged" for result in results)
    if unjudged:
        raise WorkFailed(
            f"{unjudged:,} of {len(results):,} samples have no verdict", where=path, hint="repeat the command"
        )


def _numbers(values: Sequence[str]) -> list[int]:
    """The distinct k of pass@k in ascending order."""
    for word in words(values):
        if not (word.isdecimal() and int(word) > 0):
            raise UserError("k is a positive integer", where="--k", given=word, allowed="1, 10, 100, …")
    return sorted({int(word) for word in words(values)})


def _check_counts(problem_set: ProblemSet, sample_set: SampleSet, ks: Sequence[int]) -> None:
    """Raise ``UserError``, before any program runs, for a k larger than the samples of every problem."""
    samples = Counter(
        problem.id for sample in sample_set.samples if (problem := problem_for(problem_set.problems, sample.task))
    )
    if not samples:
        tasks = ", ".join(dict.fromkeys(sample.task for sample in sample_set.samples[:3]))
        names = ", ".join(list(problem_set.problems)[:3])
        raise UserError("no sample belongs to a problem", where=sample_set.source, given=tasks, allowed=f"{names}, …")
    largest = max(samples.values())
    if ks[-1] > largest:
        raise UserError(
            f"pass@{ks[-1]} needs {ks[-1]} samples of a problem",
            where=sample_set.source,
            given=f"at most {largest}",
            allowed=f"--k from 1 to {largest}",
        )


def _write_rejected(problem_set: ProblemSet, sample_set: SampleSet, path: Path) -> Path | None:
    rows = [Rejected(row.row, f"problem: {row.cause}", row.content) for row in problem_set.rejected]
    return ReadReport(sample_set.source, rejected=[*rows, *sample_set.rejected]).write_rejected(path)


def _print_notes(
    problem_set: ProblemSet,
    sample_set: SampleSet,
    results: Sequence[Judged],
    estimates: Sequence[Estimate],
    rejected: Path | None,
) -> None:
    """Print on stderr the unusable rows and what the scores exclude."""
    problems = problem_set.problems
    lines = [f"{problem_set.source}, row {row.row}{row_name(row)}: {row.cause}" for row in problem_set.rejected]
    lines += [f"{sample_set.source}, line {row.row}{row_name(row)}: {row.cause}" for row in sample_set.rejected]
    lines += [
        f"{result.sample.task}, draw {result.sample.draw}: {result.verdict.outcome}: {result.verdict.reason}"
        for result in results
        if result.verdict.outcome in ("invalid", "unjudged")
    ]
    for line in lines[:NAMED]:
        _print_note(line)
    if len(lines) > NAMED:
        _print_note(f"… and {len(lines) - NAMED:,} more")
    samples = [result.sample for result in results if problem_for(problems, result.sample.task)]
    empty = Counter(sample.absence or "empty" for sample in samples if not sample.text.strip())
    if empty:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in empty.most_common())
        _print_note(f"{empty.total():,} of {len(samples):,} samples have no text and count as not passed: {causes}")
    fenced = fenced_completions(results)
    if fenced:
        _print_note(
            f"{fenced:,} of {len(results):,} completions have a fenced block, as the replies of chat models do, and "
            "failed; if they are replies: --field completion=reply --force"
        )
    if sample_set.field is not None:
        _print_note(
            f"the text is read from the field {sample_set.field.name!r}; another one or form: --field NAME=FORM"
        )
    if rejected is not None:
        _print_note(f"rows that are no samples or problems are written to {rejected}")
    ids = {problem.id for result in results if (problem := problem_for(problems, result.sample.task))}
    if len(ids) < len(problems):
        _print_note(f"{len(problems) - len(ids):,} of {len(problems):,} problems have no samples: not in the scores")
    for score in estimates:
        if score.short:
            names = ", ".join(score.short[:3]) + (", …" if len(score.short) > 3 else "")
            _print_note(f"pass@{score.k} excludes {len(score.short):,} problems with fewer samples: {names}")


def _print_note(line: str) -> None:
    typer.echo(f"gradatim: {printable(line)}", err=True)


def _counts(sample_set: SampleSet, results: Sequence[Judged]) -> dict[str, int]:
    """The counts of ``--json``. Lines that are no samples and samples without a verdict count as invalid."""
    outcomes = Counter(result.verdict.outcome for result in results)
    counts = {name: outcomes[name] for name in ("passed", "failed", "timeout")}  # type: ignore[index]
    counts["invalid"] = outcomes["invalid"] + outcomes["unjudged"] + len(sample_set.rejected)
    return {**counts, "total": sum(counts.values())}


def _by_task(problems: Mapping[str, Problem], results: Sequence[Judged]) -> dict[str, Any]:
    """The results of each task for ``--json``, in the order of the samples."""
    tasks: dict[str, Any] = {}
    for result in sorted(results, key=lambda result: result.sample.draw):
        problem = problem_for(problems, result.sample.task)
        task = tasks.setdefault(problem.id if problem else result.sample.task, {"passed": 0, "total": 0, "samples": []})
        verdict = result.verdict
        task["passed"] += verdict.outcome == "passed"
        task["total"] += 1
        entry = {"draw": result.sample.draw, "outcome": verdict.outcome, "reason": verdict.reason}
        task["samples"].append(entry | result.sample.origin)
    return tasks


def _result_blocks(
    problems: Mapping[str, Problem],
    results: Sequence[Judged],
    estimates: Sequence[Estimate],
    counts: Mapping[str, int],
    causes: Sequence[FailureCause],
) -> list[Any]:
    rows = [
        (f"pass@{score.k}", f"{score.value:.1%}", f"{score.low:.1%} to {score.high:.1%}", score.problems)
        for score in estimates
    ]
    line = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    blocks: list[Any] = [table(("", "value", "95 % interval", "problems"), rows), line]
    languages: dict[str, Counter[str]] = {}
    for result in results:
        problem = problem_for(problems, result.sample.task)
        if problem is not None:
            languages.setdefault(problem.language, Counter())[result.verdict.outcome] += 1
    if len(languages) > 1:
        rows_by_language = [(name, counts["passed"], counts.total()) for name, counts in sorted(languages.items())]
        blocks.append(table(("language", "passed", "samples"), rows_by_language))
    if causes:
        rows_by_cause = [(cause.outcome, cause.cause, cause.task, cause.samples) for cause in causes[:NAMED]]
        blocks.append(table(("not passed", "cause", "such as", "samples"), rows_by_cause, left=3))
        if len(causes) > NAMED:
            blocks.append(f"… and {len(causes) - NAMED:,} more causes")
    return blocks
