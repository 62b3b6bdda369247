"""The judge ``scoring``: a scoring model trained on the teacher's rubric points.

The teacher's rubric judges a ``share`` of the questions. On the completions with points, a *scoring model* is trained:
ridge regression from pooled hidden states of the student (``pooled``) to points / 6. It then judges the completions
without points. Its agreement with the teacher is measured on held-out questions (Spearman's rank correlation, mean
absolute error beside that of a constant). With too few grades, or too little agreement, the other completions stay
``unjudged`` with that cause. A model belongs to the student whose hidden states it was trained on; another student is
refused.

2408.03680 trains a scoring model from the teacher's scores without further description. A linear head on the student's
hidden states is the simplest one that works for a student of any size, and costs one forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..errors import DataError, RecipeError
from ..evaluation.statistics import rank_correlation
from ..lazy import torch
from ..model import vocabulary
from ..options import strict
from ..random_streams import grading_stream
from ..stage import Events, Model, ignore_events
from ..training import trainer
from .judge import Grader, Judge, NeedsStudent, View, distinct, need_grader, spread, taken, unjudged
from .judges import MAX_POINTS, PassingPoints, Rubric, check_passing

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel


States = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]


def pooled(student: Model, prompts: Sequence[str], attempts: Sequence[str], batch: int) -> list[States | None]:
    """Rows of 2 × hidden size + 3 features; None where a text cannot be encoded.

    Features of a completion, from one forward pass over prompt and completion: the mean of the last hidden states
    over the prompt and over the completion, the mean and the least log-probability of the completion's tokens, and
    the logarithm of their number, the end token included. A prompt that exceeds the context with its completion is
    truncated at the left.
    """
    model, vocab = student.model, vocabulary.Vocabulary(student.tokenizer)
    rows: list[States | None] = [None] * len(prompts)
    encoded: list[tuple[int, Tokens, int]] = []
    for row, (prompt, attempt) in enumerate(zip(prompts, attempts, strict=True)):
        tokens = _tokens(vocab, student, prompt, attempt)
        if tokens is not None:
            encoded.append((row, *tokens))
    # Neighbours of similar length need little padding.
    encoded.sort(key=lambda item: (len(item[1]), item[0]))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(encoded), batch):
                _pool(model, encoded[start : start + batch], rows)
    finally:
        model.train(training)
    return rows


def _tokens(vocabulary: Any, student: Model, prompt: str, attempt: str) -> tuple[Tokens, int] | None:
    """All tokens, and the number of those of the prompt."""
    (pair,) = vocabulary.pairs([prompt], [attempt])
    if pair is None:
        return None
    before, after = pair[0][: pair[1]], pair[0][pair[1] :]
    end = student.tokenizer.eos_token_id
    after = after if end is None else np.append(after, end)
    context = int(getattr(student.model.config, "max_position_embeddings", None) or 2**31)
    after = after[: max(context // 2, context - len(before))]
    before = before[max(len(before) + len(after) - context, 0) :]
    return np.concatenate([before, after]), len(before)


def _pool(model: PreTrainedModel, batch: Sequence[tuple[int, Tokens, int]], rows: list[States | None]) -> None:
    """Fill ``rows`` with the features of ``batch``: (row, tokens, number of prompt tokens)."""
    ids = np.zeros((len(batch), max(len(tokens) for _, tokens, _ in batch)), dtype=np.int64)
    for line, (_, tokens, _) in zip(ids, batch, strict=True):
        # Padding on the right has no effect in a causal model.
        line[: len(tokens)] = tokens
    states = model.get_decoder()(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False).last_hidden_state
    for state, (row, tokens, first) in zip(states, batch, strict=True):
        # The vocabulary may be large: only positions that predict the completion become logits, one text at a time.
        logits = model.get_output_embeddings()(state[first - 1 : len(tokens) - 1]).float()
        completion = torch.from_numpy(tokens[first:]).to(model.device)
        logprobs = torch.log_softmax(logits, -1).gather(1, completion[:, None])[:, 0]
        means = [state[:first].float().mean(0), state[first : len(tokens)].float().mean(0)]
        log_length = torch.tensor(float(np.log(len(completion)))).to(logprobs)
        scalars = torch.stack([logprobs.mean(), logprobs.min(), log_length])
        rows[row] = torch.cat([*means, scalars]).double().cpu().numpy()


Numbers = npt.NDArray[np.float64]
STRENGTHS = 10.0 ** np.arange(-2, 6)
"""Candidate ridge penalties, for standardised features."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a scoring model with the teacher on ``held_out`` completions, after training on ``trained``.

    Errors are in scores (points / 6); ``constant_error`` is that of predicting the mean of the training scores.
    ``spearman`` is None where one side is constant.
    """

    spearman: float | None
    mean_absolute_error: float
    constant_error: float
    trained: int
    held_out: int


@dataclass(frozen=True)
class ScoringModel:
    """Score = bias + weights · (features − mean) / scale, clipped to [0, 1]. Arrays have shape (features,).

    ``encoder`` is the SHA-256 of the student's weights that gave the features.
    """

    weights: Numbers
    mean: Numbers
    scale: Numbers
    bias: float
    strength: float
    encoder: str

    def __call__(self, features: Numbers) -> Numbers:
        """Scores, shape (rows,), of features, shape (rows, features)."""
        scores: Numbers = np.clip(self.bias + (features - self.mean) / self.scale @ self.weights, 0.0, 1.0)
        return scores

    def save(self, folder: str | Path) -> None:
        """Write ``scoring.safetensors`` and, last, ``scoring.json`` into ``folder``."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: getattr(self, name) for name in _ARRAYS}, folder / "scoring.safetensors")
        content = {"bias": self.bias, "strength": self.strength, "encoder": self.encoder}
        (folder / "scoring.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")


_ARRAYS = ("weights", "mean", "scale")


def load_scoring_model(folder: str | Path) -> ScoringModel:
    """The model that ``save`` wrote. Raises ``DataError`` when the folder holds none."""
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        content = json.loads((folder / "scoring.json").read_text("utf-8"))
        arrays = load_file(folder / "scoring.safetensors")
        return ScoringModel(arrays["weights"], arrays["mean"], arrays["scale"], **content)
    # Broken files raise any error of the two parsers.
    except Exception as error:
        given = f"{type(error).__name__}: {error}"
        raise DataError("this folder holds no scoring model", where=folder, given=given) from error


def train(
    features: Numbers, scores: Numbers, questions: Sequence[str], *, encoder: str, held_out: float, seed: int
) -> tuple[ScoringModel, Agreement] | None:
    """Train a scoring model on features (rows, features) and scores (rows,); return it and its held-out agreement.

    None with too few questions for both sides.
    """
    names = set(questions)
    test_questions = set(random_share(questions, held_out, seed + 1))
    if len(test_questions) == len(names):
        return None
    out = np.array([question in test_questions for question in questions])
    model = _ridge(features[~out], scores[~out], encoder)
    return model, _agreement(model(features[out]), scores[out], float(scores[~out].mean()), int((~out).sum()))


def _ridge(features: Numbers, scores: Numbers, encoder: str) -> ScoringModel:
    """Ridge regression on standardised features; the strength with the least leave-one-out error."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.where(deviation > 1e-8, deviation, 1.0)
    bias = float(scores.mean())
    u, values, vt = np.linalg.svd((features - mean) / scale, full_matrices=False)
    rotated = u.T @ (scores - bias)

    def error(strength: float) -> float:
        """Leave-one-out error in closed form: residual / (1 − leverage), the mean's leverage included."""
        shrunk = values**2 / (values**2 + strength)
        leverage = u**2 @ shrunk + 1 / len(scores)
        residual = scores - bias - u @ (shrunk * rotated)
        return float(np.mean((residual / np.maximum(1 - leverage, 1e-6)) ** 2))

    strength = float(min(STRENGTHS, key=error))
    weights = vt.T @ (values / (values**2 + strength) * rotated)
    return ScoringModel(weights, mean, scale, bias, strength, encoder)


def _agreement(predictions: Numbers, teacher: Numbers, constant: float, trained: int) -> Agreement:
    """Agreement of ``predictions`` with the teacher's scores; ``constant`` is the prediction of a constant model."""
    return Agreement(
        rank_correlation(predictions, teacher),
        float(np.abs(predictions - teacher).mean()),
        float(np.abs(constant - teacher).mean()),
        trained,
        len(teacher),
    )


def random_share(keys: Sequence[str], share: float, seed: int) -> list[str]:
    """A random share of the distinct ``keys``, at least one."""
    names = sorted(set(keys))
    order = grading_stream(seed).permutation(len(names))
    return [names[number] for number in order[: max(1, round(share * len(names)))]]


MIN_GRADED = 24
"""Least number of graded completions for training."""
NOT_ENCODED = "it has a character outside the student's vocabulary"


@strict("the judge 'scoring'")
def scoring(
    grader: Grader | None = None,
    /,
    *,
    share: Annotated[float, Field(description="Fraction of the questions that the teacher grades.")] = 0.5,
    held_out: Annotated[
        float, Field(description="Fraction of the graded questions held out to measure the agreement of the model.")
    ] = 0.25,
    least_agreement: Annotated[
        float, Field(description="Minimum Spearman correlation with the teacher; below it the model is not used.")
    ] = 0.2,
    passing: PassingPoints = 5.0,
) -> Scoring:
    """Request the teacher's points for a part of the questions and train a model that judges the others."""
    check_passing("scoring", passing)
    faults = [
        f"{name}: must lie between 0 and 1 (given {value})"
        for name, value in (("share", share), ("held_out", held_out))
        if not 0 < value < 1
    ]
    if not -1 <= least_agreement < 1:
        faults.append(f"least_agreement: must lie in [-1, 1) (given {least_agreement})")
    if faults:
        raise RecipeError("the judge 'scoring': " + "; ".join(faults), faults=faults)
    return Scoring(need_grader("scoring", grader), share, held_out, least_agreement, passing)


@dataclass(frozen=True)
class Scoring(NeedsStudent):
    """The judge ``scoring`` without its student; see the module docstring."""

    grader: Grader
    share: float = 0.5
    held_out: float = 0.25
    least_agreement: float = 0.2
    passing: float = 5.0

    @property
    def teacher_share(self) -> float:
        """The option ``share``."""
        return self.share

    def by(self, student: Model, *, seed: int) -> ScoringJudge:
        """The judge for ``student``. ``seed`` chooses the questions that the teacher judges."""
        return ScoringJudge(self, student, seed)


class ScoringJudge(Judge):
    """``Scoring`` with its student. ``facts`` (counts, agreement) and ``model`` belong to the last call."""

    proves = False

    def __init__(self, settings: Scoring, student: Model, seed: int) -> None:
        self.settings, self.student, self.seed = settings, student, seed
        self.facts: dict[str, Any] = {}
        self.model: ScoringModel | None = None

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row: the teacher's for its share of the questions, the scoring model's for the others."""
        settings = self.settings
        rows, index = distinct(samples, attempts)
        unique, texts = taken(samples, rows), [attempts[row] for row in rows]
        keys = unique.column("prompt").to_pylist()
        share = set(random_share(keys, settings.share, self.seed))
        teacher_rows = [row for row, key in enumerate(keys) if key in share]
        rubric: Judge = Rubric(settings.grader, settings.passing)
        grades = rubric(taken(unique, teacher_rows), [texts[row] for row in teacher_rows], events=events)
        views = dict(zip(teacher_rows, grades, strict=True))
        model_rows = [row for row in range(len(rows)) if row not in views]
        views |= self._model_views(unique, texts, views, model_rows, keys)
        self.facts |= {
            "graded": len(teacher_rows),
            "unread": sum(view.score is None for view in grades),
            "rest": len(model_rows),
        }
        return spread(views, index)

    def _model_views(
        self,
        samples: pa.Table,
        texts: Sequence[str],
        grades: Mapping[int, View],
        rows: Sequence[int],
        keys: Sequence[str],
    ) -> dict[int, View]:
        """The scoring model's views of ``rows``, after training on ``grades``."""
        settings = self.settings
        self.model, self.facts = None, {"agreement": None}
        inputs = features(self.student, samples, texts)
        labelled = [row for row, view in grades.items() if view.score is not None and inputs[row] is not None]
        if len(labelled) < MIN_GRADED:
            return dict.fromkeys(rows, unjudged(f"fewer than {MIN_GRADED} grades to learn from"))
        scores = np.array([grades[row].score for row in labelled], dtype=np.float64)
        result = train(
            np.array([inputs[row] for row in labelled]),
            scores,
            [keys[row] for row in labelled],
            encoder=_encoder(self.student),
            held_out=settings.held_out,
            seed=self.seed,
        )
        if result is None:
            return dict.fromkeys(rows, unjudged("too few questions to hold some out"))
        self.model, agreement = result
        self.facts["agreement"] = asdict(agreement)
        if agreement.spearman is None or agreement.spearman < settings.least_agreement:
            return dict.fromkeys(rows, unjudged("the scoring model agrees too little with the teacher"))
        return {row: self._view(inputs[row]) for row in rows}

    def _view(self, inputs: Numbers | None) -> View:
        if inputs is None or self.model is None:
            return unjudged(NOT_ENCODED)
        score = float(self.model(inputs[None])[0])
        passed = score * MAX_POINTS >= self.settings.passing
        return View(score, "passed" if passed else "failed", f"the scoring model: {score * MAX_POINTS:.1f} of 6")


def _encoder(student: Model) -> str:
    return trainer.weights_digest(student.model)


def features(student: Model, samples: pa.Table, attempts: Sequence[str], *, batch: int = 16) -> list[Numbers | None]:
    """One row of features per completion (see ``pooled``), None for a character outside the vocabulary."""
    return pooled(student, samples.column("prompt").to_pylist(), attempts, batch)


def judge_with(model: ScoringModel, student: Model, samples: pa.Table, attempts: Sequence[str]) -> list[float | None]:
    """Scores of a trained model. Raises ``DataError`` for another student than that of its training."""
    if _encoder(student) != model.encoder:
        raise DataError(
            "the scoring model was trained on the hidden states of another student",
            where="scoring",
            hint="the student of the cycle that trained it",
        )
    rows = features(student, samples, attempts)
    return [None if row is None else float(model(row[None])[0]) for row in rows]
