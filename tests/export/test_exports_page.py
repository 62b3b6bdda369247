"""``docs/write_exports.py``: results are kept, not measured twice, and the page has them, refusals included."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from preset_students import samples, student

from gradatim.export import EXPORTERS
from gradatim.model.settings import PRESETS

ROOT = Path(__file__).resolve().parents[2]
COUNT = 8


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("write_exports")


def test_a_result_is_kept_with_its_refusals_and_is_on_the_page(script: ModuleType, tmp_path: Path) -> None:
    table, out = samples(COUNT), tmp_path / "out"
    source, test = student(tmp_path / "model", "tiny", table), tmp_path / "test.parquet"
    pq.write_table(table, test)
    for bits in (32, 3):
        script.measure("tiny", source, "hf", bits, test, COUNT, out / "exports")
    exact, refused = script.kept_rows(out / "exports")
    proof = json.loads((out / "exports" / "tiny" / "hf-32" / "export.json").read_text())
    assert (exact.bits, exact.error, exact.proof) == (32, "", proof)
    assert (refused.bits, refused.proof) == (3, {})
    assert "no weights of this width" in refused.error
    text = script.page(out, f"{script.START}\nA note.\n{script.END}")
    assert f"| tiny | hf | 32 | {script.accuracy(proof['after'], COUNT)} | 0 | 0 |" in text
    assert "| tiny | hf | 3 | refused |" in text
    assert f"- hf: {refused.error} (tiny 3)" in text
    assert "Not measured: tiny (gguf, page, hf, onnx, executorch)" in text
    assert "A note." in text
    assert script.page(out, text) == text
    script.measure("tiny", tmp_path / "nowhere", "hf", 32, test, COUNT, out / "exports")
    assert script.kept_rows(out / "exports") == [exact, refused]


def test_results_of_another_machine_stay_on_the_page(script: ModuleType, tmp_path: Path) -> None:
    def row(processor: str, form: str) -> dict[str, object]:
        environment = {"processor": processor, "torch": "2.13.0", "commit": "abc"}
        return {"student": "tiny", "format": form, "bits": 32, "proof": {}, "error": f"no {form}"} | {
            "environment": environment
        }

    text = ""
    for processor, form in (("First", "hf"), ("Second", "executorch")):
        file = tmp_path / processor / "exports" / "tiny" / f"{form}-32.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(row(processor, form)))
        text = script.page(tmp_path / processor, text)
    assert text.index("## First") < text.index("- hf: no hf (tiny 32)") < text.index("## Second")
    assert text.index("## Second") < text.index("- executorch: no executorch (tiny 32)")
    assert "tiny (gguf, page, hf, onnx)" in text  # hf with 16 bits; executorch is measured
    assert script.SEVERAL in text


def result(form: str, bits: int, before: int, notes: tuple[str, ...] = (), error: str = "") -> dict[str, Any]:
    """A kept result of the pretrained model ``base`` on one machine."""
    proof = {"total": 100, "before": before, "after": before, "lost": 0, "won": 0, "bytes": 1000, "notes": notes}
    proof |= {"milliseconds_per_token": 1.0, "mean_difference": 0.1, "largest_difference": 0.2}
    environment = {"processor": "First", "torch": "2.13.0", "commit": f"{form}{bits}"}
    return {"student": "base", "format": form, "bits": bits, "error": error} | {
        "proof": {} if error else proof,
        "environment": environment,
    }


def test_rows_of_an_earlier_run_stay_for_the_same_student_alone(script: ModuleType, tmp_path: Path) -> None:
    def page(name: str, rows: list[dict[str, Any]], old: str) -> str:
        folder = tmp_path / name / "exports" / "base"
        folder.mkdir(parents=True)
        for row in rows:
            (folder / f"{row['format']}-{row['bits']}.json").write_text(json.dumps(row))
        return str(script.page(tmp_path / name, old))

    first = page("first", [result("gguf", 16, 40), result("gguf", 8, 40, ("blocks of 32",))], "")
    again = [result("gguf", 8, 40, ("blocks of 32",)), result("gguf", 4, 40, ("blocks of 32",))]
    refused = result("page", 8, 40, error="too large")
    both = page("second", [*again, refused], first)
    rows = [line.split(" | ")[1:3] for line in both.splitlines() if line.startswith("| base | ")]
    assert rows[1:] == [["gguf", "16"], ["gguf", "8"], ["gguf", "4"], ["page", "8"]]
    assert "- gguf: blocks of 32 (base 8, base 4)\n- page: too large (base 8)\n" in both
    assert "commits `gguf16`, `gguf8`, `gguf4`, `page8`." in both
    assert script.page(tmp_path / "nowhere", both) == both
    alone = page("alone", [refused], first)
    assert "| base | – | pretrained | – | 100 | 40.0" in alone
    assert alone.count("| base | gguf | ") == 2
    other = page("third", [result("gguf", 4, 41)], both)
    assert other.count("| base | ") == 2  # the student, and its only export
    assert "| base | gguf | 4 | 41.0" in other
    assert "blocks of 32" not in other
    assert "commit `gguf4`." in other


def test_every_preset_is_trained_and_every_exporter_measured(script: ModuleType) -> None:
    assert set(PRESETS.names()) <= set(script.presets())
    assert set(script.WIDTHS) == set(EXPORTERS.names())
