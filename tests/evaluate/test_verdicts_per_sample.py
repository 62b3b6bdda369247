"""Verdicts per sample: every suite gives one per item, runs keep them, and readers join them with the samples."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradatim import reporting
from gradatim.errors import RunFolderError, UserError
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run

SUITES = "evaluate.suites=[{suite: output}, {suite: output, protocol: paper, limit: 9}, {suite: line, stages: last}]"
SMALL = ["data.count=400", "data.split.test=24", "data.split.validation=24", "budget.tokens=6000", SUITES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verdicts") / "run"
    run(load("smoke/baseline", [*SMALL, "schedule.name=sequential"]), path)
    return path


def test_every_evaluation_of_a_run_has_a_verdict_per_item_that_adds_up_to_its_counts(folder: Path) -> None:
    listed = reporting.evaluations(folder)
    assert [(item.stage, item.label) for item in listed] == [
        *((stage, label) for stage in (0, 1) for label in ("output", "output-paper-limit9")),
        *((2, label) for label in ("line", "output", "output-paper-limit9")),
    ]
    for item in listed:
        table = pq.read_table(item.path.with_suffix(".parquet"))
        for group in ("level", "band", "twin"):
            for label, counts in item.result.counts[group].items():
                rows = [row for row in table.to_pylist() if row[group] == label]
                assert sum(row["passed"] for row in rows) == counts.passed
                assert sum(row["total"] for row in rows) == counts.total
        if item.result.suite == "output":
            ends = table["outcome"].to_pylist()
            assert {name: ends.count(name) for name in set(ends)} == {
                name: counts.total for name, counts in item.result.counts["outcome"].items() if counts.total
            }


def test_the_reader_joins_the_samples_and_lists_those_that_were_not_evaluated(folder: Path) -> None:
    samples = reporting.evaluation_samples(folder)
    assert samples is not None
    table = reporting.read_verdicts(folder, "output-paper-limit9", stage=1)
    assert table.num_rows == samples.num_rows == 24
    assert table["outcome"].to_pylist().count("not evaluated") == 24 - 9
    assert sum(table["total"].to_pylist()) == 9
    by_row = {row["row"]: row for row in table.to_pylist()}
    for row, sample in enumerate(samples.to_pylist()):
        assert (by_row[row]["id"], by_row[row]["level"]) == (sample["id"], sample["level"])
        assert by_row[row]["difficulty"] == sample["om"]


def test_the_reader_takes_the_last_stage_by_default_and_refuses_an_ambiguous_suite(
    folder: Path, tmp_path: Path
) -> None:
    last = reporting.read_verdicts(folder, "line")
    assert last.equals(reporting.read_verdicts(folder, "line", cycle=0, stage=2))
    stage = tmp_path / "cycle-00" / "stage-00-all"
    stage.mkdir(parents=True)
    content = next(folder.glob("*/*/evaluation-output.json")).read_text()
    for label in ("output-limit10", "output-limit20"):
        (stage / f"evaluation-{label}.json").write_text(content)
    with pytest.raises(UserError, match=r"several evaluations.*output-limit10, output-limit20"):
        reporting.read_verdicts(tmp_path, "output")


def test_a_wrong_suite_or_stage_is_one_line_with_the_allowed_ones(folder: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'line'"):
        reporting.read_verdicts(folder, "lines")
    with pytest.raises(UserError, match=r"stage 7.*cycle 0 stage 2"):
        reporting.read_verdicts(folder, "line", stage=7)


def test_results_hold_no_verdicts_beside_the_parquet_file(folder: Path) -> None:
    for path in folder.glob("cycle-*/stage-*/*.json"):
        assert "verdicts" not in path.read_text(), path
    result = json.loads(next(folder.glob("cycle-00/stage-02-*/result.json")).read_text())
    assert {evaluation["suite"] for evaluation in result["evaluations"]} == {"output", "line"}


def test_a_run_without_verdicts_opens_and_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    for path in folder.rglob("*.json"):
        target = older / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert len(reporting.collect(older).runs[0].stages) == 3
    assert not any(item.has_verdicts for item in reporting.evaluations(older))
    with pytest.raises(RunFolderError, match=r"counts only.*gradatim evaluate"):
        reporting.read_verdicts(older, "line")


def test_the_verdicts_of_two_thousand_samples_take_less_than_forty_kilobytes(tmp_path: Path) -> None:
    from gradatim.programs import generate
    from gradatim.results import write_verdicts
    from gradatim.stage import Verdicts

    samples = generate(2000, levels=["all"], seed=0).table
    levels = tuple(samples["level"].to_pylist())
    outcomes = tuple("passed" if row % 3 else "failed" for row in range(2000))
    rows, passed = tuple(range(2000)), tuple(int(row % 3 > 0) for row in range(2000))
    verdicts = Verdicts(tuple(samples["id"].to_pylist()), rows, outcomes, passed, (1,) * 2000, {"level": levels})
    write_verdicts(verdicts, tmp_path / "v.parquet")
    assert (tmp_path / "v.parquet").stat().st_size < 40_000
