"""One cycle of a run: the stages of its curriculum, then the distillation step to the next dataset.

Curriculum learning: ``next_stage`` (the schedule's choice, with its samples selected), ``train``, ``evaluate``.
Iterative distillation: ``feedback`` (completions of the cycle's questions, judged), ``completions`` of the new samples
(a source of rejected answers), ``next_dataset``. ``design`` and its helpers serve LLM-designed schedules only.
Every costly step is recorded by ``record.once``: the text of a step is the function handed to it.
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
from ..options import parse_json
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
from ..schedule import Designed, category_codes, is_designed, next_stage, select_rows, stage_seed
from ..stage import Events, Feedback, Fitted, Needs, Probe, Schedule, Stage, StageResult, StageSpec, Suite, SuiteResult
from ..table import write_table
from .assemble import Components


class Cycle:
    """One cycle: a dataset, its difficulty bands, and the schedule over them. ``before``: results of earlier cycles."""

    def __init__(
        self,
        record: Record,
        components: Components,
        corpus: Corpus,
        number: int,
        before: Sequence[StageResult],
        events: Events,
    ) -> None:
        self.record, self.components, self.corpus, self.number, self.events = record, components, corpus, number, events
        self.before = tuple(before)
        self.schedule: Schedule = components.schedules[number]
        self.difficulty = corpus.difficulty("train", components.metric)
        self.bands = components.cut(corpus)
        self.key = f"cycle-{number:02d}"

    def run(self) -> list[StageResult]:
        """Train and evaluate the stages that the schedule names, each from the model of the previous one."""
        self.record.once(
            f"{self.key}/table.json", lambda: describe(self.corpus, self.bands, self.difficulty, self.components.metric)
        )
        if is_designed(self.schedule):
            stages = self.design(self.schedule)
            if self.number + 1 == self.components.cycles:  # the last cycle has no later design that needs progress
                self.schedule = replace(self.schedule, needs=Needs())
            self.schedule = self.schedule.with_stages(stages)
        history: list[StageResult] = []
        while stage := self.next_stage(history):
            history.append(self.train_and_evaluate(stage, history))
        self.last = history[-1]
        return history

    def design(self, schedule: Designed) -> tuple[StageSpec, ...]:
        """The stages that the teacher designed for this cycle: before it, or without revision before the first one."""
        if self.number and not schedule.revise:
            return self._design(0).cycles[self.number]
        self.record.once(_design_of(self.number), lambda: encode_design(self.request_design(schedule)))
        return self._design(self.number).cycles[0]

    def request_design(self, schedule: Designed) -> DesignOutcome:
        """Request the stages of this and all later cycles from the teacher. Unusable replies are stored before the
        error is raised, so that a repeated run requests another sample."""
        path = self.record.folder / self.key / "design-unusable.json"
        failed = read_json(path, _listed) if path.exists() else []
        feedback = self.record.folder / f"cycle-{self.number - 1:02d}" / "feedback.json"
        result = self.components.design(
            schedule,
            self.corpus,
            self.bands,
            self.difficulty,
            cycle=self.number,
            so_far=self.before,
            feedback=read_json(feedback) if feedback.exists() else None,
            plan=self._design(self.number - 1).cycles[1:] if self.number else None,
            draw=len(failed),
        )
        if result.design is None:
            unusable = {"replies": result.replies, "faults": result.faults, "teacher": dict(result.used)}
            write_json(path, [*failed, unusable])
        return result

    def _design(self, cycle: int) -> Design:
        """The design made before ``cycle``, for it and all later ones."""
        path = self.record.folder / _design_of(cycle)
        try:
            design = decode_design(parse_json(read_input(path)))
            if len(design.cycles) != self.components.cycles - cycle:
                raise ValueError(f"{len(design.cycles)} cycles")
            return design
        except (*DECODE_ERRORS, OSError) as error:
            raise RunFolderError(
                "the design of this run is damaged",
                where=path,
                given=error.strerror if isinstance(error, OSError) else fault_of(error),
                hint="remove it to request the design again",
            ) from error

    def next_stage(self, history: Sequence[StageResult]) -> Stage | None:
        """The stage that the schedule names after ``history``, with its samples selected; None at the end."""
        spec = next_stage(self.schedule, history)
        if spec is None:
            return None
        index = len(history)
        stage = select_rows(
            spec,
            self.bands,
            self.difficulty,
            seed=stage_seed(self.components.seed, self.number, index),
            index=index,
            first_token=sum(done.spec.tokens for done in [*self.before, *history]),
            run_tokens=self.components.tokens,
            categories=lambda column: category_codes(self.corpus.table("train"), column),
            probe=self.probe(spec, history),
        )
        return replace(stage, cycle=self.number)

    def probe(self, spec: StageSpec, history: Sequence[StageResult]) -> Probe | None:
        """The model's loss on the samples after the last stage, for stages that select by it."""
        if not spec.probes:
            return None
        from ..inference.loglikelihood import load_probe

        last = history[-1]
        return load_probe(self.record.folder / _stage_folder(last.cycle, last.index, last.spec.name) / "probe.npz")

    def train_and_evaluate(self, stage: Stage, history: Sequence[StageResult]) -> StageResult:
        """Train one stage and evaluate the model; both are recorded, ``result.json`` last."""
        key = _stage_folder(self.number, stage.index, stage.spec.name)

        def make() -> dict[str, Any]:
            fitted = self.record.once(
                f"{key}/fitted.json", lambda: encode(self.train(stage, key, history)), decode_fitted
            )
            self.record.discard(f"{key}/checkpoint")
            counts = {
                name: int((self.bands.index[stage.rows] == band).sum()) for band, name in enumerate(self.bands.names)
            }
            result = StageResult(self.number, stage.index, stage.spec, len(stage.rows), counts, fitted)
            result = replace(result, **self.progress(stage, key))
            last = self.schedule.next([*history, result]) is None
            return encode(replace(result, evaluations=tuple(self.evaluate(key, last))))

        result: StageResult = self.record.once(f"{key}/result.json", make, decode_stage)
        return result

    def train(self, stage: Stage, key: str, history: Sequence[StageResult]) -> Fitted:
        """Train on the stage, from the model of the previous one.

        A stage ends with a full step and exceeds its budget by less than one; the excess of earlier stages is
        subtracted here, so that a run of many stages keeps the budget as precisely as a single stage.
        """
        excess = sum(result.fitted.tokens - result.spec.tokens for result in [*self.before, *history])
        spec = replace(stage.spec, tokens=max(stage.spec.tokens - excess, 1))
        stage = replace(stage, spec=spec, first_token=stage.first_token + excess)
        self.components.offload_teacher()
        trainer = self.components.trainer(self.corpus, self.record.metrics)
        before = [*self.before, *history][-1:]
        folder = self.record.folder
        previous = [folder / _stage_folder(result.cycle, result.index, result.spec.name) for result in before]
        return trainer.fit(stage, folder / key, previous[0] if previous else None, self.events)

    def progress(self, stage: Stage, key: str) -> dict[str, Any]:
        """The measurements of the model after the stage that the schedule needs."""
        needs = self.schedule.needs
        if needs == Needs():
            return {}

        def make() -> dict[str, Any]:
            from ..inference.loglikelihood import measure

            folder = self.record.folder / key
            bands = self.bands.assign(self.corpus.difficulty("validation", self.components.metric))
            model, (samples, validation) = self.components.load(folder / "model"), self.components.encoded(self.corpus)
            arguments = (needs, model, samples, validation, self.bands, bands)
            return measure(*arguments, seed=stage.seed, path=folder / "probe.npz", events=self.events)

        progress: dict[str, Any] = self.record.once(f"{key}/progress.json", make, decode_progress)
        return progress

    def evaluate(self, key: str, last: bool) -> Iterator[SuiteResult]:
        """Results of the suites on the fixed test set, by the bands of this cycle; ``last``: also the final ones."""
        suites = [suite for suite in self.components.suites if last or not suite.only_last]
        if not suites:
            return
        model = self.components.load(self.record.folder / key / "model")
        bands = self.bands.assign(self.corpus.difficulty("test", self.components.metric))
        names = [self.bands.names[band] if band >= 0 else None for band in bands]
        samples = self.corpus.table("test").append_column("band", pa.array(names, pa.string()))
        seed, events = self.components.evaluation_seed, self.events

        def make(suite: Suite) -> dict[str, Any]:
            return encode(suite(model, samples, seed=seed, events=events))

        for suite in suites:
            yield self.record.once(f"{key}/evaluation-{suite.label}.json", partial(make, suite.suite), decode_suite)

    def next_dataset(self, datasets: Sequence[Corpus]) -> Corpus:
        """The dataset of the next cycle: new questions by this cycle's feedback, with rejected answers.

        ``datasets``: those of all cycles so far. Raises ``RanDry`` without new questions.
        """
        folder = self.record.folder / f"cycle-{self.number + 1:02d}" / "corpus"
        first, feedback = datasets[0], self.feedback(datasets)
        return self.components.corpus.make_next(folder, first, feedback, self.completions, self.events)

    def feedback(self, datasets: Sequence[Corpus]) -> Feedback:
        """The model's completions of questions of this cycle's training samples, judged and graded."""
        table = self._judge(f"{self.key}/feedback", self.components.questions(self.corpus.table("train"), self.number))
        training = [dataset.table("train") for dataset in datasets]
        held_out = [datasets[0].table(split) for split in ("validation", "test")]
        existing = pa.concat_tables([*training, *held_out], promote_options="default")
        return Feedback(self.number, table, existing, learnt=pa.concat_tables(training, promote_options="default"))

    def completions(self, samples: pa.Table) -> Feedback:
        """The model's completions of the next cycle's samples before training: wrong ones become rejected answers."""
        table = self._judge(f"cycle-{self.number + 1:02d}/attempts", samples, proved=True)
        return Feedback(self.number, table)

    def _judge(self, key: str, questions: pa.Table, proved: bool = False) -> pa.Table:
        """Recorded completions of ``questions`` under all judges, or with ``proved`` under verifying judges only."""

        path = self.record.folder / f"{key}.parquet"

        def make() -> dict[str, Any]:
            model = self.record.folder / _stage_folder(self.number, self.last.index, self.last.spec.name) / "model"
            seed = stage_seed(self.components.seed, self.number, (1 << 21) + proved)
            judged = self.components.judge(self.components.load(model), questions, seed, self.events, proved=proved)
            write_table(judged.table, path)
            for name, scoring_model in judged.models.items():
                scoring_model.save(path.with_suffix("") / name)
            return dict(judged.facts)

        self.record.once(f"{key}.json", make)
        hint = f"remove {path.with_suffix('.json')} to generate the completions again"
        return read_rows(path, "the completions of this cycle", hint)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _design_of(cycle: int) -> str:
    """The record key of the design made before ``cycle``."""
    return f"cycle-{cycle:02d}/design.json"


def _stage_folder(cycle: int, index: int, name: str) -> str:
    """The folder of a stage relative to the run folder."""
    return f"cycle-{cycle:02d}/stage-{index:02d}-{name}"
