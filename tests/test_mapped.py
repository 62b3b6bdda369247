"""Tables larger than memory: the same rows as in memory, and a plan whose memory does not grow with the texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradatim import api, programs, table
from gradatim.errors import DataError, StorageFailed
from gradatim.experiment import recipe as recipes
from gradatim.experiment.assemble import corpus_maker
from gradatim.source import fingerprint
from gradatim.table import mapped
from gradatim.table.schema import label_codes

ROWS = mapped.SLICE_ROWS + 1000


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table with a row is a file."""
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 0)


def batches(rows: int = ROWS, size: int = 7000) -> list[pa.RecordBatch]:
    """Samples whose levels and languages appear one after the other, with rows without a level."""
    columns = {
        "prompt": [f"question {row}\n" for row in range(rows)],
        "answer": [f"{row * row}" for row in range(rows)],
        "level": [None if row % 11 == 0 else str(row // 5000) for row in range(rows)],
        "rank": [float(row) for row in range(rows)],
    }
    parts = [{name: values[start : start + size] for name, values in columns.items()} for start in range(0, rows, size)]
    return [batch for part in parts for batch in table.make_table(part).to_batches()]


def test_a_table_in_a_file_has_the_rows_of_one_in_memory_and_takes_no_memory(in_files: None):
    parts = batches()
    in_memory = pa.Table.from_batches(parts).unify_dictionaries()
    before = pa.total_allocated_bytes()
    in_file = table.mapped_table(parts)
    assert pa.total_allocated_bytes() - before < in_memory.nbytes / 20
    assert in_file.schema == in_memory.schema
    assert in_file.equals(in_memory)
    assert pa.concat_tables(table.slices(in_file)).equals(in_memory)
    assert label_codes(in_file["level"], "none")[0] == sorted([*map(str, range(ROWS // 5000 + 1)), "none"])


def test_filter_and_take_are_those_of_the_table(in_files: None):
    samples = table.mapped_table(batches())
    rng = np.random.default_rng(0)
    mask, rows = rng.random(ROWS) < 0.3, rng.integers(0, ROWS, 500)
    assert table.filter_rows(samples, mask).equals(samples.filter(pa.array(mask)))
    assert table.take_rows(samples, rows).to_pylist() == samples.take(pa.array(rows)).to_pylist()
    assert table.take_rows(samples, rows[:0]).num_rows == 0
    assert table.filter_rows(samples, np.zeros(ROWS, bool)).schema == samples.schema


def test_duplicates_are_the_same_rows_in_a_file(monkeypatch: pytest.MonkeyPatch):
    parts = [*batches(), *batches(9000)]
    in_memory = table.dedupe(pa.Table.from_batches(parts).unify_dictionaries())
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 0)
    in_file = table.dedupe(table.mapped_table(parts))
    assert in_file.dropped == in_memory.dropped == 9000
    assert in_file.table.equals(pa.Table.from_batches(batches()).unify_dictionaries())


@pytest.mark.parametrize("by", ["slice", "canonical", "text", "random"])
def test_a_corpus_from_files_is_that_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str):
    samples = programs.generate(1500, levels=("all",), seed=3, dedupe=False).table
    table.write_table(pa.concat_tables([samples, samples.slice(100, 300)]), tmp_path / "programs.parquet")
    changes = ["data.source=file", f"data.path={tmp_path / 'programs.parquet'}", "data.duplicates=text"]
    changes += [f"data.split.by={by}", "data.split.test=120", "data.split.validation=60", "difficulty.metric=composite"]
    changes += ["difficulty.bands={names: [easy, hard], quantiles: [0.5]}"]
    recipe = recipes.load("smoke/baseline", [*changes, "workers=1"])
    memory = corpus_maker(recipe).make(tmp_path / "memory").folder
    monkeypatch.setattr(mapped, "MEMORY_BYTES", 0)
    file = corpus_maker(recipe).make(tmp_path / "file").folder
    for name in ("train.parquet", "validation.parquet", "test.parquet", "facts.json"):
        assert (file / name).read_bytes() == (memory / name).read_bytes()


def test_a_folder_of_parquet_files_is_one_table_in_the_order_of_the_names(tmp_path: Path):
    samples = programs.generate(90, levels=("1.1",), seed=1).table
    folder = tmp_path / "parts"
    for name, start in (("b", 30), ("a", 0), ("c", 60)):
        table.write_table(samples.slice(start, 30), folder / f"{name}.parquet")
    (folder / "_SUCCESS").touch()
    assert table.read_table(folder).to_pylist() == samples.to_pylist()
    assert api.score(folder, ["size"]).num_rows == 90
    before = fingerprint(str(folder))
    table.write_table(samples.slice(0, 29), folder / "c.parquet")
    assert fingerprint(str(folder))["sha256"] != before["sha256"]
    (folder / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"c\.parquet"):
        table.read_table(folder)


def test_a_full_folder_of_temporary_files_is_one_line_that_names_it(in_files: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mapped.tempfile, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with pytest.raises(StorageFailed, match="TMPDIR"):
        table.mapped_table(batches(100))


PLAN = """
import json, resource, sys
import gradatim
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
changes = ["data.source=file", "data.path=" + sys.argv[1], "data.split.by=text", "data.split.test=500"]
changes += ["data.split.validation=100", "difficulty.metric=size", "workers=1"]
changes += ["difficulty.bands={names: [easy, hard], quantiles: [0.5]}"]
gradatim.plan("smoke/baseline", changes=[*changes[:1], "data.path=" + sys.argv[2], *changes[2:]], data=True)
base = peak()
plan = gradatim.plan("smoke/baseline", changes=changes, data=True)
print(json.dumps({"grown": peak() - base, "train": plan.data["train"]}))
"""


@pytest.mark.slow
def test_a_plan_of_400000_rows_takes_a_third_of_the_memory_of_their_texts(tmp_path: Path):
    rows, texts = 400_000, 0
    for name, count in (("large", rows), ("small", 5000)):
        (tmp_path / name).mkdir()
        for start in range(0, count, 100_000):
            numbers = range(start, min(start + 100_000, count))
            prompts = [f"Exercise {n}: " + f"write a function that returns {n} " * 25 for n in numbers]
            answers = [f"return {'1 + ' * (n % 50)}{n}" for n in numbers]
            texts += sum(map(len, prompts)) + sum(map(len, answers))
            part = pa.table({"prompt": prompts, "answer": answers})
            pq.write_table(part, tmp_path / name / f"{start:07}.parquet", compression="zstd")
    command = [sys.executable, "-c", PLAN, str(tmp_path / "large"), str(tmp_path / "small")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    result = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    assert result["train"] == rows - 600
    assert result["grown"] < texts / 3 / 1e6
