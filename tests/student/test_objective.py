"""Facts about the formulas of losses, and about which settings an objective takes."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from gradatim.errors import RecipeError, UnknownPart
from gradatim.experiment.recipe import load
from gradatim.model.settings import DistillationSettings, PreferenceSettings, TrainSettings
from gradatim.training.losses import divergence, pair_sums, preference, token_weights
from gradatim.training.objective import check_objective

PAIRS = TrainSettings(batching="packed", block_diagonal_attention=True)


def test_checking_the_settings_of_every_objective_imports_no_torch():
    code = """
import sys
from gradatim.training.objective import OBJECTIVES
from gradatim.model.settings import TrainSettings
for name in OBJECTIVES.names():
    OBJECTIVES.get(name).requirements(TrainSettings()), OBJECTIVES.get(name).faults(TrainSettings())
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_the_preference_is_dpo_worked_out_by_hand():
    # log-probabilities -2 and -3, reference -2.5 and -2: the right answer gained 0.5, the faulty one lost 1.
    margin = 0.1 * ((-2 + 2.5) - (-3 + 2))
    assert float(preference(torch.tensor(margin))) == pytest.approx(math.log(1 + math.exp(-0.15)))
    assert float(preference(torch.tensor(0.0))) == pytest.approx(math.log(2))


def test_a_target_asks_for_a_margin_as_simpo_does():
    # beta 2, mean log-probabilities -0.5 and -1.5, gamma 1.
    assert float(preference(torch.tensor(2.0), 1.0)) == pytest.approx(math.log(1 + math.exp(-1)))


def test_pair_sums_add_each_answer_apart():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]])
    pairs = torch.tensor([[0, 0, 0, -1], [1, 1, -1, 1]])
    second = torch.tensor([[False, False, True, True], [False, False, False, True]])
    assert pair_sums(values, pairs, second, 2).tolist() == [[3.0, 4.0], [48.0, 128.0]]


Q, P = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2]])


@pytest.mark.parametrize(
    ("kind", "interpolation", "by_hand"),
    [
        # m = 0.5 p + 0.5 q = (0.65, 0.35)
        (
            "jsd",
            0.5,
            0.5 * (0.8 * math.log(0.8 / 0.65) + 0.2 * math.log(0.2 / 0.35))
            + 0.5 * (0.5 * math.log(0.5 / 0.65) + 0.5 * math.log(0.5 / 0.35)),
        ),
        # m = 0.25 p + 0.75 q = (0.575, 0.425)
        (
            "jsd",
            0.25,
            0.25 * (0.8 * math.log(0.8 / 0.575) + 0.2 * math.log(0.2 / 0.425))
            + 0.75 * (0.5 * math.log(0.5 / 0.575) + 0.5 * math.log(0.5 / 0.425)),
        ),
        # 0.1 p + 0.9 q = (0.53, 0.47)
        ("skewed_forward", 0.1, 0.8 * math.log(0.8 / 0.53) + 0.2 * math.log(0.2 / 0.47)),
        # 0.9 p + 0.1 q = (0.77, 0.23)
        ("skewed_reverse", 0.1, 0.5 * math.log(0.5 / 0.77) + 0.5 * math.log(0.5 / 0.23)),
        ("skewed_forward", 0.0, 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
        ("skewed_reverse", 0.0, 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)),
    ],
)
def test_divergences_worked_out_by_hand(kind: str, interpolation: float, by_hand: float):
    assert float(divergence(Q.log(), P.log() + 7.0, kind, interpolation)) == pytest.approx(by_hand, rel=1e-5)
    assert float(divergence(P.log(), P.log() - 3.0, kind, interpolation)) == pytest.approx(0.0, abs=1e-7)


def test_weights_are_those_of_the_answer_and_of_the_rest():
    labels, answer = torch.tensor([[5, 6, -100]]), torch.tensor([[False, True, True]])
    assert token_weights(labels, answer, 0.25).tolist() == [[0.25, 1.0, 0.0]]


@pytest.mark.parametrize("objective", ["preference", "sft_dpo"])
@pytest.mark.parametrize("change", [{"batching": "random_crops"}, {"block_diagonal_attention": False}])
def test_pairs_need_whole_isolated_samples(objective: str, change: dict[str, object]):
    check_objective(objective, PAIRS)
    with pytest.raises(RecipeError, match=r"train\.block_diagonal_attention: true"):
        check_objective(objective, replace(PAIRS, **change))


def test_a_teacher_must_be_named_and_attempts_need_isolated_samples():
    with pytest.raises(RecipeError, match=r"train\.distillation\.teacher_model"):
        check_objective("distillation", TrainSettings())
    check_objective("distillation", TrainSettings(distillation=DistillationSettings(teacher_model="x")))
    with pytest.raises(RecipeError, match=r"train\.block_diagonal_attention: true"):
        check_objective(
            "distillation", TrainSettings(distillation=DistillationSettings(teacher_model="x", answers="both"))
        )
    with pytest.raises(RecipeError, match="beta"):
        check_objective("distillation", TrainSettings(distillation=DistillationSettings(teacher_model="x", beta=0.0)))


def test_an_unknown_objective_is_told_with_the_nearest():
    with pytest.raises(UnknownPart, match="did you mean 'preference'"):
        check_objective("preferense", PAIRS)


def test_a_recipe_takes_the_settings_of_objectives_and_names_their_faults():
    changes = ["train.objective=sft_dpo", "train.preference.weight=0.5", "train.gradient_accumulation_steps=4"]
    recipe = load("smoke/baseline", changes)
    assert recipe.train.preference == PreferenceSettings(weight=0.5)
    assert recipe.train.gradient_accumulation_steps == 4
    assert not TrainSettings().compile
    with pytest.raises(RecipeError, match=r"train\.distillation\.divergence"):
        load("smoke/baseline", ["train.distillation.divergence=jds"])
