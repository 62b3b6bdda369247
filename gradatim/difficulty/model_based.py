"""Difficulties from a language model's view of the answer, and a teacher's rating from 1 to 10.

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
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import Field

from ..errors import DataError, RecipeError
from ..files import read_input
from ..lazy import np
from ..options import BatchSize, strict
from ..stage import Difficulty, Event, Events, ignore_events
from .score import ScoreCache, key_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    Figures = npt.NDArray[np.float64]


Quantity = Literal["loss", "attention", "choice"]
"""A quantity that a scorer measures: ``loss`` and ``attention`` as above, ``choice``: the answer's probability among
the options."""

Measure = Literal["loss", "perplexity", "attention", "p_correct"]

ScoringModel = Annotated[str, Field(description="Model: folder, .gguf file, or name on the Hugging Face Hub.")]
ChatTemplate = Annotated[
    bool, Field(description="Format prompts with the tokenizer's chat template; false also for chat models.")
]


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


@dataclass
class ModelDifficulty(Difficulty):
    """The difficulty ``measure`` of the scorers' results.

    ``causes`` counts the causes of missing scores in the last call, summed over the scorers.
    """

    scored_by = "model"

    measure: Measure
    scorers: tuple[Scorer, ...]
    causes: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def identity(self) -> str:
        """The state that the column depends on besides the samples; part of a corpus key."""
        return "\0".join([self.measure, *(scorer.identity for scorer in self.scorers)])

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Figures:
        """One float per row. ``workers`` is ignored: a model uses the threads of its own library."""
        self.causes = Counter()
        rows = _requests(samples, options=self.measure == "p_correct")
        scores = [self._by_scorer(scorer, rows, events) for scorer in self.scorers]
        for cause, count in sorted(self.causes.items()):
            events(Event("note", self.measure, text=f"{self.measure}: {count:,} samples have no score: {cause}"))
        mean: Figures = np.mean(scores, axis=0)
        return 1 - mean if self.measure == "p_correct" else mean

    def _by_scorer(self, scorer: Scorer, rows: Sequence[ScoringRequest], events: Events) -> Figures:
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
    open_scorer: OpenScorer | None = None,
    /,
    *,
    model: ScoringModel = "",
    batch: BatchSize = None,
    chat: ChatTemplate = False,
) -> ModelDifficulty:
    """A model's loss on the answer after the prompt, in nats per token."""
    return _difficulty("loss", open_scorer, [model], batch, chat)


@strict("the difficulty 'perplexity'")
def perplexity(
    open_scorer: OpenScorer | None = None,
    /,
    *,
    model: ScoringModel = "",
    batch: BatchSize = None,
    chat: ChatTemplate = False,
) -> ModelDifficulty:
    """A model's perplexity of the answer: exp of the loss."""
    return _difficulty("perplexity", open_scorer, [model], batch, chat)


@strict("the difficulty 'attention'")
def attention(
    open_scorer: OpenScorer | None = None,
    /,
    *,
    model: ScoringModel = "",
    batch: BatchSize = None,
    chat: ChatTemplate = False,
) -> ModelDifficulty:
    """Evenness of a model's attention at the answer's tokens: minus the attention score of 2405.07490."""
    return _difficulty("attention", open_scorer, [model], batch, chat)


@strict("the difficulty 'p_correct'")
def p_correct(
    open_scorer: OpenScorer | None = None,
    /,
    *,
    model: Annotated[
        str | list[str],
        Field(description="One model or a list of models: folder, .gguf file, or name on the Hugging Face Hub."),
    ] = "",
    batch: BatchSize = None,
    chat: ChatTemplate = False,
) -> ModelDifficulty:
    """1 - the probability of the correct answer, averaged over one or several models."""
    return _difficulty("p_correct", open_scorer, [model] if isinstance(model, str) else model, batch, chat)


MOST_TOKENS = 400
LOWEST, HIGHEST = 1, 10
PACKAGED = Path(__file__).with_name("judged.md")

_TAGGED = re.compile(r"<difficulty>\s*(\d{1,2})\s*</difficulty>")
_PLACEHOLDER = re.compile(r"\{(question|answer)\}")
_SEPARATOR = re.compile(r"^---[ \t]*\n", re.MULTILINE)


Messages = tuple[tuple[str, str], ...]
"""One conversation: (role, text) pairs."""


class ChatReply(Protocol):
    """The reply to one conversation; ``finish`` is the reason why it ended."""

    @property
    def text(self) -> str: ...

    @property
    def finish(self) -> str: ...


class RatingChat(Protocol):
    """A chat model that completes conversations at temperature 0."""

    @property
    def identity(self) -> str:
        """Endpoint and model: ratings are stored under it."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Counts of requests, tokens and cost so far, as plain JSON."""
        ...

    def complete(
        self,
        messages: Sequence[Messages],
        *,
        max_tokens: int,
        events: Events = ...,
        received: Callable[[int, ChatReply], None],
    ) -> None:
        """Call ``received`` with the index and the completion of each conversation; a refused one has none."""
        ...


class OpenChat(Protocol):
    """The chat of a teacher by its name and options; injected by ``assemble.difficulties``."""

    def __call__(self, teacher: str, options: Mapping[str, Any], *, where: str) -> RatingChat:
        """Raises ``UnknownPart`` or ``RecipeError`` when there is no such teacher, or it has no chat."""
        ...


@dataclass
class TeacherRating(Difficulty):
    """The difficulty that ``chat`` assigns to each sample with ``prompt``.

    ``causes`` counts the causes of missing ratings in the last call, ``usage`` has the counts of the requests so far.

    One request per sample, at temperature 0: the reply holds an analysis first, then the number in tags, and is
    parsed strictly. A number that is missing, given twice, out of range, or before any analysis is no rating; such
    a sample has no score (NaN), counted in ``causes`` as refusals are. Ratings are cached by chat, prompt and
    sample text as soon as they arrive (see ``cache``), so that an interrupted scoring resumes.

    The prompt is ``judged.md`` beside this file, or a file of the user's: the system message above a line ``---``,
    below it the user's message with ``{question}`` and, optionally, ``{answer}``. Teachers belong to a later layer,
    so the chat comes from the injected ``OpenChat``. How well a rating predicts the errors of a model is measured
    by ``reporting.correlation``.
    """

    scored_by = "teacher"

    chat: RatingChat
    prompt: str
    causes: Counter[str] = field(default_factory=Counter, compare=False)
    usage: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def identity(self) -> str:
        """The state that ratings depend on besides the sample."""
        return f"{self.chat.identity}\0{self.prompt}"

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per row; ``workers`` is ignored: the chat limits the number of concurrent requests.

        Exceptions of the chat are passed on; ratings that had arrived are cached.
        """
        self.causes = Counter()
        columns = ([value or "" for value in samples[name].to_pylist()] for name in ("prompt", "answer"))
        pairs: list[tuple[str, str]] = list(zip(*columns, strict=True))
        keys = [key_of(*pair) for pair in pairs]
        cache = ScoreCache(self.identity, "judged")
        ratings = cache.scores()
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in ratings}
        self.usage = {}
        order, missing = list(todo), dict[bytes, str]()

        from ..languages.thinking import strip_thinking  # here, so that a plan loads no languages

        def received(index: int, reply: ChatReply) -> None:
            rating = read_rating(strip_thinking(reply.text))
            if rating is None:
                missing[order[index]] = f"the reply cannot be read ({reply.finish})"
                return
            ratings[order[index]] = rating
            cache.add({order[index]: rating})

        if todo:
            conversations = [self._messages(*pair) for pair in todo.values()]
            self.chat.complete(conversations, max_tokens=MOST_TOKENS, events=events, received=received)
            self.usage = dict(self.chat.facts)
        self.causes.update(missing.get(key, "the request was refused") for key in keys if key not in ratings)
        for cause, count in sorted(self.causes.items()):
            events(Event("note", "teacher_rating", text=f"teacher_rating: {count:,} samples have no score: {cause}"))
        return np.array([ratings.get(key, math.nan) for key in keys], dtype=np.float64)

    def _messages(self, question: str, answer: str) -> tuple[tuple[str, str], ...]:
        sections = _SEPARATOR.split(self.prompt, maxsplit=1)
        values = {"question": question, "answer": answer}
        # All placeholders in one pass: a program may contain braces itself.
        filled = (_PLACEHOLDER.sub(lambda match: values[match[1]], section).strip() for section in sections)
        return tuple(zip(("system", "user")[-len(sections) :], filled, strict=True))


def read_rating(text: str) -> float | None:
    """The number in the reply's only ``<difficulty>``, after an analysis; None for a reply of another form."""
    numbers = _TAGGED.findall(text)
    analysed = re.sub(r"</?analysis>", "", text[: text.find("<difficulty>")]).strip() if numbers else ""
    if len(numbers) != 1 or text.count("<difficulty>") != 1 or not analysed:
        return None
    # Python refuses to convert a number of thousands of digits.
    rating = int(numbers[0]) if len(numbers[0]) <= len(str(HIGHEST)) else HIGHEST + 1
    return float(rating) if LOWEST <= rating <= HIGHEST else None


@strict("the difficulty 'teacher_rating'")
def teacher_rating(
    open_chat: OpenChat | None = None,
    /,
    *,
    teacher: Annotated[str, Field(description="Name of the teacher that rates; it must be a language model.")] = "",
    options: Annotated[Mapping[str, Any] | None, Field(description="Options of the teacher.")] = None,
    prompt: Annotated[
        str | None,
        Field(description="Prompt file with the placeholder `{question}`. Default: the prompt of the package."),
    ] = None,
) -> TeacherRating:
    """A teacher's rating of a sample, from 1 to 10; a reply that cannot be parsed gives no score."""
    where = "the difficulty 'teacher_rating'"
    if not teacher:
        raise RecipeError("it needs a teacher", where=where, hint="teacher: api, and its options in options")
    if open_chat is None:
        raise RecipeError("it needs a chat", where=where, hint="assemble.make_difficulty('teacher_rating', options)")
    return TeacherRating(open_chat(teacher, options or {}, where=where), _prompt(prompt))


def _prompt(file: str | None) -> str:
    path = PACKAGED if file is None else Path(file)
    try:
        text = read_input(path, 1 << 20).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the prompt cannot be read", where=path, given=error) from error
    if "{question}" not in _SEPARATOR.split(text, maxsplit=1)[-1]:
        raise RecipeError("the placeholder {question} is missing in the user's message", where=path)
    return text
