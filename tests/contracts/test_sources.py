"""What every source owes the loop, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_models import base

from gradatim.source import SOURCES
from gradatim.stage import Feedback
from gradatim.table import LABELS, SCHEMA, make_table, texts, write_table
from gradatim.teacher import TEACHERS

ORACLE = TEACHERS.get("oracle")(levels=["1.1"])


def own_replies(folder: Path) -> dict[str, Any]:
    """A model that solves nothing, and problems with a reference solution."""
    rows = [
        {"task_id": n, "text": f"Write one({n}).", "code": f"one = {n}", "test_list": [f"assert one == {n}"]}
        for n in range(2)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(base(folder / "base", context=1024))
    return {
        "problems": str(folder / "problems.jsonl"),
        "model": model,
        "max_new_tokens": 2,
        "num_samples": 1,
        "unsolved": "reference",
    }


@pytest.fixture
def options(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """For each source, options with which it gives a small table. A new source adds its own."""
    write_table(make_table({"prompt": ["p", "q"], "answer": ["1", "2"], "om": [1.0, 2.0]}), tmp_path / "t.parquet")
    return {
        "file": {"path": tmp_path / "t.parquet"},
        "tinypy": {"count": 60, "seed": 3},
        "taught": {"count": 30, "teacher": ORACLE},
        "rejection_sampling": own_replies(tmp_path),
        "mobile": {"count": 4, "environments": [{"stations": 1, "users": 2, "speed": 0}], "seed": 3},
    }


@pytest.mark.parametrize("name", [entry.name for entry in SOURCES])
class TestEverySource:
    def test_gives_samples_in_the_schema(self, name, options):
        table = SOURCES.get(name)(**options[name]).draw(0, Feedback()).table
        assert table.num_rows > 0
        assert table.select(SCHEMA.names).schema.equals(SCHEMA)
        for field in table.schema:
            assert field.name in SCHEMA.names or field.name in LABELS or str(field.type) == "double"

    def test_has_text_to_learn_and_an_id(self, name, options):
        table = SOURCES.get(name)(**options[name]).draw(0, Feedback()).table
        assert not any(table[column].null_count for column in ("id", "prompt", "answer"))
        assert all(text.strip() for text in texts(table).to_pylist())

    def test_gives_the_same_table_for_the_same_call(self, name, options):
        first, second = (SOURCES.get(name)(**options[name]) for _ in range(2))
        assert first == second
        drawn, again = first.draw(0, Feedback()), first.draw(0, Feedback())
        assert drawn.table.equals(second.draw(0, Feedback()).table)
        assert drawn.table.equals(again.table)
        assert (drawn.facts, drawn.origin) == (again.facts, again.origin)

    def test_tells_its_facts_as_plain_json(self, name, options):
        drawn = SOURCES.get(name)(**options[name]).draw(0, Feedback())
        assert json.loads(json.dumps(drawn.facts)) == drawn.facts
        assert drawn.facts["kept"] == drawn.table.num_rows

    def test_is_listed_with_a_line_that_says_what_it_is(self, name, options):
        summary = next(entry.summary for entry in SOURCES if entry.name == name)
        assert 10 < len(summary) <= 100
