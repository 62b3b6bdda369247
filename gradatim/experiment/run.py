"""The experiment: curriculum learning within a cycle, iterative distillation between cycles.

    first dataset: draw samples, score their difficulty, split them
    for each cycle:
        cut the training samples into difficulty bands
        while the schedule names a next stage:                     curriculum learning
            select the stage's samples, train on them, evaluate the model
        generate the model's attempts at the cycle's questions     iterative distillation
        judge the attempts
        request new questions where the model fails
        add rejected answers to the new samples: failed attempts, mutations, incorrect answers of the teacher
        next dataset

``Components`` makes the parts that the recipe names. The decorators of ``results`` record the result of a step in the
run folder, so the same call resumes a run: finished steps are read back.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.endpoint import load_package
from ..corpus import Corpus, NewSamples, feedback_of
from ..distillation import NoNewQuestions
from ..errors import RecipeError
from ..evaluation.model_server import ModelServer, check_command
from ..processes import connect, launch
from ..random_streams import attempts_seed, stage_seed
from ..record import Record
from ..results import (
    NO_QUESTIONS,
    TEACHER_CHECK,
    answer_notes,
    cycle_folder,
    describe,
    encode,
    initial_folder,
    recorded_stage,
    recorded_table,
    stage_folder,
)
from ..schedule import next_stage, preview, select_rows
from ..stage import Event, Events, Feedback, Fitted, Model, Stage, StageResult, StageSpec, SuiteResult, ignore_events
from ..training.batches import check_processes
from .assemble import Components, NamedSuite, assemble, check, student_of
from .ranks import Leader, serve
from .recipe import Recipe, StudentSection
from .run_lock import FINISHED, check_run_folder, claim, finished_cycles, trained_stage

if TYPE_CHECKING:
    import pyarrow as pa

    from ..distillation.attempts import GradedAttempts


def run(
    recipe: Recipe,
    folder: Path,
    *,
    store: Path | None = None,
    events: Events = ignore_events,
    server: str | None = None,
) -> list[StageResult]:
    """Train the recipe in ``folder``, or resume it; return the results of all stages, cycle by cycle.

    ``store``: folder of the first cycle's dataset (shared within a study), by default ``folder / "data"``. ``events``
    may raise ``Stopped``: the state is saved and the same call resumes. When the source has no new question for a
    cycle (``NoNewQuestions``), the run ends after the previous one and counts as finished. Where a launcher started
    several processes, all of them call this; rank 0 runs the experiment, see ``ranks``. ``server``: a command line with
    {model} and {port} that serves a model folder by OpenAI's protocol; attempts and the suites that read texts then get
    them from it. Raises ``ProcessLost`` when one of the processes ends.
    """
    check(recipe)
    if server is not None:
        check_server(recipe, server)
    check_processes_of(recipe, launch().size)
    processes = connect()
    if not processes.is_main:
        return serve(recipe, processes, events)
    serving: contextlib.AbstractContextManager[ModelServer | None]
    serving = contextlib.nullcontext() if server is None else ModelServer(server, events)
    with Leader(processes, folder) as leader, serving as model_server:
        leader.results = _run(recipe, folder, store, events, leader, model_server)
    return leader.results


def check_server(recipe: Recipe, command: str) -> None:
    """Raise ``UserError`` unless ``command`` can serve the recipe's student."""
    check_command(command)
    load_package("--server")
    student = recipe.student
    if isinstance(student, StudentSection):
        given = f"kind: {student.kind}"
        raise RecipeError("a server reads language models", where="--server", given=given, hint="no --server")


def check_processes_of(recipe: Recipe, size: int) -> None:
    """Raise ``RecipeError`` when ``size`` processes cannot train the recipe's student together."""
    if recipe.is_language:
        check_processes(recipe.train, size)
    elif size > 1 and not student_of(recipe).several_processes:
        raise RecipeError(
            "a student of this kind is trained in one process",
            where="student.kind",
            given=f"{size} processes",
            hint="a study, whose runs are processes of their own",
        )


def _run(
    recipe: Recipe, folder: Path, store: Path | None, events: Events, leader: Leader, server: ModelServer | None
) -> list[StageResult]:
    """``run`` in the process that runs the experiment."""
    check_run_folder(folder)
    with Record(folder) as record:
        leader.check_shared_folder()
        claim(record, recipe, events, leader.processes.size, None if server is None else server.program)
        components = assemble(recipe, events, leader.processes, server)
        if components.has_chat and not record.done(FINISHED) and trained_stage(folder) is None:
            record.once(TEACHER_CHECK, components.check_teacher)
        datasets = [components.first_dataset(store or folder / "data")]  # draw samples, score their difficulty, split
        components = components.with_budget(datasets[0])
        results: list[StageResult] = []
        end: dict[str, int | str] = {}
        cycles = finished_cycles(record) or components.cycles
        for number in range(cycles):
            cycle = Cycle(number, datasets, tuple(results), components, record, events)
            results += cycle.train_stages()  # curriculum learning
            end = {"cycles": number + 1, "stages": len(results)}
            if number + 1 < cycles:
                try:
                    datasets.append(cycle.next_dataset())  # iterative distillation
                except NoNewQuestions as dry:
                    events(Event("note", "run", text=f"the run ends after cycle {number}: {dry}"))
                    record.once(f"{cycle_folder(number)}/{NO_QUESTIONS}", partial(dict, dry.facts))
                    end["dry"] = str(dry)
                    break
        record.once(FINISHED, lambda: end)
        return results


@dataclass
class Cycle:
    """One cycle: the last of ``datasets``, cut into difficulty bands, and the stages of a schedule over them.

    ``datasets``: the datasets of all cycles so far; the first one holds the test set. ``earlier``: the results of the
    stages of earlier cycles.
    """

    number: int
    datasets: list[Corpus]
    earlier: tuple[StageResult, ...]
    components: Components
    record: Record
    events: Events

    def __post_init__(self) -> None:
        self.dataset = self.datasets[-1]
        self.difficulty = self.dataset.difficulty("train", self.components.metric)
        self.bands = self.components.cut(self.dataset)
        self.finished: list[StageResult] = []

    def folder(self, stage: Stage | StageResult) -> Path:
        """The folder of a stage, with its model."""
        return self.record.folder / stage_folder(stage)

    # Curriculum learning

    def train_stages(self) -> list[StageResult]:
        """Train the stages that the schedule names, each from the model of the previous one."""
        content = (self.dataset, self.bands, self.difficulty, self.components.metric)
        self.record.once(f"{cycle_folder(self.number)}/table.json", lambda: describe(*content))
        self.schedule = self.components.schedule(self.number, self.dataset, self.bands, self.earlier, self.record)
        while spec := next_stage(self.schedule, self.finished):
            stage = self.select(spec)
            if stage.cycle == 0 and stage.index == 0:
                self.evaluate_on_start()
                self.measure_answers()
            self.finished.append(self.train_and_evaluate(stage))
        return self.finished

    def measure_answers(self) -> None:
        """Measure the loss of the answers of a pretrained model before training, unless a stage is finished."""
        started = any((self.record.folder / cycle_folder(0)).glob("stage-*/result.json"))
        if started or not self.components.student.pretrained:
            return

        def measure() -> dict[str, Any]:
            losses = self.components.answer_losses(self.dataset)
            for text in answer_notes(losses):
                self.events(Event("note", "answers", text=text))
            return {kind: asdict(loss) for kind, loss in losses.items()}

        self.record.once(f"{cycle_folder(0)}/answer-loss.json", measure)

    def select(self, spec: StageSpec) -> Stage:
        """Select the samples of a stage, by their difficulty or by the model's loss after the previous stage."""
        results = [*self.earlier, *self.finished]
        stage = select_rows(
            spec,
            self.bands,
            self.difficulty,
            seed=stage_seed(self.components.seed, self.number, len(self.finished)),
            index=len(self.finished),
            first_token=sum(result.spec.tokens for result in results),
            run_tokens=self.components.tokens,
            categories=self.dataset.categories,
            probe=self.components.probe(self.folder(results[-1])) if spec.probes else None,
        )
        return replace(stage, cycle=self.number)

    @recorded_stage("result.json", StageResult)
    def train_and_evaluate(self, stage: Stage) -> StageResult:
        """Train on the stage, measure what the schedule needs, evaluate the model."""
        fitted = self.train(stage)
        self.record.discard(f"{stage_folder(stage)}/checkpoint")
        progress = self.measure(stage) if self.schedule.needs else {}
        counts = {name: int((self.bands.index[stage.rows] == i).sum()) for i, name in enumerate(self.bands.names)}
        result = StageResult(self.number, stage.index, stage.spec, len(stage.rows), counts, fitted, **progress)
        last = self.schedule.next([*self.finished, result]) is None
        return replace(result, evaluations=tuple(self.evaluate(stage, last)))

    @recorded_stage("fitted.json", Fitted)
    def train(self, stage: Stage) -> Fitted:
        """Train on the stage, from the model of the previous one.

        A stage ends with a full step and exceeds its budget by less than one; the excess of earlier stages is
        subtracted here, so that a run of many stages keeps the budget as precisely as a single stage.
        """
        results = [*self.earlier, *self.finished]
        excess = sum(result.fitted.tokens - result.spec.tokens for result in results)
        spec = replace(stage.spec, tokens=max(stage.spec.tokens - excess, 1))
        stage = replace(stage, spec=spec, first_token=stage.first_token + excess)
        self.components.offload_teacher()
        if not results:
            self.show_examples()
        trainer = self.components.trainer(self.dataset, self.record.metrics, self.bands)
        previous = self.folder(results[-1]) if results else None
        label = self.stage_label(stage)
        return trainer.fit(stage, self.folder(stage), previous, lambda event: self.events(replace(event, stage=label)))

    def stage_label(self, stage: Stage) -> str:
        """Position of a stage in the run, for progress: ``cycle 1 of 3, stage 2 of 4``.

        The number of stages is left out for a schedule that depends on the model's results.
        """
        label = f"stage {stage.index + 1}"
        if not self.schedule.needs:
            label += f" of {len(preview(self.schedule, self.bands))}"
        cycles = self.components.cycles
        return label if cycles == 1 else f"cycle {self.number + 1} of {cycles}, {label}"

    def show_examples(self) -> None:
        """Emit a note for each of a few training samples: its formatted text, and which of it has a loss."""
        for number, example in enumerate(self.components.examples(self.dataset), 1):
            counts = f"{example.loss_tokens} of {example.tokens} tokens have a loss"
            text = f"training example {number}, {counts}: {' | '.join(example.lines())}"
            self.events(Event("note", "examples", text=text))

    @recorded_stage("progress.json", dict)
    def measure(self, stage: Stage) -> dict[str, Any]:
        """Measure the model's losses that an adaptive schedule needs, on validation and training samples."""
        folder, needs = self.folder(stage), self.schedule.needs
        return self.components.measure(needs, folder, self.dataset, self.bands, stage.seed)

    def evaluate(self, stage: Stage, last: bool) -> list[SuiteResult]:
        """Evaluate the model on fixed samples, by the bands of this cycle; ``last``: also by the final suites."""
        suites = [suite for suite in self.components.suites if last or not suite.only_last]
        if not suites:
            return []
        model = self.components.load_for_texts(self.folder(stage))
        splits = {suite.split for suite in suites}
        samples = {split: self.components.samples(split, self.dataset, self.bands) for split in splits}
        return [self.run_suite(stage, suite, model, samples[suite.split]) for suite in suites]

    @recorded_stage("evaluation-{0.label}.json", SuiteResult)
    def run_suite(self, stage: Stage, suite: NamedSuite, model: Model, samples: pa.Table) -> SuiteResult:
        """Evaluate the model with one suite."""
        return self.components.evaluate(suite, model, samples)

    def evaluate_on_start(self) -> None:
        """Evaluate the model before training (step 0) with every suite, unless a stage is already finished."""
        started = any((self.record.folder / cycle_folder(0)).glob("stage-*/result.json"))
        if started or not self.components.suites or not self.components.evaluates_on_start:
            return
        model: list[Model] = []

        def evaluate(suite: NamedSuite) -> dict[str, Any]:
            if not model:  # loaded once, and not at all when every result is recorded
                model.append(self.components.initial_model(self.dataset, self.record.metrics))
            samples = self.components.samples(suite.split, self.dataset, self.bands)
            return encode(self.components.evaluate(suite, model[0], samples))

        for suite in self.components.suites:
            self.record.once(f"{initial_folder()}/evaluation-{suite.label}.json", partial(evaluate, suite))

    # Iterative distillation

    def next_dataset(self) -> Corpus:
        """The dataset of the next cycle: new questions where the model fails, with rejected answers.

        Raises ``NoNewQuestions`` without new questions.
        """
        questions = self.components.questions(self.dataset.table("train"), self.number)
        attempts = self.judged_attempts(f"{cycle_folder(self.number)}/feedback", questions)
        feedback = feedback_of(self.number, attempts, self.datasets)
        folder = self.record.folder / cycle_folder(self.number + 1) / "corpus"
        return self.components.corpus.make_next(folder, self.datasets[0], lambda: self.new_samples(feedback))

    @recorded_table
    def judged_attempts(self, key: str, questions: pa.Table, *, new_samples: bool = False) -> GradedAttempts:
        """Generate the model's attempts at ``questions`` and judge them; of new samples, by proving judges only."""
        model = self.components.load_for_texts(self.folder(self.finished[-1]))
        seed = attempts_seed(self.components.seed, self.number, new_samples=new_samples)
        return self.components.judge_attempts(model, questions, seed, verify=new_samples)

    def new_samples(self, feedback: Feedback) -> NewSamples:
        """Request new questions by ``feedback``, then add rejected answers, among them failed attempts of the model."""
        corpus, attempts = self.components.corpus, Feedback()
        new = corpus.new_samples(self.datasets[0], feedback, self.events)
        if corpus.needs_attempts:
            key = f"{cycle_folder(self.number + 1)}/attempts"
            attempts = Feedback(self.number, self.judged_attempts(key, new.table, new_samples=True))
        return corpus.add_rejected(new, attempts, self.events)
