"""Results of a run: their JSON encoding, and decorators that record the result of a step in the run folder.

Results are dataclasses in memory and JSON in the run folder. They hold counts, not percentages; the reports compute
those. ``describe`` gives the counts of a corpus for the report.

The decorators ``recorded_stage`` and ``recorded_table`` wrap a step of an object with an attribute ``record``: the
step is done once, and later calls, also of another process, read its result back. Files of a run folder:

    finished.json                                    the number of cycles and stages, written last
    cycle-00/base/evaluation-SUITE.json              results of the model before training
    teacher.json                                     usage of the request that verified the teacher's endpoint
    cycle-00/answer-loss.json                        the loss of the answers under a pretrained model before training
    cycle-NN/table.json, design.json                 the dataset in counts; the stages of a designed schedule
    cycle-NN/feedback.*, attempts.*                  attempts of the model, as a table and in counts
    cycle-NN/no-questions.json                       the requests for new questions that had none, where the run ends
    cycle-NN/corpus/                                 the dataset of a later cycle
    cycle-NN/stage-NN-NAME/fitted.json, progress.json, evaluation-SUITE.json, result.json, model/, probe.npz
    cycle-NN/stage-NN-NAME/evaluation-SUITE.parquet  the verdict on every item, written before the counts
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from pydantic import TypeAdapter

from .corpus import Corpus
from .errors import UserError
from .files import open_input, replacing
from .lazy import np, pa, pq
from .options import parse_json
from .programs import has_scratchpad, printed_lines
from .record import Record, read_rows, write_atomically
from .schedule import Bands
from .stage import AnswerLoss, BandProgress, Fitted, Stage, StageResult, StageSpec, SuiteResult, Verdicts

if TYPE_CHECKING:
    import numpy.typing as npt

    from .design import Design, DesignOutcome
    from .distillation.attempts import GradedAttempts


TEACHER_CHECK = "teacher.json"
NO_QUESTIONS = "no-questions.json"


class RunSteps(Protocol):
    """An object whose steps are recorded."""

    @property
    def record(self) -> Record:
        """The open run folder."""
        ...


Steps = TypeVar("Steps", bound=RunSteps)
Options = ParamSpec("Options")
Result = TypeVar("Result", Fitted, SuiteResult, StageResult, dict[str, Any])


def cycle_folder(cycle: int) -> str:
    """The folder of a cycle relative to the run folder."""
    return f"cycle-{cycle:02d}"


def initial_folder() -> str:
    """The folder of the evaluations before training, relative to the run folder."""
    return f"{cycle_folder(0)}/base"


def stage_folder(stage: Stage | StageResult) -> str:
    """The folder of a stage relative to the run folder."""
    return f"{cycle_folder(stage.cycle)}/stage-{stage.index:02d}-{stage.spec.name}"


def recorded_stage(
    file: str, kind: type[Result]
) -> Callable[
    [Callable[Concatenate[Steps, Stage, Options], Result]], Callable[Concatenate[Steps, Stage, Options], Result]
]:
    """Record the result of a step of a stage as ``file`` in the stage's folder; it is of type ``kind``.

    ``file`` is a format string of the step's further positional arguments.
    """
    decode = {Fitted: decode_fitted, SuiteResult: decode_suite, StageResult: decode_stage, dict: decode_progress}[kind]

    def wrap(
        step: Callable[Concatenate[Steps, Stage, Options], Result],
    ) -> Callable[Concatenate[Steps, Stage, Options], Result]:
        @functools.wraps(step)
        def once(steps: Steps, stage: Stage, /, *options: Options.args, **named: Options.kwargs) -> Result:
            key = f"{stage_folder(stage)}/{file.format(*options)}"

            def make() -> dict[str, Any]:
                result = step(steps, stage, *options, **named)
                if isinstance(result, SuiteResult) and result.verdicts is not None:
                    write_verdicts(result.verdicts, (steps.record.folder / key).with_suffix(".parquet"))
                return result if isinstance(result, dict) else encode(result)

            result: Result = steps.record.once(key, make, decode)
            return result

        return once

    return wrap


def recorded_table(
    step: Callable[Concatenate[Steps, str, Options], GradedAttempts],
) -> Callable[Concatenate[Steps, str, Options], pa.Table]:
    """Record the judged attempts of a step whose first argument is KEY, a path in the run folder: the table as
    KEY.parquet, its counts as KEY.json (written last) and the models of judges in KEY/. Return the table."""

    @functools.wraps(step)
    def once(steps: Steps, key: str, /, *options: Options.args, **named: Options.kwargs) -> pa.Table:
        path = steps.record.folder / f"{key}.parquet"

        def make() -> dict[str, Any]:
            judged = step(steps, key, *options, **named)
            from .table import write_table

            write_table(judged.table, path)
            for name, model in judged.models.items():
                model.save(path.with_suffix("") / name)
            return dict(judged.facts)

        steps.record.once(f"{key}.json", make)
        hint = f"remove {path.with_suffix('.json')} to generate the completions again"
        return read_rows(path, "the completions of this cycle", hint)

    return once


def encode(result: Fitted | SuiteResult | StageResult) -> dict[str, Any]:
    """Plain JSON values of a result, without the verdicts of a ``SuiteResult``, which have a file of their own."""
    match result:
        case SuiteResult():
            content = asdict(replace(result, verdicts=None, texts=None))
            del content["verdicts"], content["texts"]
            return content
        case StageResult():
            return {**asdict(replace(result, evaluations=())), "evaluations": [*map(encode, result.evaluations)]}
    return asdict(result)


def verdicts_table(verdicts: Verdicts) -> pa.Table:
    """One row per item: ``id``, ``row``, ``outcome``, ``passed``, ``total``, and a column per group of labels."""
    scored = any(isinstance(score, float) for score in verdicts.passed)
    columns = {
        "id": pa.array(verdicts.ids, pa.string()),
        "row": pa.array(verdicts.rows, pa.int64()),
        "outcome": pa.array(verdicts.outcomes, pa.string()).dictionary_encode(),
        "passed": pa.array(verdicts.passed, pa.float64() if scored else pa.int64()),
        "total": pa.array(verdicts.total, pa.int64()),
    }
    labels = {name: pa.array(values, pa.string()).dictionary_encode() for name, values in verdicts.labels.items()}
    return pa.table({**labels, **columns}).select([*columns, *(name for name in labels if name not in columns)])


def write_verdicts(verdicts: Verdicts, path: Path) -> None:
    """Write ``verdicts_table`` as Parquet, atomically."""
    buffer = pa.BufferOutputStream()
    pq.write_table(verdicts_table(verdicts), buffer, compression="zstd", use_dictionary=True)
    write_atomically(path, buffer.getvalue().to_pybytes())


VERDICT_COLUMNS = ("id", "row", "outcome", "passed", "total")


def write_texts(texts: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write ``SuiteResult.texts`` as JSON lines, atomically."""
    with replacing(path) as file:
        for row in texts:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def is_texts(path: Path) -> bool:
    """Whether ``path`` is a file of ``write_texts``, by its first line."""
    try:
        with open_input(path) as file:
            row = parse_json(next(file, b""))
    except (UserError, OSError, ValueError):
        return False
    return isinstance(row, dict) and {"id", "row", "prompt", "expected", "attempt", "outcome"} <= row.keys()


def is_verdicts(path: Path) -> bool:
    """Whether ``path`` is a file of ``write_verdicts``."""
    try:
        return set(VERDICT_COLUMNS) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def decode_fitted(value: Mapping[str, Any]) -> Fitted:
    """Inverse of ``encode``. All decoders raise one of ``record.DECODE_ERRORS`` for a value of another shape."""
    fitted: Fitted = _adapter(Fitted).validate_python(value)
    _check_counts(fitted.steps, fitted.tokens, fitted.parameters, fitted.dropped, fitted.auxiliary_parameters)
    _check_counts(fitted.total_parameters or 0)
    return fitted


def decode_suite(value: Mapping[str, Any]) -> SuiteResult:
    """Inverse of ``encode``."""
    suite: SuiteResult = _adapter(SuiteResult).validate_python(value)
    for groups in suite.counts.values():
        for counts in groups.values():
            _check_counts(counts.passed, counts.total - counts.passed)
    for total, count in suite.scores.values():
        if not (count >= 0 and math.isfinite(total)):
            raise ValueError("a score is out of its range")
    return suite


def decode_spec(value: Mapping[str, Any]) -> StageSpec:
    """Inverse of ``encode``; keys missing from older results have their defaults."""
    spec: StageSpec = _adapter(StageSpec).validate_python(value)
    _check_counts(spec.tokens)
    return spec


def decode_progress(value: Mapping[str, Any]) -> dict[str, Any]:
    """Fields ``progress`` and ``probed`` of a ``StageResult`` from the value recorded by ``inference.probe``."""
    progress = {name: _adapter(BandProgress).validate_python(band) for name, band in value.get("progress", {}).items()}
    return {"progress": progress, "probed": int(value.get("probed", 0))}


def decode_stage(value: Mapping[str, Any]) -> StageResult:
    """Inverse of ``encode``; keys missing from older results have their defaults."""
    stage = StageResult(
        **{
            **value,
            "spec": decode_spec(value["spec"]),
            "fitted": decode_fitted(value["fitted"]),
            "evaluations": tuple(decode_suite(suite) for suite in value["evaluations"]),
            **decode_progress(value),
        }
    )
    _check_counts(*_adapter(list[int]).validate_python([stage.cycle, stage.index, stage.samples]))
    _check_counts(*_adapter(dict[str, int]).validate_python(stage.composition).values())
    return stage


@functools.cache
def _adapter(kind: Any) -> Any:
    return TypeAdapter(kind)


def _check_counts(*counts: int | float) -> None:
    """Raise ``ValueError`` for values that are no counts."""
    if any(not 0 <= count < 1 << 63 for count in counts):
        raise ValueError("a count is out of its range")


UNLIKE_MODEL = 3.0
"""Nats per token above which the beginning or the end of the answers is unlike the model's own texts."""


def decode_answer_losses(value: Mapping[str, Any]) -> dict[str, AnswerLoss]:
    """The content of ``answer-loss.json``: the loss of the answers before training, by kind of answer."""
    return {kind: _adapter(AnswerLoss).validate_python(loss) for kind, loss in value.items()}


def answer_notes(losses: Mapping[str, AnswerLoss]) -> list[str]:
    """One line with the means of all kinds and parts, and a warning where the model never writes such answers."""
    if not losses:
        return []
    names = {"first": "first tokens", "body": "body", "end": "end"}
    kinds = [
        f"{kind} {', '.join(f'{names[part]} {nats:.2f}' for part, nats in loss.means.items())}"
        for kind, loss in losses.items()
    ]
    lines = [f"nats per token before training: {'; '.join(kinds)}"]
    unlike = [
        f"the {names[part]} of the {kind}s: {loss.means[part]:.1f} nats per token"
        for kind, loss in losses.items()
        for part in ("first", "end")
        if loss.means.get(part, 0.0) > UNLIKE_MODEL
    ]
    if unlike:
        cause = "the model never writes such answers, and training changes their form first"
        lines.append(f"warning: {'; '.join(unlike)}: {cause}")
    return lines


def encode_design(outcome: DesignOutcome) -> dict[str, Any]:
    """The contents of ``design.json``: design, replies and faults. Raises as ``DesignOutcome.require_design`` does."""
    design = outcome.require_design()
    return {
        "reason": design.reason,
        "kept": design.kept,
        "cycles": [{"stages": [asdict(spec) for spec in stages]} for stages in design.cycles],
        "replies": list(outcome.replies),
        "faults": [list(fault) for fault in outcome.faults],
        "teacher": dict(outcome.used),
    }


def decode_design(value: Mapping[str, Any]) -> Design:
    """Decode the design; replies and faults are not decoded."""
    from .design import Design  # here, so that a plan loads no JSON Schema

    cycles = tuple(tuple(decode_spec(spec) for spec in cycle["stages"]) for cycle in value["cycles"])
    return Design(value["reason"], cycles, value["kept"])


def _outputs(samples: pa.Table) -> pa.ChunkedArray:
    """The answers of ``samples``, without the steps of scratchpads where the first sample has one."""
    answers = samples.column("answer")
    if not (samples.num_rows and has_scratchpad(samples["prompt"][0].as_py(), answers[0].as_py())):
        return answers
    return pa.chunked_array([pa.array(list(map(printed_lines, answers.to_pylist())), answers.type)])


def describe(corpus: Corpus, bands: Bands, difficulty: npt.NDArray[np.float64], metric: str) -> dict[str, Any]:
    """Content of ``table.json``: counts of a cycle's corpus and the histogram of the difficulty that defines the bands.

    ``commonest``: the most frequent answer in training and the number of test samples it answers, a baseline.
    """
    train = corpus.table("train")
    levels = train.column("level").value_counts().to_pylist()
    scored = difficulty[np.isfinite(difficulty)]
    answers = _outputs(train).value_counts().to_pylist()
    commonest = min(answers, key=lambda answer: (-answer["counts"], answer["values"]))["values"]
    tested = _outputs(corpus.table("test")).to_pylist().count(commonest)
    heights, edges = _histogram(scored)
    return {
        "corpus": corpus.folder.name,
        "rows": train.num_rows,
        "test_rows": corpus.table("test").num_rows,
        "validation_rows": corpus.table("validation").num_rows,
        "commonest": {"answer": commonest, "test": tested},
        "characters": int(corpus.lengths().sum()),
        "levels": {str(level["values"]): level["counts"] for level in levels if level["values"] is not None},
        "bands": {
            "metric": metric,
            "names": list(bands.names),
            "edges": list(bands.edges),
            "counts": list(bands.sizes),
            "unscored": bands.unscored,
        },
        "histogram": {"metric": metric, "edges": edges.tolist(), "counts": heights.tolist()},
        "facts": dict(corpus.facts),
    }


def _histogram(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Counts and edges of 40 bins; of one bin for values that are too close to each other for 40."""
    try:
        return np.histogram(values, bins=40)
    except ValueError:
        return np.histogram(values, bins=[np.nextafter(values.min(), -np.inf), np.nextafter(values.max(), np.inf)])
