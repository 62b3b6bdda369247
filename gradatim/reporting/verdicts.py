"""Verdicts on the single items of evaluations, read from run folders.

An evaluation of a stage is ``evaluation-LABEL.json`` (counts) and, beside it, ``evaluation-LABEL.parquet`` (the verdict
on every item). ``evaluations`` lists those of a run, ``read_verdicts`` reads one as a table, joined with the test
(or validation) samples of the run where their Parquet file is there. Nothing is written and no lock is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunFolderError, UserError, did_you_mean
from ..evaluation.crossed import ItemScores
from ..lazy import np, pa
from ..record import read_json, read_rows
from ..renamed_keys import earlier_value
from ..results import VERDICT_COLUMNS, decode_suite, stage_folder

if TYPE_CHECKING:
    from ..stage import EvaluationSplit, SuiteResult
    from .data import RunData, StudyData


@dataclass(frozen=True)
class Evaluation:
    """One evaluation in a run folder. ``label``: its name there, the suite with its options; ``stage``: index."""

    cycle: int
    stage: int
    stage_name: str
    label: str
    path: Path
    result: SuiteResult

    @property
    def has_verdicts(self) -> bool:
        """Whether there is a verdict on every item; runs of version 0.1 have none."""
        return self.path.with_suffix(".parquet").is_file()


def evaluations(run: str | Path) -> tuple[Evaluation, ...]:
    """All evaluations of a run, in the order of its stages. Raises ``RunFolderError`` for a damaged file."""
    listed = []
    for path in sorted(
        Path(run).glob("cycle-*/stage-*/evaluation-*.json"), key=lambda path: path.with_suffix("").parts
    ):
        try:
            _, stage, name = path.parent.name.split("-", 2)
            numbers = int(path.parent.parent.name.removeprefix("cycle-")), int(stage)
        except ValueError:
            continue  # no folder of a stage
        result = read_json(path, decode_suite)
        listed.append(Evaluation(*numbers, name, path.stem.removeprefix("evaluation-"), path, result))
    return tuple(listed)


def read_verdicts(
    run: str | Path, suite: str = "output", *, cycle: int | None = None, stage: int | None = None
) -> pa.Table:
    """The verdicts of one evaluation, one row per item.

    ``run``: a run folder. ``suite``: the name of a suite (``output``), or the label of one evaluation
    (``output-paper-limit1000``). ``cycle`` and ``stage``: indices from 0, by default the last with this evaluation.

    Columns: ``id``, ``row`` (of the test samples, or of the problems), ``outcome`` (``passed``, ``failed``,
    ``timeout``, ``too_long``, ``invalid``), ``passed`` and ``total`` (units, 1 of 1 unless an item has several),
    ``difficulty`` (float64, the metric of the run; NaN for an item that is no sample of the run or has none) and the
    groups of the evaluation (``level``, ``band``, ``twin``, ``category``). Samples that were not evaluated, beyond the
    option ``limit``, follow with the outcome ``not evaluated`` and 0 units; without the samples' file they are absent.

    Raises ``UserError`` when there is no such evaluation, ``RunFolderError`` when it has no verdicts or is damaged.
    """
    evaluation = _select(evaluations(run), Path(run), suite, cycle, stage)
    if not evaluation.has_verdicts:
        raise RunFolderError(
            "this evaluation has counts only: it was written before verdicts per sample were kept",
            where=evaluation.path,
            hint=f"gradatim evaluate {evaluation.path.parent / 'model'} --verdicts FILE.parquet evaluates again",
        )
    path = evaluation.path.with_suffix(".parquet")
    table = read_rows(path, "the verdicts", f"remove {evaluation.path} and {path}, and resume the run")
    if missing := set(VERDICT_COLUMNS) - set(table.column_names):
        raise RunFolderError("the verdicts are damaged", where=path, given=f"no column {min(missing)!r}")
    return _with_samples(table, Path(run), evaluation.result.split)


def evaluation_samples(run: str | Path, split: EvaluationSplit = "test") -> pa.Table | None:
    """The test or validation samples of a run, from its folder or its study's; None without their file."""
    folder = Path(run)
    table = folder / "cycle-00" / "table.json"
    corpus = read_json(table, dict).get("corpus") if table.is_file() else None
    if not isinstance(corpus, str) or Path(corpus).name != corpus:
        return None
    paths = [store / "data" / corpus / f"{split}.parquet" for store in (folder, folder.resolve().parent.parent)]
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else read_rows(path, "these samples of the run", f"remove {path.parent}")


def item_scores(study: StudyData, suite: str, protocol: str, arms: Sequence[str]) -> ItemScores | None:
    """The verdicts of the finished runs of ``arms`` after their last stage, on their common items.

    Items of one form (TinyPy programs equal up to names and assignments without effect) share a code. None when a run
    has no verdicts, or other items than the first, or items of several units.
    """
    values: dict[str, dict[int, Any]] = {}
    first: tuple[list[str], Path] | None = None
    for run in study.runs:
        if run.arm not in arms or not run.finished or run.folder is None or run.evaluation(suite, protocol) is None:
            continue
        path = _last_verdicts(run, suite, protocol)
        if path is None:
            return None
        try:
            table = read_rows(path, "the verdicts", "evaluate again", ["id", "passed", "total"])
        except RunFolderError:
            return None
        ids = table["id"].to_pylist()
        if table["total"].to_pylist() != [1] * len(ids) or (first is not None and ids != first[0]):
            return None
        first = first or (ids, run.folder)
        values.setdefault(run.arm, {})[run.seed] = table["passed"].to_numpy().astype(np.float64)
    if first is None or not first[0]:
        return None
    return ItemScores(values, _forms(*first, "validation" if protocol.endswith(", validation") else "test"))


def _last_verdicts(run: RunData, suite: str, protocol: str) -> Path | None:
    """The verdicts of the last stage that belong to its result of ``suite``; None without them."""
    stage, wanted = run.stages[-1], run.evaluation(suite, protocol)
    assert run.folder is not None
    assert wanted is not None
    for path in sorted((run.folder / stage_folder(stage)).glob("evaluation-*.parquet")):
        counts = path.with_suffix(".json")
        result = read_json(counts, decode_suite) if counts.is_file() else None
        if result is not None and (result.suite, result.split, result.counts) == (suite, wanted.split, wanted.counts):
            return path
    return None


def _forms(ids: Sequence[str], run: Path, split: EvaluationSplit) -> Any:
    """A code per item, equal for samples of one form; without the samples' file each item is a form."""
    samples = evaluation_samples(run, split)
    if samples is None:
        return np.arange(len(ids))
    from ..programs.equivalence import sliced
    from ..table import questions

    texts = dict(zip(samples["id"].to_pylist(), questions(samples).to_pylist(), strict=True))
    forms = [sliced(texts[id]) if id in texts else id for id in ids]
    codes = {form: code for code, form in enumerate(dict.fromkeys(forms))}
    return np.array([codes[form] for form in forms], dtype=np.int64)


def _select(listed: Sequence[Evaluation], run: Path, suite: str, cycle: int | None, stage: int | None) -> Evaluation:
    """The last evaluation that fits. Raises ``UserError``."""
    names = list(dict.fromkeys(name for item in listed for name in (item.label, item.result.suite)))
    labels = [item for item in listed if item.label == suite] or [item for item in listed if item.result.suite == suite]
    if not labels:
        if not names:
            raise UserError("there is no evaluation in this folder", where=run, hint="a run folder with a result")
        raise UserError(
            "the run has no such evaluation", where=run, given=suite, allowed=", ".join(names),
            hint=did_you_mean(suite, names),
        )  # fmt: skip
    fitting = [item for item in labels if cycle in (None, item.cycle) and stage in (None, item.stage)]
    if not fitting:
        allowed = ", ".join(f"cycle {item.cycle} stage {item.stage}" for item in labels)
        given = ", ".join(f"{name} {n}" for name, n in (("cycle", cycle), ("stage", stage)) if n is not None)
        raise UserError("this stage has no such evaluation", where=f"{run}: {suite}", given=given, allowed=allowed)
    last = [item for item in fitting if item.path.parent == fitting[-1].path.parent]
    if len(last) > 1:
        raise UserError(
            "several evaluations have this suite", where=run, given=suite, allowed=", ".join(i.label for i in last)
        )
    return last[0]


def _with_samples(table: pa.Table, run: Path, split: EvaluationSplit) -> pa.Table:
    """``table`` with the difficulty of its items, and the samples of the split that were not evaluated."""
    samples = evaluation_samples(run, split)
    if samples is None:
        return table.append_column("difficulty", pa.array([float("nan")] * table.num_rows, pa.float64()))
    ids = samples["id"].to_pylist()
    row_of = {id: row for row, id in reversed(list(enumerate(ids)))}
    rows = [
        row if row < len(ids) and ids[row] == id else row_of.get(id, -1)
        for id, row in zip(table["id"].to_pylist(), table["row"].to_pylist(), strict=True)
    ]
    difficulty = _difficulty(samples, run)
    column = pa.array([difficulty[row] if row >= 0 else float("nan") for row in rows], pa.float64())
    table = table.append_column("difficulty", column)
    if not rows or min(rows) < 0:  # problems of a file
        return table
    others = sorted(set(range(len(ids))) - set(rows))
    if not others:
        return table
    missing: dict[str, Any] = {
        "id": [ids[row] for row in others],
        "row": others,
        "outcome": ["not evaluated"] * len(others),
        "passed": pa.array([0] * len(others), table["passed"].type),
        "total": [0] * len(others),
        "difficulty": [difficulty[row] for row in others],
        **{
            name: ["none" if label is None else str(label) for label in samples[name].take(others).to_pylist()]
            for name in table.column_names
            if name in samples.column_names and name in ("level", "twin", "category")
        },
    }
    return pa.concat_tables([_plain(table), _plain(pa.table(missing))], promote_options="default")


def _plain(table: pa.Table) -> pa.Table:
    """``table`` with plain instead of dictionary-encoded columns."""
    columns: Mapping[str, Any] = {
        name: table[name].cast(pa.string()) if pa.types.is_dictionary(table[name].type) else table[name]
        for name in table.column_names
    }
    return pa.table(columns)


def _difficulty(samples: pa.Table, run: Path) -> Any:
    """The difficulties of samples by the metric of the run; NaN without them."""
    bands = read_json(run / "cycle-00" / "table.json", dict).get("bands")
    metric = bands.get("metric") if isinstance(bands, Mapping) else None
    for column in (metric, earlier_value("difficulty.metric", metric)):
        if column in samples.column_names:
            return samples[column].to_numpy()
    return np.full(samples.num_rows, np.nan)
