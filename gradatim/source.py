"""Sources of samples, by name in ``SOURCES``.

A source has a deterministic method ``draw(cycle, feedback)`` that returns a table, not yet scored, split or ordered,
and ``facts``: counts of the rows kept and dropped, with causes, filled by the last ``draw``. ``file`` reads the user's
data and ``tinypy`` generates programs of the TinyPy grammar, both independent of the feedback; for ``taught`` a teacher
writes new questions from the feedback (``distillation``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from . import programs, table
from .distillation.question_options import RATIO, QuestionOptions
from .errors import DataError
from .options import strict
from .origin import fingerprint, local_path, stamps
from .registry import Registry
from .stage import Events, Feedback, Source, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

    from .table import ReadReport

__all__ = ["SOURCES", "FileSource", "TaughtSource", "TinypySource", "check_exists", "cycle_seed"]

SOURCES: Registry[Any] = Registry("source")


def cycle_seed(seed: int, cycle: int) -> int:
    """Seed of a cycle's data: ``seed`` itself for the first, as in `gradatim generate`."""
    if cycle == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{cycle}".encode(), digest_size=7).digest(), "little")


@dataclass(frozen=True)
class FileSource:
    """Samples of a file or dataset, the same in every cycle. ``report``: the rows that are not used.

    ``origin``: fingerprint of the file at the last ``draw``.
    """

    rereads: ClassVar[bool] = True
    """Each cycle reads the file again, so that it must not change in between."""

    path: str
    columns: Mapping[str, str] | None = None
    format: str | None = None
    language: str | None = None
    duplicates: Literal["keep", "text", "id"] = "keep"
    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    origin: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def report(self) -> ReadReport:
        """Report on the rows, empty before the first ``draw``; created at first use, since a plan reads no table."""
        return table.ReadReport()

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """Read the file; formats and errors as in ``table.stream_table``."""
        report, before = table.ReadReport(), stamps(self.path)
        samples = table.read_table(
            self.path, columns=self.columns, format=self.format, language=self.language, report=report
        )
        self.origin.update(fingerprint(self.path))
        if stamps(self.path) != before:
            raise DataError(
                "the file changed while it was being read", where=self.path, hint="run the same command again"
            )
        unique = table.dedupe(samples, self.duplicates) if self.duplicates != "keep" else None
        self.report.__dict__.update(vars(report))
        self.facts.update({**report.facts, "duplicates": unique.dropped if unique else 0})
        return unique.table if unique else samples


@dataclass(frozen=True)
class TinypySource:
    """Programs of the TinyPy grammar with their output, a new set in each cycle."""

    count: int
    levels: str | float | Sequence[str | float] = ("all",)
    digits: int = 9
    seed: int = 0
    dedupe: bool = True
    workers: int = field(default=1, compare=False)
    events: Events = field(default=ignore_events, compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """Generate the programs; ``DataError`` when a level has fewer distinct programs than requested."""
        generated = programs.generate(
            self.count,
            levels=_level_names(self.levels),
            digits=self.digits,
            seed=cycle_seed(self.seed, cycle),
            dedupe=self.dedupe,
            workers=self.workers,
            events=self.events,
        )
        facts = generated.facts
        self.facts.update(
            asked=facts.asked,
            kept=facts.kept,
            duplicates=facts.duplicates,
            dropped=facts.dropped,
            levels={name: {**asdict(level), "dropped": dict(level.dropped)} for name, level in facts.levels.items()},
        )
        return generated.table


@dataclass(frozen=True)
class TaughtSource(QuestionOptions):
    """Questions and answers of a teacher; new questions in later cycles follow the student's mistakes.

    ``facts`` of the last ``draw``: see ``distillation.questions.QuestionDraw``.
    """

    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """The samples of a cycle; the errors are those of ``QuestionDraw.table``."""
        from .distillation.questions import QuestionDraw

        return QuestionDraw(self, cycle, self.facts).table(feedback)


def _level_names(levels: str | float | Sequence[str | float]) -> tuple[str, ...]:
    """Levels as names, since YAML reads an unquoted 1.1 as a number."""
    return tuple(map(str, (levels,) if isinstance(levels, str | float | int) else levels))


@SOURCES.register("file")
@strict("source 'file'")
def file(
    *,
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    language: str | None = None,
    duplicates: Literal["keep", "text", "id"] = "keep",
) -> Source:
    """Your own data: .parquet, .jsonl, .csv, .txt, or a dataset, with a column mapping (ours: theirs)"""
    return FileSource(str(path), columns, format, language, duplicates)


@SOURCES.register("tinypy")
@strict("source 'tinypy'")
def tinypy(
    *,
    count: int,
    levels: str | float | Sequence[str | float] = ("all",),
    digits: int = 9,
    seed: int = 0,
    dedupe: bool = True,
    workers: int = 1,
    events: Events = ignore_events,
) -> Source:
    """Random small Python programs of seven levels, followed by what they print"""
    return TinypySource(count, levels, digits, seed, dedupe, workers, events)


def _shipped(path: str | Path) -> str:
    """``path``, or the file of this name beside the shipped recipes, such as ``distill/seeds.jsonl``."""
    shipped = Path(__file__).parent / "recipes" / path
    return str(shipped) if not Path(path).exists() and shipped.is_file() else str(path)


def check_exists(path: str) -> None:
    """Raise the reader's ``DataError`` for a missing file; the content is not read."""
    if not path.startswith("hub:") and local_path(path) is None:
        from .table.formats import format_of

        format_of(path)


@SOURCES.register("taught")
@strict("source 'taught'")
def taught(
    *,
    count: int,
    new: int | None = None,
    seeds: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    language: str | None = None,
    ratio: dict[str, float] | None = None,
    grade: Literal["feedback", "random"] = "feedback",
    rounds: int = 3,
    accumulate: bool = True,
    limit: float = 0.7,
    teacher: Any,
    evaluation: Any = (),
    right: Any = None,
    seed: int = 0,
    events: Events = ignore_events,
) -> Source:
    """Questions of a teacher: seeds first, then new ones from what the student gets wrong"""
    seed_file = FileSource(_shipped(seeds), columns, None, language) if seeds is not None else None
    if seed_file is not None:
        check_exists(seed_file.path)
    return TaughtSource(
        teacher,
        count,
        new,
        seed=seed,
        seed_file=seed_file,
        ratio=RATIO if ratio is None else ratio,
        grade=grade,
        rounds=rounds,
        accumulate=accumulate,
        limit=limit,
        evaluation=evaluation() if callable(evaluation) else evaluation,
        right=right,
        events=events,
    )
