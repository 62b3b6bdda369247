"""Tables larger than memory: the same rows as in memory, and a plan whose memory does not grow with the texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gradatim import api, programs, table
from gradatim.errors import DataError, StorageFailed
from gradatim.experiment import recipe as recipes
from gradatim.experiment.assemble import corpus_maker
from gradatim.source import fingerprint
from gradatim.table import mapped
from gradatim.table.schema import label_codes

ROWS = 8 * mapped.SLICE_ROWS + 1000


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


SPLIT = """
import resource, sys
from gradatim import table
from gradatim.table import mapped
mapped.MEMORY_BYTES = int(sys.argv[1])
def batches():
    for start in range(0, 100_000, 5000):
        answers = [f"return {row} " * 150 for row in range(start, start + 5000)]
        yield from table.make_table({"answer": answers}).to_batches()
samples = table.mapped_table(batches())
sets = table.split(samples, by="text", key=str, validation=100, test=500, seed=0)
table.write_table(sets.test, sys.argv[2])
print(samples.nbytes, sets.train.num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_split_of_a_table_in_a_file_needs_no_memory_for_its_texts(tmp_path: Path):
    peaks, size = {}, 0
    for name, limit in {"file": mapped.MEMORY_BYTES, "memory": 1 << 40}.items():
        command = [sys.executable, "-c", SPLIT, str(limit), str(tmp_path / f"{name}.parquet")]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        size, train, peaks[name] = map(int, done.stdout.split())
        assert train == 99_400
    assert (tmp_path / "file.parquet").read_bytes() == (tmp_path / "memory.parquet").read_bytes()
    assert peaks["file"] < peaks["memory"] - size, (peaks, size)


@pytest.mark.slow
def test_a_plan_of_a_million_samples_takes_little_memory_beside_its_start():
    """88 MB here: slices of the texts and some 40 bytes a sample. With buffers of whole files and a check of every
    chunk it was twice as much.
    """
    benchmark = Path(__file__).resolve().parents[1] / "benchmarks" / "streaming.py"
    command = [sys.executable, str(benchmark), "--rows", "1000000", "--programs", "200000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["text_mb"] > 70  # memory-mapped, not in memory
    assert measured["peak_mb"] - measured["base_mb"] < 120
