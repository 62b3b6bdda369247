"""Instruction data: rows become prompts and answers, rows of another shape are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import DataError
from gradatim.table import ReadReport, read_table, stream_table
from gradatim.table.instruction import MARK, ROLES, messages_of, prompt_of

ALPACA = [
    {
        "instruction": "Add two numbers.",
        "input": "",
        "output": "def add(a, b):\n    return a + b",
        "language": "python",
    },
    {"instruction": "Sort this list.", "input": "[3, 1]", "output": "[1, 3]", "language": "python"},
]
CHAT = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
            {"role": "assistant", "content": "four"},
            {"role": "user", "content": "thanks"},
        ]
    },
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_input_stands_a_blank_line_below_its_instruction(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.jsonl", ALPACA))
    assert table["prompt"].to_pylist() == ["Add two numbers.", "Sort this list.\n\n[3, 1]"]
    assert table["answer"].to_pylist() == [row["output"] for row in ALPACA]
    assert table["language"].to_pylist() == ["python", "python"]


def test_the_last_message_of_the_assistant_is_the_answer_and_what_is_before_it_the_prompt(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.jsonl", CHAT))
    assert table["answer"].to_pylist() == ["hello", "four"]
    assert table["prompt"][0].as_py() == "hi"
    assert messages_of(table["prompt"][1].as_py()) == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]


def test_conversations_of_humans_and_gpt_are_chats(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}]
    table = read_table(written(tmp_path / "a.jsonl", rows))
    assert (table["prompt"][0].as_py(), table["answer"][0].as_py()) == ("hi", "hello")


def test_parquet_and_json_lines_give_the_same_samples(tmp_path: Path) -> None:
    for rows in (ALPACA, CHAT):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        lines = written(tmp_path / "a.jsonl", rows)
        assert read_table(tmp_path / "a.parquet").to_pylist() == read_table(lines).to_pylist()


def test_a_mapping_or_an_answer_of_its_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ALPACA)
    mapped = read_table(path, columns={"prompt": "input", "answer": "instruction"})
    assert mapped["answer"].to_pylist() == [row["instruction"] for row in ALPACA]
    own = written(tmp_path / "b.jsonl", [{**CHAT[0], "prompt": "p", "answer": "a"}])
    assert read_table(own)["answer"].to_pylist() == ["a"]
    assert read_table(own, format="chat")["answer"].to_pylist() == ["hello"]


def test_rows_without_the_shape_are_rejected_with_their_cause(tmp_path: Path) -> None:
    broken: dict[str, Any] = {
        "the conversation is no list of messages": {"messages": "hello"},
        "no message is the assistant's": {"messages": [{"role": "user", "content": "hi"}]},
        "there is no message before the answer": {"messages": [{"role": "assistant", "content": "hi"}]},
        "a message has the unknown role 'tool'": {"messages": [{"role": "tool", "content": "x"}, *CHAT[0]["messages"]]},
        "a message has no text": {"messages": [{"role": "user", "content": ["x"]}, *CHAT[0]["messages"]]},
        "a message has no role": {"messages": ["x", *CHAT[0]["messages"]]},
        "a message has the character U+001E": {
            "messages": [{"role": "user", "content": f"a{MARK}b"}, *CHAT[0]["messages"]]
        },
    }
    report = ReadReport()
    table = read_table(written(tmp_path / "a.jsonl", [*broken.values(), CHAT[0]]), report=report)
    assert table.num_rows == 1
    assert {row.row: row.cause for row in report.rejected} == dict(enumerate(broken, start=1))
    with pytest.raises(DataError, match="no list of messages"):
        read_table(written(tmp_path / "b.jsonl", [{"messages": "hello"}]))


def test_a_later_part_of_a_file_without_the_columns_is_rejected_row_by_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [CHAT[0], CHAT[0], {"text": "x"}, {"text": "y"}])
    report = ReadReport()
    batches = list(stream_table(path, 2, report=report))
    assert sum(batch.num_rows for batch in batches) == 2
    assert [row.row for row in report.rejected] == [3, 4]


def test_a_shape_that_a_file_has_not_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(DataError, match="no chat rows"):
        read_table(path, format="chat")
    with pytest.raises(DataError, match="did you mean 'alpaca'"):
        read_table(path, format="alpca")


@given(st.lists(st.tuples(st.sampled_from(ROLES), st.text().filter(lambda text: MARK not in text)), min_size=1))
def test_a_prompt_is_taken_apart_into_the_messages_it_was_made_of(messages: list[tuple[str, str]]) -> None:
    assert messages_of(prompt_of(messages)) == messages


@given(st.text())
def test_any_other_text_is_one_message_of_the_user(text: str) -> None:
    if not text.startswith(MARK):
        assert messages_of(text) == [("user", text)]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": "q", "completion": "a"}, "q", "a"),
        ({"prompt": turns("q"), "completion": turns("q", "a")[1:]}, "q", "a"),
        ({"question": "q", "answer": "a"}, "q", "a"),
        ({"question": "q", "response": "a"}, "q", "a"),
        ({"instruction": "q", "response": "a"}, "q", "a"),
        ({"instruction": "q", "context": "c", "response": "a"}, "q\n\nc", "a"),
        ({"query": "q", "response": "a"}, "q", "a"),
        ({"problem": "q", "solution": "a"}, "q", "a"),
        ({"input": "q", "output": "a"}, "q", "a"),
        ({"text": "q", "code": "a", "task_id": 3}, "q", "a"),
        ({"text": "a"}, "", "a"),
        ({"content": "a", "size": 3}, "", "a"),
        ({"instruction": "q", "input": "", "output": "a", "text": "### q a"}, "q", "a"),
        ({"messages": turns("q", "a"), "prompt": "other"}, "q", "a"),
        ({"prompt": "q", "answer": "a", "text": "other"}, "q", "a"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_usual_column_names_are_prompts_and_answers(
    tmp_path: Path, row: dict[str, Any], prompt: str, answer: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        written(path, [row])
    table = read_table(path)
    assert (table["prompt"].to_pylist(), table["answer"].to_pylist()) == ([prompt], [answer])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": turns("q"), "chosen": turns("q", "a")[1:], "rejected": turns("q", "b")[1:]},
        {"chosen": turns("q", "a"), "rejected": turns("q", "b")},
        {"prompt": "q", "chosen": turns("q", "a"), "rejected": turns("q", "b"), "messages": turns("q", "a")},
    ],
)
def test_preference_data_has_a_chosen_and_a_rejected_answer(tmp_path: Path, row: dict[str, Any]) -> None:
    table = read_table(written(tmp_path / "a.jsonl", [row]))
    assert [table[name].to_pylist() for name in ("prompt", "answer", "rejected")] == [["q"], ["a"], ["b"]]


def test_a_system_prompt_is_read_and_a_row_without_a_prompt_is_rejected(tmp_path: Path) -> None:
    rows = [{"system_prompt": "s", "question": "q", "response": "a"}, {"question": None, "response": "a"}]
    report = ReadReport()
    table = read_table(written(tmp_path / "a.jsonl", rows), report=report)
    assert messages_of(table["prompt"][0].as_py()) == [("system", "s"), ("user", "q")]
    assert [row.cause for row in report.rejected] == ["the prompt is null"]
    assert "prompt from 'question', answer from 'response'" in report.notes()[1]


def test_a_mapping_that_leaves_the_prompts_out_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"instruction": "q", "code": "a", "input": 3}])
    report = ReadReport()
    table = read_table(path, columns={"answer": "code"}, report=report)
    assert table["prompt"].to_pylist() == [""]
    assert "names no prompt" in report.notes()[0]
    assert "prompt=instruction" in report.notes()[0]
    assert "'input'" not in report.notes()[0]
    report = ReadReport()
    read_table(path, columns={"answer": "code", "prompt": "instruction"}, report=report)
    assert not report.unmapped


def test_columns_of_no_usual_name_are_answered_with_a_mapping_of_both(tmp_path: Path) -> None:
    for row, answer in ({"frage": "q", "antwort": "a"}, "antwort"), ({"one": "q", "two": "a"}, "COLUMN"):
        with pytest.raises(DataError, match=f"--columns prompt=COLUMN,answer={answer} "):
            read_table(written(tmp_path / "a.jsonl", [row]))
