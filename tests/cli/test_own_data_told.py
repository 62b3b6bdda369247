"""Rows, columns and figures of people's own data that are not used: the terminal says so where it happens."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gradatim.errors import did_you_mean

PROGRAM = "def f(x):\n    return x + 1\n"
PROSE = "Sure! Here is the function:\n\n```python\n" + PROGRAM + "```\n\nIt adds one to its argument."
RECIPE = """
data: {source: file, path: PATH, split: {by: text, validation: 4, test: 4}}
difficulty: {metric: om, bands: {names: [all]}}
budget: {steps: 1}
student: {preset: tiny, context_length: 32}
train: {batch_size: 2, max_length: 32, evaluations_per_stage: 0}
evaluate: {suites: []}
"""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, rows: list[dict[str, Any]]) -> str:
    """The name of a recipe about ``rows``."""
    write(folder / "rows.jsonl", rows)
    (folder / "mine.yaml").write_text(RECIPE.replace("PATH", "rows.jsonl"))
    return "mine.yaml"


def chat(number: int, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"task {number}"}, {"role": "assistant", "content": answer}]}


def told(text: str) -> str:
    """What a command said, without its line breaks."""
    return " ".join(text.split())


def test_chat_answers_without_a_program_are_said_with_count_cause_and_advice(gradatim, tmp_path):
    rows = [chat(n, PROSE.replace("+ 1", f"+ {n}")) for n in range(12)]
    rows += [chat(n, "I cannot help with that.") for n in range(12, 19)] + [
        {**chat(n, "x"), "language": "go"} for n in (20, 21)
    ]
    said = gradatim("plan", "--data", recipe(tmp_path, rows))
    assert said.status == 0
    line = (
        "gradatim: 9 of 21 samples have no 'om' and are not learnt: 7 do not parse as Python, "
        "2 are in another language (go); try a metric that needs no Python program: size, compression, loss or column"
    )
    assert line in told(said.err)


def test_score_says_it_too(gradatim, tmp_path):
    write(tmp_path / "rows.jsonl", [chat(1, PROSE), chat(2, "No."), chat(3, "```java\nint x;\n```")])
    said = gradatim("score", "rows.jsonl", "--out", "out.parquet")
    assert "2 of 3 samples have no 'om' and are empty in its column: 2 do not parse as Python" in told(said.err)
    assert pq.read_table(tmp_path / "out.parquet")["om"].to_pylist()[0] == 0.75


def test_rows_without_an_answer_and_parts_that_are_not_read_are_said_when_the_samples_are_made(gradatim, tmp_path):
    rows: list[dict[str, Any]] = [{"prompt": f"p{n}", "answer": f"x = {n}\n", "note": "n"} for n in range(12)]
    rows += [{"prompt": "p", "answer": None}, {"prompt": "q"}, {"prompt": "r", "answer": "1", "tools": [{"name": "f"}]}]
    said = gradatim("plan", "--data", recipe(tmp_path, rows))
    assert said.status == 0
    assert (
        "rows.jsonl: 3 of 15 rows cannot be used, the first is row 13: the answer is null 2, "
        "the row defines tools, which a prompt cannot hold 1" in told(said.err)
    )
    assert "rows.jsonl: columns that are not used: note" in told(said.err)


def test_evaluate_and_score_name_columns_and_rows_that_are_not_used(gradatim, tmp_path):
    write(
        tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "a = 1", "persona": "x"}, {"prompt": "q", "answer": None}]
    )
    said = gradatim("score", "rows.jsonl")
    assert "row 2: the answer is null" in said.err
    assert "columns that are not used: persona" in told(said.err)


def test_an_edited_file_is_refused_by_run_and_plan_in_one_line(gradatim, tmp_path):
    rows = [{"prompt": f"p{n}", "answer": f"x = {n}\n"} for n in range(12)]
    name = recipe(tmp_path, rows)
    assert gradatim("run", name).status == 0
    write(tmp_path / "rows.jsonl", rows[1:])
    for verb in ("plan", "run"):
        said = gradatim(verb, name)
        assert said.status == 2
        assert "rows.jsonl: the data file has been changed since the run's samples were read" in told(said.err)
        assert said.err.count("gradatim:") == 1
    said = gradatim("plan", name, "--set", "data.on_change=keep")
    assert said.status == 0
    assert "has been changed since its samples were read: the old samples are used" in told(said.err)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json"])
def test_score_takes_the_column_mapping_of_a_recipe(gradatim, tmp_path, ending):
    rows = [{"q": "Add one.", "a": PROGRAM}, {"q": "Add two.", "a": "x = 1\n"}]
    path = tmp_path / f"rows{ending}"
    if ending == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["q", "a"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if ending == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    said = gradatim("score", path.name)
    assert said.status == 2
    assert "--columns prompt=COLUMN,answer=COLUMN" in told(said.err)
    said = gradatim("score", path.name, "--columns", "prompt=q,answer=a", "--out", "out.parquet")
    assert said.status == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["prompt"].to_pylist() == ["Add one.", "Add two."]
    assert table["om"].to_pylist() == [0.75, 0.5]


@pytest.mark.parametrize("name", ["dialog", "conversation"])
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_a_column_of_conversations_may_have_any_name(gradatim, tmp_path, name, keys):
    rows = []
    for n in range(12):
        turns = [("user", f"task {n}"), ("assistant", f"x = {n}\n")]
        rows.append({name: [dict(zip(keys, turn, strict=True)) for turn in turns], "topic": f"t{n % 2}", "note": "n"})
    write(tmp_path / "rows.jsonl", rows)
    said = gradatim("score", "rows.jsonl")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert f"try: a column mapping, --columns messages={name} or data.columns: {{messages: {name}}}" in told(said.err)
    said = gradatim("score", "rows.jsonl", "--columns", f"messages={name},category=topic", "--out", "out.parquet")
    assert said.status == 0, said.err
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["prompt"].to_pylist() == [f"task {n}" for n in range(12)]
    assert table["answer"].to_pylist() == [f"x = {n}\n" for n in range(12)]
    assert table["category"].to_pylist() == [f"t{n % 2}" for n in range(12)]
    assert "columns that are not used: note" in told(said.err)
    changes = ["--set", f"data.columns.messages={name}"]
    assert gradatim("plan", "--data", recipe(tmp_path, rows), *changes).status == 0


def test_rows_with_different_fields_are_told_in_one_line(gradatim, tmp_path):
    rows = [chat(n, f"x = {n}\n") for n in range(12)] + [{"prompt": f"p{n}", "completion": "x"} for n in range(4)]
    said = gradatim("plan", "--data", recipe(tmp_path, rows))
    assert said.status == 0
    line = "the rows have different fields: messages in 12, prompt and completion in 4; all are read by messages"
    assert told(said.err).count(line) == 1
    none = [{"question": "q", "answer": "a"}, {"prompt": "p", "completion": "c"}]
    said = gradatim("plan", "--data", recipe(tmp_path, none))
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert (
        "no row can be used: the rows have different fields: question and answer in 1, prompt and completion in 1; "
        "try: a file for each" in told(said.err)
    )


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "i", "input": "more", "output": "x"},
        {"system": "s", "instruction": "i", "output": "x"},
        {"instruction": "i", "output": None},
    ],
)
def test_optional_fields_and_missing_answers_are_no_other_fields(gradatim, tmp_path, row):
    write(tmp_path / "rows.jsonl", [{"instruction": f"i{n}", "output": "x"} for n in range(3)] + [row])
    said = gradatim("score", "rows.jsonl", "--metric", "size")
    assert said.status == 0
    assert "different fields" not in said.err


def test_rows_that_repeat_an_earlier_one_are_counted(gradatim, tmp_path):
    rows = [{"prompt": f"p{n % 10}", "answer": f"x = {n % 10}\n"} for n in range(13)]
    said = gradatim("plan", "--data", recipe(tmp_path, rows))
    assert "rows.jsonl: 3 of 13 rows repeat the prompt and the answer of an earlier one" in told(said.err)
    said = gradatim("plan", "--data", "mine.yaml", "--set", "data.duplicates=text")
    assert "rows.jsonl: 3 of 13 rows are duplicates of earlier ones and are left out" in told(said.err)
    assert "earlier one" not in gradatim("plan", "--data", recipe(tmp_path, rows[:10])).err


def test_a_hint_never_names_what_was_given(gradatim, tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "p.jsonl").write_text(
        '{"task_id": "a", "prompt": "def f():\\n", "entry_point": "f", "test": "x = 1"}\n'
    )
    said = gradatim("check", "samples", "--problems", "p.jsonl")
    assert (said.status, said.err) == (2, "gradatim: samples: this is a folder\n")
    assert did_you_mean("runs", ["runs"]) is None
    assert did_you_mean("run", ["runs", "run"]) == "did you mean 'runs'?"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("messages=b", "there is no column 'b' to take as 'messages'; allowed: a"),
        ("messages=a,answer=a", "a mapping names nothing else for them"),
        ("answer", "a column mapping is written FIELD=COLUMN; given: answer"),
        ("answer=", "written FIELD=COLUMN"),
        ("answer=a,answer=b", "a field is mapped twice; given: answer=b"),
        ("answer=b", "there is no column 'b' to take as 'answer'; allowed: a"),
        ("prompt=a", "the column mapping must name the answer"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_told(gradatim, tmp_path, given, words):
    write(tmp_path / "rows.jsonl", [{"a": "x = 1"}])
    said = gradatim("score", "rows.jsonl", "--columns", given)
    assert said.status == 2
    assert words in told(said.err)
