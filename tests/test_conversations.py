"""Conversations: all messages are used, or the row is rejected with its cause and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradatim.errors import DataError
from gradatim.table import ReadReport, read_table, stream_table
from gradatim.table.instruction import messages_of

ASK = {"role": "user", "content": "one"}
SAY = {"role": "assistant", "content": "two"}
SHAREGPT = [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]
TOOLS, PAIR = "the row defines tools, which a prompt cannot hold", "a turn of history is no pair of question and answer"
TOOL = {"type": "function", "function": {"name": "add"}}


def read(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> tuple[list[tuple[Any, str]], ReadReport]:
    """Messages and answer of each row that is used, and the report."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ReadReport()
    try:
        table = read_table(path, report=report, **options).to_pylist()
    except DataError:
        table = []
    return [(messages_of(row["prompt"]), row["answer"]) for row in table], report


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "one", "output": "two", "system": "Be brief."},
        {"conversations": SHAREGPT, "system": "Be brief."},
        {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT]},
        {"messages": [ASK, SAY], "system": "Be brief."},
        {"messages": [{"role": "developer", "content": "Be brief."}, ASK, SAY]},
        {"messages": [{"role": "system", "content": "Be brief."}, ASK, SAY], "system": "Be brief."},
        {"messages": json.dumps([{"role": "system", "content": "Be brief."}, ASK, SAY])},
        {"prompt": "one", "answer": "two", "system": "Be brief."},
    ],
)
def test_a_system_message_stands_before_the_question_wherever_the_row_has_it(tmp_path, row):
    (pair,), report = read(tmp_path, row)
    assert pair == ([("system", "Be brief."), ("user", "one")], "two")
    assert report.ignored == ()


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_blank_system_column_changes_no_prompt(tmp_path, blank):
    found, _ = read(tmp_path, {"instruction": "one", "output": "two", "system": blank, "history": [], "tools": "[]"})
    assert found == [([("user", "one")], "two")]


@pytest.mark.parametrize(
    "history",
    [
        [["a", "b"], ["c", "d"]],
        json.dumps([["a", "b"], ["c", "d"]]),
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"from": "human", "value": "c"},
            {"from": "gpt", "value": "d"},
        ],
    ],
)
@pytest.mark.parametrize("question", [{"instruction": "one", "output": "two"}, {"prompt": "one", "answer": "two"}])
def test_the_history_of_a_row_becomes_earlier_turns(tmp_path, history, question):
    found, _ = read(tmp_path, {**question, "history": history, "system": "s"})
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert found == [([("system", "s"), *turns, ("user", "one")], "two")]


def test_system_and_history_are_found_in_parquet_and_under_other_names(tmp_path):
    rows = [
        {"q": "one", "a": "two", "sys": "Be brief.", "turns": [["x", "y"]]},
        {"q": "three", "a": "four", "sys": None, "turns": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    columns = {"prompt": "q", "answer": "a", "system": "sys", "history": "turns"}
    table = read_table(tmp_path / "t.parquet", columns=columns)
    assert messages_of(table["prompt"][0].as_py())[:2] == [("system", "Be brief."), ("user", "x")]
    assert table["prompt"][1].as_py() == "three"
    with pytest.raises(DataError, match="no column 'sis' to take as 'system'"):
        read_table(tmp_path / "t.parquet", columns={"answer": "a", "system": "sis"})


def test_a_system_message_that_comes_late_in_the_file_is_read_too(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [{"prompt": "one", "answer": "two"}] * 3 + [{"prompt": "p", "answer": "a", "system": "s"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [text for batch in stream_table(path, 2) for text in batch["prompt"].to_pylist()]
    assert messages_of(prompts[3]) == [("system", "s"), ("user", "p")]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"instruction": "a", "output": "b", "tools": [TOOL]}, TOOLS),
        ({"instruction": "a", "output": "b", "system": 5}, "system is no text"),
        ({"instruction": "a", "output": "b", "history": "earlier"}, "history is no list of turns"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, PAIR),
        ({"prompt": "a", "answer": "b", "tools": json.dumps([TOOL])}, TOOLS),
        ({"messages": [ASK, SAY], "functions": [TOOL]}, "the row defines functions, which a prompt cannot hold"),
        ({"messages": [ASK, SAY], "history": [["a", "b"]]}, "a row has both history and a conversation"),
        (
            {"messages": [{"role": "system", "content": "x"}, ASK, SAY], "system": "y"},
            "the column system and the first message are two system messages",
        ),
        (
            {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [TOOL]}]},
            "a message has tool_calls, which no text can hold",
        ),
        (
            {"messages": [ASK, {"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
            "a message has function_call, which no text can hold",
        ),
        ({"messages": [ASK, {"role": "function", "content": "3"}, SAY]}, "a message has the unknown role 'function'"),
        (
            {"conversations": [{"from": "observation", "value": "3"}, *SHAREGPT]},
            "a message has the unknown role 'observation'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SAY]},
            "a message has a part of the type 'image_url', which is no text",
        ),
        ({"messages": [ASK, {**SAY, "weight": 0}]}, "every answer has the weight 0"),
    ],
)
def test_a_part_that_no_text_can_hold_rejects_its_row_and_no_other(tmp_path, row, cause):
    good = {**row, **{name: None for name in ("tools", "functions", "system", "history") if name in row}}
    good |= {"messages": [ASK, SAY]} if "messages" in row else {}
    good |= {"conversations": SHAREGPT} if "conversations" in row else {}
    found, report = read(tmp_path, good, row)
    assert len(found) == 1
    assert [(each.row, each.cause) for each in report.rejected] == [(2, cause)]
    assert report.facts["rejected"] == {cause: 1}


def test_parts_of_a_content_are_joined_as_chat_templates_join_them(tmp_path):
    parts = [{"type": "text", "text": "o"}, {"type": "input_text", "text": "ne"}]
    row = {
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": {"type": "text", "text": "two"}},
        ]
    }
    assert read(tmp_path, row)[0] == [([("user", "one")], "two")]


def test_parquet_fills_what_a_message_lacks_with_nulls_and_is_read_all_the_same(tmp_path):
    rows = [
        {"messages": [{**ASK, "tool_calls": None, "name": None}, {**SAY, "tool_calls": None, "name": None}]},
        {"messages": [{**ASK, "tool_calls": None, "name": None}, {**SAY, "tool_calls": [{"id": "1"}], "name": None}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    report = ReadReport()
    assert read_table(tmp_path / "t.parquet", report=report)["answer"].to_pylist() == ["two"]
    assert [each.cause for each in report.rejected] == ["a message has tool_calls, which no text can hold"]


def test_parts_that_are_left_out_of_a_row_in_use_are_counted_and_said(tmp_path):
    thinking = {"messages": [ASK, {**SAY, "reasoning_content": "hm"}, {"role": "user", "content": "thanks"}]}
    found, report = read(tmp_path, thinking, {"messages": [ASK, {**SAY, "content": "no"}], "topic": "x"})
    assert len(found) == 2
    assert report.notes() == [
        f"{report.path}: messages after the last answer are left out: in 1 of 2 rows",
        f"{report.path}: the field 'reasoning_content' of messages is not read: in 1 of 2 rows",
        f"{report.path}: columns that are not used: topic",
    ]
    assert sum(report.facts["remarks"].values()) == 2


def test_an_answer_with_no_weight_is_no_answer_and_the_one_before_it_is(tmp_path):
    found, report = read(tmp_path, {"messages": [ASK, SAY, ASK, {"role": "assistant", "content": "x", "weight": 0}]})
    assert found == [([("user", "one")], "two")]
    assert "messages after the last answer are left out" in report.remarks


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "output": None},
        {"instruction": "a"},
        {"messages": [ASK, {"role": "assistant", "content": None}]},
        {"conversations": [SHAREGPT[0], {"from": "gpt"}]},
    ],
)
def test_a_row_of_instruction_data_without_an_answer_is_counted_as_one(tmp_path, row):
    good = {"instruction": "a", "output": "b"} if "instruction" in row else {next(iter(row)): [ASK, SAY]}
    found, report = read(tmp_path, good, row, good)
    assert len(found) == 2
    assert report.facts["rejected"] == {"the answer is null": 1}
    assert "1 of 3 rows cannot be used, the first is row 2: the answer is null 1" in report.notes()[0]


def test_empty_answers_are_used_and_counted(tmp_path):
    found, report = read(tmp_path, {"prompt": "a", "answer": ""}, {"prompt": "a", "answer": "b"})
    assert len(found) == 2
    assert report.remarks == {"the answer is empty": 1}
