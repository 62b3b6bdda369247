"""How does a small model learn the teacher's points, and how far does it agree with them?

A ``ScoringModel`` is ridge regression on standardised features, solved in closed form; its strength is the one with
the least leave-one-out error. ``train`` holds some questions out and measures the agreement there: Spearman's rank
correlation and the mean absolute error, beside the error of always saying the mean. Where features and points come
from, and when the model is asked, is said in ``scoring``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["Agreement", "Numbers", "ScoringModel", "load_scoring_model", "part_of", "spearman", "train"]

Numbers = npt.NDArray[np.float64]
STRENGTHS = 10.0 ** np.arange(-2, 6)
"""Ridge penalties that are tried, for standardised features."""


@dataclass(frozen=True)
class Agreement:
    """How a scoring model agrees with the teacher on ``held_out`` attempts, after learning from ``trained``.

    Errors are in scores (points / 6); ``constant_error`` is that of always saying the mean of what was learnt.
    ``spearman`` is None where one side says the same of everything.
    """

    spearman: float | None
    mean_absolute_error: float
    constant_error: float
    trained: int
    held_out: int


@dataclass(frozen=True)
class ScoringModel:
    """Score = bias + weights · (features − mean) / scale, cut to [0, 1]. Arrays have shape (features,).

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
        found: Numbers = np.clip(self.bias + (features - self.mean) / self.scale @ self.weights, 0.0, 1.0)
        return found

    def save(self, folder: str | Path) -> None:
        """Write ``scoring.safetensors`` and, last, ``scoring.json`` into ``folder``."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: getattr(self, name) for name in _ARRAYS}, folder / "scoring.safetensors")
        told = {"bias": self.bias, "strength": self.strength, "encoder": self.encoder}
        (folder / "scoring.json").write_text(json.dumps(told, indent=2) + "\n", "utf-8")


_ARRAYS = ("weights", "mean", "scale")


def load_scoring_model(folder: str | Path) -> ScoringModel:
    """The model that ``save`` wrote. Raises ``DataError`` when the folder holds none."""
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        told = json.loads((folder / "scoring.json").read_text("utf-8"))
        arrays = load_file(folder / "scoring.safetensors")
        return ScoringModel(arrays["weights"], arrays["mean"], arrays["scale"], **told)
    # Broken files surface as whatever the parser beneath happens to raise.
    except Exception as error:
        given = f"{type(error).__name__}: {error}"
        raise DataError("this folder holds no scoring model", where=folder, given=given) from error


def train(
    features: Numbers, scores: Numbers, questions: Sequence[str], *, encoder: str, held_out: float, seed: int
) -> tuple[ScoringModel, Agreement] | None:
    """A scoring model of features (rows, features) and scores (rows,), and its agreement on questions held out.

    None when the questions are too few to have some on both sides.
    """
    names = set(questions)
    apart = set(part_of(questions, held_out, seed + 1))
    if len(apart) == len(names):
        return None
    out = np.array([question in apart for question in questions])
    model = _ridge(features[~out], scores[~out], encoder)
    return model, _agreement(model(features[out]), scores[out], float(scores[~out].mean()), int((~out).sum()))


def _ridge(features: Numbers, scores: Numbers, encoder: str) -> ScoringModel:
    """Ridge regression on standardised features; the strength with the least leave-one-out error."""
    mean, spread_ = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread_ > 1e-8, spread_, 1.0)
    bias = float(scores.mean())
    left, values, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
    turned = left.T @ (scores - bias)

    def error(strength: float) -> float:
        """Leave-one-out error without fitting again: residual / (1 − leverage), the mean's leverage included."""
        shrunk = values**2 / (values**2 + strength)
        leverage = left**2 @ shrunk + 1 / len(scores)
        residual = scores - bias - left @ (shrunk * turned)
        return float(np.mean((residual / np.maximum(1 - leverage, 1e-6)) ** 2))

    strength = float(min(STRENGTHS, key=error))
    weights = right.T @ (values / (values**2 + strength) * turned)
    return ScoringModel(weights, mean, scale, bias, strength, encoder)


def _agreement(said: Numbers, teacher: Numbers, constant: float, trained: int) -> Agreement:
    """How ``said`` agrees with the teacher's scores; ``constant`` is what a model that knows nothing would say."""
    return Agreement(
        spearman(said, teacher),
        float(np.abs(said - teacher).mean()),
        float(np.abs(constant - teacher).mean()),
        trained,
        len(teacher),
    )


def spearman(one: Numbers, other: Numbers) -> float | None:
    """The correlation of ranks, equal values sharing theirs; None where a side has one value only."""
    ranks = [_ranks(each) - (len(each) - 1) / 2 for each in (one, other)]
    norm = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / norm if norm else None


def _ranks(values: Numbers) -> Numbers:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Numbers = (np.cumsum(counts) - (counts + 1) / 2)[place]
    return found


def part_of(keys: Sequence[str], share: float, seed: int) -> list[str]:
    """A share of the distinct ``keys``, at least one: no question stands on both sides."""
    names = sorted(set(keys))
    generator = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, 2**64 - 2], dtype=np.uint64)))
    order = generator.permutation(len(names))
    return [names[number] for number in order[: max(1, round(share * len(names)))]]
