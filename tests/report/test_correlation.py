"""Rank correlations and what difficulties predict, against scipy and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradatim.errors import DataError, UserError
from gradatim.reporting.correlation import (
    area_error,
    correlations,
    decimal,
    html_fragment,
    markdown,
    read_passes,
    write_correlations,
)
from gradatim.results import encode, write_verdicts
from gradatim.stage import Counts, SuiteResult, Verdicts

NAN = math.nan


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "id": ["a", "b", "c", "d", "e"],
            "om": [1.0, 2.0, 2.0, 5.0, NAN],
            "loss": [0.1, 0.4, 0.3, 0.9, 0.2],
            "back": [5.0, 4.0, 3.0, 1.0, 0.0],
            "flat": [1.0] * 5,
            "rare": [NAN, NAN, NAN, 1.0, 2.0],
        }
    )


def test_correlations_are_those_of_scipy_with_ties():
    from scipy.stats import spearmanr

    generator = np.random.default_rng(0)
    values = {name: generator.integers(0, 6, 40).astype(float) for name in "xyz"}
    found = correlations(pa.table({"id": [str(n) for n in range(40)], **values}), list("xyz"))
    for i, one in enumerate("xyz"):
        for j, two in enumerate("xyz"):
            assert found.rho[i][j] == pytest.approx(float(spearmanr(values[one], values[two]).statistic))


def test_samples_that_one_metric_cannot_score_take_no_part(table):
    found = correlations(table, ["om", "loss", "back"])
    assert found.n == ((4, 4, 4), (4, 5, 5), (4, 5, 5))
    assert found.rho[0][0] == 1.0
    assert found.rho[0][2] == pytest.approx(-0.9486833)
    assert found.rho[0][2] == found.rho[2][0]


def test_what_cannot_be_told_is_none_and_no_number(table):
    found = correlations(table, ["om", "flat", "rare"])
    assert found.rho[1] == (None, None, None)  # a column without differences has no order
    assert (found.rho[2][2], found.n[2][2]) == (None, 2)
    assert json.loads(json.dumps(found.data(), allow_nan=False))["spearman"][1] == [None, None, None]


def test_the_auc_counts_pairs_of_failed_and_passed_and_ties_as_half(table):
    passed = {"a": True, "b": True, "c": False, "d": False, "e": True, "elsewhere": True}
    found = correlations(table, ["om", "loss", "back", "flat"], passed).predictions
    # om: c (2) against a (1), b (2): 1 + 1/2; d (5) against both: 2
    assert (found["om"].auc, found["om"].passed, found["om"].failed) == (3.5 / 4, 2, 2)
    assert found["loss"].auc == 5 / 6  # c (0.3) loses to b (0.4) alone
    assert found["back"].auc == pytest.approx(2 / 6)
    assert found["flat"].auc == 0.5


def test_the_error_of_an_area_is_hanley_and_mcneils():
    """Their example: an area of 0.893 with 51 abnormal and 58 normal cases; 0.0325 by hand."""
    assert area_error(0.893, 51, 58) == pytest.approx(0.0325, abs=5e-5)
    assert area_error(1.0, 3, 4) == 0


def test_an_auc_without_both_kinds_is_none(table):
    found = correlations(table, ["om"], dict.fromkeys("abcde", True)).predictions["om"]
    assert (found.auc, found.error, found.passed, found.failed) == (None, None, 4, 0)


def test_the_accuracy_in_thirds_falls_where_the_metric_predicts_it():
    """Samples of one difficulty stay together; what nobody was asked about is in none of the thirds."""
    table = pa.table({"id": list("abcdefghi"), "om": [1.0, 2, 3, 4, 5, 6, 7, 8, NAN], "two": [0.0] * 6 + [1.0] * 3})
    passed = dict(zip("abcdef", [True, True, False, True, False, False], strict=True))
    found = correlations(table, ["om", "two"], {**passed, "i": True}).predictions
    assert found["om"].thirds == ((2, 2), (1, 2), (0, 2))
    assert found["two"].thirds == ((0, 0), (3, 6), (1, 1))


def test_the_report_is_a_page_or_a_text_that_says_who_passed(table, tmp_path):
    found = correlations(table, ["om", "loss"], {"a": True, "d": False})
    page = write_correlations(found, tmp_path / "a.html", title="<b>.parquet", passes="As r & s say.").read_text()
    assert "How the difficulties of &lt;b&gt;.parquet agree" in page
    assert "As r &amp; s say." in page
    assert html_fragment(found) in page
    assert "http" not in page
    text = write_correlations(found, tmp_path / "a.md", title="a.parquet", passes="As r says.").read_text()
    assert text == f"# How the difficulties of a.parquet agree\n\nAs r says.\n\n{markdown(found)}"
    with pytest.raises(UserError, match=r"a\.txt: .*allowed: \.html, \.md"):
        write_correlations(found, tmp_path / "a.txt", title="a")


def test_results_about_other_samples_are_refused(table):
    with pytest.raises(DataError, match="none of these samples"):
        correlations(table, ["om"], {"x": True})


def test_columns_that_are_not_there_or_no_metric_are_told(table):
    with pytest.raises(DataError, match="did you mean 'loss'"):
        correlations(table, ["los"])
    with pytest.raises(DataError, match="'id' is not a metric"):
        correlations(table, ["id"])


def test_the_tables_show_signs_dashes_and_counts(table):
    found = correlations(table, ["om", "back", "flat"], {"a": True, "d": False})
    text = markdown(found)
    assert "| metric | om | back | flat | samples | AUC | ± s.e. | easiest third | middle | hardest |" in text
    assert "| om | +1.00 | −0.95 | – | 4 | 1.00 | 0.00 | 100% | – | 0% |" in text
    assert "1 passed and 1 failed" in text
    assert text.endswith("\n")


def test_figures_of_zero_have_no_sign():
    assert [decimal(value) for value in (0.0, -0.001, 0.126, -1.0, None)] == ["0.00", "0.00", "+0.13", "−1.00", "–"]


def test_a_name_in_the_page_is_escaped(table):
    evil = table.rename_columns(["id", "<script>", "loss", "back", "flat", "rare"])
    page = html_fragment(correlations(evil, ["<script>", "loss"]))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr>") == 3


def test_passes_are_read_from_results_and_from_a_runs_feedback(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": "a", "passed": true}\n{"id": "b", "passed": false}\n')
    assert read_passes(tmp_path / "r.jsonl").by_id == {"a": True, "b": False}
    rows = {
        "id": ["a", "a", "a", "b", "b", "c"],
        "verdict": ["passed", "failed", "passed", "passed", "timeout", "unjudged"],
    }
    pq.write_table(pa.table(rows), tmp_path / "feedback.parquet")
    assert read_passes(tmp_path / "feedback.parquet").by_id == {"a": True, "b": False}  # half is not more than half


def test_a_file_that_holds_no_results_is_refused_with_the_row(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": "a", "right": true}\n')
    with pytest.raises(DataError, match="a column is missing"):
        read_passes(tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl").write_text('{"id": "a", "passed": true}\n{"id": "b", "passed": "yes"}\n')
    with pytest.raises(DataError, match="row 2"):
        read_passes(tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl").write_text('{"id": "a", "passed": true}\nno json\n')
    with pytest.raises(DataError, match="row 2"):
        read_passes(tmp_path / "r.jsonl")


def test_a_run_tells_what_was_passed_by_its_last_feedback(tmp_path):
    for cycle, verdict in (("cycle-00", "passed"), ("cycle-01", "failed")):
        (tmp_path / cycle).mkdir()
        pq.write_table(pa.table({"id": ["a"], "verdict": [verdict]}), tmp_path / cycle / "feedback.parquet")
    found = read_passes(tmp_path)
    assert (found.by_id, "cycle-01" in found.description) == ({"a": False}, True)


def test_a_run_without_feedback_tells_what_was_passed_by_all_its_verdicts(tmp_path):
    verdicts = Verdicts(
        ("a", "b", "c"), rows=(0, 1, 2), outcomes=("passed", "failed", "passed"), passed=(1, 0, 1), total=(1, 1, 1)
    )
    for suite, stage in (("output", "stage-00-all"), ("output", "stage-01-all"), ("line", "stage-01-all")):
        folder = tmp_path / "cycle-00" / stage
        folder.mkdir(parents=True, exist_ok=True)
        result = SuiteResult(suite, "greedy", {"all": {"all": Counts(2, 3)}})
        (folder / f"evaluation-{suite}-greedy.json").write_text(json.dumps(encode(result)))
        write_verdicts(verdicts, folder / f"evaluation-{suite}-greedy.parquet")
    results = read_passes(tmp_path)
    assert results.by_id == {"a": True, "b": False, "c": True}
    assert "output-greedy after the stage all" in results.description
    assert read_passes(folder / "evaluation-line-greedy.parquet").by_id == results.by_id


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run with per-sample results"):
        read_passes(tmp_path)
