"""Metrics as columns, and folders of real files as tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gradatim.difficulty import DIFFICULTIES, read_folder, score
from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.programs import generate
from gradatim.stage import Event
from gradatim.table import make_table


def test_each_metric_becomes_a_float_column_named_after_it() -> None:
    table = generate(50, seed=1).table
    scored, facts = score(table, ["om", "size"])
    assert scored.column_names == [*table.column_names, "om", "size"]
    assert scored.schema.field("om").type == pa.float64()
    assert facts["metrics"]["om"]["scored"] == 50
    assert facts["metrics"]["size"]["least"] <= facts["metrics"]["size"]["median"]


def test_an_unscored_sample_stays_and_is_counted() -> None:
    scored, facts = score(make_table({"answer": ["a = 1\n", "if\n"]}), ["om"])
    assert np.isnan(scored["om"].to_numpy()).tolist() == [False, True]
    assert (facts["rows"], facts["metrics"]["om"]["unscored"]) == (2, 1)


def test_a_table_without_one_score_says_so_in_the_facts() -> None:
    _, facts = score(make_table({"answer": ["if\n"]}), ["om"])
    assert facts["metrics"]["om"] == {"scored": 0, "unscored": 1, "least": None, "median": None, "most": None}


def test_scoring_again_replaces_the_column() -> None:
    table = make_table({"answer": ["a = 1\n"], "om": [99.0]})
    assert score(table, ["om"])[0]["om"].to_pylist() == [0.5]


def test_a_metric_with_options_is_scored_under_the_name_it_is_given() -> None:
    scored, _ = score(make_table({"answer": ["a = 1\n"]}), {"lines": DIFFICULTIES.get("size")(unit="lines")})
    assert scored["lines"].to_pylist() == [1.0]


def test_a_metric_may_not_take_the_place_of_another_column() -> None:
    with pytest.raises(RecipeError, match="answer"):
        score(make_table({"answer": ["a = 1\n"]}), {"answer": DIFFICULTIES.get("size")()})


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownPart, match="did you mean 'halstead'"):
        score(make_table({"answer": ["a = 1\n"]}), ["halsted"])


def test_a_table_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        score(make_table({"answer": []}), ["om"])


def test_progress_ends_at_the_number_of_rows() -> None:
    heard: list[Event] = []
    score(generate(20, seed=1).table, ["om", "composite"], events=heard.append)
    assert [(event.kind, event.task, event.done) for event in heard] == [
        ("start", "score om", 0),
        ("advance", "score om", 20),
        ("finish", "score om", 20),
        ("start", "score composite", 0),
        ("finish", "score composite", 20),
    ]


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.py").write_text("b = 1\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("if x: y\n")
    (tmp_path / "broken.py").write_text("if if\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\ns = '\xe9'\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "notes.txt").write_text("no code")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "h.py").write_text("h = 1\n")
    return tmp_path


def test_a_folder_becomes_one_sample_per_file_in_the_order_of_paths(folder: Path) -> None:
    table, facts = read_folder(folder)
    assert table["source"].to_pylist() == ["a/x.py", "b.py", "broken.py", "latin.py"]
    assert table["answer"].to_pylist()[3] == "# -*- coding: latin-1 -*-\ns = 'é'\n"
    assert facts["files"] == 5
    assert len(set(table["id"].to_pylist())) == 4


def test_files_that_cannot_be_read_or_parsed_are_named_with_the_reason(folder: Path) -> None:
    _, facts = read_folder(folder)
    assert list(facts["unreadable"]) == ["bytes.py"]
    assert list(facts["unparsable"]) == ["broken.py"]
    assert "line 1" in facts["unparsable"]["broken.py"]


def test_a_folder_can_be_scored_whatever_is_in_it(folder: Path) -> None:
    scored, facts = score(read_folder(folder)[0], ["om", "size"])
    assert np.isnan(scored["om"].to_numpy()).tolist() == [False, False, True, False]
    assert facts["metrics"]["size"]["unscored"] == 0


def test_a_folder_that_is_not_there_or_holds_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no Python file"):
        read_folder(tmp_path)
