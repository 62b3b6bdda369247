"""Difficulties from a language model's view of the answer.

    loss         mean negative log-likelihood of the answer's tokens after the prompt, in nats (2405.07490, aligned)
    perplexity   exp(loss)
    attention    minus the attention score of 2405.07490, where more uneven attention is easier and comes first
    p_correct    1 - the probability of the correct answer, averaged over models: LLM-defined difficulty (2408.07888)

*Attention*: for each layer and answer token the standard deviation (n - 1) of its attention weights on the tokens
before it, averaged over heads, then over answer tokens, then over layers, as in the authors' code. *Probability*: where
the table has a column ``options`` (a list of texts that holds the answer), the softmax over the options'
log-likelihoods, at the answer; elsewhere the likelihood normalised by length, exp(-loss). Several models average
probabilities.

Prompt and answer are tokenized apart, as in training, and an ``<eos>`` after the answer is not scored; options are
tokenized together with the prompt, as in the suite ``choice``. With ``chat`` the prompt goes through the chat template.
A sample that cannot be scored is NaN, counted by cause in ``causes``. Scores are cached by the model's weights and the
sample's text (see ``cache``). Models belong to a later layer: an injected ``OpenScorer`` opens each by its name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..errors import RecipeError
from ..options import strict
from ..stage import Event, Events, ignore_events
from .cache import ScoreCache, key_of

__all__ = [
    "Measure",
    "ModelDifficulty",
    "OpenScorer",
    "Quantity",
    "Scorer",
    "ScoringRequest",
    "attention",
    "loss",
    "p_correct",
    "perplexity",
]


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Figures = npt.NDArray[np.float64]


Quantity = Literal["loss", "attention", "choice"]
"""A quantity that a scorer measures: ``loss`` and ``attention`` as above, ``choice``: the answer's probability among
the options."""

Measure = Literal["loss", "perplexity", "attention", "p_correct"]


class ScoringRequest(NamedTuple):
    """One sample as a scorer reads it; ``options`` is empty for all quantities but ``choice``."""

    prompt: str
    answer: str
    options: tuple[str, ...] = ()


class Scorer(Protocol):
    """A model that scores answers."""

    @property
    def identity(self) -> str:
        """The state that the scores depend on, such as a digest of the weights; scores are cached under it."""
        ...

    def read(self, quantity: Quantity, requests: Sequence[ScoringRequest]) -> Iterator[Mapping[int, float | str]]:
        """Scores by index in ``requests``, in batches and in any order; a text is the cause of a missing score."""
        ...


class OpenScorer(Protocol):
    """The scorer of a model by its name; injected by ``assemble.difficulties``."""

    def __call__(self, model: str, *, batch: int | None = None, chat: bool = False) -> Scorer:
        """Raises ``DataError`` when there is no such model."""
        ...


@dataclass(frozen=True)
class ModelDifficulty:
    """The difficulty ``measure`` of the scorers' results.

    ``causes`` counts the causes of missing scores in the last call, summed over the scorers.
    """

    measure: Measure
    scorers: tuple[Scorer, ...]
    causes: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def identity(self) -> str:
        """The state that the column depends on besides the samples; part of a corpus key."""
        return "\0".join([self.measure, *(scorer.identity for scorer in self.scorers)])

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Figures:
        """One float per row. ``workers`` is ignored: a model uses the threads of its own library."""
        import numpy as np

        self.causes.clear()
        rows = _requests(samples, options=self.measure == "p_correct")
        scores = [self._by_scorer(scorer, rows, events) for scorer in self.scorers]
        for cause, count in sorted(self.causes.items()):
            events(Event("note", self.measure, text=f"{self.measure}: {count:,} samples have no score: {cause}"))
        mean: Figures = np.mean(scores, axis=0)
        return 1 - mean if self.measure == "p_correct" else mean

    def _by_scorer(self, scorer: Scorer, rows: Sequence[ScoringRequest], events: Events) -> Figures:
        import numpy as np

        if self.measure == "attention":
            return -self._scores(scorer, "attention", rows, events)
        if self.measure != "p_correct":
            losses = self._scores(scorer, "loss", rows, events)
            # The perplexity of a loss above 709 overflows a float and becomes infinity.
            with np.errstate(over="ignore"):
                return losses if self.measure == "loss" else np.exp(losses)
        with_options = np.array([bool(row.options) for row in rows], dtype=bool)
        scores = np.empty(len(rows))
        scores[with_options] = self._scores(scorer, "choice", [row for row in rows if row.options], events)
        scores[~with_options] = np.exp(-self._scores(scorer, "loss", [row for row in rows if not row.options], events))
        return scores

    def _scores(self, scorer: Scorer, quantity: Quantity, rows: Sequence[ScoringRequest], events: Events) -> Figures:
        """The scorer's score of each row, NaN where there is none; only rows that are not cached are read."""
        import numpy as np

        if not rows:
            return np.empty(0)
        cache = ScoreCache(scorer.identity, quantity)
        scores = cache.scores()
        keys = [key_of(row.prompt, row.answer, *row.options) for row in rows]
        todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in scores}
        order, missing = list(todo), dict[bytes, str]()
        done = len(rows) - len(order)
        events(Event("advance", self.measure, done, len(rows)))
        if not todo:
            return np.array([scores[key] for key in keys])
        for batch in scorer.read(quantity, list(todo.values())):
            new = {order[index]: score for index, score in batch.items() if isinstance(score, float)}
            missing |= {order[index]: cause for index, cause in batch.items() if isinstance(cause, str)}
            missing |= {
                key: "the model's figure is not finite" for key, score in new.items() if not math.isfinite(score)
            }
            new = {key: score for key, score in new.items() if key not in missing}
            cache.add(new)
            scores |= new
            done += len(batch)
            events(Event("advance", self.measure, done, len(rows)))
        self.causes.update(missing[key] for key in keys if key in missing)
        return np.array([scores.get(key, math.nan) for key in keys])


def _requests(samples: pa.Table, *, options: bool) -> list[ScoringRequest]:
    prompts, answers = ([value or "" for value in samples[name].to_pylist()] for name in ("prompt", "answer"))
    option_lists = (
        samples["options"].to_pylist() if options and "options" in samples.column_names else [None] * len(prompts)
    )
    rows = zip(prompts, answers, option_lists, strict=True)
    return [ScoringRequest(prompt, answer, tuple(choices or ())) for prompt, answer, choices in rows]


def _difficulty(
    measure: Measure, open_scorer: OpenScorer | None, models: Sequence[str], batch: int | None, chat: bool
) -> ModelDifficulty:
    where = f"the difficulty {measure!r}"
    if not models or not all(models):
        raise RecipeError(
            "it needs a model",
            where=where,
            allowed="a folder, a .gguf file, or a name on the hub",
            hint="model: FOLDER" if measure != "p_correct" else "model: FOLDER, or a list of them",
        )
    if batch is not None and batch < 1:
        raise RecipeError("batch must be 1 or more", where=where, given=batch)
    if open_scorer is None:
        raise RecipeError("it needs a scorer", where=where, hint=f"assemble.make_difficulty({measure!r}, options)")
    return ModelDifficulty(measure, tuple(open_scorer(model, batch=batch, chat=chat) for model in models))


@strict("the difficulty 'loss'")
def loss(
    open_scorer: OpenScorer | None = None, /, *, model: str = "", batch: int | None = None, chat: bool = False
) -> ModelDifficulty:
    """A model's loss on the answer after the prompt, in nats per token."""
    return _difficulty("loss", open_scorer, [model], batch, chat)


@strict("the difficulty 'perplexity'")
def perplexity(
    open_scorer: OpenScorer | None = None, /, *, model: str = "", batch: int | None = None, chat: bool = False
) -> ModelDifficulty:
    """A model's perplexity of the answer: exp of the loss."""
    return _difficulty("perplexity", open_scorer, [model], batch, chat)


@strict("the difficulty 'attention'")
def attention(
    open_scorer: OpenScorer | None = None, /, *, model: str = "", batch: int | None = None, chat: bool = False
) -> ModelDifficulty:
    """Evenness of a model's attention at the answer's tokens: minus the attention score of 2405.07490."""
    return _difficulty("attention", open_scorer, [model], batch, chat)


@strict("the difficulty 'p_correct'")
def p_correct(
    open_scorer: OpenScorer | None = None,
    /,
    *,
    model: str | list[str] = "",
    batch: int | None = None,
    chat: bool = False,
) -> ModelDifficulty:
    """1 - the probability of the correct answer, averaged over one or several models."""
    return _difficulty("p_correct", open_scorer, [model] if isinstance(model, str) else model, batch, chat)
