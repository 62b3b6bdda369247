"""How fast are whole training steps beside the published trainer's?

    python benchmarks/train.py [--threads N] [--tokens N] [--skip-compiled]

Prints one JSON object. Each variant is ``StageTrainer.fit`` on the same 40,000 TinyPy programs: batches, forward,
backward, clipping, optimizer. Two fits with budgets of N and 3N tokens are timed in turn, and the rate is the
difference of tokens over the difference of seconds, so that start, compilation and saving do not count.

``published``: the published trainer's work (1.08M GPT, windows of 64 × 256 characters, AdamW, fp32, torch's fused
attention), eager and compiled. ``paper_here``: the same model and batches as Gradatim trains them on this machine,
eager and compiled.
``fast``: the recipe ``curriculum/fast``. ``characters_per_s`` compares roads whose tokens differ: how much program
text a second of training covers. ``of_peak``: floating-point work of the model's products, 6 per parameter outside
the embeddings and token plus the attention's, over the best rate at which this machine multiplies matrices of the
model's shapes, in the type that ``precision: auto`` trains in here (``peak_type``: bfloat16 where it is native, else
float32); padding and optimizer count as no work.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import torch

from gradatim.experiment.recipe import load
from gradatim.model.hardware import compute_type
from gradatim.model.settings import PRESETS, ModelSettings, OptimizerSettings, TrainSettings
from gradatim.model.tokenizer import character_tokenizer, encode_table, separate_texts, texts_of, word_level_tokenizer
from gradatim.programs import generate
from gradatim.record import Metrics
from gradatim.stage import Stage, StageSpec
from gradatim.training import trainer as learning
from gradatim.training.trainer import StageTrainer

LEVELS = ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]
PAPER = ModelSettings("paper", "character", context_length=256)
WINDOWS = TrainSettings(
    precision="fp32",
    evaluations_per_stage=0,
    max_grad_norm=0,
    optimizer=OptimizerSettings(betas=(0.9, 0.999), weight_decay=0.01, weight_decay_on="all"),
)


def rate(table: pa.Table, model: ModelSettings, train: TrainSettings, tokens: int) -> dict[str, float]:
    """Tokens and characters of program text per second of training."""
    maker = character_tokenizer if model.tokenizer == "character" else word_level_tokenizer
    tokenizer = maker(separate_texts(table), *([] if model.tokenizer == "character" else [model.vocabulary]))
    samples = encode_table(tokenizer, table)
    each = sum(map(len, texts_of(table))) / len(samples.tokens)
    found = []
    for budget in (train.batch_size * train.max_length, tokens, 3 * tokens):  # the first fills the compiler's cache
        with tempfile.TemporaryDirectory() as folder:
            metrics = Metrics(Path(folder) / "metrics.jsonl")
            student = StageTrainer(
                tokenizer, samples, samples, metrics, 1, model, replace(train, evaluations_per_stage=0)
            )
            stage = Stage(StageSpec("all", (1.0,), budget), 0, np.arange(len(samples)), 1, 0, budget)
            fitted = student.fit(stage, Path(folder), None)
            found.append((fitted.tokens, fitted.seconds))
    _, (few, short), (many, long) = found
    speed = (many - few) / (long - short)
    return {
        "tokens_per_s": round(speed),
        "characters_per_s": round(speed * each),
        "of_peak": round(speed * work(model, train, len(tokenizer)) / peak(), 3),
    }


def work(model: ModelSettings, train: TrainSettings, vocabulary: int) -> float:
    """Floating-point operations of the products for one token, forward and backward."""
    shape = PRESETS.get(model.preset)
    inner = (2 if shape.family in ("gpt", "gpt2") else 3) * shape.width * shape.mlp
    products = shape.layers * (4 * shape.width**2 + inner) + vocabulary * shape.width
    return 6 * products + 12 * shape.layers * shape.width * train.max_length


_PEAK: list[float] = []


def peak() -> float:
    """Operations per second of products of the published model's shapes in the type of training; the best of a few."""
    if not _PEAK:
        rates, kind = [], compute_type("auto")
        for inner, outer in ((120, 480), (480, 120), (120, 360)):
            left, right = torch.randn(8192, inner, dtype=kind), torch.randn(inner, outer, dtype=kind)
            for _ in range(4):
                start = time.perf_counter()
                for _ in range(50):
                    left @ right
                rates.append(2 * 8192 * inner * outer * 50 / (time.perf_counter() - start))
        _PEAK.append(max(rates))
    return _PEAK[0]


@contextmanager
def fused_attention() -> Iterator[None]:
    """The published trainer calls torch's fused attention at every length."""
    with patch.object(learning, "attention", lambda length: "sdpa"):
        yield


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--skip-compiled", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    table = generate(40_000, levels=LEVELS, seed=1).table
    fast = load("curriculum/fast")
    found: dict[str, Any] = {
        "threads": asked.threads,
        "peak_gflops": round(peak() / 1e9),
        "peak_type": str(compute_type("auto")).removeprefix("torch."),
    }
    with fused_attention():
        found["published"] = rate(table, PAPER, WINDOWS, asked.tokens)
        if not asked.skip_compiled:
            found["published_compiled"] = rate(table, PAPER, replace(WINDOWS, compile=True), asked.tokens)
    here = replace(WINDOWS, precision="auto")
    found["paper_here"] = rate(table, PAPER, here, asked.tokens)
    if not asked.skip_compiled:
        found["paper_here_compiled"] = rate(table, PAPER, replace(here, compile=True), asked.tokens)
    found["fast"] = rate(table, fast.student, fast.train, 2 * asked.tokens)
    published = {"published", "published_compiled"} & found.keys()
    best = max(found[name]["characters_per_s"] for name in published)
    for name in {"paper_here", "paper_here_compiled", "fast"} & found.keys():
        found[name]["ratio"] = round(found[name]["characters_per_s"] / best, 2)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
