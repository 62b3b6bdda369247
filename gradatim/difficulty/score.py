"""How do metrics become columns of a table?

``score`` appends one float column per metric, named after it, and says how many samples each could not score;
``unscored_note`` says why, in one line for people. Nothing is dropped here: an unscored sample keeps its row, with NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RecipeError
from ..options import option_names
from ..stage import Difficulty, Event, Events, ignore_events

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["score", "unscored_note"]

EXAMINED = 1000
"""Samples without a score that are looked at for the cause; more of them have the same causes."""


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
    "most"}}}; the last three are None when nothing was scored; "causes" counts why samples have no score where a metric
    can tell. With ``workers`` > 1 a script needs the usual
    ``if __name__ == "__main__"``, since processes are spawned.

    Raises ``UnknownPart`` for a name that is not registered, ``RecipeError`` for a name that the table uses for
    something else, ``DataError`` when the table has no rows.
    """
    import numpy as np
    import pyarrow as pa

    parts = metrics if isinstance(metrics, Mapping) else _by_name(metrics)
    _check(samples, parts)
    facts: dict[str, Any] = {"rows": samples.num_rows, "metrics": {}}
    for name, part in parts.items():
        events(Event("start", f"score {name}", 0, samples.num_rows))
        # Only some parts can tell how far they are; the contract does not ask it of others.
        told: dict[str, Any] = {"events": _renamed(events, f"score {name}")} if "events" in option_names(part) else {}
        scores = part(samples, workers=workers, **told)
        if scores.shape != (samples.num_rows,):
            raise DataError(f"the difficulty {name!r} gave {scores.shape} scores for {samples.num_rows} samples")
        column = pa.array(scores.astype(np.float64, copy=False))
        if name in samples.column_names:
            samples = samples.set_column(samples.column_names.index(name), name, column)
        else:
            samples = samples.append_column(name, column)
        if note := unscored_note(name, part, samples, scores, "are empty in its column"):
            events(Event("note", f"score {name}", text=note))
        facts["metrics"][name] = _facts(scores)
        if causes := getattr(part, "causes", None):
            facts["metrics"][name]["causes"] = dict(sorted(causes.items()))
        events(Event("finish", f"score {name}", samples.num_rows, samples.num_rows))
    return samples, facts


def unscored_note(
    name: str, part: Difficulty, samples: pa.Table, scores: np.ndarray[Any, np.dtype[np.float64]], effect: str
) -> str | None:
    """How many samples have no score, why, what that means for them (``effect``) and what to try; None when all have
    one."""
    import numpy as np

    rows = np.flatnonzero(np.isnan(scores))
    if not rows.size:
        return None
    causes = getattr(part, "causes", None) or _causes(name, part, samples, rows)
    told = ", ".join(f"{count:,} {cause}" for cause, count in sorted(causes.items(), key=lambda each: -each[1])[:4])
    static = "do not parse" in told or "are in another language" in told
    advice = "; try a metric that needs no Python program: size, compression, loss or given" if static else ""
    return f"{rows.size:,} of {len(scores):,} samples have no {name!r} and {effect}: {told}{advice}"


def _causes(name: str, part: Difficulty, samples: pa.Table, rows: np.ndarray[Any, Any]) -> Mapping[str, int]:
    """The causes that the samples' texts show; of many rows a part is looked at, and the cause says of how many."""
    from .python_source import is_python, parse, scored_text

    if not getattr(part, "reads_programs", False):
        return {"give no figure": len(rows)}
    some = samples.take(rows[:EXAMINED])
    languages = some["language"].to_pylist() if "language" in some.column_names else [None] * some.num_rows
    causes: Counter[str] = Counter()
    for prompt, answer, language in zip(some["prompt"].to_pylist(), some["answer"].to_pylist(), languages, strict=True):
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
    from . import DIFFICULTIES  # here, because the registry's module offers this function

    return {name: DIFFICULTIES.get(name, where="metric")() for name in names}


def _check(samples: pa.Table, parts: Mapping[str, Difficulty]) -> None:
    import pyarrow as pa

    taken = [name for name in parts if name in samples.column_names and samples.schema.field(name).type != pa.float64()]
    if taken:
        raise RecipeError(f"the table has columns of that name for something else: {', '.join(taken)}", where="metric")
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing or not samples.num_rows:
        what = f"the table has no column {missing[0]!r}" if missing else "the table has no samples"
        raise DataError(what, where="score", given=f"{samples.num_rows} rows of {', '.join(samples.column_names)}")


def _renamed(events: Events, task: str) -> Events:
    return lambda event: events(Event(event.kind, task, event.done, event.total, event.text))


def _facts(scores: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    import numpy as np

    known = scores[~np.isnan(scores)]
    least, median, most = (float(f(known)) if known.size else None for f in (np.min, np.median, np.max))
    return {
        "scored": int(known.size),
        "unscored": int(scores.size - known.size),
        "least": least,
        "median": median,
        "most": most,
    }
