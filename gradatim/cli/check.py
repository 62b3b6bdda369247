"""``gradatim check``: does code that a model wrote pass its tests?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, WorkFailed
from .options import Json, Workers, words

if TYPE_CHECKING:
    from ..evaluation.intervals import Estimate
    from ..evaluation.problems import Problem, ProblemSet
    from ..evaluation.samples import SampleSet
    from ..evaluation.verdicts import Judged

__all__ = ["EXAMPLES", "check"]

EXAMPLES = (
    "gradatim check samples.jsonl --problems humaneval",
    "gradatim check samples.jsonl --problems problems.jsonl.gz --k 1,10 --workers 2 --json",
)

NAMED = 10
"""Samples and problems that cannot be used are named one by one up to so many."""


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
        typer.Option(
            help="A file of problems (HumanEval, HumanEval-X, MBPP and their + forms), a folder, or humaneval."
        ),
    ],
    k: Annotated[
        list[str] | None, typer.Option("--k", help="The k of pass@k, with commas or given many times. (default: 1)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where verdicts are kept. (default: beside SAMPLES, as NAME.verdicts.jsonl)")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="CPU time of one program. (default: 3 in Python, 10 in other languages)")
    ] = None,
    workers: Workers = 1,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Go on without walls: programs can then do whatever you can.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the samples against their problems' tests and estimate pass@k.

    Programs run behind walls (gradatim doctor tells which are there). Verdicts are kept as they come: after Ctrl-C the
    same command goes on. What cannot be used is named, counted as invalid and, where it is no sample at all, written
    beside the verdicts.
    """
    from ..evaluation.intervals import estimate
    from ..evaluation.problems import locate, read_problems
    from ..evaluation.samples import read_samples
    from ..evaluation.verdicts import judge_once, tallies
    from ..sandbox.limits import Limits
    from .output import check_verdicts_file, output, print_json
    from .progress import watching

    wanted = _numbers(k or ["1"])
    place = out or samples.with_name(f"{samples.name.removesuffix('.gz').removesuffix('.jsonl')}.verdicts.jsonl")
    asked = read_problems(problems)
    written = read_samples(samples, [] if asked.rejected else list(asked.problems))
    _enough(asked, written, wanted)
    check_verdicts_file(place, "--out", [samples, *locate(problems)])
    limits = None if seconds is None else Limits(cpu_seconds=seconds)
    rejected = _write_rejected(asked, written, place)
    with watching(resumable=True) as events:
        how: dict[str, Any] = {"limits": limits, "workers": workers, "unsafe": unsafe, "events": events}
        judged = judge_once(place, asked.problems, written.samples, **how)
    counted = tallies(asked.problems, judged)
    most = max((each.samples for each in counted.values()), default=0)
    found = [estimate(counted, each) for each in wanted if each <= most]
    _tell(asked, written, judged, found, rejected)
    counts = _counts(written, judged)
    if as_json:
        scores = {f"pass@{each.k}": {"value": each.value, "low": each.low, "high": each.high} for each in found}
        print_json({"counts": counts, "scores": scores})
    else:
        for block in _tables(asked.problems, judged, found, counts):
            output().print(block)
        output().print(f"verdicts in {place}", markup=False)
    lost = sum(each.verdict.outcome == "unjudged" for each in judged)
    if lost:
        raise WorkFailed(
            f"{lost:,} of {len(judged):,} samples could not be judged", where=place, hint="the same command tries again"
        )


def _numbers(given: Sequence[str]) -> list[int]:
    """The k of pass@k, each once and rising."""
    for word in words(given):
        if not (word.isdecimal() and int(word) > 0):
            raise UserError("k is a whole number from 1", where="--k", given=word, allowed="1, 10, 100, …")
    return sorted({int(word) for word in words(given)})


def _enough(asked: ProblemSet, written: SampleSet, wanted: Sequence[int]) -> None:
    """Refuse a k that no problem has the samples for, before anything runs."""
    from ..evaluation.verdicts import problem_for

    drawn = Counter(problem.id for each in written.samples if (problem := problem_for(asked.problems, each.task)))
    if not drawn:
        given = ", ".join(dict.fromkeys(each.task for each in written.samples[:3]))
        some = ", ".join(list(asked.problems)[:3])
        raise UserError("no sample is for one of the problems", where=written.source, given=given, allowed=f"{some}, …")
    most = max(drawn.values())
    if wanted[-1] > most:
        raise UserError(
            f"pass@{wanted[-1]} needs {wanted[-1]} samples of a problem",
            where=written.source,
            given=f"at most {most}",
            allowed=f"--k from 1 to {most}",
        )


def _write_rejected(asked: ProblemSet, written: SampleSet, place: Path) -> Path | None:
    from ..table.read import ReadReport, Rejected

    rows = [Rejected(row.row, f"problem: {row.cause}", row.content) for row in asked.rejected]
    return ReadReport(written.source, rejected=[*rows, *written.rejected]).write_rejected(place)


def _tell(
    asked: ProblemSet, written: SampleSet, judged: Sequence[Judged], found: Sequence[Estimate], beside: Path | None
) -> None:
    """Name on stderr what could not be used, and what the scores leave out."""
    from ..evaluation.samples import told
    from ..evaluation.verdicts import problem_for

    lines = [f"{asked.source}, row {row.row}{told(row)}: {row.cause}" for row in asked.rejected]
    lines += [f"{written.source}, line {row.row}{told(row)}: {row.cause}" for row in written.rejected]
    lines += [
        f"{each.sample.task}, draw {each.sample.draw}: {each.verdict.outcome}: {each.verdict.reason}"
        for each in judged
        if each.verdict.outcome in ("invalid", "unjudged")
    ]
    for line in lines[:NAMED]:
        _say(line)
    if len(lines) > NAMED:
        _say(f"… and {len(lines) - NAMED:,} more")
    known = [each.sample for each in judged if problem_for(asked.problems, each.sample.task)]
    absent = Counter(each.absence or "empty" for each in known if not each.text.strip())
    if absent:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in absent.most_common())
        _say(f"{absent.total():,} of {len(known):,} samples have no text and count as not passed: {causes}")
    if beside is not None:
        _say(f"rows that are no samples or problems are written to {beside}")
    answered = {problem.id for each in judged if (problem := problem_for(asked.problems, each.sample.task))}
    silent = len(asked.problems) - len(answered)
    if silent:
        _say(f"{silent:,} of {len(asked.problems):,} problems have no samples and no part in the scores")
    for each in found:
        if each.short:
            few = ", ".join(each.short[:3]) + (", …" if len(each.short) > 3 else "")
            _say(f"pass@{each.k} leaves out {len(each.short):,} problems with fewer samples: {few}")


def _say(line: str) -> None:
    from ..sandbox.verdict import printable

    typer.echo(f"gradatim: {printable(line)}", err=True)


def _counts(written: SampleSet, judged: Sequence[Judged]) -> dict[str, int]:
    """The stable counts. Lines that are no samples, and samples that could not be judged, stand with the invalid."""
    ends = Counter(each.verdict.outcome for each in judged)
    counts = {name: ends[name] for name in ("passed", "failed", "timeout")}  # type: ignore[index]
    counts["invalid"] = ends["invalid"] + ends["unjudged"] + len(written.rejected)
    return {**counts, "total": sum(counts.values())}


def _tables(
    problems: Mapping[str, Problem], judged: Sequence[Judged], found: Sequence[Estimate], counts: Mapping[str, int]
) -> list[Any]:
    from ..evaluation.verdicts import problem_for
    from .output import table

    rows = [
        (f"pass@{each.k}", f"{each.value:.1%}", f"{each.low:.1%} to {each.high:.1%}", each.problems) for each in found
    ]
    told = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    blocks: list[Any] = [table(("", "value", "95 % interval", "problems"), rows), told]
    parts: dict[str, Counter[str]] = {}
    for each in judged:
        problem = problem_for(problems, each.sample.task)
        if problem is not None:
            parts.setdefault(problem.language, Counter())[each.verdict.outcome] += 1
    if len(parts) > 1:
        shown = [(name, ends["passed"], ends.total()) for name, ends in sorted(parts.items())]
        blocks.append(table(("language", "passed", "samples"), shown))
    return blocks
