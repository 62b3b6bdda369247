"""Imported by the process that ``forked_commands`` forks: the work of a command that each process does once.

Without it each forked command imports the rest of the package, builds the tables with which transformers names weights
and compiles the template of the report again: 0.5 s of 1.4 s for a run of two steps.
"""

from __future__ import annotations

import gc
import tempfile
from importlib import import_module
from importlib.util import find_spec

import torch

from gradatim import registry
from gradatim.cli.main import COMMANDS
from gradatim.experiment import assemble, plan, recipe_files  # noqa: F401
from gradatim.inference.decode import complete
from gradatim.model.architecture import create
from gradatim.model.hardware import quiet
from gradatim.model.load import load_student
from gradatim.model.tokenizer import character_tokenizer
from gradatim.reporting import figures, html

MODULES = (
    "concurrent.futures.process",
    "gradatim.difficulty.complexity",
    "gradatim.evaluation.output",
    "gradatim.executors",
    "gradatim.experiment.assemble.language",
    "gradatim.programs.generator",
    "gradatim.show",
    "gradatim.training.examples",
    "multiprocessing.queues",
)
POLICIES = ("gradatim.mobile.play", "gradatim.mobile.source", "gradatim.policy.ppo")
"""What a run of a policy imports, with the extra ``mobile``."""


def use_once() -> None:
    """Import, write a model, predict with it and draw. Nothing is trained: torch refuses to train after a fork then."""
    policies = POLICIES if find_spec("stable_baselines3") and find_spec("mobile_env") else ()
    for name in (*MODULES, *policies, *(address.partition(":")[0] for address, _ in COMMANDS.values())):
        import_module(name)
    recipe_files.names()
    tokenizer = character_tokenizer(["a = 1\n"])
    special = {"pad_token_id": 0, "eos_token_id": 1}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads of a pool do not survive a fork
    with tempfile.TemporaryDirectory() as folder, quiet():
        create("tiny", vocabulary=len(tokenizer), context=16, special=special, seed=0).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        student = load_student(folder)
    complete(student.model, student.tokenizer, ["a = "], limits=2)
    torch.set_num_threads(threads)
    with figures.canvas(4, 3) as figure:
        figure.add_subplot().plot([0, 1], label="a")
        figures.svg(figure, "first")
    html._template()
    forget_entry_points()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy the pages of all these objects


def forget_entry_points() -> None:
    """Let each command read entry points again: its environment may have packages of its own."""
    registry._installed.cache_clear()
    for registered in gc.get_objects():
        if isinstance(registered, registry.Registry):
            registered._plugins_read = False


use_once()
