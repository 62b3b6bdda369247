"""The student's completions of a cycle's questions, judged by every judge.

``probe`` samples ``draws`` completions of every question, hands each to every judge, and returns one row per
completion: the question, the text, the judges' scores, and the verdict, score and grade from ``grades``. A grade
belongs to the question and stands on all its rows.

A question that cannot be encoded (the prompt is longer than the student's context, or has a character outside its
vocabulary) is no evidence about the student: its completion is unjudged and goes to no judge. Completions depend on
the seed and the question's index, not on the batch; questions of equal ids are used once. Facts are counts, no shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..errors import DataError, RecipeError
from ..evaluation.generation import Question, Writing, write
from ..evaluation.output import MARGIN
from ..evaluation.problems import TRUNCATED, Sample
from ..model import prompt_format, vocabulary
from ..sandbox.limits import Outcome
from ..stage import Event, Events, Model, ignore_events
from ..table import SCHEMA
from .judge import (
    GRADES,
    Grade,
    Judge,
    NeedsStudent,
    SavedModel,
    Thresholds,
    View,
    check_weights,
    combine,
    grades,
    mean_of,
    unjudged,
    verdict_of,
)

_COLUMNS = ("id", "prompt", "answer", "tests", "language", "level", "category")
FEEDBACK = pa.schema(
    [
        *(SCHEMA.field(name) for name in _COLUMNS),
        pa.field("attempt", pa.large_string(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("finish", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("grade", pa.string(), nullable=False),
    ]
)
"""The columns of every feedback table, one row per attempt; one float column ``judge_NAME`` per judge follows.

``finish`` is the end of the completion (``inference.decode.Finish``, empty where a server names none), ``reason`` is
the verdict's. Scores lie in [0, 1]; NaN is unjudged. Tables of earlier versions have no ``finish``.
"""

NOT_ENCODED = {
    "too_long": "the prompt is longer than the student's context",
    "unknown_character": "the prompt has a character outside the student's vocabulary",
}
REPLY_TOKENS = 512
"""Least limit of a chat model's reply with a program, by default."""
VERDICTS: tuple[Outcome, ...] = ("passed", "failed", "timeout", "invalid", "unjudged")
_CAUSES = 8


@dataclass(frozen=True)
class GradedAttempts:
    """``table`` in ``FEEDBACK`` with one column per judge; ``facts`` are plain JSON.

    ``models``: models that judges trained (``scoring_judge.ScoringModel``), by judge.
    """

    table: pa.Table
    facts: dict[str, Any]
    models: Mapping[str, SavedModel] = field(default_factory=dict)


def probe(
    student: Model,
    samples: pa.Table,
    judges: Mapping[str, tuple[Judge | NeedsStudent, float]],
    *,
    draws: int = 1,
    temperature: float = 0.0,
    new_tokens: int | None = None,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    chat: bool = False,
    stop: Sequence[str] = (),
    batch: int | None = None,
    events: Events = ignore_events,
) -> GradedAttempts:
    """Sample and judge completions of ``samples`` by ``student`` (with ``model`` and ``tokenizer``).

    ``judges`` maps names to judges and weights. ``temperature`` 0 is greedy decoding. ``new_tokens`` limits the length
    of a completion, which is then judged in its truncated form; by default the length of the longest correct answer and
    a few more, and at least ``REPLY_TOKENS`` for a chat model's program. ``chat``, ``stop`` and ``batch`` as in
    ``evaluation.generation``; a student trained with its chat template always receives prompts in it. Raises
    ``DataError`` without questions, ``RecipeError`` for invalid options.
    """
    limits = thresholds or Thresholds()
    _check(judges, draws, temperature, new_tokens)
    questions = _questions(samples)
    weights = {name: weight for name, (_, weight) in judges.items()}
    ready = {name: _with_student(judge, student, seed) for name, (judge, _) in judges.items()}
    chat = chat or _uses_chat_template(student)
    limit = new_tokens or _max_new_tokens(student, questions, replies=chat)
    settings = Writing(limit, temperature, chat, seed, batch)
    completions = _completions(student, questions, draws, tuple(stop), settings, events)
    _report_truncated(completions, limit, events)
    rows = questions.take([number for number in range(questions.num_rows) for _ in range(draws)])
    views = {name: _views(name, judge, rows, completions, events) for name, judge in ready.items()}
    proves = {name: judge.proves for name, judge in ready.items()}
    by_row = [{name: column[row] for name, column in views.items()} for row in range(rows.num_rows)]
    scores = [combine(view, weights) for view in by_row]
    verdicts = [verdict_of(view, weights, proves) for view in by_row]
    means = [mean_of(scores[start : start + draws]) for start in range(0, len(scores), draws)]
    question_grades = grades(means, easy=limits.easy, hard=limits.hard)
    table = _table(rows, completions, verdicts, scores, question_grades, views)
    facts = {
        "questions": questions.num_rows,
        "duplicates": samples.num_rows - questions.num_rows,
        "draws": draws,
        "attempts": rows.num_rows,
        "thresholds": {"easy": limits.easy, "hard": limits.hard},
        **_composition(table, question_grades),
        "finish": dict(sorted(Counter(completion.finish or "unknown" for completion in completions).items())),
        "judges": {name: _summary(judge, weights[name], views[name]) for name, judge in ready.items()},
    }
    models = {name: judge.model for name, judge in ready.items() if judge.model is not None}
    return GradedAttempts(table, facts, models)


def graded(
    samples: pa.Table, texts: Sequence[str], views: Mapping[str, Sequence[View]], thresholds: Thresholds
) -> GradedAttempts:
    """One attempt per sample that is no completion of a language model: its text, and the views of named judges.

    All judges have one weight. Raises ``DataError`` without questions, or with equal ids.
    """
    questions = _questions(samples)
    if questions.num_rows != samples.num_rows:
        raise DataError("two questions have one id", where="feedback", given=samples.num_rows - questions.num_rows)
    weights = dict.fromkeys(views, 1.0)
    by_row = [{name: column[row] for name, column in views.items()} for row in range(samples.num_rows)]
    scores = [combine(view, weights) for view in by_row]
    verdicts = [verdict_of(view, weights, dict.fromkeys(views, True)) for view in by_row]
    question_grades = grades(scores, easy=thresholds.easy, hard=thresholds.hard)
    completions = [Sample(str(row), text, finish="") for row, text in enumerate(texts)]
    table = _table(questions, completions, verdicts, scores, question_grades, views)
    facts = {
        "questions": questions.num_rows,
        "duplicates": 0,
        "draws": 1,
        "attempts": questions.num_rows,
        "thresholds": {"easy": thresholds.easy, "hard": thresholds.hard},
        **_composition(table, question_grades),
        "judges": {name: _counts(1.0, column) for name, column in views.items()},
    }
    return GradedAttempts(table, facts)


def _check(judges: Mapping[str, tuple[Any, float]], draws: int, temperature: float, new_tokens: int | None) -> None:
    check_weights({name: weight for name, (_, weight) in judges.items()})
    faults = [] if draws >= 1 else [f"draws: must be 1 or more (given {draws})"]
    if temperature < 0:
        faults.append(f"temperature: must be 0 or more (given {temperature})")
    if temperature == 0 and draws > 1:
        faults.append(f"draws: at temperature 0 all draws are one text (given {draws})")
    if new_tokens is not None and new_tokens < 1:
        faults.append(f"new_tokens: must be 1 or more (given {new_tokens})")
    if faults:
        raise RecipeError("feedback: " + "; ".join(faults), faults=faults)


def _questions(samples: pa.Table) -> pa.Table:
    """The feedback's columns of the samples, the first row of every id."""
    missing = [name for name in _COLUMNS if name not in samples.column_names]
    if missing:
        raise DataError(f"the questions have no column {missing[0]!r}", where="feedback", allowed=", ".join(_COLUMNS))
    first: dict[str, int] = {}
    for row, name in enumerate(samples.column("id").to_pylist()):
        first.setdefault(name, row)
    if not first:
        raise DataError("there are no questions for the student", where="feedback", hint="a table with rows")
    return samples.select(_COLUMNS).take(list(first.values()))


def _with_student(judge: Judge | NeedsStudent, student: Model, seed: int) -> Judge:
    return judge.by(student, seed=seed) if isinstance(judge, NeedsStudent) else judge


def _uses_chat_template(student: Model) -> bool:
    """Whether the student was trained with a chat template."""
    return prompt_format.prompt_format_of(student.tokenizer).template == "chat"


def _max_new_tokens(student: Model, questions: pa.Table, *, replies: bool) -> int:
    """Tokens of the longest correct answer, its end, and a few more, so that a wrong longer one shows.

    ``replies``: at least ``REPLY_TOKENS`` where a question has tests, for the words around its program.
    """
    vocab = vocabulary.Vocabulary(student.tokenizer)
    encoded = (vocab.encode(answer) for answer in questions.column("answer").to_pylist())
    limit = max((len(tokens) for tokens in encoded if tokens is not None), default=0) + 1 + MARGIN
    return max(limit, REPLY_TOKENS) if replies and any(questions.column("tests").to_pylist()) else limit


def _completions(
    student: Model, questions: pa.Table, draws: int, stop: tuple[str, ...], settings: Writing, events: Events
) -> list[Sample]:
    """All completions, grouped by question."""
    requests = [
        Question(str(number), prompt, number, draw, stop)
        for number, prompt in enumerate(questions.column("prompt").to_pylist())
        for draw in range(draws)
    ]
    return [sample for group in write(student, requests, settings, events) for sample in group]


def _report_truncated(completions: Sequence[Sample], limit: int, events: Events) -> None:
    """A note on the completions that were cut off: they are judged, and are neither right nor rejected answers."""
    number = sum(completion.finish in TRUNCATED for completion in completions)
    if number:
        text = f"{number} of {len(completions)} completions were cut off (feedback.max_new_tokens: {limit})"
        events(Event("note", "feedback", text=f"{text}; none of them becomes an answer"))


def _views(name: str, judge: Judge, rows: pa.Table, completions: Sequence[Sample], events: Events) -> list[View]:
    """One view per completion; questions that could not be encoded are unjudged."""
    encoded = [row for row, completion in enumerate(completions) if completion.finish not in NOT_ENCODED]
    views = [unjudged(NOT_ENCODED.get(completion.finish, "")) for completion in completions]
    if encoded:
        results = judge(rows.take(encoded), [completions[row].text for row in encoded], events=events)
        _check_views(name, results, len(encoded))
        for row, view in zip(encoded, results, strict=True):
            views[row] = view
    return views


def _check_views(name: str, views: object, count: int) -> None:
    """Raise ``RecipeError`` unless ``views`` are one ``View`` for each of ``count`` completions."""
    if not isinstance(views, Sequence) or len(views) != count or not all(isinstance(view, View) for view in views):
        given = f"{len(views)} of {type(views[0]).__name__}" if isinstance(views, Sequence) and views else repr(views)
        raise RecipeError(
            f"the judge {name!r} returned no view for each completion",
            where="feedback.judges",
            given=given,
            allowed=f"{count} of gradatim.distillation.View",
        )


def _table(
    rows: pa.Table,
    completions: Sequence[Sample],
    verdicts: Sequence[View],
    scores: Sequence[float | None],
    question_grades: Sequence[Grade],
    views: Mapping[str, Sequence[View]],
) -> pa.Table:
    draws = len(completions) // len(question_grades)
    columns: dict[str, Any] = {
        "attempt": [completion.text for completion in completions],
        "draw": [completion.draw for completion in completions],
        "finish": [completion.finish for completion in completions],
        "verdict": [view.verdict for view in verdicts],
        "reason": [view.reason for view in verdicts],
        "score": _floats(scores),
        "grade": [grade for grade in question_grades for _ in range(draws)],
    }
    arrays = [rows.column(name) for name in _COLUMNS]
    arrays += [pa.array(columns[name], FEEDBACK.field(name).type) for name in columns]
    table = pa.table(arrays, schema=FEEDBACK)
    for name, of in views.items():
        table = table.append_column(f"judge_{name}", pa.array(_floats([view.score for view in of]), pa.float64()))
    return table.combine_chunks()


def _floats(scores: Sequence[float | None]) -> list[float]:
    return [float("nan") if score is None else score for score in scores]


def _composition(table: pa.Table, graded: Sequence[Grade]) -> dict[str, Any]:
    """Questions by grade (and by level and grade), attempts by verdict and grade."""
    pairs = Counter(zip(table.column("verdict").to_pylist(), table.column("grade").to_pylist(), strict=True))
    draws = table.num_rows // len(graded)
    levels = table.column("level").to_pylist()[::draws]
    by_level = Counter(zip((level or "none" for level in levels), graded, strict=True))
    return {
        "grades": {grade: graded.count(grade) for grade in GRADES},
        "verdicts": {verdict: {grade: pairs[verdict, grade] for grade in GRADES} for verdict in VERDICTS},
        "levels": {
            level: {grade: by_level[level, grade] for grade in GRADES}
            for level in sorted({name for name, _ in by_level})
        },
    }


def _summary(judge: Judge, weight: float, views: Sequence[View]) -> dict[str, Any]:
    """Counts of one judge, with its own further ones."""
    return {**_counts(weight, views), **judge.facts}


def _counts(weight: float, views: Sequence[View]) -> dict[str, Any]:
    """Verdicts, the number and sum of a judge's scores, and the causes of unjudged completions."""
    scores = [view.score for view in views if view.score is not None]
    causes = Counter(view.reason for view in views if view.score is None)
    frequent = dict(causes.most_common(_CAUSES))
    remainder = sum(causes.values()) - sum(frequent.values())
    return {
        "weight": weight,
        "judged": len(scores),
        "sum": sum(scores),
        "verdicts": {verdict: sum(view.verdict == verdict for view in views) for verdict in VERDICTS},
        "unjudged": frequent | ({"other causes": remainder} if remainder else {}),
    }
