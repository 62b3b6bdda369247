"""CSV, JSON arrays and numeric columns: values converted, unusable rows reported."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.difficulty import DIFFICULTIES
from gradatim.errors import DataError, RecipeError
from gradatim.schedule.selection import category_codes
from gradatim.table import ReadReport, make_table, read_table, stream_table


def reject_free(path: Path, **options: Any) -> list[dict[str, Any]]:
    report = ReadReport()
    table = read_table(path, report=report, **options)
    assert report.rejected == []
    return table.to_pylist()


def written(rows: list[list[str]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


# CSV

CODE = 'def f(x):\n    """Say "hi", twice;\tthen go."""\n    return x, "a,b"\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv"])
def test_csv_gives_the_samples_that_were_written(tmp_path, delimiter, ending):
    content = b"\xef\xbb\xbf" + written([["prompt", "answer", "level"], ["q", CODE, "3"], ["", "x = 1", ""]], delimiter)
    path = tmp_path / f"t{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    rows = reject_free(path)
    assert [(row["prompt"], row["answer"], row["level"]) for row in rows] == [("q", CODE, "3"), ("", "x = 1", None)]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.text(), st.text(min_size=1).filter(str.strip)).map(list), min_size=1, max_size=5).filter(
        lambda rows: not any("\0" in cell or "\r" in cell for row in rows for cell in row)
    )
)
def test_any_text_comes_through_csv_unchanged(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    try:
        path.write_bytes(written([["prompt", "answer"], *rows]))
    except UnicodeEncodeError:
        return
    assert [[row["prompt"], row["answer"]] for row in reject_free(path)] == rows


def test_numbers_of_csv_are_read_where_numbers_are_meant_and_nowhere_else(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        written(
            [["prompt", "answer", "id", "stars", "note"], ["2+2", "4", "07", "3", "x"], ["1+1", "2", "08", "", "y"]]
        )
    )
    report = ReadReport()
    table = read_table(path, report=report)
    assert table["answer"].to_pylist() == ["4", "2"]
    assert table["id"].to_pylist() == ["07", "08"]
    assert table["stars"].to_pylist()[0] == 3.0
    assert math.isnan(table["stars"].to_pylist()[1])
    assert report.ignored == ("note",)
    mapped = read_table(path, columns={"answer": "answer", "size": "stars", "level": "stars"}, report=report)
    assert mapped["level"].to_pylist() == ["3", None]


def test_csv_of_instruction_data_becomes_pairs(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        written(
            [["instruction", "input", "output", "system"], ["Add.", "", "4", ""], ["Sort.", "[2]", "x", "Be brief."]]
        )
    )
    prompts = [row["prompt"] for row in reject_free(path)]
    assert prompts[0] == "Add."
    assert prompts[1].endswith("Sort.\n\n[2]")
    assert "Be brief." in prompts[1]


def test_rows_that_are_no_csv_are_rejected_by_their_line_and_the_others_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'prompt,answer\na,"x\ny"\nb\nc,1,2\nd,\xff\n\ne,\nf,"x"y\ng,z\n')
    report = ReadReport()
    assert read_table(path, report=report)["answer"].to_pylist() == ["x\ny", "z"]
    assert [(row.row, row.cause.split(":")[0]) for row in sorted(report.rejected, key=lambda row: row.row)] == [
        (4, "1 cells where the header has 2"),
        (5, "3 cells where the header has 2"),
        (6, "not UTF-8"),
        (8, "the answer is null"),
        (9, "not CSV"),
    ]


def test_what_an_open_quote_swallows_is_not_lost_without_a_word(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'prompt,answer\na,b\nc,"d\n' + b"e,f\n" * 100)
    report = ReadReport()
    assert read_table(path, report=report).num_rows == 1
    assert [(row.row, row.cause) for row in report.rejected] == [
        (3, "not CSV: unexpected end of data (101 lines from here on are lost)")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"answer,answer\n1,2\n", "two columns have the same name; given: answer"),
        ("answer,b\n1,2\n".encode("utf-16"), "the header is not UTF-8"),
        (b"", "the file has no"),
        (b"a,b\n1,2\n", "there is no column 'answer'; given: a, b"),
    ],
)
def test_a_header_that_cannot_be_used_is_told(tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match="t.csv.*" + said):
        read_table(tmp_path / "t.csv")


def test_a_program_longer_than_the_readers_own_limit_is_read(tmp_path):
    long = "x = 1\n" * 50_000
    (tmp_path / "t.csv").write_bytes(written([["answer"], [long]]))
    assert reject_free(tmp_path / "t.csv")[0]["answer"] == long


# JSON arrays


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_holds_the_samples_that_lines_hold(tmp_path, name, indent):
    rows = [{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": "b\u00fc"}]
    content = ("\ufeff\n " + json.dumps(rows, indent=indent)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [row["answer"] for row in reject_free(tmp_path / name)] == ["a", "b\u00fc"]
    assert [batch.num_rows for batch in stream_table(tmp_path / name, 1)] == [1, 1]


def test_items_that_cannot_be_used_are_rejected_by_their_place(tmp_path):
    (tmp_path / "t.json").write_bytes(b'[{"answer": "a"}, 5, {"answer": null}, {"answer": "\xff"}, {"answer": "b"}]')
    report = ReadReport()
    assert read_table(tmp_path / "t.json", report=report)["answer"].to_pylist() == ["a", "b"]
    assert sorted((row.row, row.cause) for row in report.rejected) == [
        (2, "not a JSON object"),
        (3, "the answer is null"),
        (4, "answer is no text"),
    ]


def test_lines_that_begin_with_a_bracket_are_lines(tmp_path):
    (tmp_path / "t.jsonl").write_text('[1, 2]\n{"answer": "a"}\n[{"answer": "b"}]\n')
    report = ReadReport()
    assert read_table(tmp_path / "t.jsonl", report=report)["answer"].to_pylist() == ["a"]
    assert [row.row for row in report.rejected] == [1, 3]


@pytest.mark.parametrize("content", ['[{"answer": "a"}, {"ans', '[\n {"answer": "a"},\n {"answer": "b"}\n'])
def test_a_torn_array_is_told_and_no_row_of_it_is_used(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataError, match=r"t\.json: this JSON array is incomplete"):
        read_table(tmp_path / "t.json")


# Columns of numbers


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_column_of_whole_numbers_is_a_difficulty_and_a_category(tmp_path, ending):
    rows = [{"answer": f"x = {n}", "stars": n % 3, "level": n % 2 + 0.5} for n in range(6)]
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_table(path)
    assert DIFFICULTIES.get("column")(column="stars")(table).tolist() == [0, 1, 2, 0, 1, 2]
    assert category_codes(table, "stars").tolist() == [0, 1, 2, 0, 1, 2]
    assert table["level"].to_pylist()[:2] == ["0.5", "1.5"]


def test_whole_numbers_with_gaps_are_labels_without_a_fraction(tmp_path):
    pq.write_table(pa.table({"answer": ["a", "b", "c"], "category": [3.0, None, float("nan")]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["category"].to_pylist() == ["3", None, None]


def test_a_column_that_a_mapping_leaves_out_is_advised_to_be_named(tmp_path):
    table = make_table({"answer": ["a"]})
    with pytest.raises(RecipeError, match=r"no such column; given: 'stars'; .*try: .*data\.columns\.stars: stars"):
        DIFFICULTIES.get("column")(column="stars")(table)
    with pytest.raises(DataError, match=r"try: .*data\.columns\.category: stars"):
        category_codes(table, "stars")


def test_an_unnamed_number_that_no_float_holds_costs_no_row(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        f'{{"answer": "a", "n": 1}}\n{{"answer": "b", "n": 1{"0" * 400}}}\n{{"answer": "c", "n": "many"}}\n'
    )
    assert [row["answer"] for row in reject_free(path)] == ["a", "b", "c"]
    assert [row.cause for row in _rejected(path, {"answer": "answer", "size": "n"})] == ["size is no number"] * 2
    pq.write_table(pa.table({"answer": ["a"], "n": [2**63 - 1]}), tmp_path / "t.parquet")
    assert reject_free(tmp_path / "t.parquet")[0]["n"] == float(2**63)


def _rejected(path: Path, columns: dict[str, str]) -> list[Any]:
    report = ReadReport()
    read_table(path, columns=columns, report=report)
    return report.rejected
