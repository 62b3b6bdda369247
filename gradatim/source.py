"""Sources of samples, by name in ``SOURCES``, and fingerprints of data files.

A source has a deterministic method ``draw(cycle, feedback)`` that returns a ``stage.Drawn``: a table, not yet scored,
split or ordered, with the counts of the rows kept and dropped. ``file`` reads the user's data and ``tinypy`` generates
programs of the TinyPy grammar, both independent of the feedback; for ``taught`` a teacher writes new questions from the
feedback (``distillation``).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from . import programs, table
from .distillation.question_options import LATER_OPTIONS, RATIO, QuestionOptions
from .errors import DataError
from .files import is_hub, parquet_files
from .options import strict
from .programs.scratchpad import Scratchpad
from .random_streams import cycle_seed
from .record import read_json
from .registry import Contract, Registry
from .stage import CyclePlan, Drawn, Event, Events, Feedback, Source, ignore_events

SETTLED = 2.0

Columns = Annotated[
    Mapping[str, str] | None,
    Field(
        description="Column mapping {name here: name in the file}, such as `{prompt: instruction, answer: "
        "output}`, or `{messages: dialog}` for conversations. `answer` alone is code to complete; `system` and "
        "`history` precede the prompt. Same as `--columns` of `gradatim score`."
    ),
]
SampleLanguage = Annotated[str | None, Field(description="Programming language of samples that have none.")]


def local_path(path: str) -> Path | None:
    """The local file or folder of ``path``, without a split; None when there is none."""
    if is_hub(path):
        return None
    local = Path(path if Path(path).exists() else path.partition("#")[0])
    return local if local.exists() else None


def fingerprint(path: str) -> dict[str, Any]:
    """Path, bytes, SHA-256 and stamps (``stamps``) of a data file; empty unless it is on this disk.

    A fingerprint is the SHA-256 of the content; for a folder of Parquet files or one saved by ``datasets``, of the
    names and contents of its files. Sizes and times are compared first, so that an unchanged large file is not read
    again. Times are not stored for a file written less than ``SETTLED`` seconds ago, since a second write within the
    clock's resolution would go unnoticed. Datasets on the hub have no fingerprint.
    """
    local = local_path(path)
    if local is None:
        return {}
    files = _files(local)
    digest = hashlib.sha256()
    for file in files:
        if local.is_dir():
            digest.update(f"{file.relative_to(local).as_posix()}\0".encode("utf-8", "surrogateescape"))
        digest.update(_digest(file))
    file_stamps = stamps(path)
    newest = max((time_ns for stamp in file_stamps for time_ns in stamp[1:]), default=0)
    return {
        "path": path,
        "bytes": sum(size for size, _, _ in file_stamps),
        "sha256": digest.hexdigest(),
        "stamps": file_stamps if newest < (time.time() - SETTLED) * 1e9 else None,
    }


def is_unchanged(origin: Mapping[str, Any], path: str) -> bool:
    """Whether the file still has the fingerprint ``origin``."""
    stored = origin.get("stamps")
    if stored is not None and [tuple(stamp) for stamp in stored] == stamps(path):
        return True
    return bool(fingerprint(path).get("sha256") == origin.get("sha256"))


def stamps(path: str) -> list[tuple[int, int, int]]:
    """Size, modification time and status-change time (nanoseconds) of each file."""
    local = local_path(path)
    stats = [file.stat() for file in _files(local)] if local is not None else []
    return [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def _files(local: Path) -> list[Path]:
    """``local`` itself, or of a folder the Parquet files, or the Arrow files without the caches of ``datasets``."""
    if not local.is_dir():
        return [local]
    if files := parquet_files(local):
        return files
    return sorted(file for file in local.rglob("*.arrow") if not file.name.startswith(("cache-", "tmp", ".")))


def _digest(file: Path) -> bytes:
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        raise DataError("the file cannot be read", where=file, given=error.strerror or error) from error


ORIGIN = "origin.json"

OnChange = Literal["refuse", "keep"]


def check_origin(corpus: Path, path: str | None, on_change: OnChange, events: Events) -> None:
    """Compare the data file at ``path`` with the fingerprint in ``corpus``.

    ``DataError`` for a changed file when ``on_change`` is ``refuse``, otherwise a note.

    A corpus has the fingerprint of its data file in ``origin.json``. A resumed run uses the stored samples; a
    changed file is an error unless the recipe sets ``data.on_change: keep``. Corpora of earlier versions have no
    fingerprint; for these a file newer than the samples causes only a note.
    """
    if path is None or is_hub(path):
        return
    if local_path(path) is None:
        _note(events, f"{path} no longer exists: its samples in {corpus} are used")
    elif (corpus / ORIGIN).exists():
        origin = read_json(corpus / ORIGIN)
        if is_unchanged(origin, path):
            return
        if on_change == "refuse":
            raise _changed(path, origin, corpus)
        _note(events, f"{path} has been changed since its samples were read: the old samples are used")
    elif max((modified for _, modified, _ in stamps(path)), default=0) > (corpus / "facts.json").stat().st_mtime_ns:
        _note(events, f"{path} is newer than its samples in {corpus}, which have no digest: they may be out of date")


def check_reread(first: Path, origin: Mapping[str, Any]) -> None:
    """Raise ``DataError`` when a later cycle has read other data than the first corpus, in the folder ``first``.

    ``on_change`` does not apply: each cycle reads its samples from the file.
    """
    expected = read_json(first / ORIGIN) if origin and (first / ORIGIN).exists() else None
    if expected is not None and expected["sha256"] != origin["sha256"]:
        raise DataError(
            "the data file has been changed since the first cycle read it",
            where=origin["path"],
            given=_summary(origin),
            allowed=_summary(expected),
            hint="the original file, or a new run with another --out",
        )


def _changed(path: str, origin: Mapping[str, Any], corpus: Path) -> DataError:
    return DataError(
        "the data file has been changed since the run's samples were read from it",
        where=path,
        given=_summary(fingerprint(path)),
        allowed=f"{_summary(origin)}, as in {corpus}",
        hint="another --out for the changed data, or --set data.on_change=keep to continue with the old samples",
    )


def _summary(origin: Mapping[str, Any]) -> str:
    return f"{origin['bytes']:,} bytes, SHA-256 {origin['sha256'][:12]}…"


def _note(events: Events, text: str) -> None:
    events(Event("note", "data", text=text))


SOURCES: Registry[Callable[..., Source]] = Registry("source", contracts=(Contract(Source, ("draw",)),), arguments=0)


@dataclass(frozen=True)
class FileSource(Source):
    """Samples of a file or dataset, the same in every cycle."""

    changes = False
    rereads = True

    path: str
    columns: Mapping[str, str] | None = None
    format: str | None = None
    language: str | None = None
    duplicates: Literal["keep", "text", "id"] = "keep"

    @property
    def has_rejected(self) -> bool:
        """True: the data may have a column ``rejected``; the file is not read for this."""
        return True

    @property
    def data_file(self) -> str:
        """The path."""
        return self.path

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """Read the file; formats and errors as in ``table.stream_table``."""
        report, before = table.ReadReport(), stamps(self.path)
        samples = table.read_table(
            self.path, columns=self.columns, format=self.format, language=self.language, report=report
        )
        origin = fingerprint(self.path)
        if stamps(self.path) != before:
            raise DataError(
                "the file changed while it was being read", where=self.path, hint="run the same command again"
            )
        unique = table.dedupe(samples, self.duplicates) if self.duplicates != "keep" else None
        if unique is not None:
            report.left_out, report.repeated = unique.dropped, 0
        facts = {**report.facts, "duplicates": unique.dropped if unique else 0}
        return Drawn(unique.table if unique else samples, facts, report, origin)


@dataclass(frozen=True)
class TinypySource(Source):
    """Programs of the TinyPy grammar with their output, a new set in each cycle."""

    count: int
    levels: str | float | Sequence[str | float] = ("all",)
    digits: int = 9
    seed: int = 0
    dedupe: bool = True
    scratchpad: Scratchpad = False
    workers: int = field(default=1, compare=False)
    events: Events = field(default=ignore_events, compare=False, repr=False)

    def plan(self, cycle: int) -> CyclePlan:
        """``count`` programs in the first cycle; the training samples of the same number later."""
        return CyclePlan(self.count if cycle == 0 else None)

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """Generate the programs; ``DataError`` when a level has fewer distinct programs than requested."""
        generated = programs.generate(
            self.count,
            levels=_level_names(self.levels),
            digits=self.digits,
            seed=cycle_seed(self.seed, cycle),
            dedupe=self.dedupe,
            scratchpad=self.scratchpad,
            workers=self.workers,
            events=self.events,
        )
        facts = generated.facts
        levels = {name: {**asdict(level), "dropped": dict(level.dropped)} for name, level in facts.levels.items()}
        counts = {"asked": facts.asked, "kept": facts.kept, "duplicates": facts.duplicates, "dropped": facts.dropped}
        return Drawn(generated.table, {**counts, "levels": levels})


@dataclass(frozen=True)
class TaughtSource(QuestionOptions, Source):
    """Questions and answers of a teacher; new questions in later cycles follow the student's mistakes."""

    needs_teacher = True
    later_options = LATER_OPTIONS

    @property
    def has_rejected(self) -> bool:
        """Whether there are seeds, which may have rejected answers."""
        return self.seeds is not None or self.seed_file is not None

    @property
    def data_file(self) -> str | None:
        """Path of the seed file, None without one; the file is not read for it."""
        return None if self.seed_file is None else self.seed_file.data_file

    def plan(self, cycle: int) -> CyclePlan:
        """The questions if every request for one succeeds."""
        return self.cycle_plan(cycle)

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """The samples of a cycle; facts and errors are those of ``distillation.questions.QuestionDraw``."""
        from .distillation.questions import QuestionDraw

        return QuestionDraw(self, cycle).drawn(feedback)


def _level_names(levels: str | float | Sequence[str | float]) -> tuple[str, ...]:
    """Levels as names, since YAML reads an unquoted 1.1 as a number."""
    return tuple(map(str, (levels,) if isinstance(levels, str | float | int) else levels))


@SOURCES.register("file")
@strict("source 'file'")
def file(
    *,
    path: Annotated[
        str | Path,
        Field(
            description="Data file (.parquet, .jsonl, .json, .csv, .txt), a folder of Parquet files, `FOLDER#SPLIT` "
            "saved by `datasets`, `hub:NAME:CONFIG#SPLIT`, or `hub-stream:NAME:CONFIG#SPLIT` (streamed, not cached)."
        ),
    ],
    columns: Columns = None,
    format: Annotated[
        str | None,
        Field(
            description="File format, where the suffix does not determine it: `parquet`, `jsonl`, `csv`, "
            "`text` or `datasets`; or `alpaca` or `chat`, where the columns do not identify "
            "instruction data."
        ),
    ] = None,
    language: SampleLanguage = None,
    duplicates: Annotated[
        Literal["keep", "text", "id"],
        Field(
            description="Duplicates to remove: none (`keep`), or all but the first sample with equal text or equal id."
        ),
    ] = "keep",
) -> Source:
    """Your own data: .parquet, .jsonl, .csv, .txt, or a dataset, with a column mapping (ours: theirs)"""
    return FileSource(str(path), columns, format, language, duplicates)


@SOURCES.register("tinypy")
@strict("source 'tinypy'")
def tinypy(
    *,
    count: Annotated[int, Field(description="Number of programs, distributed evenly over the levels.")],
    levels: Annotated[
        str | float | Sequence[str | float],
        Field(
            description="`all`, or levels among 1.1, 1.2, 2.1, 2.2, 3.1, 3.2 and 4.1; also 0.1 to 0.3, which "
            "`all` excludes."
        ),
    ] = ("all",),
    digits: Annotated[
        int, Field(description="Largest integer literal, from 9 to 65535: 9 in arXiv 2407.10194, 255 in its sequel.")
    ] = 9,
    seed: int = 0,
    dedupe: Annotated[bool, Field(description="Remove duplicate programs.")] = True,
    scratchpad: Annotated[
        Scratchpad,
        Field(
            description="Write the operations of the program one by one before each printed line (arXiv 2112.00114); "
            "`arithmetic` also writes results of several digits least significant digit first (arXiv 2307.03381), "
            "long products as sums of partial products, comparisons digit by digit, and a comparison for each turn of "
            "a `for`. "
            "`protocol: scratchpad` of the suite `output` compares the printed lines."
        ),
    ] = False,
    workers: int = 1,
    events: Events = ignore_events,
) -> Source:
    """Random small Python programs of seven levels, followed by what they print"""
    return TinypySource(count, levels, digits, seed, dedupe, scratchpad, workers, events)


def _shipped(path: str | Path) -> str:
    """``path``, or the file of this name beside the shipped recipes, such as ``distill/seeds.jsonl``."""
    shipped = Path(__file__).parent / "recipes" / path
    return str(shipped) if not Path(path).exists() and shipped.is_file() else str(path)


def check_exists(path: str) -> None:
    """Raise the reader's ``DataError`` for a missing file; the content is not read."""
    if not is_hub(path) and local_path(path) is None:
        from .table.formats import format_of

        format_of(path)


@SOURCES.register("taught")
@strict("source 'taught'")
def taught(
    *,
    count: Annotated[int, Field(description="Number of questions in the first cycle.")],
    new: Annotated[
        int | None,
        Field(description="Number of new questions in each later cycle; 0: the same samples again. Default: `count`."),
    ] = None,
    seeds: Annotated[
        str | Path | None, Field(description="File of seed questions. Default: the teacher writes them.")
    ] = None,
    columns: Columns = None,
    language: SampleLanguage = None,
    ratio: Annotated[
        dict[str, float] | None,
        Field(
            description="Weights of the grades of parent questions: {`easy`, `middle` or `hard`: weight}. "
            "Default: hard and easy in equal parts."
        ),
    ] = None,
    grade: Annotated[
        Literal["feedback", "random"],
        Field(description="Selection of parent questions: by their grade in the feedback, or at random."),
    ] = "feedback",
    rounds: Annotated[
        int,
        Field(description="Limit on requests after refusals, as a multiple of the number of questions."),
    ] = 3,
    accumulate: Annotated[bool, Field(description="Include the samples of earlier cycles.")] = True,
    limit: Annotated[
        float,
        Field(description="Largest ROUGE-L of a question in natural language with an existing one."),
    ] = 0.7,
    teacher: Any,
    evaluation: Any = (),
    right: Any = None,
    answer_format: Any = None,
    seed: int = 0,
    events: Events = ignore_events,
) -> Source:
    """Questions of a teacher: seeds first, then new ones from what the student gets wrong"""
    seed_file = FileSource(_shipped(seeds), columns, None, language) if seeds is not None else None
    if seed_file is not None:
        check_exists(seed_file.data_file)
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
        answer_format=answer_format,
        events=events,
    )


SOURCES.lazy(
    "rejection_sampling",
    "gradatim.distillation.rejection_sampling:rejection_sampling",
    "The student's own passing replies to problems with tests, and its failing ones as rejected answers.",
)
SOURCES.lazy(
    "mobile",
    "gradatim.mobile.source:mobile",
    "Environments of mobile-env, a simulator of cellular networks, for a policy (extra mobile).",
)
