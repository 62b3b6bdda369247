"""A small model learns a teacher's points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graders import Grading
from scipy.stats import spearmanr

from gradatim.distillation import JUDGES
from gradatim.distillation.attempts import probe
from gradatim.distillation.scoring_judge import (
    NOT_ENCODED,
    features,
    judge_with,
    load_scoring_model,
    random_share,
    train,
)
from gradatim.errors import DataError
from gradatim.evaluation.statistics import rank_correlation
from gradatim.model.load import LoadedModel

HALVES = Grading(lambda answer, attempt: 6.0 if attempt == answer else 1.0)


def made(rows=200, width=30, noise=0.05, seed=0):
    """Features, and scores that hang on two of them."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, width))
    scores = np.clip(0.5 + 0.2 * inputs[:, 3] - 0.1 * inputs[:, 7] + noise * random.normal(size=rows), 0, 1)
    return inputs, scores, [f"question {number // 2}" for number in range(rows)]


def learn(inputs, scores, names, seed=0):
    return train(inputs, scores, names, encoder="none", held_out=0.25, seed=seed)


def test_what_can_be_learnt_is_learnt_and_measured_on_questions_held_out():
    inputs, scores, names = made()
    model, agreement = learn(inputs, scores, names)
    assert (agreement.trained, agreement.held_out) == (150, 50)
    assert agreement.spearman > 0.9
    assert agreement.mean_absolute_error < 0.5 * agreement.constant_error
    fresh, truth, _ = made(seed=1)
    assert np.abs(model(fresh) - truth).mean() < 0.08


def test_noise_teaches_nothing_and_the_measure_says_so():
    inputs, _, names = made()
    noise = np.random.default_rng(5).random(len(inputs))
    _, agreement = learn(inputs, noise, names)
    assert agreement.spearman < 0.35
    assert agreement.mean_absolute_error < 1.2 * agreement.constant_error  # a strong ridge stays near the mean


def test_fewer_rows_than_features_are_enough_for_the_closed_form():
    inputs, scores, names = made(rows=40, width=400, noise=0.0)
    model, _ = learn(inputs, scores, names)
    assert np.isfinite(model.weights).all()
    assert ((model(inputs) >= 0) & (model(inputs) <= 1)).all()


def test_the_leave_one_out_error_is_that_of_fitting_again():
    from gradatim.distillation import scoring_judge as scoring_model

    inputs, scores, _ = made(rows=25, width=9, noise=0.3)
    strengths = scoring_model.STRENGTHS
    errors = []
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    for strength in strengths:
        left_out = []
        for row in range(len(scores)):
            rest = np.delete(np.arange(len(scores)), row)
            # The bias is not punished: solve for it together with the weights.
            system = np.hstack([inputs[rest], np.ones((len(rest), 1))])
            punish = strength * np.diag([1.0] * inputs.shape[1] + [0.0])
            solved = np.linalg.solve(system.T @ system + punish, system.T @ scores[rest])
            left_out.append(scores[row] - np.append(inputs[row], 1) @ solved)
        errors.append(np.mean(np.square(left_out)))
    model = scoring_model._ridge(inputs, scores, "none")
    assert model.strength == strengths[int(np.argmin(errors))]


def test_no_question_stands_on_both_sides():
    names = [f"q{number % 9}" for number in range(50)]
    for share in (0.1, 0.5, 0.9):
        part = random_share(names, share, 3)
        assert len(set(part)) == len(part) == round(share * 9)
    assert random_share(names, 0.5, 3) == random_share(names[::-1], 0.5, 3) != random_share(names, 0.5, 4)


def test_rank_correlation_is_that_of_scipy():
    random = np.random.default_rng(2)
    for _ in range(20):
        one, other = random.integers(0, 4, 15).astype(float), random.random(15)
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None


def test_features_do_not_hang_on_the_batch_and_the_students_mode_is_kept(student, samples):
    attempts = samples["answer"].to_pylist()
    student.model.train()
    one = features(student, samples, attempts)
    other = features(student, samples, attempts, batch=3)
    assert student.model.training
    student.model.eval()
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert one[0].shape == (2 * 48 + 3,)


def test_the_likelihood_among_the_features_is_the_models_own(student, samples):
    import torch

    prompt, answer = (samples[name][0].as_py() for name in ("prompt", "answer"))
    tokens = torch.tensor([[*student.tokenizer(prompt + answer)["input_ids"], student.tokenizer.eos_token_id]])
    with torch.no_grad():
        logits = torch.log_softmax(student.model(tokens).logits[0, :-1], -1)
    own = logits.gather(1, tokens[0, 1:, None])[-len(answer) - 1 :, 0]
    found = features(student, samples.slice(0, 1), [answer])[0]
    assert found[-3:] == pytest.approx([float(own.mean()), float(own.min()), math.log(len(answer) + 1)], abs=1e-4)


def test_an_attempt_the_tokenizer_cannot_read_has_no_features_and_a_long_one_has(student, samples):
    found = features(student, samples.slice(0, 2), ["§", "# 1\n" * 30])
    assert found[0] is None
    assert np.isfinite(found[1]).all()


def scored(student, samples, grader, **options):
    judge = JUDGES.get("scoring")(grader, **options)
    return probe(student, samples, {"scoring": (judge, 1.0)}, draws=6, temperature=1.3, seed=0)


@pytest.fixture(scope="module")
def once(student, samples):
    """The grader that was asked, and the feedback."""
    grader = Grading(HALVES.rule)
    return grader, scored(student, samples, grader, share=0.6)


def test_it_judges_what_the_teacher_was_not_asked_and_its_agreement_is_told(once):
    grader, probed = once
    account = probed.facts["judges"]["scoring"]
    agreement = account["agreement"]
    assert account["graded"] == len(grader.asked) > agreement["trained"] > agreement["held_out"] > 5
    # At this temperature it may write a special token, whose spelling it cannot read again.
    assert account["judged"] + account["unjudged"].get(NOT_ENCODED, 0) == probed.table.num_rows
    assert account["judged"] > 0.95 * probed.table.num_rows
    assert agreement["spearman"] > 0.2
    ours = [row for row in probed.table.to_pylist() if row["reason"].startswith("the scoring model")]
    assert not {row["prompt"] for row in ours} & {prompt for prompt, _ in grader.asked}
    right, wrong = (
        [row["score"] for row in ours if (row["attempt"] == row["answer"]) is good] for good in (True, False)
    )
    assert len(right) > 10 < len(wrong)
    assert np.mean(right) > np.mean(wrong) + 0.05


def test_the_same_seed_asks_the_teacher_the_same_and_scores_the_same(student, samples, once):
    one, other = once[1], scored(student, samples, HALVES, share=0.6)
    assert repr(one.table.to_pylist()) == repr(other.table.to_pylist())  # a NaN equals nothing, its text does
    assert one.facts == other.facts


def test_too_few_grades_leave_the_rest_unjudged(student, samples):
    probed = scored(student, samples, Grading(lambda answer, attempt: None), share=0.5)
    assert set(probed.table["verdict"].to_pylist()) == {"unjudged"}
    causes = probed.facts["judges"]["scoring"]["unjudged"]
    assert any("fewer than 24 grades" in cause for cause in causes)
    assert probed.models == {}


def test_a_model_that_does_not_agree_does_not_judge(student, samples):
    same = scored(student, samples, Grading(lambda answer, attempt: 6.0), share=0.5)
    account = same.facts["judges"]["scoring"]
    assert account["agreement"]["spearman"] is None
    assert sum(account["unjudged"].values()) > 10
    assert all("agrees too little" in cause for cause in account["unjudged"])


def test_a_saved_model_scores_as_before_and_refuses_another_student(student, samples, once, tmp_path):
    model = once[1].models["scoring"]
    model.save(tmp_path / "scoring")
    again = load_scoring_model(tmp_path / "scoring")
    attempts = samples["answer"].to_pylist()
    assert judge_with(again, student, samples, attempts) == judge_with(model, student, samples, attempts)
    import copy

    other = copy.deepcopy(student.model)
    other.transformer.wte.weight.data.mul_(1.5)
    with pytest.raises(DataError, match="another student"):
        judge_with(again, LoadedModel(other, student.tokenizer), samples, attempts)
    (tmp_path / "scoring" / "scoring.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="no scoring model"):
        load_scoring_model(tmp_path / "scoring")
