"""How hard is a sample for a model?

Four metrics that look at the answer with the eyes of a model that has not been trained on the table (or has: a stage's
model works too). Higher is harder.

    loss         mean negative log-likelihood of the answer's tokens after the prompt, in nats (2405.07490, aligned)
    perplexity   exp(loss)
    attention    minus the attention score of 2405.07490: there, more uneven attention is easier and comes first
    p_correct    1 - the probability of the right answer, averaged over models: LLM-defined difficulty (2408.07888)

*Attention*: for each layer and answer token the standard deviation (n - 1) of its attention weights on the tokens
before it (itself left out), averaged over heads, then over answer tokens, then over layers, as in the authors' code.

*Probability*: where the table has a column ``options`` (a list of texts that holds the answer), the softmax over the
options' log-likelihoods, at the answer; elsewhere the answer's likelihood normalised by its length, exp(-loss). With
one model and no options it orders samples just as ``loss`` does; several models average probabilities.

Prompt and answer are encoded apart, as students learn them, and an ``<eos>`` after the answer is not asked for; options
are encoded together with the prompt, as the suite ``choice`` does. With ``chat`` the prompt goes through the
tokenizer's chat template, and answer and options begin where that ends. What cannot be scored is NaN, and ``causes``
counts why. Figures are remembered by the model's weights (an adapter's with those of its base) and the sample's text
(see ``remembered``).

A model is named as ``student.base`` is: a folder, a .gguf file or a name on the hub. ``student`` comes after this
layer, so it is asked through a ``Scorer``: one that is handed in, or ``Named``, which finds what opens models by name
(``MODELS``) at the first question. No tensors are seen here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..errors import RecipeError
from ..options import strict
from ..registry import Registry
from ..stage import Event, Events, ignore_events
from .cache import Remembered, digest_of, key_of

__all__ = [
    "MODELS",
    "Asked",
    "Measure",
    "ModelDifficulty",
    "Named",
    "Quantity",
    "Scorer",
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
"""What a scorer measures: ``loss`` and ``attention`` as above, ``choice``: the answer's probability among options."""

Measure = Literal["loss", "perplexity", "attention", "p_correct"]


class Asked(NamedTuple):
    """One sample as a scorer sees it; ``options`` is empty for all quantities but ``choice``."""

    prompt: str
    answer: str
    options: tuple[str, ...] = ()


class Scorer(Protocol):
    """A model that can say how it finds an answer."""

    @property
    def identity(self) -> str:
        """What its figures depend on, such as a digest of its weights: under this they are remembered."""
        ...

    def read(self, quantity: Quantity, asked: Sequence[Asked]) -> Iterator[Mapping[int, float | str]]:
        """Figures by place in ``asked``, some at a time and in any order; a text says why there is none."""
        ...


MODELS: Registry[Callable[..., Any]] = Registry("work on a model", "works on models")
MODELS.lazy("check", "gradatim.model.hub:check_model", "see that a name may mean a model")
MODELS.lazy("places", "gradatim.model.hub:weight_paths", "where a model's weights lie, its base's included")
MODELS.lazy("read", "gradatim.inference.loglikelihood:read_model", "what a ``Scorer`` reads, by the model of a name")


TOKENS = "tokens 2"
"""Part of a model's identity; a change of the tokens that a text is read as takes a new one."""


@dataclass(frozen=True)
class Named:
    """The scorer of a model by its name. It is loaded when there is something to ask, and let go afterwards."""

    name: str
    batch: int | None = None
    chat: bool = False

    @property
    def identity(self) -> str:
        """A digest of the weights, configuration and tokenizer, of an adapter's base too; a model on the hub is fetched
        for it. The batch changes only last bits.
        """
        told = [digest_of(place, template=self.chat) for place in MODELS.get("places")(self.name)]
        return "\0".join([TOKENS, *told, *(["chat"] if self.chat else [])])

    def read(self, quantity: Quantity, asked: Sequence[Asked]) -> Iterator[Mapping[int, float | str]]:
        """See ``Scorer``."""
        found: Iterator[Mapping[int, float | str]] = MODELS.get("read")(
            self.name, quantity, asked, batch=self.batch, chat=self.chat
        )
        return found


@dataclass(frozen=True)
class ModelDifficulty:
    """The difficulty that ``measure`` makes of what the scorers say; ``causes`` counts why samples have none.

    ``causes`` is that of the last call, added up over the scorers.
    """

    measure: Measure
    scorers: tuple[Scorer, ...]
    causes: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def identity(self) -> str:
        """What the column depends on besides the samples; for corpora that are named by what they hold."""
        return "\0".join([self.measure, *(scorer.identity for scorer in self.scorers)])

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Figures:
        """One float per row. ``workers`` has no say: a model uses the threads of its own library."""
        import numpy as np

        self.causes.clear()
        rows = _asked(samples, options=self.measure == "p_correct")
        parts = [self._by(scorer, rows, events) for scorer in self.scorers]
        for cause, count in sorted(self.causes.items()):
            events(Event("note", self.measure, text=f"{self.measure}: {count:,} samples have no score: {cause}"))
        figures: Figures = np.mean(parts, axis=0)
        return 1 - figures if self.measure == "p_correct" else figures

    def _by(self, scorer: Scorer, rows: Sequence[Asked], events: Events) -> Figures:
        import numpy as np

        if self.measure == "attention":
            return -self._figures(scorer, "attention", rows, events)
        if self.measure != "p_correct":
            losses = self._figures(scorer, "loss", rows, events)
            # A loss above 709 has no perplexity that a float could hold: infinity says so.
            with np.errstate(over="ignore"):
                return losses if self.measure == "loss" else np.exp(losses)
        chosen = np.array([bool(row.options) for row in rows], dtype=bool)
        figures = np.empty(len(rows))
        figures[chosen] = self._figures(scorer, "choice", [row for row in rows if row.options], events)
        figures[~chosen] = np.exp(-self._figures(scorer, "loss", [row for row in rows if not row.options], events))
        return figures

    def _figures(self, scorer: Scorer, quantity: Quantity, rows: Sequence[Asked], events: Events) -> Figures:
        """What the scorer says of each row, NaN where it says nothing; only what is not remembered is asked."""
        import numpy as np

        if not rows:
            return np.empty(0)
        kept = Remembered(scorer.identity, quantity)
        figures = kept.known()
        keys = [key_of(row.prompt, row.answer, *row.options) for row in rows]
        todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in figures}
        order, why = list(todo), dict[bytes, str]()
        done = len(rows) - len(order)
        events(Event("advance", self.measure, done, len(rows)))
        if not todo:
            return np.array([figures[key] for key in keys])
        for found in scorer.read(quantity, list(todo.values())):
            new = {order[place]: figure for place, figure in found.items() if isinstance(figure, float)}
            why |= {order[place]: cause for place, cause in found.items() if isinstance(cause, str)}
            why |= {key: "the model's figure is not finite" for key, figure in new.items() if not math.isfinite(figure)}
            new = {key: figure for key, figure in new.items() if key not in why}
            kept.add(new)
            figures |= new
            done += len(found)
            events(Event("advance", self.measure, done, len(rows)))
        self.causes.update(why[key] for key in keys if key in why)
        return np.array([figures.get(key, math.nan) for key in keys])


def _asked(samples: pa.Table, *, options: bool) -> list[Asked]:
    prompts, answers = ([value or "" for value in samples[name].to_pylist()] for name in ("prompt", "answer"))
    given = samples["options"].to_pylist() if options and "options" in samples.column_names else [None] * len(prompts)
    rows = zip(prompts, answers, given, strict=True)
    return [Asked(prompt, answer, tuple(choices or ())) for prompt, answer, choices in rows]


def _made(measure: Measure, models: Sequence[str], batch: int | None, chat: bool) -> ModelDifficulty:
    if not models or not all(models):
        raise RecipeError(
            "it needs a model to ask",
            where=f"the difficulty {measure!r}",
            allowed="a folder, a .gguf file, or a name on the hub",
            hint="model: FOLDER" if measure != "p_correct" else "model: FOLDER, or a list of them",
        )
    if batch is not None and batch < 1:
        raise RecipeError("batch must be 1 or more", where=f"the difficulty {measure!r}", given=batch)
    for model in models:
        MODELS.get("check")(model)
    return ModelDifficulty(measure, tuple(Named(model, batch, chat) for model in models))


@strict("the difficulty 'loss'")
def loss(*, model: str = "", batch: int | None = None, chat: bool = False) -> ModelDifficulty:
    """How surprised a model is by the answer: nats per token, after the prompt."""
    return _made("loss", [model], batch, chat)


@strict("the difficulty 'perplexity'")
def perplexity(*, model: str = "", batch: int | None = None, chat: bool = False) -> ModelDifficulty:
    """How surprised a model is by the answer, as a perplexity: exp of the loss."""
    return _made("perplexity", [model], batch, chat)


@strict("the difficulty 'attention'")
def attention(*, model: str = "", batch: int | None = None, chat: bool = False) -> ModelDifficulty:
    """How little a model's attention on the answer's tokens varies: minus the attention score of 2405.07490."""
    return _made("attention", [model], batch, chat)


@strict("the difficulty 'p_correct'")
def p_correct(*, model: str | list[str] = "", batch: int | None = None, chat: bool = False) -> ModelDifficulty:
    """How unlikely the right answer is for one or several models: 1 - its mean probability."""
    return _made("p_correct", [model] if isinstance(model, str) else model, batch, chat)
