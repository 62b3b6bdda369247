"""Results on single test items: from verdicts on every item where a run has them, else from its examples alone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_study import make_study
from test_comparability import with_test_set
from verdict_files import write_evaluation

from gradatim.reporting import collect, summarise
from gradatim.reporting.export import prediction_rows
from gradatim.reporting.html import render
from gradatim.reporting.items import MOST_ITEMS, comparisons, items, shown_items

TWO = ("baseline", "hybrid")
SOLVED = {"baseline": [True, True, False, False, True], "hybrid": [True, False, True, True, True]}


@pytest.fixture
def folder(tmp_path):
    """A study of two runs with the verdicts of ``SOLVED`` and the texts of the five items."""
    folder = make_study(tmp_path / "s", (1,), TWO)
    for arm, solved in SOLVED.items():
        stage = max((folder / arm / "seed-1" / "cycle-00").glob("stage-*"))
        write_evaluation(stage, solved)
        with_test_set(folder / arm / "seed-1", "aaaa", ())
    (folder / "data" / "aaaa").mkdir(parents=True)
    rows = [{"id": f"item-{number}", "prompt": f"print({number})", "answer": f"{number}"} for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "aaaa" / "test.parquet")
    for arm in TWO:  # the samples are those of the study
        (folder / arm / "seed-1" / "data" / "aaaa" / "test.parquet").unlink()
    return folder


def test_wins_and_losses_against_the_baseline_are_counted_on_all_items(folder):
    study = collect(folder)
    (row,) = comparisons(study, summarise(study))
    assert (row.arm, row.seed, row.both, row.won, row.lost, row.neither) == ("hybrid", 1, 2, 2, 1, 0)
    assert row.p == pytest.approx(1.0)
    assert "Item by item against the baseline" in render(study)


def test_nothing_is_counted_from_examples_which_are_chosen_by_their_outcome(tmp_path):
    study = collect(make_study(tmp_path / "s", (1,), TWO))
    assert list(comparisons(study, summarise(study))) == []
    assert "Item by item" not in render(study)
    assert len(items(study, summarise(study))) == 8


def test_items_on_which_runs_disagree_come_first_with_their_texts(folder):
    study = collect(folder)
    listed = items(study, summarise(study))
    disputed = [item for item in listed if item.disputed]
    assert {item.id for item in disputed} == {"item-1", "item-2", "item-3"}
    assert list(listed[: len(disputed)]) == disputed
    assert disputed[0].prompt.startswith("print(")
    assert disputed[0].passed.keys() == {("baseline", 1), ("hybrid", 1)}


def test_the_page_shows_a_bounded_number_of_items(folder):
    study = collect(folder)
    listed = items(study, summarise(study))
    assert len(shown_items(listed * MOST_ITEMS)) == MOST_ITEMS


def test_predictions_have_the_outcome_of_every_item_and_the_text_where_it_is_stored(folder):
    rows = list(prediction_rows(collect(folder)))
    by_verdict = [row for row in rows if row["id"].startswith("item-")]
    assert len(by_verdict) == 10
    assert {row["prediction"] for row in by_verdict} == {None}
    assert {row["passed"] for row in by_verdict if row["arm"] == "hybrid"} == {True, False}
    assert any(row["prediction"] for row in rows)
