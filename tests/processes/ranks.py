"""Main functions of the ranks of real process groups, which the tests start by ``cli.launch.supervise``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gradatim.cli.launch import supervise
from gradatim.errors import GradatimError, ProcessLost, Stopped
from gradatim.experiment import ranks
from gradatim.experiment.recipe import load
from gradatim.processes import LOST, launch
from gradatim.stage import Event

SMALL = [
    "data.count=300",
    "data.split.test=20",
    "data.split.validation=20",
    "budget.tokens=4000",
    "schedule.name=sequential",
    "train.reset_optimizer=false",
    "train.checkpoint_seconds=0",
    "train.batch_size=4",
    "train.logging_steps=1",
    "train.precision=fp32",
    "train.optimizer={name: adamw, learning_rate: 0.001}",  # Muon orthogonalizes in bf16, which amplifies rounding
    "threads=1",
]


def start(folder: Path, *changes: str, size: int = 2, listener: Callable[[Event], None] | None = None) -> int:
    """The exit code of a run in ``folder`` by ``size`` ranks with the events ``listener``."""
    return supervise(partial(train, folder, changes, listener), size, lambda: ranks.resume_hint([folder]))


def train(folder: Path, changes: tuple[str, ...], listener: Callable[[Event], None] | None) -> int:
    """Run the recipe as one rank. Each rank writes the files that it opened for writing to ``opened-RANK.json``."""
    import torch

    from gradatim.experiment.run import run

    torch.set_num_threads(1)
    opened: list[str] = []
    inside = str(folder.resolve())

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.path.abspath(str(arguments[0]))
            if path.startswith(inside) and not path.endswith(".lock"):
                opened.append(path)

    sys.addaudithook(audit)
    try:
        run(load("smoke/baseline", [*SMALL, *changes]), folder, events=listener or ignore)
    except GradatimError as error:
        folder.with_name(f"error-{launch().rank}.txt").write_text(str(error))
        return LOST if isinstance(error, ProcessLost) and not error.reported else error.exit_code
    folder.with_name(f"opened-{launch().rank}.json").write_text(json.dumps(opened))
    return 0


def ignore(event: Event) -> None:
    """No listener."""


class KillAt:
    """A listener that kills the rank ``rank`` at training event ``step``."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def __call__(self, event: Event) -> None:
        if launch().rank == self.rank and event.task.startswith("train") and event.kind == "advance":
            self.step -= 1
            if not self.step:
                os.kill(os.getpid(), signal.SIGKILL)


class StopAt(KillAt):
    """A listener that stops the rank ``rank`` from training event ``step`` on, as a signal does."""

    def __call__(self, event: Event) -> None:
        if launch().rank == self.rank and event.task.startswith("train") and event.kind == "advance":
            self.step -= 1
            if self.step <= 0:
                raise Stopped("stopped")


def start_apart(folder: Path) -> int:
    """The exit code of a run whose ranks use the same relative path in different folders."""
    return supervise(partial(train_apart, folder), 2, lambda: "")


def train_apart(folder: Path) -> int:
    """Run a recipe in ``run`` below a folder of this rank alone."""
    from gradatim.experiment import ranks as served

    served.VISIBLE_WITHIN = 0.3
    own = folder / str(launch().rank)
    own.mkdir(parents=True, exist_ok=True)
    os.chdir(own)
    return train(Path("run"), (), None)


def compare_shared_inference(folder: Path) -> dict[str, list[str]]:
    """By kind of inference, the differences between two processes and one with the last model of the run ``folder``."""
    assert supervise(partial(infer, folder), 2, lambda: "") == 0
    differing: dict[str, list[str]] = json.loads(folder.with_name("differing.json").read_text())
    return differing


def infer(folder: Path) -> int:
    """Rank 0 infers with a shared model and with one of its own; the other rank serves."""
    from gradatim.experiment.assemble import assemble
    from gradatim.processes import connect

    suites = "evaluate.suites=[{suite: output}, {suite: token, protocol: paper}, {suite: line, limit: 40}]"
    recipe = load("smoke/baseline", [*SMALL, suites])
    processes = connect()
    if not processes.is_main:
        ranks.serve(recipe, processes)
        return 0
    with ranks.Leader(processes, folder) as leader:
        components = assemble(recipe, processes=processes)
        stage = sorted(folder.glob("cycle-*/stage-*"))[-1]
        students = components.load(stage), components.open_model(stage)
        samples = components.first_dataset(folder / "data").table("test")
        encoded = components.first_dataset(folder / "data").tokens(recipe.student)[1]
        shared, single = (inferences(student, components, samples, encoded) for student in students)
        differing = {
            name: [f"{a} != {b}" for a, b in zip(shared[name], single[name], strict=True) if a != b] for name in shared
        }
        folder.with_name("differing.json").write_text(json.dumps(differing))
        leader.results = []
    return 0


def inferences(student: Any, components: Any, samples: Any, encoded: Any) -> dict[str, list[str]]:
    """The results of every function that divides its rows, as texts."""
    import numpy as np

    from gradatim.inference import decode, loglikelihood
    from gradatim.model.vocabulary import Vocabulary

    prompts = samples.column("prompt").to_pylist()
    model, tokenizer = student.model, student.tokenizer
    vocabulary = Vocabulary(tokenizer)
    pairs = [loglikelihood.encode_apart(vocabulary, prompt, "# 1\n") for prompt in prompts[:7]]
    likelihoods = {k: v for part in loglikelihood.log_likelihoods(model, pairs) for k, v in part.items()}
    answers = loglikelihood.read_answers(student, encoded, np.arange(3, 40))
    numbers = [
        (int(a), round(float(b), 4), bool(c))
        for a, b, c in zip(answers.rows, answers.loss, answers.correct, strict=True)
    ]
    results = [suite.suite(student, samples, seed=3) for suite in components.suites]
    sampled = {"greedy": False, "temperature": 0.7, "seed": 5, "indices": list(range(100, 100 + len(prompts)))}
    return {
        "greedy": [repr(text) for text in decode.complete(model, tokenizer, prompts, limits=12)],
        "sampled": [repr(text) for text in decode.complete(model, tokenizer, prompts, limits=12, **sampled)],
        "predicted": [repr(p) for p in decode.predict_next(model, tokenizer, prompts, greedy=False, seed=2)],
        "likelihoods": [str(np.round(likelihoods[index], 4).tolist()) for index in range(7)],
        "answers": [str(number) for number in numbers],
        "suites": [repr(replace(result, seconds=0)) for result in results],
    }
