"""Model cards: the README.md of an exported folder, from the run folder, the proof and the base.

Everything in a card is read from files: the recipe, the environment and the datasets of the run, the evaluations of the
stage with 95 % Wilson intervals, the counts of the proof. The metadata block is that of the Hugging Face hub, so that
the hub shows the results and the base. The licence is that of the base; a model trained from scratch has none until its
author states one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation import summary
from ..evaluation.statistics import wilson
from ..model.hub import base_of_adapter, is_adapter
from ..options import parse_yaml
from ..record import read_json, write_atomically
from ..results import decode_suite

if TYPE_CHECKING:
    from ..stage import SuiteResult
    from .exporter import Export

CARD = "README.md"
UNKNOWN = "unknown"
USES = {
    "hf": "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = AutoModelForCausalLM.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```',
    "gguf": "```console\n$ llama-cli -m FOLDER/FILE\n```",
    "onnx": '```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("FOLDER/FILE")\n'
    'logits, = session.run(["logits"], {"input_ids": token_ids})  # int64, shape (batch, length)\n```',
    "executorch": "```python\nfrom executorch.runtime import Runtime\n\n"
    'method = Runtime.get().load_program("FOLDER/FILE").load_method("forward")\n```',
    "page": "Open `FOLDER/FILE` in a browser. It needs no server and no network.",
}
"""Use of an exported file, by format."""


def run_of(model: Path) -> Path | None:
    """The run folder that contains the model folder; None outside of one."""
    resolved = model.resolve()
    return next((folder for folder in resolved.parents if (folder / "recipe.yaml").is_file()), None)


def write_card(folder: Path, source: Path, export: Export) -> None:
    """Write the card of ``export`` to ``folder``, unless the folder has one; ``source``: the model folder."""
    if not (folder / CARD).exists():
        write_atomically(folder / CARD, card(source, export).encode())


def card(source: Path, export: Export) -> str:
    """The text of a model card."""
    run = run_of(source)
    recipe = _recipe(run)
    base = _base(source, recipe)
    evaluations = list(_evaluations(source))
    sections = [
        f"---\n{_metadata(base, recipe, evaluations)}\n---",
        f"# {_title(recipe, source)}",
        _introduction(recipe, base, export),
        f"## Use\n\n{USES.get(export.format, '').replace('FILE', export.files[0])}" if export.format in USES else "",
        _evaluation_section(evaluations),
        _proof_section(export),
        _training_section(run, recipe),
        f"## Licence\n\n{_licence_line(base)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _recipe(run: Path | None) -> Mapping[str, Any]:
    try:
        content = parse_yaml((run / "recipe.yaml").read_bytes()) if run is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _base(source: Path, recipe: Mapping[str, Any]) -> str | None:
    """The pretrained base, None for a model trained from scratch."""
    base = base_of_adapter(source) if is_adapter(source) else (recipe.get("student") or {}).get("base")
    return None if base is None else str(base)


def licence_of(base: str | None) -> str | None:
    """The licence in the metadata of the base's own card; None without a base, ``unknown`` without a statement."""
    if base is None:
        return None
    from huggingface_hub.repocard import metadata_load

    try:
        content = metadata_load(Path(base) / CARD) or {}
    # A card with broken metadata can raise any exception of the parser.
    except Exception:
        content = {}
    return str(content.get("license") or UNKNOWN)


def _metadata(base: str | None, recipe: Mapping[str, Any], evaluations: list[SuiteResult]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="custom",
            dataset_name=f"{(recipe.get('data') or {}).get('source', 'samples')}, test set",
            metric_type=name,
            metric_name=f"{result.suite} ({result.protocol}) {name}",
            metric_value=round(score["value"], 4),
        )
        for result in evaluations
        for name, score in summary(result)["scores"].items()
    ]
    licence = licence_of(base)
    data = ModelCardData(
        base_model=base if base is not None and not Path(base).exists() else None,
        license=None if licence in (None, UNKNOWN) else licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gradatim", "code"],
        model_name=str(recipe.get("title") or "model") if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _title(recipe: Mapping[str, Any], source: Path) -> str:
    return str(recipe.get("title") or source.resolve().name)


def _introduction(recipe: Mapping[str, Any], base: str | None, export: Export) -> str:
    preset = (recipe.get("student") or {}).get("preset")
    origin = f"fine-tuned from {Path(base).name if Path(base).exists() else base}" if base else None
    origin = origin or (f"trained from scratch (preset `{preset}`)" if preset else "origin not recorded")
    return f"A causal language model, {origin} with Gradatim, in the format {export.format}, {_width(export)}."


def _width(export: Export) -> str:
    return "full precision" if export.bits == 32 else f"{export.bits} bits per weight"


def _evaluations(source: Path) -> Iterator[SuiteResult]:
    """The evaluations of the model's stage."""
    for file in sorted(source.resolve().parent.glob("evaluation-*.json")):
        yield read_json(file, decode_suite)


def _evaluation_section(evaluations: list[SuiteResult]) -> str:
    if not evaluations:
        return ""
    rows = ["| suite | metric | value | 95 % interval | items |", "|---|---|---|---|---|"]
    for result in evaluations:
        plain = summary(result)
        rows += [
            f"| {result.suite} ({result.protocol}) | {name} | {score['value']:.1%} "
            f"| {score['low']:.1%} to {score['high']:.1%} | {plain['counts']['total']:,} |"
            for name, score in plain["scores"].items()
        ]
    note = "The intervals (Wilson) cover the sampling of test items, not the variation between training seeds."
    return "\n".join(["## Evaluation of the original\n", *rows, "", note])


def _proof_section(export: Export) -> str:
    lines = [
        "## Comparison with the original\n",
        f"- {export.texts:,} texts have the same tokens.",
        f"- Log-probabilities over {export.positions:,} generated tokens differ by {export.mean_difference:.2g} nats "
        f"on average, {export.largest_difference:.2g} at most.",
    ]
    if export.total:
        low, high = wilson(export.after or 0, export.total)
        lines.append(
            f"- Correct outputs of {export.total:,} test samples: {export.before:,} before, {export.after:,} after "
            f"({low:.1%} to {high:.1%}), {export.lost:,} lost, {export.won:,} won."
        )
    return "\n".join([*lines, *(f"- {note}." for note in export.notes)])


def _training_section(run: Path | None, recipe: Mapping[str, Any]) -> str:
    if run is None:
        return ""
    try:
        environment: Mapping[str, Any] = read_json(run / "environment.json", dict)
    except Exception:  # an old or damaged run still has a card
        environment = {}
    versions = {name: environment.get(name) for name in ("gradatim", "commit", "torch", "transformers", "processor")}
    budget = recipe.get("budget") or {}
    lines = [
        "## Training\n",
        f"- Schedule: {(recipe.get('schedule') or {}).get('name', UNKNOWN)}, {recipe.get('cycles', 1)} cycle(s), "
        f"budget {budget.get('tokens') or budget.get('steps') or UNKNOWN} "
        f"{'loss tokens' if budget.get('tokens') else 'steps'}, seed {recipe.get('seed', 0)}",
        f"- Recipe: SHA-256 `{_digest(run / 'recipe.yaml')}`",
        *(f"- Dataset `{file.parent.name}`: training samples SHA-256 `{_digest(file)}`" for file in _datasets(run)),
        "- " + ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "\n<details><summary>Recipe</summary>\n",
        f"```yaml\n{(run / 'recipe.yaml').read_text('utf-8').strip()}\n```",
        "</details>",
    ]
    return "\n".join(lines)


def _datasets(run: Path) -> list[Path]:
    return sorted(run.glob("data/*/train.parquet"))


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _licence_line(base: str | None) -> str:
    licence = licence_of(base)
    if licence is None:
        return "None is stated: the model was trained from scratch, and its author chooses the licence."
    if licence == UNKNOWN:
        return f"Unknown: the card of the base {base} states none. The licence of the base applies."
    return f"`{licence}`, that of the base {base}."
