"""The contract of every registered training objective, and of one that an outside package registers."""

from __future__ import annotations

from pathlib import Path

import pytest
from outside_package import gradatim, install

from gradatim.model.settings import DistillationSettings, PreferenceSettings, Requirements, TrainSettings
from gradatim.training.objective import OBJECTIVES

SETTINGS = (
    TrainSettings(),
    TrainSettings(prompt_loss_weight=0.0),
    TrainSettings(preference=PreferenceSettings(reference_free=True)),
    TrainSettings(distillation=DistillationSettings(teacher_model="teacher", answers="student", weight=0.5)),
)

OUTSIDE = '''\
"""Label smoothing: cross-entropy against a mixture of the label and the uniform distribution."""

import torch

from gradatim.training.losses import labels_of, make_logits, tensors
from gradatim.training.objective import Loss, Term


class Smoothed(Loss):
    """Cross-entropy with label smoothing over all tokens."""

    terms = (Term(1.0, "smoothed_loss"),)

    def __init__(self, context, *, smoothing: float = 0.1):
        self.smoothing = smoothing
        self.logits = make_logits(context.model, context.train)

    @staticmethod
    def faults(train):
        return [] if train.prompt_loss_weight == 1 else ["label smoothing needs train.prompt_loss_weight: 1"]

    def counts(self, batch):
        return (labels_of(batch)[0] != -100).sum().float().reshape(1)

    def sums(self, batch):
        inputs, labels, _, *attention = tensors(batch)
        return torch.nn.functional.cross_entropy(
            self.logits(inputs, *attention).flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=-100,
            label_smoothing=self.smoothing,
            reduction="sum",
        ).reshape(1)
'''


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_states_its_requirements_for_all_settings(name: str) -> None:
    loss = OBJECTIVES.get(name)
    assert all(callable(getattr(loss, method)) for method in OBJECTIVES.methods)
    assert next(entry.summary for entry in OBJECTIVES if entry.name == name)
    for settings in SETTINGS:
        requirements = loss.requirements(settings)
        assert isinstance(requirements, Requirements)
        assert not (requirements.pairs_only or requirements.replaces_first) or requirements.second_answer
        assert all(isinstance(fault, str) for fault in loss.faults(settings))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with a package installed that registers the objective ``smoothed`` by entry points."""
    names = {"smoothed": "smoothing:Smoothed", "broken": "smoothing:OUTSIDE"}
    source = OUTSIDE + "\n\nOUTSIDE = object()\n"
    folder = tmp_path_factory.mktemp("outside")
    return install(folder, package="smoothing", source=source, entry_points={"objectives": names})


def test_an_objective_of_another_package_is_listed_planned_and_trained(outside: dict[str, str], tmp_path: Path) -> None:
    assert "smoothed" in gradatim(outside, "list", "objectives", cwd=tmp_path).stdout
    changes = (
        "train.objective=smoothed",
        "train.objective_options.smoothing=0.2",
        "train.prompt_loss_weight=1",
        "data.count=600",
        "budget.tokens=2000",
    )
    done = gradatim(
        outside, "run", "smoke/baseline", *(f"--set={change}" for change in changes), "--out", "run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert '"smoothed_loss"' in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")


def test_every_fault_of_an_outside_objective_is_in_one_line(outside: dict[str, str], tmp_path: Path) -> None:
    words = ["train.objective=smoothed", "train.objective_options.smooth=1"]
    done = gradatim(outside, "plan", "smoke/baseline", *(f"--set={word}" for word in words), cwd=tmp_path)
    assert done.returncode == 2
    assert "label smoothing needs train.prompt_loss_weight: 1" in done.stderr
    assert "no option 'smooth' (allowed: smoothing)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_part_that_lacks_its_contract_is_refused_when_it_is_loaded(outside: dict[str, str], tmp_path: Path) -> None:
    done = gradatim(outside, "plan", "smoke/baseline", "--set=train.objective=broken", cwd=tmp_path)
    assert done.returncode == 2
    assert "the objective 'broken' (from the package smoothing) does not fit" in done.stderr
    assert "it lacks requirements, faults, counts, sums" in done.stderr
    assert "Traceback" not in done.stderr
