"""Registry of difficulties, and difficulties as columns of a table.

``score`` appends one float column per metric, named after it, and reports the number of samples that each could not
score; ``unscored_note`` explains them in one line. No row is dropped: a sample without a score has NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RecipeError
from ..options import option_names
from ..registry import Registry
from ..stage import Difficulty, Event, Events, ignore_events
from .python_source import is_python, parse, scored_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["DIFFICULTIES", "score", "unscored_note"]

DIFFICULTIES: Registry[Callable[..., Difficulty]] = Registry("difficulty", "difficulties")

EXAMINED = 1000
"""Number of samples without a score that are examined for the cause; further ones have the same causes."""


def score(
    samples: pa.Table,
    metrics: Sequence[str] | Mapping[str, Difficulty],
    *,
    workers: int = 1,
    events: Events = ignore_events,
) -> tuple[pa.Table, dict[str, Any]]:
    """The table with one float64 column per metric, and the facts about them.

    ``metrics``: names of registered difficulties (with their default options), or {column: difficulty}. A column
    of that name is replaced. Facts: {"rows": n, "metrics": {name: {"scored", "unscored", "least", "median",
    "most"}}}; the last three are None when nothing was scored; "causes" counts the causes of missing scores where a
    metric reports them. With ``workers`` > 1 a script needs the usual ``if __name__ == "__main__"``, since processes
    are spawned.

    Raises ``UnknownPart`` for a name that is not registered, ``RecipeError`` for a name that the table uses for
    other values, ``DataError`` when the table has no rows.
    """
    import numpy as np
    import pyarrow as pa

    difficulties = metrics if isinstance(metrics, Mapping) else _by_name(metrics)
    _check(samples, difficulties)
    facts: dict[str, Any] = {"rows": samples.num_rows, "metrics": {}}
    for name, difficulty in difficulties.items():
        events(Event("start", f"score {name}", 0, samples.num_rows))
        # Progress is optional in the contract of a difficulty.
        progress: dict[str, Any] = (
            {"events": _renamed(events, f"score {name}")} if "events" in option_names(difficulty) else {}
        )
        scores = difficulty(samples, workers=workers, **progress)
        if scores.shape != (samples.num_rows,):
            raise DataError(f"the difficulty {name!r} gave {scores.shape} scores for {samples.num_rows} samples")
        column = pa.array(scores.astype(np.float64, copy=False))
        if name in samples.column_names:
            samples = samples.set_column(samples.column_names.index(name), name, column)
        else:
            samples = samples.append_column(name, column)
        if note := unscored_note(name, difficulty, samples, scores, "are empty in its column"):
            events(Event("note", f"score {name}", text=note))
        facts["metrics"][name] = _facts(scores)
        if causes := getattr(difficulty, "causes", None):
            facts["metrics"][name]["causes"] = dict(sorted(causes.items()))
        events(Event("finish", f"score {name}", samples.num_rows, samples.num_rows))
    return samples, facts


def unscored_note(
    name: str, difficulty: Difficulty, samples: pa.Table, scores: np.ndarray[Any, np.dtype[np.float64]], effect: str
) -> str | None:
    """The number of samples without a score, the causes, the consequence (``effect``) and a remedy; None when all have
    one."""
    import numpy as np

    rows = np.flatnonzero(np.isnan(scores))
    if not rows.size:
        return None
    causes = getattr(difficulty, "causes", None) or _causes(name, difficulty, samples, rows)
    summary = ", ".join(f"{count:,} {cause}" for cause, count in sorted(causes.items(), key=lambda item: -item[1])[:4])
    static = "do not parse" in summary or "are in another language" in summary
    advice = "; try a metric that needs no Python program: size, compression, loss or given" if static else ""
    return f"{rows.size:,} of {len(scores):,} samples have no {name!r} and {effect}: {summary}{advice}"


def _causes(name: str, difficulty: Difficulty, samples: pa.Table, rows: np.ndarray[Any, Any]) -> Mapping[str, int]:
    """The causes that the samples' texts show; of many rows the first are examined, and the cause states how many."""
    if not getattr(difficulty, "reads_programs", False):
        return {"give no figure": len(rows)}
    examined = samples.take(rows[:EXAMINED])
    languages = examined["language"].to_pylist() if "language" in examined.column_names else [None] * examined.num_rows
    causes: Counter[str] = Counter()
    for prompt, answer, language in zip(
        examined["prompt"].to_pylist(), examined["answer"].to_pylist(), languages, strict=True
    ):
        if not is_python(language):
            causes[f"are in another language ({language})"] += 1
        elif parse(scored_text(prompt, answer, language)) is None:
            causes["do not parse as Python"] += 1
        else:
            causes["give no figure"] += 1
    if len(rows) <= EXAMINED:
        return causes
    return {f"{cause} (of the first {EXAMINED:,})": count for cause, count in causes.items()}


def _by_name(names: Sequence[str]) -> dict[str, Difficulty]:
    return {name: DIFFICULTIES.get(name, where="metric")() for name in names}


def _check(samples: pa.Table, difficulties: Mapping[str, Difficulty]) -> None:
    import pyarrow as pa

    occupied = [
        name
        for name in difficulties
        if name in samples.column_names and samples.schema.field(name).type != pa.float64()
    ]
    if occupied:
        raise RecipeError(
            f"the table has columns of that name for something else: {', '.join(occupied)}", where="metric"
        )
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing or not samples.num_rows:
        fault = f"the table has no column {missing[0]!r}" if missing else "the table has no samples"
        raise DataError(fault, where="score", given=f"{samples.num_rows} rows of {', '.join(samples.column_names)}")


def _renamed(events: Events, task: str) -> Events:
    return lambda event: events(Event(event.kind, task, event.done, event.total, event.text))


def _facts(scores: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    import numpy as np

    finite = scores[~np.isnan(scores)]
    low, median, high = (float(f(finite)) if finite.size else None for f in (np.min, np.median, np.max))
    return {
        "scored": int(finite.size),
        "unscored": int(scores.size - finite.size),
        "least": low,
        "median": median,
        "most": high,
    }
