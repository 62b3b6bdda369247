"""What is there to learn in one cycle, made once and shared by every run that asks for the same?

A corpus is a folder: the scored samples as ``train``, ``validation`` and ``test`` Parquet, ``facts.json`` with the
counts of everything kept and dropped, and the samples as memory-mapped tokens with the tokenizer made for them. Its
name is a hash of what it was made from, so arms and seeds of a study share one, on disk and in memory; a lock keeps
two processes from making it at the same time. It does not know recipes: ``assemble`` says what it is made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import RunFolderError
from .record import read_json, storage_errors, write_folder, write_json
from .stage import Difficulty, Event, Events, Feedback, Source, ignore_events

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast

    from .student.settings import ModelSettings
    from .student.tokenizer import Encoded

__all__ = ["Corpus", "CorpusMaker", "SplitChoice", "key_of"]

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SplitChoice:
    """How samples are parted: see ``table.split``; ``seed`` fixes which samples are tested."""

    by: Literal["canonical", "text", "random"]
    validation: int
    test: int
    seed: int


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder; tables are read when asked for."""

    folder: Path
    facts: Mapping[str, Any]

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
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"{part}.parquet"
        try:
            return pq.read_table(path, columns=columns, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunFolderError(
                "these samples of the run are damaged",
                where=path,
                given=error,
                hint=f"remove {self.folder}: the same samples are made again",
            ) from error

    def tokens(self, model: ModelSettings) -> tuple[PreTrainedTokenizerFast, Encoded, Encoded]:
        """The tokenizer for these samples, and the training and validation samples as tokens."""
        from .student.lexical import lexical_tokenizer
        from .student.tokenizer import Encoded, bpe_tokenizer, character_tokenizer, encode_table, parts_of, texts_of

        kind = model.tokenizer + ("" if model.tokenizer == "character" else str(model.vocabulary))
        folder = self.folder / f"tokens-{kind}"
        from transformers import AutoTokenizer

        with _lock(self.folder):
            if not folder.exists():
                # Characters come from every part: a test program must not fail for a letter training lacks.
                parts: tuple[Part, ...] = ("train", "validation", "test")
                texts = (text for part in parts for text in parts_of(self.table(part)))
                made = {
                    "character": lambda: character_tokenizer(texts),
                    "lexical": lambda: lexical_tokenizer(texts, model.vocabulary),
                    "bpe": lambda: bpe_tokenizer(texts_of(self.table("train")), model.vocabulary),
                }[model.tokenizer]()

                def fill(target: Path) -> None:
                    made.save_pretrained(target / "tokenizer")
                    encode_table(made, self.table("train"), target / "train")
                    encode_table(made, self.table("validation"), target / "validation")

                write_folder(folder, fill)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
        return tokenizer, Encoded.open(folder / "train"), Encoded.open(folder / "validation")


@dataclass(frozen=True)
class CorpusMaker:
    """Draws, scores and splits samples. ``metrics`` are difficulty columns by name; ``key`` names what was asked."""

    source: Source
    metrics: Mapping[str, Difficulty]
    parts: SplitChoice
    key: str
    workers: int = 1

    def make(
        self, store: Path, cycle: int = 0, feedback: Feedback | None = None, events: Events = ignore_events
    ) -> Corpus:
        """The corpus of a cycle under ``store``; made when it is not there yet."""
        folder = store / (self.key if cycle == 0 else f"{self.key}-{cycle:02d}")
        with _lock(folder):
            if not (folder / "facts.json").exists():
                self._fill(folder, cycle, feedback or Feedback(), events)
        return Corpus(folder, read_json(folder / "facts.json"))

    def _fill(self, folder: Path, cycle: int, feedback: Feedback, events: Events) -> None:
        import numpy as np
        import pyarrow as pa

        from .table import split, write_table

        samples = self.source.draw(cycle, feedback)
        unscored: dict[str, int] = {}
        for name, difficulty in self.metrics.items():
            events(Event("start", f"score {name}"))
            scores = difficulty(samples, workers=self.workers)
            if name in samples.column_names:
                samples = samples.drop_columns([name])
            samples = samples.append_column(name, pa.array(scores))
            unscored[name] = int(np.isnan(scores).sum())
            events(Event("finish", f"score {name}"))
        parts = split(samples, **vars(self.parts))
        with storage_errors(folder):
            for name in ("train", "validation", "test"):
                write_table(getattr(parts, name), folder / f"{name}.parquet")
        report = getattr(self.source, "report", None)
        if report is not None:
            report.write_rejected(folder / "train.parquet")
        drawn = getattr(self.source, "facts", {})
        write_json(folder / "facts.json", {"source": drawn, "unscored": unscored, "split": parts.facts})


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
