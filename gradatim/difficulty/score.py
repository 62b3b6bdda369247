"""Registry of difficulties, and difficulties as columns of a table.

``score`` appends one float column per metric, named after it, and reports the number of samples that each could not
score; ``unscored_note`` explains them in one line. No row is dropped: a sample without a score has NaN.

``composite`` combines several metrics. arXiv 2407.10194 is reported to build its difficulty from length, control flow
and unfamiliarity, without published weights; the default is ``size``, ``cyclomatic`` and ``rarity`` with equal weights.
Each metric is first put on one scale over the scored table, ``z`` (mean 0, standard deviation 1) or ``rank`` (share of
the table that is easier, ties in the middle), then weighted and added. The score orders the samples of one table; it
does not compare tables.

A score that took a forward pass or a request is stored under the user's cache folder (``GRADATIM_CACHE``; see
``languages.toolchain``) and reused: a second scoring gives the same floats, bit for bit, and a killed one resumes where
it stopped. ``ScoreCache`` is a namespace of ``difficulty/scores.sqlite`` (``gradatim.store``): the key of the
request (BLAKE2b) and the score as a little-endian float64. Samples without a score are not stored, since finding
that out again costs nothing. The namespaces written longest ago are removed when the file grows large. Files
``difficulty/<identity>/<quantity>`` of earlier versions (records of key and score) are carried over at first use, then
removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isfunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

from pydantic import Field

from ..errors import DataError, RecipeError
from ..lazy import np, pa
from ..options import option_names, strict
from ..record import storage_errors
from ..registry import Contract, Registry
from ..stage import Difficulty, Event, Events, ignore_events
from ..store import Store
from ..table import take_rows
from .python_source import is_python, parse, scored_text

if TYPE_CHECKING:
    import numpy.typing as npt


DIFFICULTIES: Registry[Callable[..., Difficulty]] = Registry(
    "difficulty",
    "difficulties",
    contracts=(Contract(Difficulty, ("__call__",)),),
    arguments=("open_scorer", "open_chat"),
    adapt=lambda part: as_difficulty(part),
)

EXAMINED = 1000
"""Number of samples without a score that are examined for the cause; further ones have the same causes."""


ScoreFunction: TypeAlias = "Callable[..., npt.NDArray[np.float64]]"


@dataclass(frozen=True)
class FunctionDifficulty(Difficulty):
    """A function of a table as a difficulty; it receives ``workers`` and ``events`` if it has these parameters."""

    function: ScoreFunction

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per row, as returned by the function."""
        names = option_names(self.function)
        options = {"workers": workers, "events": events}
        return self.function(samples, **{name: value for name, value in options.items() if name in names})


def as_difficulty(part: Difficulty | ScoreFunction) -> Difficulty:
    """``part``, or the difficulty of a function. ``RecipeError`` for a function that does not take a table alone."""
    if not isfunction(part):
        return cast(Difficulty, part)
    try:
        names = set(option_names(part)) & {"workers", "events"}
        signature(part).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        raise RecipeError(
            "a difficulty is a function of the table of samples, with workers and events by keyword if it needs them",
            where=f"{part.__module__}.{part.__qualname__}",
            given=str(signature(part)),
            allowed="(samples, *, workers=1, events=…)",
        ) from error
    return FunctionDifficulty(part)


def score(
    samples: pa.Table,
    metrics: Sequence[str] | Mapping[str, Difficulty | ScoreFunction],
    *,
    workers: int = 1,
    events: Events = ignore_events,
) -> tuple[pa.Table, dict[str, Any]]:
    """The table with one float64 column per metric, and the facts about them.

    ``metrics``: names of registered difficulties (with their default options), or {column: difficulty}; a function of a
    table is a difficulty too (``FunctionDifficulty``). A column of that name is replaced. Facts: {"rows": n, "metrics":
    {name: {"scored", "unscored", "least", "median", "most"}}}; the last three are None when nothing was scored;
    "causes" counts the causes of missing scores where a metric reports them. With ``workers`` > 1 a script needs the
    usual ``if __name__ == "__main__"``, since processes are spawned.

    Raises ``UnknownPart`` for a name that is not registered, ``RecipeError`` for a name that the table uses for
    other values, ``DataError`` when the table has no rows.
    """
    given = metrics if isinstance(metrics, Mapping) else _by_name(metrics)
    difficulties = {name: as_difficulty(part) for name, part in given.items()}
    for name, difficulty in difficulties.items():
        DIFFICULTIES.check_result(name, difficulty, "metric")
    _check(samples, difficulties)
    facts: dict[str, Any] = {"rows": samples.num_rows, "metrics": {}}
    for name, difficulty in difficulties.items():
        events(Event("start", f"score {name}", 0, samples.num_rows))
        scores = scores_of(name, difficulty, samples, workers=workers, events=_renamed(events, f"score {name}"))
        column = pa.array(scores)
        if name in samples.column_names:
            samples = samples.set_column(samples.column_names.index(name), name, column)
        else:
            samples = samples.append_column(name, column)
        if note := unscored_note(name, difficulty, samples, scores, "are empty in its column"):
            events(Event("note", f"score {name}", text=note))
        facts["metrics"][name] = _facts(scores)
        if difficulty.causes:
            facts["metrics"][name]["causes"] = dict(sorted(difficulty.causes.items()))
        events(Event("finish", f"score {name}", samples.num_rows, samples.num_rows))
    return samples, facts


def scores_of(
    name: str, difficulty: Difficulty, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
) -> npt.NDArray[np.float64]:
    """The scores of ``difficulty`` as float64; ``DataError`` unless they are one number per sample."""
    scores = difficulty(samples, workers=workers, events=events)
    numbers = isinstance(scores, np.ndarray) and scores.dtype.kind in "fiu"
    if not numbers or scores.shape != (samples.num_rows,):
        shown = f"an array of {scores.dtype}, shape {scores.shape}" if isinstance(scores, np.ndarray) else type(scores)
        raise DataError(
            f"the difficulty {name!r} returned no score for each sample",
            where="score",
            given=shown,
            allowed=f"a numpy array of {samples.num_rows} numbers, NaN for a sample without a score",
        )
    return scores.astype(np.float64, copy=False)


def unscored_note(
    name: str, difficulty: Difficulty, samples: pa.Table, scores: np.ndarray[Any, np.dtype[np.float64]], effect: str
) -> str | None:
    """The number of samples without a score, the causes, the consequence (``effect``) and a remedy; None when all have
    one."""
    rows = np.flatnonzero(np.isnan(scores))
    if not rows.size:
        return None
    causes = difficulty.causes or _causes(name, difficulty, samples, rows)
    summary = ", ".join(f"{count:,} {cause}" for cause, count in sorted(causes.items(), key=lambda item: -item[1])[:4])
    static = "do not parse" in summary or "are in another language" in summary
    advice = "; try a metric that needs no Python program: size, compression, loss or column" if static else ""
    return f"{rows.size:,} of {len(scores):,} samples have no {name!r} and {effect}: {summary}{advice}"


def _causes(name: str, difficulty: Difficulty, samples: pa.Table, rows: np.ndarray[Any, Any]) -> Mapping[str, int]:
    """The causes that the samples' texts show; of many rows the first are examined, and the cause states how many."""
    if not difficulty.reads_programs:
        return {"give no figure": len(rows)}
    examined = take_rows(samples, rows[:EXAMINED])
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
    return {name: DIFFICULTIES.make(name, where="metric", options={}) for name in names}


def _check(samples: pa.Table, difficulties: Mapping[str, Difficulty]) -> None:
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
    finite = scores[~np.isnan(scores)]
    low, median, high = (float(f(finite)) if finite.size else None for f in (np.min, np.median, np.max))
    return {
        "scored": int(finite.size),
        "unscored": int(scores.size - finite.size),
        "least": low,
        "median": median,
        "most": high,
    }


Scale = Literal["z", "rank"]
EQUAL_WEIGHTS = {"size": 1.0, "cyclomatic": 1.0, "rarity": 1.0}


@dataclass(frozen=True)
class Composite(Difficulty):
    """The weighted mean of other difficulties, each put on ``scale`` first."""

    metrics: tuple[tuple[float, Difficulty], ...]
    scale: Scale

    @property
    def reads_programs(self) -> bool:
        """Whether one of the metrics reads programs."""
        return any(metric.reads_programs for _, metric in self.metrics)

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        total = sum(weight for weight, _ in self.metrics)
        scores = np.zeros(samples.num_rows)
        for weight, metric in self.metrics:
            scores += weight / total * standardised(metric(samples, workers=workers), self.scale)
        return scores


def standardised(scores: npt.NDArray[np.float64], scale: Scale) -> npt.NDArray[np.float64]:
    """``scores`` on a common scale. NaN is ignored and stays NaN; if all scores are equal, each becomes the middle."""
    valid = scores[~np.isnan(scores)]
    if not valid.size:
        return scores
    if scale == "z":
        spread = float(valid.std())
        return (scores - float(valid.mean())) / (spread if spread > 0 else 1.0)
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / valid.size
    return np.where(np.isnan(scores), np.nan, middle[rank])


@strict("the difficulty 'composite'")
def composite(
    *,
    weights: Annotated[
        Mapping[str, float] | None,
        Field(description="{metric: positive weight}. Default: size, cyclomatic and rarity with equal weights."),
    ] = None,
    scale: Annotated[Scale, Field(description="Normalization of each metric: `z` (standard score) or `rank`.")] = "z",
) -> Composite:
    """Length, control flow and unfamiliarity (or any metrics, by name) weighted into one score.

    A sample without a score by one of the metrics has no score.
    """
    metrics = dict(EQUAL_WEIGHTS if weights is None else weights)
    if not metrics or not all(0 < weight < math.inf for weight in metrics.values()) or "composite" in metrics:
        raise RecipeError(
            "the weights do not make a composite",
            where="composite.weights",
            given=metrics,
            allowed="positive weights of metrics other than 'composite'",
        )
    where = "composite.weights"
    return Composite(
        tuple((weight, DIFFICULTIES.make(name, where=where, options={})) for name, weight in metrics.items()), scale
    )


KEY_BYTES = 16
RECORD_BYTES = KEY_BYTES + 8
MOST_BYTES = 1 << 30
HINT = "a writable folder with free space as the cache: export GRADATIM_CACHE=FOLDER"
_FLOAT = struct.Struct("<d")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_CONFIGURATION = (
    "added_tokens.json",
    "adapter_config.json",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_MORE_TEMPLATES = "additional_chat_templates"
FORM = "1"
"""Part of every identity; a change of the meaning or the computation of a quantity takes a new value."""


def key_of(*texts: str) -> bytes:
    """The key of a request by its texts. The ``id`` of a sample is no key: two answers to one prompt share it."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps "ab", "c" apart from "a", "bc"
    return digest.digest()


def digest_of(path: Path, *, template: bool = False) -> str:
    """A digest of a model's folder, or of its file: weights, configuration and tokenizer, and the chat ``template``.

    Files are read once per process and state; other files of the folder (a card, an optimizer) do not count. Raises
    ``DataError`` when the path does not exist.
    """
    if not path.exists():
        raise DataError("there is no such model folder", where=path)
    names = (*_CONFIGURATION, *(_TEMPLATES if template else ()))
    digest = hashlib.sha256()
    templates = sorted((path / _MORE_TEMPLATES).glob("*")) if template else []
    for file in [path] if path.is_file() else [*sorted(path.iterdir()), *templates]:
        if file.is_file() and (file.name in names or file.suffix in _WEIGHTS or file in templates):
            state = file.stat()
            digest.update(f"{file.name}\0{_file_digest(file, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file; computed again when its size or its time of change differs."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ScoreCache:
    """The stored scores of one ``quantity`` from one ``identity`` (a model, a teacher with its prompt)."""

    def __init__(self, identity: str, quantity: str) -> None:
        from ..languages.toolchain import cache_folder  # here, so that a plan loads no languages

        folder, digest = cache_folder() / "difficulty", hashlib.sha256(f"{FORM}\0{identity}".encode()).hexdigest()
        self._namespace = f"{digest[:32]}/{quantity}"
        self._earlier = folder / self._namespace
        # A lost score is computed again, so a transaction need not wait for the disk.
        self._store = Store(folder / "scores.sqlite", durable=False, hint=HINT)
        self._is_pruned = False

    def scores(self) -> dict[bytes, float]:
        """All stored scores by key."""
        self._carry_over()
        return {key: float(_FLOAT.unpack(value)[0]) for key, value in self._store.items(self._namespace).items()}

    def add(self, scores: Mapping[bytes, float]) -> None:
        """Store ``scores``. Raises ``StorageFailed`` when the disk is full or not writable."""
        self._store.put(self._namespace, {key: _FLOAT.pack(score) for key, score in scores.items()})
        if not self._is_pruned:
            from ..languages.toolchain import KEPT_SECONDS

            self._store.prune(MOST_BYTES, KEPT_SECONDS)
            self._is_pruned = True

    def _carry_over(self) -> None:
        """Move the records of an earlier version to the store. A record that a killed process left torn is dropped."""
        try:
            data = self._earlier.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return
        starts = range(0, len(data) // RECORD_BYTES * RECORD_BYTES, RECORD_BYTES)
        records = {data[start : start + KEY_BYTES]: data[start + KEY_BYTES : start + RECORD_BYTES] for start in starts}
        self._store.put(self._namespace, records, replace=False)
        with storage_errors(self._earlier):
            self._earlier.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder holds other quantities
                self._earlier.parent.rmdir()
