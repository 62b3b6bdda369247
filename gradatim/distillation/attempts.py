"""What does the student answer, and what do the judges make of it?

``probe`` lets the student answer every question ``draws`` times, has every judge look at every attempt, and gives one
row per attempt: the question, what was written, the judges' scores, and the verdict, score and grade that ``combine``
makes of them. A grade belongs to the question and stands on all its rows.

An attempt that could not be made (the prompt is longer than the student's context, or has a character it does not
know) says nothing about what the student can do: it is unjudged, and no judge is asked. What is written hangs on the
seed and the question's place, not on the batch; questions of one id are asked once. Facts are counts, no shares.
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
from ..evaluation.samples import Sample
from ..sandbox.verdict import Outcome
from ..stage import Events, ignore_events
from ..table import SCHEMA
from .grades import GRADES, Grade, Thresholds, check_weights, combine, grades, mean_of, verdict_of
from .judge import Judge, NeedsStudent, View, unjudged

__all__ = ["FEEDBACK", "Probed", "probe"]


_ASKED = ("id", "prompt", "answer", "tests", "language", "level", "category")
FEEDBACK = pa.schema(
    [
        *(SCHEMA.field(name) for name in _ASKED),
        pa.field("attempt", pa.large_string(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("grade", pa.string(), nullable=False),
    ]
)
"""The columns of every feedback table, one row per attempt; one float column ``judge_NAME`` per judge follows.

``reason`` is the verdict's. Scores lie in [0, 1]; NaN is unjudged.
"""

NOT_ASKED = {
    "too_long": "the prompt is longer than the student's context",
    "unknown_character": "the prompt has a character that the student's tokenizer does not know",
}
VERDICTS: tuple[Outcome, ...] = ("passed", "failed", "timeout", "invalid", "unjudged")
_CAUSES = 8


@dataclass(frozen=True)
class Probed:
    """``table`` in ``FEEDBACK`` with one column per judge; ``facts`` are plain JSON.

    ``models`` holds what judges learnt on the way (``scoring.ScoringModel``), by judge.
    """

    table: pa.Table
    facts: dict[str, Any]
    models: Mapping[str, Any] = field(default_factory=dict)


def probe(
    student: Any,
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
) -> Probed:
    """Ask ``student`` (with ``model`` and ``tokenizer``) the questions of ``samples``; see the module.

    ``judges`` maps names to judges and weights. ``temperature`` 0 takes the likeliest token. ``new_tokens`` is the most
    tokens of an attempt, which is judged as it stands when it is cut there; when left out, those of the longest right
    answer and a few more. ``chat``, ``stop`` and ``batch`` as in ``evaluate.generation``; a student that was taught
    through its chat template is always asked through it. Raises ``DataError`` without questions, ``RecipeError`` for
    options that cannot work.
    """
    limits = thresholds or Thresholds()
    _check(judges, draws, temperature, new_tokens)
    asked = _questions(samples)
    weights = {name: weight for name, (_, weight) in judges.items()}
    told = {name: _known(judge, student, seed) for name, (judge, _) in judges.items()}
    how = Writing(new_tokens or _room(student, asked), temperature, chat or _taught_by_chat(student), seed, batch)
    written = _written(student, asked, draws, tuple(stop), how, events)
    rows = asked.take([number for number in range(asked.num_rows) for _ in range(draws)])
    views = {name: _views(judge, rows, written, events) for name, judge in told.items()}
    proves = {name: judge.proves for name, judge in told.items()}
    each = [{name: of[row] for name, of in views.items()} for row in range(rows.num_rows)]
    scores = [combine(view, weights) for view in each]
    verdicts = [verdict_of(view, weights, proves) for view in each]
    whole = [mean_of(scores[start : start + draws]) for start in range(0, len(scores), draws)]
    graded = grades(whole, easy=limits.easy, hard=limits.hard)
    table = _table(rows, written, verdicts, scores, graded, views)
    facts = {
        "questions": asked.num_rows,
        "duplicates": samples.num_rows - asked.num_rows,
        "draws": draws,
        "attempts": rows.num_rows,
        "thresholds": {"easy": limits.easy, "hard": limits.hard},
        **_composition(table, graded),
        "finish": dict(sorted(Counter(text.finish or "unknown" for text in written).items())),
        "judges": {name: _account(told[name], weights[name], views[name]) for name in told},
    }
    return Probed(table, facts, {name: found for name, judge in told.items() if (found := _learnt(judge)) is not None})


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
    """The samples' columns that feedback keeps, the first row of every id."""
    missing = [name for name in _ASKED if name not in samples.column_names]
    if missing:
        raise DataError(f"the questions have no column {missing[0]!r}", where="feedback", allowed=", ".join(_ASKED))
    first: dict[str, int] = {}
    for row, name in enumerate(samples.column("id").to_pylist()):
        first.setdefault(name, row)
    if not first:
        raise DataError("there are no questions to ask the student", where="feedback", hint="a table with rows")
    return samples.select(_ASKED).take(list(first.values()))


def _known(judge: Judge | NeedsStudent, student: Any, seed: int) -> Judge:
    return judge.by(student, seed=seed) if isinstance(judge, NeedsStudent) else judge


def _taught_by_chat(student: Any) -> bool:
    """Whether the student was taught through a chat template: it is asked as it was taught."""
    from ..model.prompt_format import prompt_format_of

    return prompt_format_of(student.tokenizer).template == "chat"


def _room(student: Any, asked: pa.Table) -> int:
    """Tokens for the longest right answer, its end, and a few more, so that a wrong one is seen to go on."""
    from ..model.vocabulary import Vocabulary

    vocabulary = Vocabulary(student.tokenizer)
    encoded = (vocabulary.encode(answer) for answer in asked.column("answer").to_pylist())
    return max((len(tokens) for tokens in encoded if tokens is not None), default=0) + 1 + MARGIN


def _written(
    student: Any, asked: pa.Table, draws: int, stop: tuple[str, ...], how: Writing, events: Events
) -> list[Sample]:
    """All attempts, those of a question beside each other."""
    questions = [
        Question(str(number), prompt, number, draw, stop)
        for number, prompt in enumerate(asked.column("prompt").to_pylist())
        for draw in range(draws)
    ]
    return [sample for some in write(student, questions, how, events) for sample in some]


def _views(judge: Judge, rows: pa.Table, written: Sequence[Sample], events: Events) -> list[View]:
    """One view per attempt; those that were not made are shown to no judge."""
    made = [row for row, text in enumerate(written) if text.finish not in NOT_ASKED]
    views = [unjudged(NOT_ASKED.get(text.finish, "")) for text in written]
    if made:
        found = judge(rows.take(made), [written[row].text for row in made], events=events)
        for row, view in zip(made, found, strict=True):
            views[row] = view
    return views


def _table(
    rows: pa.Table,
    written: Sequence[Sample],
    verdicts: Sequence[View],
    scores: Sequence[float | None],
    graded: Sequence[Grade],
    views: Mapping[str, Sequence[View]],
) -> pa.Table:
    draws = len(written) // len(graded)
    columns: dict[str, Any] = {
        "attempt": [text.text for text in written],
        "draw": [text.draw for text in written],
        "verdict": [view.verdict for view in verdicts],
        "reason": [view.reason for view in verdicts],
        "score": _floats(scores),
        "grade": [grade for grade in graded for _ in range(draws)],
    }
    arrays = [rows.column(name) for name in _ASKED]
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


def _account(judge: Judge, weight: float, views: Sequence[View]) -> dict[str, Any]:
    """What one judge said: its verdicts, the sum of its scores over those it could judge, and why it could not."""
    scores = [view.score for view in views if view.score is not None]
    causes = Counter(view.reason for view in views if view.score is None)
    kept = dict(causes.most_common(_CAUSES))
    others = sum(causes.values()) - sum(kept.values())
    return {
        "weight": weight,
        "judged": len(scores),
        "sum": sum(scores),
        "verdicts": {verdict: sum(view.verdict == verdict for view in views) for verdict in VERDICTS},
        "unjudged": kept | ({"other causes": others} if others else {}),
        **getattr(judge, "facts", {}),
    }


def _learnt(judge: Judge) -> Any:
    return getattr(judge, "model", None)
