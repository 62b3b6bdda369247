"""What is there to learn in one cycle, made once and shared by every run that asks for the same?

A corpus is a folder: the scored samples as ``train``, ``validation`` and ``test`` Parquet, ``facts.json`` with the
counts of everything kept and dropped, and the samples as memory-mapped tokens with the tokenizer made for them. Its
name is a hash of what it was made from, so arms and seeds of a study share one, on disk and in memory; a lock keeps
two processes from making it at the same time. A later cycle's corpus depends on what the student got wrong, so it lies
in the folder of its run; what it holds out and its tokenizer are the first one's, whatever is drawn. It does not know
recipes: ``assemble`` says what it is made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import DataError
from .origin import ORIGIN, OnChange, check_drawn, check_origin
from .record import read_json, read_rows, storage_errors, write_folder, write_json
from .stage import Difficulty, Event, Events, Feedback, Source, ignore_events

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast

    from .model.settings import ModelSettings
    from .model.tokenizer import Encoded

__all__ = ["Corpus", "CorpusMaker", "Deliver", "SplitChoice", "key_of"]

Part = Literal["train", "validation", "test"]


class Deliver(Protocol):
    """Fills ``rejected``: an attempt of the student, a mutation, a mistake of the teacher."""

    @property
    def asks(self) -> bool:
        """Whether the student's attempts are wanted."""
        ...

    def __call__(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The samples with faulty answers, and in plain counts where these came from."""
        ...


@dataclass(frozen=True)
class SplitChoice:
    """How samples are parted: see ``table.split``; ``seed`` fixes which samples are tested."""

    by: Literal["canonical", "text", "random"]
    validation: int
    test: int
    seed: int
    levels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder; tables are read when asked for. ``first`` is where a later cycle's tokenizer lies."""

    folder: Path
    facts: Mapping[str, Any]
    first: Path | None = None

    def table(self, part: Part) -> pa.Table:
        """The samples of one part, in a fixed order."""
        return self._read(part)

    def difficulty(self, part: Part, metric: str) -> npt.NDArray[np.float64]:
        """One metric's column, float64, NaN where a sample has no score."""
        import numpy as np

        column = self._read(part, [metric]).column(metric)
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each training sample, prompt and answer together."""
        import numpy as np
        import pyarrow.compute as pc

        samples = self._read("train", ["prompt", "answer"])
        both = pc.add(pc.utf8_length(samples["prompt"]), pc.utf8_length(samples["answer"]))
        return np.asarray(both.to_numpy(), dtype=np.int64)

    def _read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        hint = f"remove {self.folder}: the same samples are made again"
        return read_rows(self.folder / f"{part}.parquet", "these samples of the run", hint, columns)

    def tokens(
        self, model: ModelSettings, events: Events = ignore_events
    ) -> tuple[PreTrainedTokenizerFast, Encoded, Encoded]:
        """The tokenizer for these samples, and the training and validation samples as tokens.

        A pretrained student brings its own tokenizer; then the folder's name hangs on all that it makes of a text.
        """
        if model.base is not None:
            from .model.load import open_tokenizer
            from .model.prompt_format import token_key

            own = open_tokenizer(model, events)
            return self._encoded(f"base-{token_key(own)}", lambda: own)
        from .model.tokenizer import bpe_tokenizer, character_tokenizer, lexical_tokenizer, separate_texts, texts_of

        kind = model.tokenizer + ("" if model.tokenizer == "character" else str(model.vocabulary))

        def make() -> Any:
            if self.first is not None:  # the student knows no other tokens, even where that folder was lost
                return Corpus(self.first, {}).tokens(model, events)[0]
            # Characters come from every part: a test program must not fail for a letter training lacks.
            parts: tuple[Part, ...] = ("train", "validation", "test")
            texts = (text for part in parts for text in separate_texts(self.table(part)))
            makers: dict[str, Callable[[], Any]] = {
                "character": lambda: character_tokenizer(texts),
                "lexical": lambda: lexical_tokenizer(texts, model.vocabulary),
                "bpe": lambda: bpe_tokenizer(texts_of(self.table("train")), model.vocabulary),
            }
            return makers[model.tokenizer]()

        return self._encoded(kind, make)

    def _encoded(self, kind: str, make: Callable[[], Any]) -> tuple[PreTrainedTokenizerFast, Encoded, Encoded]:
        """What is kept under the name ``kind``; encoded by the tokenizer of ``make`` when it is not there yet."""
        from .model.opening import open_tokenizer_of
        from .model.tokenizer import Encoded, encode_table

        folder = self.folder / f"tokens-{kind}"
        with _lock(self.folder):
            if not folder.exists():
                made = make()

                def fill(target: Path) -> None:
                    made.save_pretrained(target / "tokenizer")
                    encode_table(made, self.table("train"), target / "train")
                    encode_table(made, self.table("validation"), target / "validation")

                write_folder(folder, fill)
        tokenizer: Any = open_tokenizer_of(folder / "tokenizer", local_files_only=True)
        return tokenizer, Encoded.open(folder / "train"), Encoded.open(folder / "validation")


@dataclass(frozen=True)
class CorpusMaker:
    """Draws, scores and splits samples, and lays faulty answers beside the right ones.

    ``metrics`` are difficulty columns by name; ``key`` names what was asked. ``on_change``: what to do when a corpus is
    there and the data file has been changed since.
    """

    source: Source
    metrics: Mapping[str, Difficulty]
    parts: SplitChoice
    key: str
    workers: int = 1
    deliver: Deliver | None = None
    on_change: OnChange = "refuse"

    def make(self, store: Path, events: Events = ignore_events) -> Corpus:
        """The first cycle's corpus under ``store``; made when it is not there yet.

        ``DataError`` when it was made from a data file that has been changed since, unless ``on_change`` is ``keep``.
        """
        folder = store / self.key
        with _lock(folder):
            if (folder / "facts.json").exists():
                check_origin(folder, self._path(), self.on_change, events)
            else:
                from .table import split

                samples, facts = self._scored(0, Feedback(), events)
                parts = split(samples, **vars(self.parts))
                train, delivered = self._delivered(parts.train, 0, Feedback(), events)
                tables = {"train": train, "validation": parts.validation, "test": parts.test}
                self._write(folder, tables, {**facts, "split": parts.facts, **delivered}, 0)
        return Corpus(folder, read_json(folder / "facts.json", dict))

    def make_next(
        self, folder: Path, first: Corpus, feedback: Feedback, ask: Callable[[pa.Table], Feedback], events: Events
    ) -> Corpus:
        """The corpus of the cycle after ``feedback``: all that is drawn is learnt, ``first`` has what is held out.

        ``ask``: the student's attempts at samples before it has learnt them, called where ``deliver`` wants them.
        """
        with _lock(folder):
            if not (folder / "facts.json").exists():
                cycle = feedback.cycle + 1
                samples, facts = self._scored(cycle, feedback, events)
                if self._rereads:
                    check_drawn(first.folder, self.source.origin)  # type: ignore[attr-defined]
                samples, held_out = self._without_held_out(samples, first)
                attempts = ask(samples) if self.deliver is not None and self.deliver.asks else Feedback()
                train, delivered = self._delivered(samples, cycle, attempts, events)
                tables = {"train": train, "validation": first.table("validation"), "test": first.table("test")}
                rows = {"train": {"all": train.num_rows}}
                facts |= {"split": {"rows": rows, "held_out": held_out}, **delivered}
                self._write(folder, tables, facts, cycle)
        return Corpus(folder, read_json(folder / "facts.json", dict), first.folder)

    @property
    def _rereads(self) -> bool:
        """Whether each cycle's samples are read from the data file anew."""
        return bool(getattr(self.source, "rereads", False))

    def _path(self) -> str | None:
        """The data file that the source reads, where it reads one."""
        path = getattr(self.source, "path", None) or getattr(self.source, "origin", {}).get("path")
        return None if path is None else str(path)

    def _without_held_out(self, samples: pa.Table, first: Corpus) -> tuple[pa.Table, int]:
        """The samples that are not the same as one held out, in the split's sense, and how many are.

        A source need not know what is held out: the grammar may write a test program again. Where samples are parted
        at random, equal ones stand on both sides by choice.
        """
        if self.parts.by == "random":
            return samples, 0
        import pyarrow as pa

        from .programs import canonical
        from .table import questions

        key: Callable[[str], str] = canonical if self.parts.by == "canonical" else str
        held = [questions(first.table(part)).to_pylist() for part in ("validation", "test")]
        known = {key(question) for part in held for question in part}
        new = [key(question) not in known for question in questions(samples).to_pylist()]
        if not any(new):
            raise DataError(
                "every sample of this cycle is held out",
                where="data",
                given=len(new),
                hint="other levels, or one cycle",
            )
        return samples.filter(pa.array(new, pa.bool_())), new.count(False)

    def _scored(self, cycle: int, feedback: Feedback, events: Events) -> tuple[pa.Table, dict[str, Any]]:
        """The samples of a cycle with a column per metric, and what became of them."""
        import numpy as np
        import pyarrow as pa

        from .difficulty import unscored_note

        samples = self.source.draw(cycle, feedback)
        if cycle == 0 and (report := getattr(self.source, "report", None)) is not None:
            for line in report.notes():
                events(Event("note", "data", text=line))
        unscored: dict[str, int] = {}
        for name, difficulty in self.metrics.items():
            events(Event("start", f"score {name}"))
            scores = difficulty(samples, workers=self.workers)
            if note := unscored_note(name, difficulty, samples, scores, "are not learnt"):
                events(Event("note", f"score {name}", text=note))
            if name in samples.column_names:
                samples = samples.drop_columns([name])
            samples = samples.append_column(name, pa.array(scores))
            unscored[name] = int(np.isnan(scores).sum())
            events(Event("finish", f"score {name}"))
        return samples, {"source": dict(getattr(self.source, "facts", {})), "unscored": unscored}

    def _delivered(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """The samples with faulty answers beside the right ones, where the recipe asks for them."""
        if self.deliver is None:
            return samples, {}
        table, facts = self.deliver(samples, cycle, attempts, events)
        return table, {"delivery": facts}

    def _write(self, folder: Path, tables: Mapping[str, pa.Table], facts: Mapping[str, Any], cycle: int) -> None:
        """All tables, then ``facts.json``, whose presence means that the corpus is whole."""
        from .table import write_table

        with storage_errors(folder):
            for name, table in tables.items():
                write_table(table, folder / f"{name}.parquet")
        report = getattr(self.source, "report", None)
        if report is not None and (cycle == 0 or self._rereads):
            report.write_rejected(folder / "train.parquet")
        if origin := getattr(self.source, "origin", None):
            write_json(folder / ORIGIN, dict(origin))
        write_json(folder / "facts.json", facts)


def key_of(asked: Mapping[str, Any], name: Callable[[Any], str] = str) -> str:
    """A folder name for what was asked: equal for equal values, whatever the order of keys."""
    text = json.dumps(asked, sort_keys=True, default=name)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Only one process at a time makes what is under ``folder``; the others wait and then find it there."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
