"""Tables: values survive a round trip, invalid ones are reported."""

from __future__ import annotations

import gzip
import json
import math
import os
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import DataError, StorageFailed, UserError
from gradatim.programs import generate
from gradatim.table import (
    COLUMNS,
    SCHEMA,
    ReadReport,
    dedupe,
    make_table,
    questions,
    read_table,
    sample_id,
    stream_table,
    texts,
    write_stream,
    write_table,
)
from gradatim.table.rows import Rejected

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
FULL = WORDS.filter(lambda text: text.strip() != "")
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=8).filter(str.strip)
LINES = st.lists(LINE.filter(lambda line: line != "# output"), min_size=1, max_size=4).map(
    lambda lines: "".join(line + "\n" for line in lines)
)
FLOATS = st.floats(allow_infinity=False)


def tinypy(count: int) -> pa.Table:
    prompts = [f"a = {i}\nprint(a)\n# output\n" for i in range(count)]
    return make_table({"prompt": prompts, "answer": [f"# {i}\n" for i in range(count)], "language": ["python"] * count})


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.lists(st.tuples(WORDS, FULL, st.none() | WORDS, st.none() | WORDS, FLOATS), min_size=1, max_size=6))
    prompt, answer, rejected, level, om = (list(column) for column in zip(*rows, strict=True))
    om[0] = 1.5  # a metric column that is all NaN has no type in JSON
    twin = ["twin" if len(text) % 2 else "new" for text in answer]
    return make_table(
        {"prompt": prompt, "answer": answer, "rejected": rejected, "level": level, "om": om, "twin": twin}
    )


def same(left: pa.Table, right: pa.Table) -> bool:
    """Equal, NaN being equal to NaN."""
    return left.schema.equals(right.schema) and str(left.to_pylist()) == str(right.to_pylist())


# What a table is


def test_make_table_fills_what_is_missing():
    table = make_table({"answer": ["x = 1\n"]})
    assert table.schema == SCHEMA
    assert table.to_pylist()[0] == {
        **dict.fromkeys(COLUMNS),
        "id": sample_id("", "x = 1\n"),
        "prompt": "",
        "answer": "x = 1\n",
    }


def test_ids_name_the_question_and_its_language():
    table = make_table({"prompt": ["p", "p", "p"], "answer": ["1", "2", "1"], "language": ["python", "python", "go"]})
    ids = table["id"].to_pylist()
    assert ids[0] == ids[1] == sample_id("python", "p") != ids[2]


def test_given_ids_are_kept_and_missing_ones_are_made():
    table = make_table({"id": ["mine", None], "prompt": ["a", "b"], "answer": ["1", "2"]})
    assert table["id"].to_pylist() == ["mine", sample_id("", "b")]


def test_texts_join_and_questions_fall_back_to_the_answer():
    table = make_table({"prompt": ["p", ""], "answer": ["a", "code"]})
    assert texts(table).to_pylist() == ["pa", "code"]
    assert questions(table).to_pylist() == ["p", "code"]


def test_metrics_are_floats_and_missing_ones_are_nan():
    table = make_table({"answer": ["a", "b"], "om": [1, None], "size": np.array([3, 4])})
    assert table["om"].to_pylist()[0] == 1.0
    assert math.isnan(table["om"].to_pylist()[1])
    assert table["size"].to_pylist() == [3.0, 4.0]


def test_whole_numbers_are_good_levels():
    assert make_table({"answer": ["a"], "level": [3]})["level"].to_pylist() == ["3"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": ["p"]}, "'answer' is missing"),
        ({"anwser": ["p"]}, "did you mean 'anwser'"),
        ({"answer": ["a", 5]}, "'answer' has an invalid value in row 1; given: int '5'"),
        ({"answer": ["a", None]}, "row 1; given: null"),
        ({"answer": ["a"], "om": ["high"]}, "'om'"),
        ({"answer": ["a"], "om": [True]}, "allowed: numbers"),
        ({"answer": ["a"], "levle": ["1.1"]}, "did you mean 'level'"),
        ({"answer": ["\ud800"]}, "'answer'"),
        ({"answer": ["a", "b"], "prompt": ["p"]}, "differ in length"),
        ({"answer": pa.array([1, 2])}, "given: int64; allowed: text"),
    ],
)
def test_columns_that_do_not_fit_are_named(columns, said):
    with pytest.raises(DataError) as caught:
        make_table(columns)
    assert said in str(caught.value)


# There and back


@settings(deadline=None, max_examples=60)
@given(table=tables(), ending=st.sampled_from([".parquet", ".jsonl"]))
def test_tables_read_back_the_same(tmp_path_factory, table, ending):
    path = tmp_path_factory.mktemp("there") / f"table{ending}"
    write_table(table, path)
    assert same(read_table(path), table)


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(LINES, st.just("") | LINES), min_size=1, max_size=5))
def test_text_reads_back_the_same_and_is_the_texts_with_a_blank_line_after_each(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("text") / "table.txt"
    table = make_table(
        {
            "prompt": [program + "# output\n" for program, _ in pairs],
            "answer": [output for _, output in pairs],
            "language": ["python"] * len(pairs),
        }
    )
    write_table(table, path)
    assert path.read_bytes() == "".join(text + "\n" for text in texts(table).to_pylist()).encode()
    assert same(read_table(path), table)


@settings(deadline=None, max_examples=30)
@given(samples=st.lists(LINES, min_size=1, max_size=5))
def test_code_only_text_reads_back_the_same(tmp_path_factory, samples):
    path = tmp_path_factory.mktemp("code") / "table.txt"
    table = make_table({"answer": samples, "language": ["python"] * len(samples)})
    write_table(table, path)
    assert same(read_table(path), table)


def test_a_text_file_becomes_prompt_and_answer_and_goes_back_byte_for_byte(tmp_path):
    given_file, made = tmp_path / "in.txt", tmp_path / "out.txt"
    given_file.write_bytes(b"a = 1\nif a > 0 :\n\tprint(a)\n# output\n# 1\n\nb = 2\nprint(b)\n# output\n# 2\n\n")
    table = read_table(given_file)
    assert table["prompt"].to_pylist()[0] == "a = 1\nif a > 0 :\n\tprint(a)\n# output\n"
    assert table["answer"].to_pylist() == ["# 1\n", "# 2\n"]
    assert table["language"].to_pylist() == ["python", "python"]
    write_table(table, made)
    assert made.read_bytes() == given_file.read_bytes()


def test_generated_programs_keep_their_ids_through_text(tmp_path):
    table = generate(100, seed=1).table
    write_table(table, tmp_path / "t.txt")
    again = read_table(tmp_path / "t.txt")
    for column in ("id", "prompt", "answer"):
        assert again[column].to_pylist() == table[column].to_pylist()


def test_a_column_that_appears_late_in_json_lines_is_missing_before(tmp_path):
    path = json_lines(tmp_path / "t.jsonl", {"answer": "a", "tests": "t"}, {"answer": "b"}, {"answer": "c"})
    batches = list(stream_table(path, 1))
    assert [batch["tests"].to_pylist() for batch in batches] == [["t"], [None], [None]]


def test_an_infinite_metric_is_missing_in_json_lines(tmp_path):
    write_table(make_table({"answer": ["a", "b"], "om": [math.inf, 1.0]}), tmp_path / "t.jsonl")
    assert "Infinity" not in (tmp_path / "t.jsonl").read_text()
    assert math.isnan(read_table(tmp_path / "t.jsonl")["om"][0].as_py())


def test_a_last_line_without_its_newline_is_read_whole(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"\n\nprint(1)\n# output\n# 1")
    assert read_table(path)["answer"].to_pylist() == ["# 1\n"]


def test_the_same_rows_in_other_batches_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("gradatim.table.read.ROWS", 7)
    answers, levels = [str(i) for i in range(40)], [str(i % 3) for i in range(40)]
    for size in (1, 5, 40):
        starts = range(0, 40, size)
        parts = [make_table({"answer": answers[i : i + size], "level": levels[i : i + size]}) for i in starts]
        write_stream(parts, tmp_path / f"{size}.parquet")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert pq.ParquetFile(tmp_path / "5.parquet").metadata.num_row_groups == 6


def test_a_stream_passes_batches_of_the_size_asked_for(tmp_path):
    write_table(tinypy(25), tmp_path / "t.jsonl")
    assert [batch.num_rows for batch in stream_table(tmp_path / "t.jsonl", 10)] == [10, 10, 5]
    assert write_stream(stream_table(tmp_path / "t.jsonl", 10), tmp_path / "t.parquet") == 25
    assert read_table(tmp_path / "t.parquet").equals(read_table(tmp_path / "t.jsonl"))


def test_packed_files_are_read(tmp_path):
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"answer": "x = 1"}\n'))
    assert read_table(tmp_path / "t.jsonl.gz")["answer"].to_pylist() == ["x = 1"]
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"answer": "x = 1"}\n' * 50)[:-9])
    with pytest.raises(DataError, match="gzip file is damaged or incomplete"):
        read_table(tmp_path / "torn.jsonl.gz")


# People's own data


def json_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_mapping_takes_pairs_under_foreign_names(tmp_path):
    path = json_lines(tmp_path / "t.jsonl", {"instruction": "q", "output": "a", "bad": "b", "id": 7})
    report = ReadReport()
    table = read_table(
        path,
        columns={"prompt": "instruction", "answer": "output", "rejected": "bad"},
        language="python",
        report=report,
    )
    row = table.to_pylist()[0]
    assert (row["prompt"], row["answer"], row["rejected"]) == ("q", "a", "b")
    assert row["id"] == sample_id("python", "q")
    assert report.facts == {"kept": 1, "rejected": {}, "ignored": ["id"]}


def test_a_mapping_of_the_answer_alone_is_code_to_complete(tmp_path):
    pq.write_table(pa.table({"code": ["x = 1", "y = 2"]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", columns={"answer": "code"})
    assert table["prompt"].to_pylist() == ["", ""]
    assert len(set(table["id"].to_pylist())) == 2


def test_a_mapped_number_is_a_metric_and_unnamed_numbers_are_too(tmp_path):
    path = json_lines(tmp_path / "t.jsonl", {"answer": "a", "om": 2.5, "n": 3}, {"answer": "b", "n": 4})
    assert read_table(path).schema.names == [*COLUMNS, "om", "n"]
    assert read_table(path, columns={"answer": "answer", "size": "n"})["size"].to_pylist() == [3.0, 4.0]


def test_a_saved_dataset_is_read_and_its_splits_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_dict({"question": ["q1", "q2"], "answer": ["a1", "a2"]})
    one.save_to_disk(tmp_path / "one")
    table = read_table(tmp_path / "one", columns={"prompt": "question", "answer": "answer"})
    assert table["prompt"].to_pylist() == ["q1", "q2"]
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "two")
    assert read_table(f"{tmp_path / 'two'}#test")["answer"].to_pylist() == ["a2"]
    with pytest.raises(DataError, match=r"split is missing or unknown.*allowed: train, test; try: .*two#train"):
        read_table(tmp_path / "two")
    with pytest.raises(DataError, match=r"split is missing or unknown.*given: tset; .*did you mean 'test'"):
        read_table(f"{tmp_path / 'two'}#tset")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the dataset cannot be read"):
        read_table(tmp_path / "empty")


def test_a_streamed_dataset_has_the_rows_of_its_files_and_no_copy_in_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    folder = tmp_path / "published"
    folder.mkdir()
    rows = {"prompt": [f"p{row}" for row in range(2500)], "answer": [f"a{row}" for row in range(2500)]}
    for part, start in enumerate((0, 1000)):
        share = {name: values[start : start + 1500] for name, values in rows.items()}
        pq.write_table(
            pa.table({name: values[: 1000 if part == 0 else None] for name, values in share.items()}),
            folder / f"train-{part}.parquet",
        )
    assert read_table(f"hub-stream:{folder}").select(["prompt", "answer"]).to_pydict() == rows
    assert not list(cache.rglob("*.arrow"))
    with pytest.raises(DataError, match=r"split is missing or unknown.*allowed: train"):
        read_table(f"hub-stream:{folder}#test")


def test_without_the_package_datasets_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'gradatim\[datasets\]'"):
        read_table("hub:some/name")


# Rows that cannot be used


def test_bad_rows_are_counted_named_and_written_beside_the_output(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b'{"prompt": "p", "answer": "good"}\n'
        b"{not json\n"
        b"\n"
        b'{"prompt": "p", "answer": null}\n'
        b'{"prompt": "p", "answer": 5}\n'
        b'{"prompt": " ", "answer": "\\n"}\n'
        b'{"prompt": null, "answer": "a"}\n'
        b'"text"\n'
        b'{"prompt": "p", "answer": "\xff"}\n'
        b'{"prompt": "p", "answer": "\\ud800"}\n'
        b'{"prompt": "p", "answer": "good too"}\n'
    )
    report = ReadReport()
    table = read_table(path, report=report)
    assert table["answer"].to_pylist() == ["good", "good too"]
    assert {row.row: row.cause for row in report.rejected} == {
        2: "not JSON",
        4: "the answer is null",
        5: "answer is no text",
        6: "the text is empty",
        7: "the prompt is null",
        8: "not a JSON object",
        9: "not UTF-8",
        10: "answer is no text",
    }
    assert report.facts["kept"] == 2
    assert report.facts["rejected"]["answer is no text"] == 2
    beside = report.write_rejected(tmp_path / "out.parquet")
    assert beside == tmp_path / "out.rejected.jsonl"
    lines = [json.loads(line) for line in beside.read_text().splitlines()]
    assert [line["row"] for line in lines] == [2, 4, 5, 6, 7, 8, 9, 10]
    assert lines[0] == {"row": 2, "cause": "not JSON", "content": "{not json"}
    assert json.loads(lines[2]["content"]) == {"prompt": "p", "answer": 5}


def test_without_rejected_rows_an_old_list_of_them_goes(tmp_path):
    beside = tmp_path / "out.rejected.jsonl"
    beside.write_text('{"row": 1, "cause": "not JSON", "content": "old"}\n')
    assert ReadReport().write_rejected(tmp_path / "out.parquet") is None
    assert not beside.exists()


def test_a_file_of_that_name_that_lists_no_rejected_rows_stays(tmp_path):
    beside = tmp_path / "out.rejected.jsonl"
    beside.write_text("my own notes")
    assert ReadReport().write_rejected(tmp_path / "out.parquet") is None
    with pytest.raises(DataError, match="not replaced"):
        ReadReport(rejected=[Rejected(1, "not JSON", "x")]).write_rejected(tmp_path / "out.parquet")
    assert beside.read_text() == "my own notes"


def test_null_rows_of_parquet_are_rejected_by_row_number(tmp_path):
    pq.write_table(pa.table({"answer": ["a", None, "", "b"]}), tmp_path / "t.parquet")
    report = ReadReport()
    assert read_table(tmp_path / "t.parquet", report=report)["answer"].to_pylist() == ["a", "b"]
    assert [(row.row, row.cause) for row in report.rejected] == [
        (2, "the answer is null"),
        (3, "the text is empty"),
    ]


def test_text_samples_without_output_are_rejected_by_line(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"print(1)\n# output\n# 1\n\nprint(2)\n\n\xff\n\n")
    report = ReadReport()
    assert read_table(tmp_path / "t.txt", report=report).num_rows == 1
    assert [(row.row, row.cause) for row in report.rejected] == [(5, "no line '# output'"), (7, "not UTF-8")]


# Files that cannot be used


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.parquet", b"PAR1 this is none PAR1", "not a readable Parquet file"),
        ("t.parquet", b"", "not a readable Parquet file"),
        ("t.xlsx", b"a,b\n", "given: .xlsx; allowed: .parquet, .jsonl, .json, .csv, .tsv, .txt"),
        ("t.csv", b"a,b\n", "the file has no samples"),
        ("t", b"a", "given: none"),
        ("t.jsonl", b"", "the file has no samples"),
        ("t.txt", b"\n\n\n", "the file has no samples"),
        ("t.jsonl", b"nonsense\n", "t.jsonl, row 1: no row can be used; the first is rejected: not JSON"),
        ("t.json", b'[{"answer": "a"},\n{"answer"', "this JSON array is incomplete"),
        ("t.jsonl", '{"answer": "a"}\n'.encode("utf-16"), "not UTF-8"),
        ("t.txt", b"print(1)\r\n# output\r\n# 1\r\n", "line 1: the line ends are those of Windows"),
        ("t.jsonl", b'{"one": "a"}\n', "no column 'answer'; given: one; try: a column mapping"),
        ("t.jsonl", b'{"anser": "a"}\n', "answer=anser"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path, name, content, said):
    path = write_bytes(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write_table(tinypy(1), tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"no such file; try: did you mean 'train.jsonl'"):
        read_table(tmp_path / "trian.jsonl")


def test_parquet_damaged_inside_is_told(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(tinypy(2000), path)
    content = bytearray(path.read_bytes())
    content[2000:4000] = b"\xff" * 2000
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_table(path)


def test_a_missing_mapped_column_lists_those_there(tmp_path):
    path = json_lines(tmp_path / "t.jsonl", {"instruction": "q", "output": "a"})
    with pytest.raises(
        DataError, match=r"no column 'ouput' .*allowed: instruction, output; try: did you mean 'output'"
    ):
        read_table(path, columns={"answer": "ouput"})
    with pytest.raises(DataError, match="must name the answer"):
        read_table(path, columns={"prompt": "instruction"})


def test_a_parquet_column_of_the_wrong_type_is_named_with_the_file(tmp_path):
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: .*'answer' has the wrong type \(theirs: 'n'\); given: int64"):
        read_table(tmp_path / "t.parquet", columns={"answer": "n"})


def test_a_misspelt_name_of_ours_is_told(tmp_path):
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="did you mean 'prompt'"):
        read_table(tmp_path / "t.parquet", columns={"answer": "a", "promt": "b"})


# Writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.txt"
    write_table(tinypy(1), path)
    before = path.read_bytes()
    unfit = make_table({"prompt": ["a\n# output\n", "b\n\nc\n# output\n"], "answer": ["# 1\n", "# 2\n"]})
    with pytest.raises(DataError, match=r"t.txt, row 1: this sample cannot be restored from the text format"):
        write_table(unfit, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.txt"]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("a\n# output\n", "# 1"),
        ("a", "b\n"),
        ("a\n# output\n# 1\n# output\n", "# 1\n"),
        ("", "a\n\nb\n"),
        ("", "\na\n"),
        ("", "print(1)\n# output\n# 1\n"),
    ],
)
def test_text_refuses_what_would_not_read_back_the_same(tmp_path, prompt, answer):
    with pytest.raises(DataError, match="cannot be restored from the text format"):
        write_table(make_table({"prompt": [prompt], "answer": [answer]}), tmp_path / "t.txt")


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be written"):
        write_table(tinypy(1), tmp_path / "file" / "t.parquet")
    with pytest.raises(DataError, match=r"given: .csv"):
        write_table(tinypy(1), tmp_path / "t.csv")
    with pytest.raises(DataError, match="no samples to write"):
        write_stream([], tmp_path / "t.parquet")
    scored = tinypy(1).append_column("om", pa.array([1.0]))
    with pytest.raises(DataError, match="the same columns"):
        write_stream([tinypy(1), scored], tmp_path / "t.parquet")
    assert os.listdir(tmp_path) == ["file"]


def test_a_disk_that_takes_no_more_is_a_storage_failure_and_the_old_file_stays(tmp_path):
    path = tmp_path / "t.jsonl"
    write_table(tinypy(1), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFailed, match=r"t.jsonl: the file cannot be written; given: File too large"):
            write_table(tinypy(50_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.jsonl"]


# Duplicates


def test_dedupe_keeps_the_first_and_counts_the_rest():
    table = make_table({"prompt": ["p", "q", "p", "p"], "answer": ["1", "1", "1", "2"], "level": list("abcd")})
    by_text, by_id = dedupe(table), dedupe(table, "id")
    assert by_text.table["level"].to_pylist() == ["a", "b", "d"]
    assert by_text.dropped == 1
    assert by_id.table["level"].to_pylist() == ["a", "b"]
    assert by_id.dropped == 2


@given(words=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=30))
def test_dedupe_keeps_each_text_once_in_order(words):
    assert dedupe(make_table({"answer": words})).table["answer"].to_pylist() == list(dict.fromkeys(words))


def test_dedupe_of_nothing_is_nothing_and_a_wrong_way_is_told():
    assert dedupe(SCHEMA.empty_table()).dropped == 0
    with pytest.raises(UserError, match="did you mean 'text'"):
        dedupe(tinypy(1), "texts")  # type: ignore[arg-type]
