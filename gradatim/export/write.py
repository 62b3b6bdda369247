"""One export: open the model, write it, open the result with its runtime, prove it, and move it to its place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import programs
from ..errors import DataError, UserError
from ..files import check_new_folder
from ..model import load
from ..model.hub import base_of_adapter, is_adapter
from ..options import option_names
from ..record import read_rows, write_json, write_new_folder
from ..stage import Event, Events, ignore_events
from . import EXPORTERS, lm_eval, model_card, proof
from .exporter import Export

if TYPE_CHECKING:
    import pyarrow as pa

    from ..model.load import LoadedModel
    from .exporter import Exporter, ExportFiles, Runtime

FULL = 32
"""Bits per weight at full precision, at which the exported graph is proved."""
PROOF = "export.json"
"""File of an exported folder with the counts of its proof."""


def export_model(
    source: Path,
    out: Path,
    to: str = "hf",
    *,
    bits: int | None = None,
    merge: bool = False,
    dtype: str | None = None,
    data: pa.Table | None = None,
    task: bool = False,
    events: Events = ignore_events,
) -> Export:
    """Write the model folder ``source`` to the new or empty folder ``out`` in the format ``to``.

    ``bits``: stored bits per weight, by default full precision. ``merge``: ``hf`` alone; other formats always contain
    the merged model. ``dtype``: type of the merged weights of ``hf``, a key of ``load.EXPORT_DTYPES``. ``data``: a test
    set, on which the accuracy of both models is counted; without one the proof uses the test set of the run, else new
    TinyPy programs, else random tokens. ``task``: also write a task of lm-evaluation-harness with ``data``.

    Raises ``UnknownPart`` for an unknown format, ``UserError`` for a model or a width that the format has not, and
    ``WorkFailed`` when the proof fails; then nothing is written. Each phase is a task of ``events``.
    """
    check_new_folder(out, "--out", [source])
    factory = EXPORTERS.get(to, where="--to")
    hf_options = {"merge": merge, "dtype": dtype}
    accepted = option_names(factory)
    options: dict[str, Any] = {"bits": bits, **{name: hf_options[name] for name in hf_options if name in accepted}}
    exporter: Exporter = EXPORTERS.make(to, where="--to", options=options)
    if task and data is None:
        raise DataError("a task of lm-evaluation-harness needs a test set", where="--lm-eval", hint="--data FILE")
    with _phase(events, "read the model and the samples"):
        student = load.load_student(source)
        exporter.check(student)
        table, origin = (data, "the samples given") if data is not None else default_samples(source, student)
        samples = proof.samples_of(student, table) if table is not None else proof.random_samples(student)
    results: list[Export] = []

    def fill(folder: Path) -> None:
        events(Event("note", "export", text=f"the proof uses {origin}"))
        with tempfile.TemporaryDirectory() as full:
            files = _write(exporter, student, source, folder, Path(full), samples, events)
        with exporter.open(folder, student) as runtime:
            result = _prove(exporter, runtime, student, samples, folder, files, data is not None, events)
        results.append(replace(result, folder=str(out), **_merge_facts(student, source, folder)))
        if task and data is not None:
            lm_eval.write_task(folder / lm_eval.FOLDER, data)
        write_json(folder / PROOF, {**asdict(results[0]), "folder": None})
        model_card.write_card(folder, source, results[0])

    write_new_folder(out, fill)
    return results[0]


@contextmanager
def _phase(events: Events, task: str) -> Iterator[None]:
    """Context of a phase without countable items: ``start`` and, unless it fails, ``finish`` are sent."""
    events(Event("start", task))
    yield
    events(Event("finish", task))


def _write(
    exporter: Exporter,
    student: LoadedModel,
    source: Path,
    folder: Path,
    full: Path,
    samples: proof.Samples,
    events: Events,
) -> ExportFiles:
    """Write the files; before fewer bits, write full precision to ``full`` and compare it with the original."""
    if exporter.bits == FULL:
        with _phase(events, f"write {exporter.name}"):
            return exporter.write(student, source, folder)
    original: Exporter = EXPORTERS.make(exporter.name, options={"bits": FULL})
    with _phase(events, f"write {exporter.name}, {FULL} bits"):
        original.write(student, source, full)
    with original.open(full, student) as runtime:
        proof.check_tokens(runtime, student, samples.table, events=events)
        task = f"compare log-probabilities, {FULL} bits"
        proof.check_agreement(proof.agreement(runtime, student, samples, events=events, task=task), exact=True)
    with _phase(events, f"write {exporter.name}, {exporter.bits} bits"):
        return exporter.write(student, source, folder, full)


def _prove(
    exporter: Exporter,
    runtime: Runtime,
    student: LoadedModel,
    samples: proof.Samples,
    folder: Path,
    files: ExportFiles,
    evaluate: bool,
    events: Events,
) -> Export:
    texts = proof.check_tokens(runtime, student, samples.table, events=events)
    agreement = proof.agreement(runtime, student, samples, events=events)
    proof.check_agreement(agreement, exact=exporter.exact)
    result = Export(
        folder=str(folder),
        format=exporter.name,
        bits=exporter.bits,
        files=files.names,
        bytes=sum((folder / name).stat().st_size for name in files.names if (folder / name).is_file()),
        texts=texts,
        positions=agreement.positions,
        largest_difference=agreement.largest,
        mean_difference=agreement.mean,
        milliseconds_per_token=proof.milliseconds_per_token(runtime, samples, _context(student), events=events),
        notes=files.notes,
    )
    if not evaluate:
        return result
    before = proof.original_attempts(student, samples, events=events)
    counts = proof.accuracy(runtime, student, samples, before, events=events)
    return replace(
        result, total=counts.total, before=counts.before, after=counts.after, lost=counts.lost, won=counts.won
    )


def _context(student: LoadedModel) -> int:
    return int(student.model.config.max_position_embeddings)


def _merge_facts(student: LoadedModel, source: Path, folder: Path) -> Mapping[str, Any]:
    if not is_adapter(source) or is_adapter(folder):
        return {}
    parameters = sum(parameter.numel() for parameter in student.model.parameters())
    return {"merged": base_of_adapter(source), "parameters": parameters}


def default_samples(source: Path, student: LoadedModel) -> tuple[pa.Table | None, str]:
    """Samples for a proof without a test set, and their origin; None when the tokenizer can encode none of them."""
    run = model_card.run_of(source)
    folders = [] if run is None else [run, *run.parents[1:2]]  # a study has one data folder for all its runs
    files = [file for folder in folders for file in sorted(folder.glob("data/*/test.parquet"))]
    for file in files:
        with suppress(UserError):  # a damaged test set is no obstacle: there are other samples
            table = read_rows(file, "test set", "--data FILE", ["prompt", "answer"]).slice(0, proof.PROMPTS)
            if _readable(student, table):
                return table, f"{table.num_rows} samples of the run's test set"
    table = programs.generate(proof.PROMPTS, seed=0).table
    if _readable(student, table):
        return table, f"{table.num_rows} new TinyPy programs"
    return None, f"{proof.PROMPTS} sequences of random tokens, as its tokenizer can encode no TinyPy"


def _readable(student: LoadedModel, table: pa.Table) -> bool:
    try:
        return bool(proof.samples_of(student, table).readable(_context(student)))
    except DataError:
        return False
