"""What happens in one cycle of a run?

A cycle is one row of the run's table: a corpus, the stages that the schedule makes of it, one after the other, and then
the question what the student still gets wrong, from which the next cycle's corpus is made. Where a teacher designs the
schedule, it is asked before the first stage. Everything costly goes through ``record.once``. How cycles follow each
other is ``run``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from ..corpus import Corpus
from ..design import Design, DesignOutcome
from ..errors import RunFolderError
from ..files import read_input
from ..parsing import parse_json
from ..record import DECODE_ERRORS, Record, fault_of, read_json, read_rows, write_json
from ..results import (
    decode_design,
    decode_fitted,
    decode_progress,
    decode_stage,
    decode_suite,
    describe,
    encode,
    encode_design,
)
from ..schedule import Designed, category_codes, needs_of, select_rows
from ..stage import Events, Feedback, Fitted, Needs, Probe, Schedule, Stage, StageResult, StageSpec, Suite, SuiteResult
from ..table import write_table
from .assemble import Parts, stage_seed

__all__ = ["Cycle"]


class Cycle:
    """One row of the table: a corpus, and the stages that the schedule makes of it. ``before``: the rows above."""

    def __init__(
        self, record: Record, parts: Parts, corpus: Corpus, number: int, before: Sequence[StageResult], events: Events
    ) -> None:
        self.record, self.parts, self.corpus, self.number, self.events = record, parts, corpus, number, events
        self.before = tuple(before)
        self.schedule: Schedule = parts.schedules[number]
        self.difficulty = corpus.difficulty("train", parts.metric)
        self.bands = parts.cut(corpus)
        self.key = f"cycle-{number:02d}"

    def run(self) -> list[StageResult]:
        """The schedule's stages, each learnt from where the one before it ended."""
        self.record.once(
            f"{self.key}/table.json", lambda: describe(self.corpus, self.bands, self.difficulty, self.parts.metric)
        )
        if isinstance(self.schedule, Designed):
            stages = self.designed(self.schedule)
            if self.number + 1 == self.parts.cycles:  # nobody revises after the last cycle
                self.schedule = replace(self.schedule, needs=Needs())
            self.schedule = self.schedule.with_stages(stages)
        history: list[StageResult] = []
        while stage := self.next_stage(history):
            history.append(self.learn(stage, history))
        self.last = history[-1]
        return history

    def designed(self, schedule: Designed) -> tuple[StageSpec, ...]:
        """The stages that a teacher wrote for this cycle: anew before it, or where it does not revise at the start."""
        if self.number and not schedule.revise:
            return self._design(0).cycles[self.number]
        self.record.once(_design_of(self.number), lambda: encode_design(self.ask_for_design(schedule)))
        return self._design(self.number).cycles[0]

    def ask_for_design(self, schedule: Designed) -> DesignOutcome:
        """The teacher's stages for this cycle and all after it. What cannot be used is kept too, before it is told:
        the same command then asks another time, for another draw."""
        path = self.record.folder / self.key / "design-unusable.json"
        failed = read_json(path, _listed) if path.exists() else []
        judged = self.record.folder / f"cycle-{self.number - 1:02d}" / "feedback.json"
        asked = self.parts.design(
            schedule,
            self.corpus,
            self.bands,
            self.difficulty,
            cycle=self.number,
            so_far=self.before,
            feedback=read_json(judged) if judged.exists() else None,
            plan=self._design(self.number - 1).cycles[1:] if self.number else None,
            draw=len(failed),
        )
        if asked.design is None:
            took = {"replies": asked.replies, "faults": asked.faults, "teacher": dict(asked.used)}
            write_json(path, [*failed, took])
        return asked

    def _design(self, cycle: int) -> Design:
        """What was designed before ``cycle``, for it and all after it."""
        path = self.record.folder / _design_of(cycle)
        try:
            design = decode_design(parse_json(read_input(path)))
            if len(design.cycles) != self.parts.cycles - cycle:
                raise ValueError(f"{len(design.cycles)} cycles")
            return design
        except (*DECODE_ERRORS, OSError) as error:
            raise RunFolderError(
                "the design of this run is damaged",
                where=path,
                given=error.strerror if isinstance(error, OSError) else fault_of(error),
                hint="remove it: the teacher is asked again",
            ) from error

    def next_stage(self, history: Sequence[StageResult]) -> Stage | None:
        """What the schedule asks for after ``history``, with its rows chosen."""
        spec = self.schedule.next(history)
        if spec is None:
            return None
        index = len(history)
        stage = select_rows(
            spec,
            self.bands,
            self.difficulty,
            seed=stage_seed(self.parts.seed, self.number, index),
            index=index,
            first_token=sum(done.spec.tokens for done in [*self.before, *history]),
            run_tokens=self.parts.tokens,
            categories=lambda column: category_codes(self.corpus.table("train"), column),
            probe=self.probed(spec, history),
        )
        return replace(stage, cycle=self.number)

    def probed(self, spec: StageSpec, history: Sequence[StageResult]) -> Probe | None:
        """What the student found hard after the last stage, for a stage that goes by that."""
        if not spec.probes:
            return None
        from ..inference.probe import load_probe

        last = history[-1]
        return load_probe(self.record.folder / _place(last.cycle, last.index, last.spec.name) / "probe.npz")

    def learn(self, stage: Stage, history: Sequence[StageResult]) -> StageResult:
        """Train one stage, then examine the student: each is done once, and ``result.json`` is written last."""
        key = _place(self.number, stage.index, stage.spec.name)

        def make() -> dict[str, Any]:
            fitted = self.record.once(
                f"{key}/fitted.json", lambda: encode(self.fit(stage, key, history)), decode_fitted
            )
            self.record.discard(f"{key}/checkpoint")
            counts = {
                name: int((self.bands.index[stage.rows] == band).sum()) for band, name in enumerate(self.bands.names)
            }
            result = StageResult(self.number, stage.index, stage.spec, len(stage.rows), counts, fitted)
            result = replace(result, **self.measured(stage, key))
            last = self.schedule.next([*history, result]) is None
            return encode(replace(result, evaluations=tuple(self.examine(key, last))))

        result: StageResult = self.record.once(f"{key}/result.json", make, decode_stage)
        return result

    def fit(self, stage: Stage, key: str, history: Sequence[StageResult]) -> Fitted:
        """Train on the stage, from the model of the one before it.

        A stage ends with a whole step, beyond its budget by less than that; what those before it took too much is
        taken off this one, so that a run of many stages keeps to its budget as one of a single stage does.
        """
        over = sum(each.fitted.tokens - each.spec.tokens for each in [*self.before, *history])
        left = replace(stage.spec, tokens=max(stage.spec.tokens - over, 1))
        stage = replace(stage, spec=left, first_token=stage.first_token + over)
        self.parts.rest()
        student = self.parts.student(self.corpus, self.record.metrics)
        before = [*self.before, *history][-1:]
        folder = self.record.folder
        previous = [folder / _place(each.cycle, each.index, each.spec.name) for each in before]
        return student.fit(stage, folder / key, previous[0] if previous else None, self.events)

    def measured(self, stage: Stage, key: str) -> dict[str, Any]:
        """What the schedule needs to know of the student as the stage left it."""
        needs = needs_of(self.schedule)
        if needs == Needs():
            return {}

        def ask() -> dict[str, Any]:
            from ..inference.probe import measure

            folder = self.record.folder / key
            places = self.bands.assign(self.corpus.difficulty("validation", self.parts.metric))
            student, (samples, validation) = self.parts.load(folder / "model"), self.parts.encoded(self.corpus)
            asked = (needs, student, samples, validation, self.bands, places)
            return measure(*asked, seed=stage.seed, path=folder / "probe.npz", events=self.events)

        measured: dict[str, Any] = self.record.once(f"{key}/progress.json", ask, decode_progress)
        return measured

    def examine(self, key: str, last: bool) -> Iterator[SuiteResult]:
        """Every suite that is due, on the fixed test set with the bands of this cycle."""
        due = [each for each in self.parts.suites if last or not each.only_last]
        if not due:
            return
        student = self.parts.load(self.record.folder / key / "model")
        places = self.bands.assign(self.corpus.difficulty("test", self.parts.metric))
        names = [self.bands.names[place] if place >= 0 else None for place in places]
        samples = self.corpus.table("test").append_column("band", pa.array(names, pa.string()))
        seed, events = self.parts.evaluation_seed, self.events

        def ask(suite: Suite) -> dict[str, Any]:
            return encode(suite(student, samples, seed=seed, events=events))

        for each in due:
            yield self.record.once(f"{key}/evaluation-{each.label}.json", partial(ask, each.suite), decode_suite)

    def next_corpus(self, corpora: Sequence[Corpus]) -> Corpus:
        """What there is to learn in the next cycle, after what the student gets wrong in this one.

        ``corpora``: those of all cycles so far. Raises ``RanDry`` when there is nothing new.
        """
        place = self.record.folder / f"cycle-{self.number + 1:02d}" / "corpus"
        return self.parts.corpus.make_next(place, corpora[0], self.feedback(corpora), self.attempts, self.events)

    def feedback(self, corpora: Sequence[Corpus]) -> Feedback:
        """What the student gets wrong now, of the questions it was taught in this cycle."""
        table = self._judged(f"{self.key}/feedback", self.parts.questions(self.corpus.table("train"), self.number))
        learnt = [corpus.table("train") for corpus in corpora]
        held = [corpora[0].table(part) for part in ("validation", "test")]
        known = pa.concat_tables([*learnt, *held], promote_options="default")
        return Feedback(self.number, table, known, learnt=pa.concat_tables(learnt, promote_options="default"))

    def attempts(self, samples: pa.Table) -> Feedback:
        """The student's answers to samples that it will learn in the next cycle."""
        table = self._judged(f"cycle-{self.number + 1:02d}/attempts", samples, proved=True)
        return Feedback(self.number, table)

    def _judged(self, key: str, questions: pa.Table, proved: bool = False) -> pa.Table:
        """The student's attempts at ``questions`` under every judge, or under those that prove; asked once."""

        path = self.record.folder / f"{key}.parquet"

        def make() -> dict[str, Any]:
            model = self.record.folder / _place(self.number, self.last.index, self.last.spec.name) / "model"
            seed = stage_seed(self.parts.seed, self.number, (1 << 21) + proved)
            found = self.parts.probe(self.parts.load(model), questions, seed, self.events, proved=proved)
            write_table(found.table, path)
            for name, learnt in found.models.items():
                learnt.save(path.with_suffix("") / name)
            return dict(found.facts)

        self.record.once(f"{key}.json", make)
        hint = f"remove {path.with_suffix('.json')}: the student is asked again"
        return read_rows(path, "the student's attempts of this cycle", hint)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _design_of(cycle: int) -> str:
    """The key of what a teacher designed before ``cycle``."""
    return f"cycle-{cycle:02d}/design.json"


def _place(cycle: int, index: int, name: str) -> str:
    """The folder of a stage, below the run's."""
    return f"cycle-{cycle:02d}/stage-{index:02d}-{name}"
