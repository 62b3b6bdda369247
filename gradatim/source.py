"""Where do the samples of a cycle come from?

``SOURCES`` holds the answers by name. A source has one method, ``draw(cycle, feedback)``, which gives the same
table for the same arguments, and ``facts``: plain counts, filled by the last ``draw``, of what was kept and what
was dropped and why. ``file`` reads people's own data; ``tinypy`` writes programs of the TinyPy grammar; neither looks
at the feedback. ``taught`` does: a teacher writes its questions (``update``). What a source gives is not yet scored,
split or ordered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .distillation.question_options import RATIO, QuestionOptions
from .errors import DataError
from .options import strict
from .origin import fingerprint, place_of, stamps
from .registry import Registry
from .stage import Events, Feedback, Source, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

    from .table import ReadReport

__all__ = ["SOURCES", "FileSource", "TaughtSource", "TinypySource", "cycle_seed"]

SOURCES: Registry[Any] = Registry("source")


def cycle_seed(seed: int, cycle: int) -> int:
    """The seed of one cycle's data: ``seed`` itself for the first, so that `gradatim generate` gives the same."""
    if cycle == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{cycle}".encode(), digest_size=7).digest(), "little")


@dataclass(frozen=True)
class FileSource:
    """The samples of a file or dataset, the same in every cycle. ``report`` names each row that was not used.

    ``origin``: the fingerprint of the file as the last ``draw`` read it.
    """

    rereads: ClassVar[bool] = True
    """Every cycle reads the file anew, so that it must not change between them."""

    path: str
    columns: Mapping[str, str] | None = None
    format: str | None = None
    language: str | None = None
    duplicates: Literal["keep", "text", "id"] = "keep"
    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    origin: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def report(self) -> ReadReport:
        """The report on the rows, empty before the first ``draw``. Made at first use: a plan reads no table."""
        from .table import ReadReport

        return ReadReport()

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """Read the file; see ``table.stream_table`` for the formats and the errors."""
        from .table import ReadReport, dedupe, read_table

        report, before = ReadReport(), stamps(self.path)
        table = read_table(self.path, columns=self.columns, format=self.format, language=self.language, report=report)
        self.origin.update(fingerprint(self.path))
        if stamps(self.path) != before:
            raise DataError("the file was changed while it was read", where=self.path, hint="the same command again")
        unique = dedupe(table, self.duplicates) if self.duplicates != "keep" else None
        self.report.__dict__.update(vars(report))
        self.facts.update({**report.facts, "duplicates": unique.dropped if unique else 0})
        return unique.table if unique else table


@dataclass(frozen=True)
class TinypySource:
    """Programs of the TinyPy grammar with what they print; another set of them in each cycle."""

    count: int
    levels: str | float | Sequence[str | float] = ("all",)
    digits: int = 9
    seed: int = 0
    dedupe: bool = True
    workers: int = field(default=1, compare=False)
    events: Events = field(default=ignore_events, compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """Write the programs; ``DataError`` when a level has fewer distinct ones than asked for."""
        from .programs import generate

        made = generate(
            self.count,
            levels=_level_names(self.levels),
            digits=self.digits,
            seed=cycle_seed(self.seed, cycle),
            dedupe=self.dedupe,
            workers=self.workers,
            events=self.events,
        )
        facts = made.facts
        self.facts.update(
            asked=facts.asked,
            kept=facts.kept,
            duplicates=facts.duplicates,
            dropped=facts.dropped,
            levels={name: {**asdict(level), "dropped": dict(level.dropped)} for name, level in facts.levels.items()},
        )
        return made.table


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
    """Levels as names: YAML reads an unquoted 1.1 as a number."""
    several = (levels,) if isinstance(levels, str | float | int) else levels
    return tuple(map(str, several))


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
    """``path``, or the file of this name that ships beside the recipes, such as ``distill/seeds.jsonl``."""
    own = Path(__file__).parent / "recipes" / path
    return str(own) if not Path(path).exists() and own.is_file() else str(path)


def _check_exists(path: str) -> None:
    """Raise the reader's ``DataError`` for a missing file; the content is not read."""
    if not path.startswith("hub:") and place_of(path) is None:
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
        _check_exists(seed_file.path)
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
