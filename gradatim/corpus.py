"""Corpora: the scored, split and tokenized samples of a cycle, shared by all runs with the same data settings.

A corpus is a folder: the scored samples as ``train``, ``validation`` and ``test`` Parquet, ``facts.json`` with the
counts of kept and dropped rows, and the memory-mapped tokens with their tokenizer. Its name is a hash of the data
settings, so arms and seeds of a study share it, on disk and in memory; a file lock lets one process create it at a
time. A later cycle's corpus depends on the student's errors, so it lies in the folder of its run; held-out samples and
tokenizer are those of the first corpus. ``assemble`` creates the ``CorpusMaker`` from a recipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from . import programs, table
from .difficulty import scores_of, unscored_note
from .errors import DataError
from .lazy import np, pa, pc
from .model import load, prompt_format, tokenizer
from .record import LOCK_INTERVAL, lock, open_rows, read_json, storage_errors, write_folder, write_json
from .renamed_keys import earlier_value
from .schedule import category_codes
from .source import ORIGIN, OnChange, check_origin, check_reread
from .stage import Difficulty, Drawn, Event, Events, Feedback, Source, ignore_events

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow.parquet as pq
    from transformers import PreTrainedTokenizerFast

    from .model.settings import ModelSettings
    from .model.tokenizer import Encoded


Part = Literal["train", "validation", "test"]
ATTEMPTS_BEFORE_NOTE = 20
"""Attempts to lock a corpus after which a note says that another process makes it."""
SEPARATOR_SAMPLES = 1000
"""Training samples that decide whether prompts and answers need a separator."""


class RejectedAnswers(Protocol):
    """Source of rejected answers (column ``rejected``): attempts of the student, mutations, errors of the teacher."""

    @property
    def needs_attempts(self) -> bool:
        """Whether attempts of the student are needed."""
        ...

    def __call__(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The samples with rejected answers, and the counts of their sources."""
        ...


@dataclass(frozen=True)
class SplitSettings:
    """Settings of ``table.split``; ``seed`` determines the test samples."""

    by: Literal["slice", "canonical", "text", "random"]
    validation: int | float
    test: int | float
    seed: int
    levels: tuple[str, ...] | None = None
    duplicates: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder; tables are read on demand, memory-mapped if they are large (``table.mapped``).

    ``first``: the first cycle's folder, with the tokenizer.
    """

    folder: Path
    facts: Mapping[str, Any]
    first: Path | None = None

    def table(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """Samples of one split, in a fixed order; all columns, or those of ``columns`` that it has."""
        with self._open(part) as file:
            fields = [field for field in file.schema_arrow if columns is None or field.name in columns]
            schema = pa.schema(fields)
            return table.mapped_table(file.iter_batches(table.SLICE_ROWS, columns=schema.names), schema)

    def rows(self, part: Part) -> int:
        """Number of samples of one split."""
        with self._open(part) as file:
            return int(file.metadata.num_rows)

    def difficulty(self, part: Part, metric: str) -> npt.NDArray[np.float64]:
        """Column of a metric, float64, NaN for samples without a score.

        The columns have the metrics' names in version 0.1, so that datasets stored by it stay readable.
        """
        name = str(earlier_value("difficulty.metric", metric))
        with self._open(part) as file:
            parts = [
                batch[name].to_numpy(zero_copy_only=False)
                for batch in file.iter_batches(table.SLICE_ROWS, columns=[name])
            ]
        return np.concatenate([np.empty(0), *parts])

    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each training sample, prompt plus answer."""
        with self._open("train") as file:
            batches = file.iter_batches(table.SLICE_ROWS, columns=["prompt", "answer"])
            both = [pc.add(pc.utf8_length(batch["prompt"]), pc.utf8_length(batch["answer"])) for batch in batches]
        return np.concatenate([np.empty(0, np.int64), *both])

    def categories(self, column: str) -> npt.NDArray[np.int64]:
        """The category of each training sample by the label ``column``, see ``schedule.category_codes``."""
        return category_codes(self.table("train", [*table.LABELS, column]), column)

    def characters(self) -> set[str]:
        """All characters of the samples, held-out ones and rejected answers included."""
        characters: set[str] = set()
        for part in get_args(Part):
            with self._open(part) as file:
                for rows in file.iter_batches(table.SLICE_ROWS, columns=["prompt", "answer", "rejected"]):
                    for column in rows.columns:
                        characters.update("".join(text for text in column.to_pylist() if text))
        return characters

    def _open(self, part: Part) -> contextlib.AbstractContextManager[pq.ParquetFile]:
        hint = f"remove {self.folder}: the same samples are created again"
        return open_rows(self.folder / f"{part}.parquet", "these samples of the run", hint)

    def tokens(
        self, model: ModelSettings, events: Events = ignore_events
    ) -> tuple[PreTrainedTokenizerFast, Encoded, Encoded]:
        """The tokenizer for these samples, and the tokens of the training and validation samples.

        A pretrained student has a tokenizer; the folder's name then depends on all of that tokenizer's settings.
        """
        if model.base is not None:
            base_tokenizer = load.open_tokenizer(model, events)
            form = prompt_format.prompt_format_of(base_tokenizer)
            kind = f"base-{prompt_format.token_key(base_tokenizer)}"
            if form.template == "plain" and (separator := self._separator(model, kind, events)):
                prompt_format.with_prompt_format(base_tokenizer, replace(form, separator=separator))
                kind = f"base-{prompt_format.token_key(base_tokenizer)}"
            return self._encoded(kind, lambda: base_tokenizer, events)

        name = earlier_value("student.tokenizer", model.tokenizer)  # stored tokens keep their folder
        kind = name + ("" if model.tokenizer == "character" else str(model.vocab_size))
        separator = self._separator(model, kind, events)
        if separator:
            kind += f"-separator-{separator.encode().hex()}"

        def make() -> Any:
            if self.first is not None:  # the student's vocabulary, even if that folder is lost
                return Corpus(self.first, {}).tokens(model, events)[0]
            # Characters of all splits: a test program must not fail for a letter that training lacks.
            splits = (self.table(split) for split in get_args(Part))
            texts = (text for samples in splits for text in tokenizer.separate_texts(samples, separator))
            makers: dict[str, Callable[[], Any]] = {
                "character": lambda: tokenizer.character_tokenizer(texts),
                "word_level": lambda: tokenizer.word_level_tokenizer(texts, model.vocab_size),
                "bpe": lambda: tokenizer.bpe_tokenizer(
                    tokenizer.texts_of(self.table("train"), separator), model.vocab_size
                ),
            }
            form = prompt_format.PromptFormat(separator=separator)
            return prompt_format.with_prompt_format(makers[model.tokenizer](), form)

        return self._encoded(kind, make, events)

    def _separator(self, model: ModelSettings, kind: str, events: Events) -> str:
        """The separator of plain prompts: the recipe's, or the one that the first cycle's training samples need.

        Tokens ``kind`` of an earlier version, which knew no separator, continue without one.
        """
        if model.separator is not None:
            return model.separator
        first = self if self.first is None else Corpus(self.first, {})
        stored = first.folder / f"tokens-{kind}" / "tokenizer"
        if stored.exists() and not prompt_format.states_separator(stored):
            return ""
        samples = first.table("train", ["prompt", "answer"]).slice(0, SEPARATOR_SAMPLES)
        separator = prompt_format.needed_separator(*(samples[name].to_pylist() for name in ("prompt", "answer")))
        if separator:
            text = "prompts run into their answers: a blank line stands between them (student.separator)"
            events(Event("note", "student", text=text))
        return separator

    def _encoded(
        self, kind: str, make: Callable[[], Any], events: Events
    ) -> tuple[PreTrainedTokenizerFast, Encoded, Encoded]:
        """Tokens stored under the name ``kind``, encoded with the tokenizer from ``make`` if missing."""
        folder = self.folder / f"tokens-{kind}"
        with _lock(self.folder, events):
            if not folder.exists():
                new_tokenizer = make()

                def fill(target: Path) -> None:
                    new_tokenizer.save_pretrained(target / "tokenizer")
                    tokenizer.encode_table(new_tokenizer, self.table("train"), target / "train")
                    tokenizer.encode_table(new_tokenizer, self.table("validation"), target / "validation")

                write_folder(folder, fill)
        stored: Any = load.open_tokenizer_of(folder / "tokenizer", local_files_only=True)
        return stored, tokenizer.Encoded.open(folder / "train"), tokenizer.Encoded.open(folder / "validation")


@dataclass(frozen=True)
class NewSamples:
    """The training samples of a later cycle before they are written, and the counts for ``facts.json``."""

    cycle: int
    table: pa.Table
    facts: dict[str, Any]
    drawn: Drawn


@dataclass(frozen=True)
class CorpusMaker:
    """Creation of corpora: samples are drawn, scored, split and given rejected answers.

    ``metrics``: difficulty metrics by column name; ``key``: name of the corpus folder, see ``key_of``. ``on_change``:
    the action when the data file has changed since the corpus was created.
    """

    source: Source
    metrics: Mapping[str, Difficulty]
    split_settings: SplitSettings
    key: str
    workers: int = 1
    rejected_answers: RejectedAnswers | None = None
    on_change: OnChange = "refuse"

    def make(self, store: Path, events: Events = ignore_events) -> Corpus:
        """The first cycle's corpus under ``store``, created if missing.

        ``DataError`` when its data file has changed since it was created, unless ``on_change`` is ``keep``.
        """
        folder = store / self.key
        with _lock(folder, events):
            if (folder / "facts.json").exists():
                check_origin(folder, self.source.data_file, self.on_change, events)
            else:
                drawn = self.source.draw(0, Feedback())
                for line in drawn.rejected.notes() if drawn.rejected is not None else ():
                    events(Event("note", "data", text=line))
                samples, facts = self._scored(drawn, events)
                splits = table.split(samples, **vars(self.split_settings))
                train, delivery = self._with_rejected(splits.train, 0, Feedback(), events)
                tables = {"train": train, "validation": splits.validation, "test": splits.test}
                self._write(folder, tables, {**facts, "split": splits.facts, **delivery}, drawn)
        return Corpus(folder, read_json(folder / "facts.json", dict))

    def new_samples(self, first: Corpus, feedback: Feedback, events: Events = ignore_events) -> NewSamples:
        """The training samples of the cycle after ``feedback``, scored, without those that ``first`` holds out.

        Raises ``NoNewQuestions`` when the source has no new question, ``DataError`` when its data file has changed.
        """
        cycle = feedback.cycle + 1
        drawn = self.source.draw(cycle, feedback)
        samples, facts = self._scored(drawn, events)
        if self.source.rereads:
            check_reread(first.folder, drawn.origin)
        samples, held_out = self._without_held_out(samples, first)
        dropped = {}
        if self.split_settings.duplicates == "drop":
            seed, levels, count = self.split_settings.seed, self.split_settings.levels, samples.num_rows
            samples = table.drop_duplicates(samples, seed=seed, key=self._key, levels=levels)
            dropped = {"dropped": count - samples.num_rows}
        facts["split"] = {"rows": {"train": {"all": samples.num_rows}}, "held_out": held_out, **dropped}
        return NewSamples(cycle, samples, facts, drawn)

    @property
    def needs_attempts(self) -> bool:
        """Whether the rejected answers need attempts of the model at the new samples."""
        return self.rejected_answers is not None and self.rejected_answers.needs_attempts

    def add_rejected(self, new: NewSamples, attempts: Feedback, events: Events = ignore_events) -> NewSamples:
        """The samples with rejected answers, if the recipe has them. ``attempts``: empty, or those at the samples."""
        samples, delivery = self._with_rejected(new.table, new.cycle, attempts, events)
        return replace(new, table=samples, facts={**new.facts, **delivery})

    def make_next(self, folder: Path, first: Corpus, make: Callable[[], NewSamples]) -> Corpus:
        """The corpus of a later cycle in ``folder``, created from ``make()`` if missing; held-out samples of ``first``.

        ``make`` runs under the lock of the folder, once.
        """
        with _lock(folder):
            if not (folder / "facts.json").exists():
                new = make()
                tables = {"train": new.table, "validation": first.table("validation"), "test": first.table("test")}
                self._write(folder, tables, new.facts, new.drawn)
        return Corpus(folder, read_json(folder / "facts.json", dict), first.folder)

    def _without_held_out(self, samples: pa.Table, first: Corpus) -> tuple[pa.Table, int]:
        """The samples that equal no held-out one, by the split's criterion, and the number of the others.

        Sources are independent of the held-out samples: the grammar may generate a test program again. A random split
        permits equal samples on both sides.
        """
        if self.split_settings.by == "random":
            return samples, 0

        key = self._key
        held_out = [table.questions(first.table(part)).to_pylist() for part in ("validation", "test")]
        excluded = {key(question) for part in held_out for question in part}
        questions = (question for part in table.slices(samples) for question in table.questions(part).to_pylist())
        new = np.fromiter((key(question) not in excluded for question in questions), bool, samples.num_rows)
        if not new.any():
            raise DataError(
                "every sample of this cycle is held out",
                where="data",
                given=len(new),
                hint="other levels, or one cycle",
            )
        return table.filter_rows(samples, new), int((~new).sum())

    @property
    def _key(self) -> Callable[[str], str]:
        """The form of a question by which the split compares samples."""
        forms: dict[str, Callable[[str], str]] = {"slice": programs.sliced, "canonical": programs.canonical}
        return forms.get(self.split_settings.by, str)

    def _scored(self, drawn: Drawn, events: Events) -> tuple[pa.Table, dict[str, Any]]:
        """Samples of a cycle with a column per metric, and the counts of the source."""
        samples = drawn.table
        unscored: dict[str, int] = {}
        for name, difficulty in self.metrics.items():
            events(Event("start", f"score {name}"))
            scores = scores_of(name, difficulty, samples, workers=self.workers)
            if note := unscored_note(name, difficulty, samples, scores, "are not learnt"):
                events(Event("note", f"score {name}", text=note))
            if name in samples.column_names:
                samples = samples.drop_columns([name])
            samples = samples.append_column(name, pa.array(scores))
            unscored[name] = int(np.isnan(scores).sum())
            events(Event("finish", f"score {name}"))
        facts = {"source": dict(drawn.facts), "unscored": unscored}
        usage = [difficulty.usage for difficulty in self.metrics.values() if difficulty.usage]
        return samples, {**facts, **({"rating": {"teacher": dict(usage[0])}} if usage else {})}

    def _with_rejected(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The samples with rejected answers, if the recipe has them, and their counts."""
        if self.rejected_answers is None:
            return samples, {}
        samples, facts = self.rejected_answers(samples, cycle, attempts, events)
        return samples, {"delivery": facts}

    def _write(self, folder: Path, tables: Mapping[str, pa.Table], facts: Mapping[str, Any], drawn: Drawn) -> None:
        """Write all tables, then ``facts.json``, whose presence marks the corpus as complete."""
        with storage_errors(folder):
            for name, samples in tables.items():
                table.write_table(samples, folder / f"{name}.parquet")
        if drawn.rejected is not None:
            drawn.rejected.write_rejected(folder / "train.parquet")
        if drawn.origin:
            write_json(folder / ORIGIN, dict(drawn.origin))
        write_json(folder / "facts.json", facts)


def feedback_of(cycle: int, attempts: pa.Table, datasets: Sequence[Corpus]) -> Feedback:
    """The feedback of a cycle: judged attempts, and the samples of all ``datasets`` so far."""
    training = [dataset.table("train") for dataset in datasets]
    held_out = [datasets[0].table("validation"), datasets[0].table("test")]
    known = pa.concat_tables([*training, *held_out], promote_options="default")
    return Feedback(cycle, attempts, known, learnt=pa.concat_tables(training, promote_options="default"))


def key_of(settings: Mapping[str, Any], name: Callable[[Any], str] = str) -> str:
    """Folder name for settings: equal for equal values in any order of keys."""
    text = json.dumps(settings, sort_keys=True, default=name)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@contextlib.contextmanager
def _lock(folder: Path, events: Events = ignore_events) -> Iterator[None]:
    """Exclusive lock on ``folder``: one process creates its content, others wait. ``events`` may stop the wait."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as file:
            attempts = 0
            while not lock(file, folder / ".lock"):
                if attempts == ATTEMPTS_BEFORE_NOTE:
                    events(Event("note", "data", text=f"waiting for another process that makes {folder}"))
                attempts += 1
                time.sleep(LOCK_INTERVAL)
                events(Event("advance", "wait for samples"))
            if attempts:
                events(Event("finish", "wait for samples"))
            yield
