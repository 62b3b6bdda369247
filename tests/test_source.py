"""Sources: deterministic tables, dropped rows counted."""

from __future__ import annotations

import pytest

from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.random_streams import cycle_seed
from gradatim.source import SOURCES
from gradatim.stage import Feedback
from gradatim.table import SCHEMA
from gradatim.teacher import TEACHERS


def test_a_file_source_counts_what_it_drops_and_why(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"code": "x = 1"}\n{"code": "x = 1"}\n{"code": ""}\noops\n{"code": "y = 2"}\n')
    source = SOURCES.get("file")(path=path, columns={"answer": "code"}, language="python", duplicates="text")
    drawn = source.draw(0, Feedback())
    assert drawn.table["answer"].to_pylist() == ["x = 1", "y = 2"]
    assert drawn.facts == {
        "kept": 3,
        "rejected": {"not JSON": 1, "the text is empty": 1},
        "ignored": [],
        "duplicates": 1,
    }
    assert drawn.rejected is not None
    beside = drawn.rejected.write_rejected(tmp_path / "table.parquet")
    assert beside is not None
    assert len(beside.read_text().splitlines()) == 2


def test_what_is_not_used_of_a_file_of_seeds_is_counted(tmp_path):
    path = tmp_path / "seeds.jsonl"
    rows = [f'{{"prompt": "Question {n} of many", "answer": "a = {n}"}}\n' for n in (1, 2, 3, 3)]
    path.write_text("".join(rows) + "oops\n")
    teacher = TEACHERS.get("scripted")(replies={"": None})
    source = SOURCES.get("taught")(count=2, seeds=path, teacher=teacher)
    drawn = source.draw(0, Feedback())
    assert drawn.table.num_rows == 2
    told = drawn.facts["seeds"]
    assert (told["given"], told["duplicates"], told["beyond"], told["rejected"]) == (4, 1, 1, {"not JSON": 1})


def test_a_file_source_keeps_duplicates_unless_told(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"answer": "x = 1"}\n' * 3)
    assert SOURCES.get("file")(path=path).draw(0, Feedback()).table.num_rows == 3


def test_drawing_twice_counts_once(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"answer": "x = 1"}\nbad\n')
    source = SOURCES.get("file")(path=path)
    first, second = source.draw(0, Feedback()), source.draw(1, Feedback())
    assert first.table.equals(second.table)
    assert first.facts["rejected"] == second.facts["rejected"] == {"not JSON": 1}


def test_an_option_that_a_source_lacks_is_told():
    with pytest.raises(RecipeError, match="did you mean 'columns'"):
        SOURCES.get("file")(path="x", column={})


def test_a_source_that_is_not_there_is_told():
    with pytest.raises(UnknownPart, match="did you mean 'tinypy'"):
        SOURCES.get("tinipy")


def test_a_missing_file_is_told_when_drawn():
    with pytest.raises(DataError, match="no such file"):
        SOURCES.get("file")(path="nowhere.jsonl").draw(0, Feedback())


def test_the_first_cycle_has_the_seed_as_given_and_others_their_own():
    assert cycle_seed(7, 0) == 7
    assert len({cycle_seed(7, cycle) for cycle in range(100)} | {cycle_seed(8, 1)}) == 101


def test_each_cycle_of_tinypy_has_its_own_programs():
    source = SOURCES.get("tinypy")(count=50, levels=["1.2"], seed=1)
    first, second = source.draw(0, Feedback()), source.draw(1, Feedback())
    assert first.table.schema.names[: len(SCHEMA)] == SCHEMA.names
    assert first.table["prompt"].to_pylist() != second.table["prompt"].to_pylist()
    assert first.facts
