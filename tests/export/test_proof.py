"""The proof fails for the faults that it exists for, and writes nothing then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from preset_students import samples, student

from gradatim.errors import DataError, WorkFailed
from gradatim.evaluation.output import Output
from gradatim.export import EXPORTERS, gguf, proof
from gradatim.export.write import export_model
from gradatim.model.load import load_student

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def table():
    return samples(8)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory, table) -> Path:
    return student(tmp_path_factory.mktemp("windowed") / "model", "modern-small", table)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, table) -> Path:
    return student(tmp_path_factory.mktemp("tiny") / "model", "tiny", table)


def test_ignored_windows_are_found_and_nothing_is_written(windowed, table, tmp_path, monkeypatch):
    # llama.cpp's own architecture of the name: it opens the file and ignores the windows.
    monkeypatch.setattr(gguf, "architecture_of", lambda model: model.config.model_type)
    with pytest.raises(WorkFailed, match=r"differs from the original.*given: \d.*nats.*--to onnx"):
        export_model(windowed, tmp_path / "out", "gguf", data=table)
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_is_found_and_nothing_is_written(tiny, table, tmp_path, monkeypatch):
    pieces = gguf._pieces

    def exchanged(student):
        names, types = pieces(student)
        first, second = names.index("1"), names.index("2")
        names[first], names[second] = names[second], names[first]
        return names, types

    monkeypatch.setattr(gguf, "_pieces", exchanged)
    with pytest.raises(WorkFailed, match=r"other tokens.*given: \[.*allowed: \["):
        export_model(tiny, tmp_path / "out", "gguf", data=table)
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_found(tiny, table, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "_interleaved", lambda values, heads: values)  # keys and queries in the wrong order
    with pytest.raises(WorkFailed, match="differs from the original"):
        export_model(tiny, tmp_path / "out", "gguf", data=table)


def test_a_difference_that_is_no_number_fails():
    with pytest.raises(WorkFailed):
        proof.check_agreement(proof.Agreement(1, float("inf"), float("inf")), exact=True)
    with pytest.raises(WorkFailed):
        proof.check_agreement(proof.Agreement(1, float("nan"), float("nan")), exact=False)


def test_the_counts_are_those_of_the_suite_output(tiny, table, tmp_path):
    """A student that knows the answers of some samples: their answer is what it writes."""
    loaded = load_student(tiny)
    parts = proof.samples_of(loaded, table)
    exporter = EXPORTERS.make("hf", options={})
    (tmp_path / "out").mkdir()
    exporter.write(loaded, tiny, tmp_path / "out")
    with exporter.open(tmp_path / "out", loaded) as runtime:
        row = parts.readable(256)[0]
        prompt = parts.prompts[row].tolist()
        generation = runtime.generate(prompt, 3)
        assert runtime.generate(prompt, 3, draft=[7, 7]).tokens.tolist() == generation.tokens.tolist()
        counts = proof.accuracy(runtime, loaded, parts, proof.original_attempts(loaded, parts))
    suite = Output("greedy", None, None)(loaded, table, seed=0)
    assert (counts.before, counts.total) == (suite.counts["all"]["all"].passed, suite.counts["all"]["all"].total)
    assert counts.suite.counts == suite.counts
    assert (counts.lost, counts.won) == (0, 0)
    assert np.isclose(np.exp(generation.log_probabilities).sum(axis=1), 1, atol=0.6).all()


def test_samples_that_the_tokenizer_cannot_encode_are_an_error(tiny, table, tmp_path):
    strange = table.set_column(table.column_names.index("prompt"), "prompt", [["ж" * 3] * table.num_rows])
    with pytest.raises(DataError, match="can encode none of the samples"):
        export_model(tiny, tmp_path / "out", "hf", data=strange)


def test_a_student_of_other_texts_is_proved_by_random_tokens(tmp_path):
    from gradatim.table import make_table

    letters = make_table({"prompt": ["жзи"] * 4, "answer": ["кл"] * 4})
    source = student(tmp_path / "model", "tiny", letters)
    export = export_model(source, tmp_path / "out", "gguf", bits=4)
    assert (export.texts, export.total) == (0, None)
    assert export.positions >= 64
    assert json.loads((tmp_path / "out" / "export.json").read_text())["bits"] == 4
