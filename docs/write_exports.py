"""Write docs/results/exports.md: accuracy, size and speed of every preset in every format and width.

    python docs/write_exports.py [--out runs/exports] [--presets tiny] [--formats gguf page] [--base NAME=FOLDER …]

Trains a student of every preset with the recipe below, exports each by ``gradatim export … --data``, and writes the
page from ``export.json`` of the exported folders. ``--base``: pretrained models in Hugging Face folders, exported as
GGUF and as a page. Everything is kept under ``--out``: a student that is trained, and a format that is measured or
refused, is not computed again, so the command can be stopped and continued; the page is written after each student.
The page has a section for each machine. Results that the page has and ``--out`` has not stay on the page, those of a
student of this machine only if it is the same one: parameters, training tokens and accuracy are equal.
Notes between the markers of the page are written by hand and kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from write_study import END, START, share, table

from gradatim.cli.main import main as gradatim
from gradatim.evaluation.statistics import wilson
from gradatim.model.hardware import environment
from gradatim.model.settings import PRESETS
from gradatim.reporting import collect, summarise

PAGE = Path(__file__).parent / "results" / "exports.md"
RECIPE = "demo/baseline"
DATA = {
    "data.count": "60000",
    "data.levels": '["0.1", "1.1"]',
    "data.split": '{by: canonical, validation: 100, test: 500, levels: ["0.1"]}',
    "difficulty.bands": "{names: [look-ups, assignments], thresholds: [0.5]}",
    "schedule": "{name: only, band: look-ups}",
}
"""Changes of the recipe for all presets: look-ups of variables alone, which small budgets suffice for."""
TOKENS = {
    "tiny": 400_000,
    "small": 300_000,
    "modern-small": 120_000,
    "llama": 200_000,
    "modern": 120_000,
    "gpt2-tied": 300_000,
    "paper": 300_000,
}
"""Training tokens by preset, the cheapest first; more for tied embeddings, with which names are bound later."""
OTHER_TOKENS = 200_000
WIDTHS = {"gguf": (16, 8, 4), "page": (8,), "hf": (32, 16), "onnx": (32, 8, 4), "executorch": (32,)}
BASE_FORMATS = ("gguf", "page")


@dataclass(frozen=True)
class Row:
    """One format and width of one student: the fields of its ``export.json``, or the error that refused it."""

    student: str
    format: str
    bits: int
    proof: dict[str, Any]
    error: str
    environment: dict[str, Any]


def facts() -> dict[str, Any]:
    """The machine and the commit of a measurement."""
    here = environment()
    return {key: here[key] for key in ("processor", "torch", "commit")}


def presets() -> list[str]:
    """All presets, in the order of ``TOKENS``."""
    return [*TOKENS, *(name for name in PRESETS.names() if name not in TOKENS)]


def train(preset: str, folder: Path) -> None:
    """Train the student of ``preset``, or continue its run; ``SystemExit`` when the run fails."""
    if (folder / "finished.json").exists():
        return
    tokens = str(TOKENS.get(preset, OTHER_TOKENS))
    changes = {**DATA, "student.preset": preset, "budget.tokens": tokens}
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    if status := gradatim(["run", RECIPE, *words, "--out", str(folder)]):
        sys.exit(status)


def needs_installation(error: str) -> bool:
    """Whether the error is about this machine and not about the model."""
    return "needs the package" in error or "needs the program" in error


def measure(student: str, source: Path, form: str, bits: int, test: Path, limit: int, out: Path) -> None:
    """Export the student unless ``out`` keeps the result, and keep it; not without the format's package."""
    folder, kept = out / student / f"{form}-{bits}", out / student / f"{form}-{bits}.json"
    if kept.exists():
        return
    sys.stderr.write(f"{student}: {form}, {bits} bits\n")
    words = ["--to", form, "--bits", str(bits), "--data", str(test), "--limit", str(limit), "--out", str(folder)]
    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
        status = gradatim(["export", str(source), *words])
    if status not in (0, 1, 2) or "Traceback" in text.getvalue():
        sys.exit(text.getvalue())
    proof = json.loads((folder / "export.json").read_text()) if status == 0 else {}
    error = text.getvalue().strip().splitlines()[-1].removeprefix("gradatim: ") if status else ""
    error = error.replace(str(source), source.name)
    row = Row(student, form, bits, proof, error, facts())
    if not needs_installation(error):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(row)))


def kept_rows(out: Path) -> list[Row]:
    """All results in ``out`` in the order of presets, formats and widths, pretrained models last."""
    rows = [Row(**json.loads(file.read_text())) for file in out.glob("*/*.json")]
    return sorted(rows, key=lambda row: order_of((row.student, row.format, row.bits)))


def accuracy(count: int, total: int) -> str:
    """The share of ``total`` in percent, with Wilson's 95 % interval."""
    low, high = wilson(count, total)
    return f"{100 * count / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def cells(row: Row) -> list[str]:
    """One row of the table of exports; a refused one has the number of its reason."""
    head = [row.student, row.format, str(row.bits)]
    if row.error:
        return [*head, "refused", *["–"] * 5]
    proof = row.proof
    return [
        *head,
        accuracy(proof["after"], proof["total"]),
        str(proof["lost"]),
        str(proof["won"]),
        f"{proof['bytes'] / 1e6:.2f}",
        f"{proof['milliseconds_per_token']:.1f}",
        f"{proof['mean_difference']:.2g}, {proof['largest_difference']:.2g}",
    ]


def remarks(rows: Sequence[Row]) -> dict[str, list[Key]]:
    """Notes of the exports and reasons of the refused ones, each once, with the exports that it belongs to."""
    texts: dict[str, list[Key]] = {}
    for row in rows:
        for text in [row.error] if row.error else row.proof["notes"]:
            texts.setdefault(f"{row.format}: {text}", []).append((row.student, row.format, row.bits))
    return texts


def student_lines(students: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Size, training and accuracy of the originals, by name."""
    lines = {}
    for name in dict.fromkeys(row.student for row in rows):
        proof = next((row.proof for row in rows if row.student == name and row.proof), None)
        original = [str(proof["total"]), accuracy(proof["before"], proof["total"])] if proof else ["–", "–"]
        if not (students / name).exists():
            lines[name] = [name, "–", "pretrained", "–", *original]
            continue
        study = collect([students / name])
        fitted = study.runs[0].stages[-1].fitted
        majority = summarise(study).majority
        lines[name] = [name, f"{fitted.parameters:,}", f"{study.runs[0].tokens:,}", share(majority), *original]
    return lines


NOTES = """## How to read it

The proof of `gradatim export` opens every export again by the program that runs it and compares it with the original:

- **correct**: the suite `output` (greedy) on the export, percent of the test programs, with Wilson's 95 % interval;
  **lost** and **won**: programs that only the original, or only the export, gets right.
- **MB**: all files of the export, tokenizer and settings included.
- **ms a token**: processor time of greedy generation, one text at a time on one thread, the prompt included. Only
  ratios within a table count: other work ran on the machine. ONNX and ExecuTorch read the whole text for every token.
- **log-probabilities**: mean and largest difference from the original in nats, over likely tokens.
"""


MACHINE, MACHINE_END = "<!-- machine: {} -->", "<!-- end of machine -->"
SECTION = re.compile(r"<!-- machine: (.*?) -->\n(.*?)\n<!-- end of machine -->", re.DOTALL)
VERSIONS = re.compile(r"^(torch .*?); commits? (.*)\.$", re.MULTILINE)
REMARK = re.compile(r"^- (.*) \(([^()]*)\)$", re.MULTILINE)
SEVERAL = (
    "Each section has the results of one machine, with students trained there. The students of a preset differ between"
    " machines, and so do times."
)
STUDENT = ["student", "parameters", "training tokens", "majority answer, %", "test programs", "original, correct, %"]
HEAD = ["student", "format", "bits", "correct, %", "lost", "won", "MB", "ms a token", "log-probabilities"]
Key = tuple[str, str, int]
"""Student, format and bits of an export."""


def order_of(key: Key) -> tuple[int, str, int]:
    """The place of an export in a table: presets, formats and widths in order, pretrained models last."""
    name, form, bits = key
    known = presets()
    return known.index(name) if name in known else len(known), form, -bits


@dataclass
class Section:
    """The results of one machine. ``students``, ``exports``: cells of a row; ``remarks``: the exports of each note."""

    processor: str
    versions: list[str]
    commits: list[str]
    students: dict[str, list[str]]
    exports: dict[Key, list[str]]
    remarks: dict[str, list[Key]]

    @classmethod
    def measured(cls, students: Path, rows: Sequence[Row]) -> Section:
        """The section of new results."""
        return cls(
            rows[0].environment["processor"],
            list(dict.fromkeys(f"torch {row.environment['torch']}" for row in rows)),
            list(dict.fromkeys(f"`{row.environment['commit']}`" for row in rows)),
            student_lines(students, rows),
            {(row.student, row.format, row.bits): cells(row) for row in rows},
            remarks(rows),
        )

    @classmethod
    def read(cls, processor: str, text: str) -> Section:
        """The section that a page has."""
        versions, commits = next(iter(VERSIONS.findall(text)), ("", ""))
        lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
        notes: dict[str, list[Key]] = {}
        for note, owners in REMARK.findall(text):
            form = note.partition(":")[0]
            notes[note] = [(name, form, int(bits)) for name, bits in map(str.split, owners.split(", "))]
        return cls(
            processor,
            [version for version in versions.split(", ") if version],
            [commit for commit in commits.split(", ") if commit],
            {line[0]: line for line in lines if len(line) == len(STUDENT) and line[0] not in ("student", "---")},
            {
                (line[0], line[1], int(line[2])): line
                for line in lines
                if len(line) == len(HEAD) and line[0] not in ("student", "---")
            },
            notes,
        )

    def with_earlier(self, old: Section) -> Section:
        """This section with the rows of ``old`` that it has not; none of a student that differs."""
        students, same = {**self.students}, set()
        for name, line in old.students.items():
            pairs = list(zip(line, self.students.get(name, line), strict=True))
            if all(before == now or "–" in (before, now) for before, now in pairs):  # a refusal has no figures
                students[name] = [before if now == "–" else now for before, now in pairs]
                same.add(name)
        kept = {key: line for key, line in old.exports.items() if key not in self.exports and key[0] in same}
        if not kept:
            return self
        notes: dict[str, list[Key]] = {note: list(self.remarks.get(note, ())) for note in [*old.remarks, *self.remarks]}
        for note, owners in old.remarks.items():
            notes[note] += [owner for owner in owners if owner in kept]
        return Section(
            self.processor,
            list(dict.fromkeys([*old.versions, *self.versions])),
            list(dict.fromkeys([*old.commits, *self.commits])),
            students,
            kept | self.exports,
            {note: owners for note, owners in notes.items() if owners},
        )

    def text(self) -> str:
        """The section as Markdown."""
        keys = sorted(self.exports, key=order_of)
        names = dict.fromkeys(name for name, _, _ in keys)
        parts = [
            f"## {self.processor}",
            f"{', '.join(self.versions)}; {'commit' if len(self.commits) == 1 else 'commits'}"
            f" {', '.join(self.commits)}.",
            "### Students",
            table(STUDENT, [self.students[name] for name in names]),
            "### Exports",
            table(HEAD, [self.exports[key] for key in keys]),
        ]
        notes = {note: sorted(owners, key=order_of) for note, owners in self.remarks.items()}
        if notes:
            lines = sorted(notes, key=lambda note: order_of(notes[note][0]))
            owners = {note: ", ".join(f"{name} {bits}" for name, _, bits in notes[note]) for note in lines}
            texts = "\n".join(f"- {note} ({owners[note]})" for note in lines)
            parts += ["### Notes of the exports, and refusals", texts]
        return "\n\n".join(parts)


def page(out: Path, old: str) -> str:
    """The page of all results in ``out``; ``old`` is the present page, whose notes and other machines are kept."""
    sections = {processor: Section.read(processor, text) for processor, text in SECTION.findall(old)}
    rows = kept_rows(out / "exports")
    for processor in dict.fromkeys(row.environment["processor"] for row in rows):
        new = Section.measured(out / "students", [row for row in rows if row.environment["processor"] == processor])
        sections[processor] = new.with_earlier(sections[processor]) if processor in sections else new
    known = {key for section in sections.values() for key in section.exports}
    missing = [
        f"{name} ({', '.join(forms)})"
        for name in presets()
        if (forms := [form for form in WIDTHS if any((name, form, bits) not in known for bits in WIDTHS[form])])
    ]
    settings = " ".join(f"--set '{key}={value}'" for key, value in DATA.items())
    notes = old.partition(START)[2].partition(END)[0].strip()
    parts = [
        "# Exports: accuracy, size and speed of every preset",
        "Written by `python docs/write_exports.py`; one thread.",
        f"Each preset is trained by `gradatim run {RECIPE} {settings} --set student.preset=PRESET --set"
        " budget.tokens=TOKENS`, seed 1, and exported by `gradatim export … --data TEST`. Test programs are of level"
        " 0.1, look-ups of a variable; none of them is a training program, also after a renaming of variables. The"
        " students are small examples, not the best of their size ([fast](fast.md)).",
        *([SEVERAL] if len(sections) > 1 else []),
        *([f"Not measured: {'; '.join(missing)}."] if missing else []),
        *(f"{MACHINE.format(name)}\n{section.text()}\n{MACHINE_END}" for name, section in sections.items()),
        NOTES.strip(),
        f"{START}\n{notes}\n{END}",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Train, export, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/exports"), help="folder of students and exports")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--base", nargs="*", default=[], metavar="NAME=FOLDER", help="pretrained models")
    parser.add_argument("--limit", type=int, default=500, help="test programs")
    parser.add_argument("--base-limit", type=int, default=100, help="test programs of pretrained models")
    parser.add_argument("--presets", nargs="+", default=presets(), choices=presets())
    parser.add_argument("--formats", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    exports = options.out / "exports"
    for preset in options.presets:
        folder = options.out / "students" / preset
        train(preset, folder)
        test = next(folder.glob("data/*/test.parquet"))
        for form in options.formats:
            for bits in WIDTHS[form]:
                measure(preset, folder, form, bits, test, options.limit, exports)
        write(options.page, options.out)
    for base in options.base:
        name, _, source = base.partition("=")
        for form in BASE_FORMATS:
            for bits in WIDTHS[form]:
                measure(name, Path(source), form, bits, test, options.base_limit, exports)
        write(options.page, options.out)


def write(file: Path, out: Path) -> None:
    """Write the page, with the notes and the other machines that it has."""
    file.write_text(page(out, file.read_text() if file.exists() else ""))


if __name__ == "__main__":
    main()
