"""Accuracy, size and speed of every export format and width; writes docs/results/exports.md.

    python benchmarks/exports.py RUN [RUN …] --data TEST [--limit 1000] [--results exports.jsonl] [--page PAGE]

Each RUN is a run folder or a model folder. A measurement is appended to the results file as soon as it is made, and is
not repeated, so the command can be stopped and continued. Formats whose packages are missing are named on the page.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradatim.api import model_folder, read_samples_of
from gradatim.errors import UserError
from gradatim.evaluation.statistics import wilson
from gradatim.export import EXPORTERS, proof
from gradatim.export.model_card import run_of
from gradatim.model import load
from gradatim.model.hardware import environment
from gradatim.options import parse_yaml

PAGE = Path(__file__).parent.parent / "docs" / "results" / "exports.md"
WIDTHS = (32, 16, 8, 5, 4)
HEAD = "| student | format | bits | correct | lost | won | MB | CPU ms a token | log-probabilities: mean, largest |"


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--formats", nargs="+", default=EXPORTERS.names())
    parser.add_argument("--results", type=Path, default=Path("exports.jsonl"))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    rows = read(options.results)
    for run in options.runs:
        source = model_folder(run)
        known = {(row["student"], row["format"], row["bits"]) for row in rows}
        for row in measure(source, options.data, options.limit, options.formats, known):
            rows.append(row)
            with open(options.results, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(line_of(row), flush=True)
    options.page.write_text(page(rows))


def read(path: Path) -> list[dict[str, Any]]:
    """The measurements made so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(
    source: Path, data: Path, limit: int, formats: list[str], known: set[tuple[str, str, int]]
) -> Iterator[dict[str, Any]]:
    """One row per format and width of one student; the original's outputs are computed once."""
    student = load.load_student(source)
    samples = proof.samples_of(student, read_samples_of(data, limit=limit))
    name, before = preset_of(source), None
    context = int(student.model.config.max_position_embeddings)
    for form in formats:
        with tempfile.TemporaryDirectory() as temporary:
            full: Path | None = None
            for bits in WIDTHS:
                with suppress(UserError):  # a width that the format has not, or a missing package
                    exporter = EXPORTERS.make(form, options={"bits": bits})
                    if (name, form, bits) in known and bits != 32:
                        continue
                    exporter.check(student)
                    folder = Path(temporary) / str(bits)
                    folder.mkdir()
                    files = exporter.write(student, source, folder, full)
                    full = full or folder
                    if (name, form, bits) in known:
                        continue
                    before = before or proof.original_attempts(student, samples)
                    with exporter.open(folder, student) as runtime:
                        agreement = proof.agreement(runtime, student, samples)
                        accuracy = proof.accuracy(runtime, student, samples, before)
                        speed = proof.milliseconds_per_token(runtime, samples, context)
                    yield {
                        "student": name,
                        "format": form,
                        "bits": bits,
                        "total": accuracy.total,
                        "before": accuracy.before,
                        "after": accuracy.after,
                        "lost": accuracy.lost,
                        "won": accuracy.won,
                        "bytes": sum((folder / file).stat().st_size for file in files.names if weights(file)),
                        "ms": speed,
                        "mean": agreement.mean,
                        "largest": agreement.largest,
                        "parameters": student.model.num_parameters(),
                        "notes": files.notes,
                        "machine": {key: environment()[key] for key in ("processor", "threads", "torch", "commit")},
                    }


def weights(name: str) -> bool:
    """Whether a file of an export holds weights, not the tokenizer or settings."""
    return name.endswith((".gguf", ".html", ".onnx", ".onnx.data", ".pte", ".safetensors"))


def preset_of(source: Path) -> str:
    """The preset or the base of the student, by its recipe; else the folder's name."""
    run = run_of(source)
    section = (parse_yaml((run / "recipe.yaml").read_bytes()) if run else {}).get("student") or {}
    return Path(str(section.get("base") or section.get("preset") or source.resolve().name)).name


def line_of(row: dict[str, Any]) -> str:
    """One row of the table."""
    low, high = wilson(row["after"], row["total"])
    share = f"{row['after'] / row['total']:.1%} ({low:.1%} to {high:.1%})"
    size = f"{row['bytes'] / 1e6:.2f}"
    difference = f"{row['mean']:.2g}, {row['largest']:.2g}"
    cells = (row["student"], row["format"], row["bits"], share, row["lost"], row["won"], size, f"{row['ms']:.1f}")
    return "| " + " | ".join(map(str, (*cells, difference))) + " |"


def page(rows: list[dict[str, Any]]) -> str:
    """The page of all measurements."""
    students = {row["student"]: row for row in rows}
    lines = [
        "# Exports: accuracy, size, speed",
        "",
        "Written by `benchmarks/exports.py`. Correct outputs (the suite `output`, greedy) of the export, with 95 %",
        "Wilson intervals; samples *lost* and *won* beside the original (torch, fp32). Size: files with weights.",
        "Speed: CPU time of greedy generation, one text at a time, per generated token, the prompt included.",
        "Differences of log-probabilities in nats, over likely tokens of greedy continuations.",
        "",
        *(
            f"- `{name}`: {row['parameters']:,} parameters, original {row['before']:,} of {row['total']:,} correct"
            for name, row in students.items()
        ),
        "",
        HEAD,
        "|" + "---|" * (HEAD.count("|") - 1),
        *(line_of(row) for row in sorted(rows, key=lambda row: (row["student"], row["format"], -row["bits"]))),
        "",
    ]
    notes = dict.fromkeys(f"- {row['student']}, {row['format']}: {note}" for row in rows for note in row["notes"])
    machines = dict.fromkeys(
        f"Measured on {row['machine']['processor']}, {row['machine']['threads']} thread(s), torch "
        f"{row['machine']['torch']}, commit {row['machine']['commit']}."
        for row in rows
    )
    missing = [name for name in EXPORTERS.names() if name not in {row["format"] for row in rows}]
    lines += [*notes, "", *machines]
    lines += ["", f"Not measured: {', '.join(missing)}."] if missing else []
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    main()
