"""``gradatim sample``: completions of a model beside the ground truth.

``gradatim evaluate``: accuracy of a model on a dataset, with intervals.

``gradatim export``: a trained model in the format of another program, compared with the original.

``gradatim check``: run generated code against tests and estimate pass@k.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .. import evaluation, programs
from ..api import evaluate as run_suite
from ..api import model_folder, open_model, read_samples_of
from ..errors import DataError, UserError, WorkFailed
from ..evaluation.problems import locate, read_problems, read_samples, row_name
from ..evaluation.statistics import estimate
from ..evaluation.verdicts import judge_once, problem_for, tallies
from ..export import hub, write
from ..files import check_output_folder
from ..inference import decode
from ..model import prompt_format
from ..options import override
from ..sandbox.limits import Limits, printable
from ..table.rows import OUTPUT_LINE, ReadReport, Rejected
from .output import Columns, Json, Workers, check_verdicts_file, mapping_of, output, print_json, table, watching, words

if TYPE_CHECKING:
    from rich.console import Console

    from ..evaluation.problems import Problem, ProblemSet, SampleSet
    from ..evaluation.statistics import Estimate
    from ..evaluation.verdicts import Judged
    from ..export.write import Export
    from ..stage import SuiteResult


SAMPLE_EXAMPLES = (
    "gradatim sample runs/smoke-baseline --count 5",
    "gradatim sample MODEL --prompt 'a = 3; print(a * a)'",
    "cat program.py | gradatim sample MODEL --prompt -",
)
MARGIN = 16
LARGEST_PROMPT = 1 << 20


@dataclass(frozen=True)
class Completion:
    """One completion: its prompt, why it ended, and the ground truth where there is one. The fields are JSON keys."""

    prompt: str
    written: str
    finish: str
    truth: str | None
    right: bool | None


def sample(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder (its last model).")],
    prompt: Annotated[
        str | None, typer.Option(help="Prompt to complete; - reads it from stdin. (default: new TinyPy programs)")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of programs, or with --prompt and --sampled of completions.")
    ] = 3,
    level: Annotated[list[str] | None, typer.Option(help="Levels of the new programs. (default: all)")] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sample at temperature 1 instead of greedy decoding.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of new tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the programs and of --sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate completions and compare them with the ground truth.

    For a prompt that is a complete TinyPy program, the model predicts its output; any other prompt is continued. Only
    TinyPy programs are run, by an interpreter for that language.
    """
    if prompt == "-":
        prompt = _read_prompt()
    with watching() as events:
        questions = _questions(prompt, count if sampled or prompt is None else 1, words(level or ["all"]), seed)
        opened = open_model(model)
        format_prompt = prompt_format.prompt_formatter(opened.tokenizer)
        new_tokens = limit or max([len(truth) + MARGIN for _, truth in questions if truth is not None] or [200])
        texts = decode.complete(
            opened.model, opened.tokenizer, [format_prompt(text) for text, _ in questions],
            limits=new_tokens, greedy=not sampled, seed=seed, events=events, task="sample",
        )  # fmt: skip
    completions = [
        _compare(text, done.text, done.finish, truth) for (text, truth), done in zip(questions, texts, strict=True)
    ]
    if as_json:
        print_json([asdict(completion) for completion in completions])
        return
    for completion in completions:
        _print(completion, output())


def _read_prompt() -> str:
    """The text on standard input; raises ``UserError`` for binary or too long input."""
    try:
        text = sys.stdin.read(LARGEST_PROMPT + 1)
        text.encode()  # some locales decode invalid UTF-8 to lone surrogates
    except UnicodeError as error:
        raise UserError("the prompt is not UTF-8", where="stdin") from error
    except OSError as error:
        raise UserError("the prompt cannot be read", where="stdin", given=error.strerror) from error
    if len(text) > LARGEST_PROMPT:
        raise UserError("the prompt is too long", where="stdin", allowed=f"{LARGEST_PROMPT:,} characters")
    return text


def _questions(prompt: str | None, count: int, levels: list[str], seed: int) -> list[tuple[str, str | None]]:
    """Prompts and their ground truth, None where there is none."""
    if prompt is None:
        samples = programs.generate(count, levels=levels, seed=seed).table
        return list(zip(samples["prompt"].to_pylist(), samples["answer"].to_pylist(), strict=True))
    if OUTPUT_LINE.strip() not in prompt:
        prompt = prompt if prompt.endswith("\n") or not _printed(prompt) else prompt + "\n"
        prompt += OUTPUT_LINE if _printed(prompt) else ""
    elif prompt.endswith(OUTPUT_LINE.strip()):
        prompt += "\n"
    return [(prompt, _printed(prompt) if prompt.endswith(OUTPUT_LINE) else None)] * count


def _printed(program: str) -> str | None:
    """The output of ``program`` as the lines of an answer; None when it cannot be run."""
    try:
        return programs.commented(programs.run_program(program))
    except DataError:
        return None


def _compare(prompt: str, text: str, finish: str, truth: str | None) -> Completion:
    program, separator, output = (prompt + text).partition("\n" + OUTPUT_LINE)
    if truth is None and separator and OUTPUT_LINE not in prompt:  # the completion has the program's end and its output
        truth = _printed(program)
        return Completion(prompt, text, finish, truth, None if truth is None else output == truth)
    return Completion(prompt, text, finish, truth, None if truth is None else text == truth)


def _print(completion: Completion, console: Console) -> None:
    console.print(Text.assemble((completion.prompt, "dim"), (completion.written.rstrip("\n"), "bold")))
    if completion.finish not in ("eos", "stop"):
        console.print(f"(ended by: {completion.finish.replace('_', ' ')})", style="yellow")
    if completion.right is None:
        console.print("(no ground truth: the program cannot be run)\n", style="dim")
    elif completion.right:
        console.print("correct\n", style="green")
    else:
        console.print(Text.assemble(("wrong; expected\n", "red"), (completion.truth or "") + "\n"))


EVALUATE_EXAMPLES = (
    "gradatim evaluate runs/smoke-baseline --data programs.parquet",
    "gradatim evaluate MODEL --suite output --protocol paper --data programs.parquet --limit 1000 --json",
    "gradatim evaluate MODEL --suite functional --problems humaneval --keep samples/",
    "gradatim evaluate http://localhost:8000/v1#NAME --suite functional --problems humaneval --set chat=true",
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model folder, run folder (its last model), or http://HOST/v1#NAME."),
    ],
    data: Annotated[Path | None, typer.Option(help="Dataset: .parquet, .jsonl, .csv or .txt.")] = None,
    columns: Columns = None,
    suite: Annotated[str, typer.Option(help="Evaluation suite (gradatim list suites).")] = "output",
    protocol: Annotated[
        str | None, typer.Option(help="greedy, or a sampled protocol (paper in most suites). (default: greedy)")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="functional, cruxeval: problem file or benchmark name.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="functional, cruxeval: folder for completions and verdicts, from which the command resumes."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of the suite; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples to evaluate, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a dataset; report accuracy with 95 % Wilson intervals.

    The intervals cover the sampling of test items for this one model, not the variation between training seeds.
    """
    options: dict[str, Any] = {"protocol": protocol, "limit": limit, "problems": problems}
    options |= {"keep": None if keep is None else str(keep), **_options(changes or [])}
    if data is None and problems is None and suite != "cruxeval":
        raise UserError("a dataset is needed", where="--data", allowed="a file", hint="--data FILE")
    if keep is not None:
        check_output_folder(keep, "--keep")
    with watching(resumable=keep is not None) as events:
        options = {name: value for name, value in options.items() if value is not None}
        result = run_suite(model, data, suite, seed=seed, columns=mapping_of(columns), events=events, **options)
    if as_json:
        print_json(evaluation.summary(result))
        return
    for block in _tables(result):
        output().print(block)


ARGUMENTS = {
    "model": "MODEL",
    "data": "--data FILE",
    "suite": "--suite NAME",
    "seed": "--seed NUMBER",
    "columns": "--columns OURS=THEIRS",
    "events": None,
}
"""Parameters of ``api.evaluate`` that are no options of a suite, and the command's own way to set them."""


def _options(changes: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for change in changes:
        (outer, *inner), value = override(change, hint="--set num_samples=10")
        if outer in ARGUMENTS:
            raise UserError("no suite has this option", where="--set", given=change, hint=ARGUMENTS[outer])
        if not inner:
            options[outer] = value
        elif isinstance(options.setdefault(outer, {}), dict):
            options[outer][".".join(inner)] = value
        else:
            raise UserError("this option has no nested options", where="--set", given=change)
    return options


def _tables(result: SuiteResult) -> list[Any]:
    plain = evaluation.summary(result)
    scores = [
        (name, f"{score['value']:.1%}", f"{score['low']:.1%} to {score['high']:.1%}")
        for name, score in plain["scores"].items()
    ]
    counts = ", ".join(f"{number:,} {name}" for name, number in plain["counts"].items() if number)
    blocks: list[Any] = [table((f"{result.suite} ({result.protocol})", "value", "95 % interval"), scores), counts]
    for group, members in result.counts.items():
        if group in ("all", "outcome") or set(members) == {"none"}:
            continue
        rows = []
        for value, count in members.items():
            low, high = evaluation.wilson(count.passed, count.total)
            share = f"{count.passed / count.total:.1%}" if count.total else None
            rows.append((value, count.passed, count.total, share, f"{low:.1%} to {high:.1%}"))
        blocks.append(table((group, "correct", "total", "accuracy", "95 % interval"), rows))
    return blocks


EXPORT_EXAMPLES = (
    "gradatim export runs/curriculum-fast --to gguf --bits 8 --data test.parquet --out student",
    "gradatim export runs/distill-coder --merge --out my-coder",
    "gradatim export runs/distill-coder/cycle-00/stage-00-all/model --out adapter",
    "gradatim export runs/curriculum-fast --data test.parquet --lm-eval --push OWNER/NAME --out student",
)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder (its last model).")],
    out: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    to: Annotated[str, typer.Option(help="Format (gradatim list exporters).")] = "hf",
    bits: Annotated[
        int | None, typer.Option(help="Bits per weight: 32, 16, 8, 5 or 4, where the format has them. (default: 32)")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Test set, on which the accuracy of both models is counted.")
    ] = None,
    columns: Columns = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples of --data, drawn by seed 0.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="hf: merge the LoRA adapter into the base model; other formats always do.")
    ] = False,
    task: Annotated[
        bool, typer.Option("--lm-eval", help="Also write --data as a task of lm-evaluation-harness, OUT/lm_eval.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the folder to the Hugging Face hub, private.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model for other programs, and compare the export with the original before it is kept.

    The exported tokens must be equal, the log-probabilities equal within the precision of the format. With --data the
    suite output runs on both models. Without --merge, hf exports a LoRA adapter as an adapter, which needs its base.
    """
    with watching() as events:
        source = model_folder(model)
        if push is not None:
            hub.check_name(push)
        samples = None if data is None else read_samples_of(data, mapping_of(columns), limit, events)
        exported = write.export_model(source, out, to, bits=bits, merge=merge, data=samples, task=task, events=events)
    if as_json:
        print_json(asdict(exported))
    else:
        for line in _export_lines(exported):
            output().print(line, markup=False, highlight=False)
    if push is not None:
        with watching():
            address = hub.push(out, push)
        print(address, file=sys.stderr)


def _export_lines(exported: Export) -> list[str]:
    """The export in words: its folder, its proof, and notes."""
    merged = f": {exported.parameters:,} parameters, adapter merged into {exported.merged}" if exported.merged else ""
    facts = [f"{exported.bytes / 1e6:.2f} MB", f"{exported.milliseconds_per_token:.1f} CPU ms a token"]
    if exported.total:
        before, after = (f"{(count or 0) / exported.total:.1%}" for count in (exported.before, exported.after))
        facts = [f"{before} → {after}, {exported.lost:,} lost, {exported.won:,} won", *facts]
    difference = f"log-probabilities within {exported.largest_difference:.2g} nats"
    facts.append(f"{exported.texts:,} texts with equal tokens, {difference}")
    return [f"{exported.folder}{merged}", ", ".join(facts), *(f"note: {note}" for note in exported.notes)]


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
            help='JSON lines: {"task_id", "completion"}, or "reply", or "solution"; or one array of lists of programs.',
        ),
    ],
    problems: Annotated[
        str,
        typer.Option(help="Problem file (HumanEval, HumanEval-X, MBPP and their + versions), a folder, or humaneval."),
    ],
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
    path = out or samples.with_name(f"{samples.name.removesuffix('.gz').removesuffix('.jsonl')}.verdicts.jsonl")
    problem_set = read_problems(problems)
    sample_set = read_samples(samples, [] if problem_set.rejected else list(problem_set.problems))
    _check_counts(problem_set, sample_set, ks)
    check_verdicts_file(path, "--out", [samples, *locate(problems)])
    limits = None if seconds is None else Limits(cpu_seconds=seconds)
    rejected = _write_rejected(problem_set, sample_set, path)
    with watching(resumable=True) as events:
        options: dict[str, Any] = {"limits": limits, "workers": workers, "unsafe": unsafe, "events": events}
        results = judge_once(path, problem_set.problems, sample_set.samples, **options)
    totals = tallies(problem_set.problems, results)
    largest = max((tally.samples for tally in totals.values()), default=0)
    estimates = [estimate(totals, k) for k in ks if k <= largest]
    _print_notes(problem_set, sample_set, results, estimates, rejected)
    counts = _counts(sample_set, results)
    if as_json:
        scores = {
            f"pass@{score.k}": {"value": score.value, "low": score.low, "high": score.high} for score in estimates
        }
        print_json({"counts": counts, "scores": scores})
    else:
        for block in _result_blocks(problem_set.problems, results, estimates, counts):
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


def _result_blocks(
    problems: Mapping[str, Problem], results: Sequence[Judged], estimates: Sequence[Estimate], counts: Mapping[str, int]
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
    return blocks
