"""The loop: what happens in a run, in order?

Rows are cycles, columns are stages. Each cycle draws and scores its samples; the schedule, which sees only what has
happened, names the next stage; the student learns it and is examined. Every costly thing goes through
``record.once``, so the same command again walks through what is done and goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from .assemble import Parts, assemble, check, stage_seed
from .claim import claim
from .corpus import Corpus
from .recipe import Recipe
from .record import Record
from .results import decode_fitted, decode_stage, decode_suite, describe, encode
from .schedule import realise
from .stage import Events, Feedback, Fitted, Stage, StageResult, Suite, SuiteResult, ignore_events

__all__ = ["run"]


def run(
    recipe: Recipe, folder: Path, *, store: Path | None = None, events: Events = ignore_events
) -> list[StageResult]:
    """Carry out the recipe in ``folder``, or what of it is not done yet; returns the last cycle's stages.

    ``store`` is where corpora are kept (a study shares one), ``folder / "data"`` when left out. ``events`` may
    raise ``Stopped``: the state is then saved, and the same call goes on from there.
    """
    check(recipe)
    with Record(folder) as record:
        claim(record, recipe, events)
        parts = assemble(recipe, events)
        history: list[StageResult] = []
        for cycle in range(parts.cycles):
            corpus = parts.corpus.make(store or folder / "data", cycle, Feedback(), events)
            history = Cycle(record, parts, corpus, cycle, events).run()
        record.once("finished.json", lambda: {"cycles": parts.cycles, "stages": len(history)})
        return history


class Cycle:
    """One row of the table: a corpus, and the stages that the schedule makes of it."""

    def __init__(self, record: Record, parts: Parts, corpus: Corpus, number: int, events: Events) -> None:
        self.record, self.parts, self.corpus, self.number, self.events = record, parts, corpus, number, events
        self.difficulty = corpus.difficulty("train", parts.metric)
        self.bands = parts.cut(corpus)
        self.key = f"cycle-{number:02d}"

    def run(self) -> list[StageResult]:
        """The schedule's stages, each learnt from where the one before it ended."""
        self.record.once(
            f"{self.key}/table.json", lambda: describe(self.corpus, self.bands, self.difficulty, self.parts.metric)
        )
        history: list[StageResult] = []
        while stage := self.next_stage(history):
            history.append(self.learn(stage, history))
        return history

    def next_stage(self, history: Sequence[StageResult]) -> Stage | None:
        """What the schedule asks for after ``history``, with its rows chosen."""
        spec = self.parts.schedule.next(history)
        if spec is None:
            return None
        index = len(history)
        stage = realise(
            spec,
            self.bands,
            self.difficulty,
            seed=stage_seed(self.parts.seed, self.number, index),
            index=index,
            first_token=sum(done.spec.tokens for done in history),
            run_tokens=self.parts.tokens,
        )
        return replace(stage, cycle=self.number)

    def learn(self, stage: Stage, history: Sequence[StageResult]) -> StageResult:
        """Train one stage, then examine the student: each is done once, and ``result.json`` is written last."""
        key = f"{self.key}/stage-{stage.index:02d}-{stage.spec.name}"

        def make() -> dict[str, Any]:
            fitted = decode_fitted(
                self.record.once(f"{key}/fitted.json", lambda: encode(self.fit(stage, key, history)))
            )
            self.record.discard(f"{key}/checkpoint")
            counts = {
                name: int((self.bands.index[stage.rows] == band).sum()) for band, name in enumerate(self.bands.names)
            }
            result = StageResult(self.number, stage.index, stage.spec, len(stage.rows), counts, fitted)
            last = self.parts.schedule.next([*history, result]) is None
            return encode(replace(result, evaluations=tuple(self.examine(key, last))))

        return decode_stage(self.record.once(f"{key}/result.json", make))

    def fit(self, stage: Stage, key: str, history: Sequence[StageResult]) -> Fitted:
        """Train on the stage, from the model of the one before it."""
        student = self.parts.student(self.corpus, self.record.metrics)
        before = history[-1] if history else None
        previous = f"{self.key}/stage-{before.index:02d}-{before.spec.name}" if before else None
        folder = self.record.folder
        return student.fit(stage, folder / key, folder / previous if previous else None, self.events)

    def examine(self, key: str, last: bool) -> Iterator[SuiteResult]:
        """Every suite that is due, on the fixed test set with the bands of this cycle."""
        due = [each for each in self.parts.suites if last or not each.only_last]
        if not due:
            return
        student = self.parts.load(self.record.folder / key / "model")
        places = self.bands.place(self.corpus.difficulty("test", self.parts.metric))
        names = [self.bands.names[place] if place >= 0 else None for place in places]
        samples = self.corpus.table("test").append_column("band", pa.array(names, pa.string()))
        seed, events = self.parts.evaluation_seed, self.events

        def ask(suite: Suite) -> dict[str, Any]:
            return encode(suite(student, samples, seed=seed, events=events))

        for each in due:
            yield decode_suite(self.record.once(f"{key}/evaluation-{each.label}.json", partial(ask, each.suite)))
