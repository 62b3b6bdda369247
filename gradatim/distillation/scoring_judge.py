"""What does the student's last layer hold of an attempt, as one row of figures?

One forward pass over prompt and attempt. The figures: the mean of the last hidden states over the prompt and over the
attempt, the mean and the least log-probability of the attempt's tokens, and the logarithm of their number; the end of
the text counts as a token. Of a prompt that does not fit into the context with its attempt, the end is read.
What is learnt from these rows is the affair of ``scoring``. torch is imported when they are asked for.

How does a small model learn the teacher's points, and how far does it agree with them?

A ``ScoringModel`` is ridge regression on standardised features, solved in closed form; its strength is the one with
the least leave-one-out error. ``train`` holds some questions out and measures the agreement there: Spearman's rank
correlation and the mean absolute error, beside the error of always saying the mean. Where features and points come
from, and when the model is asked, is said in ``scoring``.

Can a small model learn the teacher's points and judge in its place?

The teacher's rubric is asked about a ``share`` of the questions. On the attempts it could grade, a *scoring model* is
trained: a ridge regression (``scoring_model``) from what the student's own last layer holds of an attempt (``hidden``)
to points / 6. It then judges the attempts that the teacher was not asked about.

How far it agrees with the teacher is measured on a part of the graded questions that it did not learn from. Too few
grades, or too little agreement, and the rest stays ``unjudged`` with that cause. A model belongs to the student whose
hidden states it learnt; with any other it refuses to judge.

2408.03680 trains a scoring model from the teacher's scores; which one is not known. A linear head on the student's own
states is the least that works for a student of any size, and costs one forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, RecipeError
from ..options import strict
from ..stage import Events, ignore_events
from .judge import Grader, Judge, View, distinct, need_grader, spread, taken, unjudged
from .rubric_judge import MAX_POINTS, Rubric, check_passing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Agreement",
    "Numbers",
    "Scoring",
    "ScoringJudge",
    "ScoringModel",
    "features",
    "judge_with",
    "load_scoring_model",
    "part_of",
    "pooled",
    "scoring",
    "spearman",
    "train",
]


States = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]


def pooled(student: Any, prompts: Sequence[str], attempts: Sequence[str], batch: int) -> list[States | None]:
    """Rows of 2 × hidden size + 3 figures; None where a text cannot be encoded."""
    import torch

    from ..model.vocabulary import Vocabulary

    model, vocabulary = student.model, Vocabulary(student.tokenizer)
    found: list[States | None] = [None] * len(prompts)
    encoded: list[tuple[int, Tokens, int]] = []
    for row, (prompt, attempt) in enumerate(zip(prompts, attempts, strict=True)):
        tokens = _tokens(vocabulary, student, prompt, attempt)
        if tokens is not None:
            encoded.append((row, *tokens))
    # Neighbours of about one length: little is padded.
    encoded.sort(key=lambda each: (len(each[1]), each[0]))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(encoded), batch):
                _read(model, encoded[start : start + batch], found)
    finally:
        model.train(training)
    return found


def _tokens(vocabulary: Any, student: Any, prompt: str, attempt: str) -> tuple[Tokens, int] | None:
    """All tokens, and how many of them are the prompt's."""
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


def _read(model: Any, some: Sequence[tuple[int, Tokens, int]], found: list[States | None]) -> None:
    import torch

    ids = np.zeros((len(some), max(len(tokens) for _, tokens, _ in some)), dtype=np.int64)
    for line, (_, tokens, _) in zip(ids, some, strict=True):
        # Padding stands on the right, where a causal model does not look.
        line[: len(tokens)] = tokens
    states = model.get_decoder()(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False).last_hidden_state
    for state, (row, tokens, first) in zip(states, some, strict=True):
        # The vocabulary may be large: only the columns that predict the attempt become logits, one text at a time.
        logits = model.get_output_embeddings()(state[first - 1 : len(tokens) - 1]).float()
        written = torch.from_numpy(tokens[first:]).to(model.device)
        likely = torch.log_softmax(logits, -1).gather(1, written[:, None])[:, 0]
        held = [state[:first].float().mean(0), state[first : len(tokens)].float().mean(0)]
        figures = torch.stack([likely.mean(), likely.min(), torch.tensor(float(np.log(len(written)))).to(likely)])
        found[row] = torch.cat([*held, figures]).double().cpu().numpy()


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


LEAST_GRADED = 24
"""Graded attempts below which nothing is learnt from them."""
UNREADABLE = "the student's tokenizer does not know a character of it"


@strict("the judge 'scoring'")
def scoring(
    grader: Grader | None = None,
    /,
    *,
    share: float = 0.5,
    held_out: float = 0.25,
    least_agreement: float = 0.2,
    passing: float = 5.0,
) -> Scoring:
    """Asks the teacher about a ``share`` of the questions and learns to judge the rest; ``held_out`` of the graded
    questions measure it, and below a Spearman correlation of ``least_agreement`` it does not judge."""
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
class Scoring:
    """The judge ``scoring`` before it knows the student; see the module."""

    grader: Grader
    share: float = 0.5
    held_out: float = 0.25
    least_agreement: float = 0.2
    passing: float = 5.0

    def by(self, student: Any, *, seed: int) -> ScoringJudge:
        """The judge for this student. ``seed`` decides which questions the teacher is asked about."""
        return ScoringJudge(self, student, seed)


class ScoringJudge:
    """``Scoring`` with its student. ``facts`` tells counts and agreement, and ``model`` is what was learnt, of the
    last call."""

    proves = False

    def __init__(self, settings: Scoring, student: Any, seed: int) -> None:
        self.settings, self.student, self.seed = settings, student, seed
        self.facts: dict[str, Any] = {}
        self.model: ScoringModel | None = None

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row: the teacher's where it was asked, the scoring model's elsewhere."""
        settings = self.settings
        rows, place = distinct(samples, attempts)
        asked, texts = taken(samples, rows), [attempts[row] for row in rows]
        keys = asked.column("prompt").to_pylist()
        ours = set(part_of(keys, settings.share, self.seed))
        graded = [row for row, key in enumerate(keys) if key in ours]
        rubric: Judge = Rubric(settings.grader, settings.passing)
        told = rubric(taken(asked, graded), [texts[row] for row in graded], events=events)
        views = dict(zip(graded, told, strict=True))
        rest = [row for row in range(len(rows)) if row not in views]
        views |= self._rest(asked, texts, views, rest, keys)
        self.facts |= {"graded": len(graded), "unread": sum(view.score is None for view in told), "rest": len(rest)}
        return spread(views, place)

    def _rest(
        self,
        asked: pa.Table,
        texts: Sequence[str],
        graded: Mapping[int, View],
        rest: Sequence[int],
        keys: Sequence[str],
    ) -> dict[int, View]:
        """Views of the rows that the teacher was not asked about."""
        settings = self.settings
        self.model, self.facts = None, {"agreement": None}
        every = features(self.student, asked, texts)
        known = [row for row, view in graded.items() if view.score is not None and every[row] is not None]
        if len(known) < LEAST_GRADED:
            return dict.fromkeys(rest, unjudged(f"fewer than {LEAST_GRADED} grades to learn from"))
        scores = np.array([graded[row].score for row in known], dtype=np.float64)
        found = train(
            np.array([every[row] for row in known]),
            scores,
            [keys[row] for row in known],
            encoder=_encoder(self.student),
            held_out=settings.held_out,
            seed=self.seed,
        )
        if found is None:
            return dict.fromkeys(rest, unjudged("too few questions to hold some out"))
        self.model, agreed = found
        self.facts["agreement"] = asdict(agreed)
        if agreed.spearman is None or agreed.spearman < settings.least_agreement:
            return dict.fromkeys(rest, unjudged("the scoring model agrees too little with the teacher"))
        return {row: self._view(every[row]) for row in rest}

    def _view(self, found: Numbers | None) -> View:
        if found is None or self.model is None:
            return unjudged(UNREADABLE)
        score = float(self.model(found[None])[0])
        passed = score * MAX_POINTS >= self.settings.passing
        return View(score, "passed" if passed else "failed", f"the scoring model: {score * MAX_POINTS:.1f} of 6")


def _encoder(student: Any) -> str:
    from ..training.trainer import weights_digest

    return weights_digest(student.model)


def features(student: Any, samples: pa.Table, attempts: Sequence[str], *, batch: int = 16) -> list[Numbers | None]:
    """One row of features per attempt (see ``hidden``), None where the tokenizer does not know a character."""

    return pooled(student, samples.column("prompt").to_pylist(), attempts, batch)


def judge_with(model: ScoringModel, student: Any, samples: pa.Table, attempts: Sequence[str]) -> list[float | None]:
    """Scores by a model that was learnt before. Raises ``DataError`` for another student than that one."""
    if _encoder(student) != model.encoder:
        raise DataError(
            "the scoring model learnt the hidden states of another student",
            where="scoring",
            hint="the student of the cycle that trained it",
        )
    found = features(student, samples, attempts)
    return [None if each is None else float(model(each[None])[0]) for each in found]
