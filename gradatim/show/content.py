"""Content of the page: runs, stages, test programs, verdicts and students, read from run folders.

``read`` reads study and run folders through ``reporting.collect`` and adds the verdict on every test program after
every stage. A verdict is one character per row of the test set: ``1`` right, ``0`` wrong, ``-`` not evaluated. Nothing
is written and no lock is taken, so runs in progress can be read; a missing part becomes a note.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import reporting
from ..errors import GradatimError
from ..reporting.data import RunData, StudyData
from ..reporting.maps import EpisodeMap
from ..reporting.terms import POLICY, budget_of, has_policy
from ..reporting.verdicts import Evaluation
from ..results import stage_folder
from ..stage import Counts, StageResult
from . import weights
from .environments import SUITE as EPISODES
from .environments import Environment, environment_rows, maps_of
from .question_tree import QuestionTree, read_tree

if TYPE_CHECKING:
    from ..stage import EvaluationSplit

SUITE = "output"
"""The suite of the map: greedy completions compared with the output of the program."""
MOST_PROGRAMS = 20_000
"""Test programs on the page; the page would be slow with more."""

Computed = Literal["page", "server", "nowhere"]


@dataclass(frozen=True)
class Student:
    """The model of a stage. ``computed``: by the page's script, by the server (``reason``: why), or missing."""

    folder: Path
    computed: Computed
    reason: str = ""
    probes: weights.ProbeLayers | None = None


@dataclass(frozen=True)
class StageView:
    """One cell of the table of a run. ``levels``: counts by level; ``verdicts``: see the module; ``key``: unique."""

    key: str
    cycle: int
    index: int
    name: str
    data: Mapping[str, int]
    samples: int
    objective: str
    budget: int
    tokens: int
    loss: float | None
    result: Counts | None
    levels: Mapping[str, Counts]
    verdicts: str | None
    student: Student


@dataclass(frozen=True)
class Step:
    """Number of programs by their verdict before and after a stage."""

    learnt: int
    kept: int
    forgotten: int
    unlearnt: int


@dataclass(frozen=True)
class RunView:
    """One run. ``test``: the key of its test set; ``metric``: its difficulty; ``rows``: logged steps so far;
    ``scratchpad``: its answers have steps before the printed lines.

    ``questions``: those of a run with a teacher, by cycle. ``policy``: the student controls a mobile network;
    ``environments``: its utilities in the test environments, by stage.
    """

    key: str
    arm: str
    title: str
    seed: int
    complete: bool
    metric: str
    test: str | None
    stages: tuple[StageView, ...]
    rows: int
    tokens: int
    budget: int | None
    curve: tuple[tuple[int, float], ...] = ()
    questions: QuestionTree | None = None
    policy: bool = False
    environments: tuple[Environment, ...] = ()
    scratchpad: bool = False

    @property
    def item(self) -> str:
        """The noun of a test sample."""
        return "environment" if self.policy else "program"

    @property
    def unit(self) -> str:
        """The noun of the budget."""
        return POLICY.budget if self.policy else "tokens"

    @property
    def steps(self) -> tuple[Step | None, ...]:
        """Programs learnt, kept and forgotten in each stage; None for a stage without verdicts."""
        return tuple(
            None if stage.verdicts is None else _step(before, stage.verdicts)
            for stage, before in zip(self.stages, [None, *[stage.verdicts for stage in self.stages]], strict=False)
        )


@dataclass(frozen=True)
class Program:
    """A test program; ``prompt`` ends with the line ``# output``, ``answer`` is its output."""

    prompt: str
    answer: str
    level: str | None
    difficulty: float | None


@dataclass(frozen=True)
class Content:
    """All content of the page. ``tests``: the test sets by key; ``maps``: one episode of each arm of policies."""

    title: str
    sentence: str
    support: tuple[str, ...]
    runs: tuple[RunView, ...]
    tests: Mapping[str, tuple[Program, ...]]
    notes: tuple[str, ...] = ()
    students: Mapping[str, Student] = field(default_factory=dict)
    maps: tuple[EpisodeMap, ...] = ()

    @property
    def playground(self) -> bool:
        """Whether the page has a map of programs and a playground: not if all students are policies."""
        return not self.runs or not all(run.policy for run in self.runs)

    @property
    def complete(self) -> bool:
        """Whether all runs are finished."""
        return all(run.complete for run in self.runs)


def read(folders: Sequence[Path]) -> Content:
    """The content of study and run folders. Raises what ``reporting.collect`` raises."""
    study = reporting.collect(folders)
    notes = list(study.notes)
    runs = tuple(_run(study, run, notes) for run in study.runs)
    tests: dict[str, tuple[Program, ...]] = {}
    for run, view in zip(study.runs, runs, strict=True):
        if view.test is not None and view.test not in tests and run.folder is not None:
            tests[view.test] = _programs(run.folder)
    top = reporting.headline(reporting.summarise(study))
    return Content(
        title=study.title,
        sentence=top.sentence,
        support=top.support,
        runs=runs,
        tests=tests,
        notes=tuple(dict.fromkeys(notes)),
        students={stage.key: stage.student for run in runs for stage in run.stages},
        maps=maps_of(study) if any(run.policy for run in runs) else (),
    )


def of_model(model: Path) -> Content:
    """The content for one model folder: its stage and test set where it belongs to a run, else the model alone.

    Raises ``DataError`` when the folder is no model or damaged.
    """
    reason = weights.unsupported(model)
    student = Student(model, "server" if reason else "page", reason or "")
    run = next((folder for folder in model.resolve().parents if (folder / "recipe.yaml").is_file()), None)
    if run is not None:
        try:
            content = read([run])
        except GradatimError as error:
            return _alone(model, student, f"The run of the model cannot be read: {error.message}.")
        for view in content.runs:
            for stage in view.stages:
                if stage.student.folder.resolve() == model.resolve():
                    only = replace(view, stages=(stage,), questions=None)
                    return replace(content, runs=(only,), students={stage.key: stage.student})
    return _alone(model, student)


def _alone(model: Path, student: Student, *notes: str) -> Content:
    name = model.resolve().name
    stage = StageView(
        key=name, cycle=0, index=0, name="training", data={}, samples=0, objective="", budget=0, tokens=0, loss=None,
        result=None, levels={}, verdicts=None, student=student,
    )  # fmt: skip
    run = RunView(
        key=name, arm=name, title=name, seed=0, complete=True, metric="om", test=None, stages=(stage,), rows=0,
        tokens=0, budget=None,
    )  # fmt: skip
    sentence = "The model belongs to no run folder, so there are no results and no test programs."
    return Content(name, sentence, (), (run,), {}, notes, {name: student})


def _run(study: StudyData, run: RunData, notes: list[str]) -> RunView:
    key = f"{run.arm}/{run.seed}"
    assert run.folder is not None
    settings = run.settings
    policy, scratchpad = has_policy(settings), bool(_section(settings, "data").get("scratchpad"))
    kind = (EPISODES, "seen") if policy else (SUITE, "scratchpad" if scratchpad else "greedy")
    evaluations = _evaluations(run.folder, *kind)
    samples = _samples(run.folder, evaluations)
    verdicts = _verdicts(run.folder, evaluations, samples[1] if samples else 0, notes)
    title = study.title_of(run.arm) + (f", seed {run.seed}" if len(study.seeds) > 1 else "")
    stages = tuple(
        _stage(run.folder, stage, key, settings, kind, verdicts.get((stage.cycle, stage.index))) for stage in run.stages
    )
    missing = [stage for stage in stages if stage.result is not None and stage.verdicts is None]
    if missing:
        reason = "the test samples are missing" if samples is None else "they come from an earlier version"
        item = "environment" if policy else "program"
        notes.append(f"{title}: no verdict per {item} for {len(missing)} of {len(stages)} stages ({reason}).")
    curve = [(point.run_tokens, point.loss) for point in run.curve if point.loss is not None]
    table = run.tables[0] if run.tables else None
    return RunView(
        key=key,
        arm=run.arm,
        title=title,
        seed=run.seed,
        complete=run.complete,
        metric=table.histogram.metric if table and table.histogram else "difficulty",
        test=samples[0] if samples and not policy else None,
        stages=stages,
        rows=len(run.curve),
        tokens=max((point.run_tokens for point in run.curve), default=run.tokens),
        budget=budget_of(settings),
        curve=tuple(curve[:: max(1, len(curve) // 200)]),
        questions=None if policy else read_tree(run.folder),
        policy=policy,
        scratchpad=scratchpad,
        environments=_environments(run.folder, evaluations, stages) if policy else (),
    )


def _environments(
    folder: Path, evaluations: Sequence[Evaluation], stages: Sequence[StageView]
) -> tuple[Environment, ...]:
    """The rows of the test environments, with a cell for each of ``stages``."""
    of_stage = {(item.cycle, item.stage): item for item in reversed(evaluations) if item.has_verdicts}
    return environment_rows(
        [_read(of_stage[stage.cycle, stage.index], folder) if stage.verdicts else None for stage in stages]
    )


def _stage(
    folder: Path,
    stage: StageResult,
    run: str,
    settings: Mapping[str, Any],
    kind: tuple[str, str],
    verdicts: str | None,
) -> StageView:
    """A stage with its shares by level from the evaluation of ``kind`` (suite, protocol), else from the first one."""
    result = next((item for item in stage.evaluations if (item.suite, item.protocol) == kind), None)
    result = result or next(iter(stage.evaluations), None)
    counts = result.counts if result else {}
    return StageView(
        key=f"{run}/{stage.cycle}/{stage.index}",
        cycle=stage.cycle,
        index=stage.index,
        name=stage.spec.name,
        data=stage.composition,
        samples=stage.samples,
        objective=stage.spec.objective or _objective(settings),
        budget=stage.spec.tokens,
        tokens=stage.fitted.tokens,
        loss=stage.fitted.loss if math.isfinite(stage.fitted.loss) else None,
        result=counts.get("all", {}).get("all"),
        levels=counts.get("level", {}),
        verdicts=verdicts,
        student=_student(folder / stage_folder(stage) / "model", settings),
    )


def _objective(settings: Mapping[str, Any]) -> str:
    """The objective of the recipe, or the reward of a policy."""
    if has_policy(settings):
        return str(_section(settings, "student").get("reward", "utility"))
    return str(_section(settings, "train").get("objective", "next_token"))


def _student(folder: Path, settings: Mapping[str, Any]) -> Student:
    if has_policy(settings):
        return Student(folder, "nowhere", "A policy controls a mobile network and answers no programs.")
    try:
        reason = weights.unsupported(folder)
    except GradatimError as error:
        return Student(folder, "nowhere", f"The model cannot be read: {error.message}.")
    return Student(folder, "server" if reason else "page", reason or "", None if reason else _probes(folder, settings))


def _probes(folder: Path, settings: Mapping[str, Any]) -> weights.ProbeLayers | None:
    """The layers of the heads of trace supervision; None without heads."""
    if not (folder.parent / weights.PROBES).is_file():
        return None
    layers = weights.layers(folder)
    trace = _section(_section(settings, "train"), "trace_supervision")
    variables, results = trace.get("variable_layer"), trace.get("result_layers")
    return weights.ProbeLayers(
        variables if isinstance(variables, int) else max(1, round(layers / 4)),
        max(results) if isinstance(results, list) and results else max(1, round(layers * 3 / 4)),
    )


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def _samples(folder: Path, evaluations: Sequence[Evaluation]) -> tuple[str, int] | None:
    """The key of the samples that the evaluations are on, and their number; None without the file."""
    table = _table(folder, evaluations)
    if table is None:
        return None
    texts = "\n".join(table["prompt"].to_pylist())
    digest = hashlib.blake2b(texts.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
    return f"{_split(evaluations)} {digest}", min(table.num_rows, MOST_PROGRAMS)


def _table(folder: Path, evaluations: Sequence[Evaluation]) -> Any:
    try:
        return reporting.evaluation_samples(folder, _split(evaluations))
    except (GradatimError, OSError):
        return None


def _split(evaluations: Sequence[Evaluation]) -> EvaluationSplit:
    return evaluations[0].result.split if evaluations else "test"


def _programs(folder: Path) -> tuple[Program, ...]:
    evaluations = _evaluations(folder)
    table = _table(folder, evaluations)
    difficulty: list[float | None] = [None] * table.num_rows
    for evaluation in evaluations:
        if evaluation.has_verdicts:
            rows = _read(evaluation, folder)
            for row, value in zip(rows["row"].to_pylist(), rows["difficulty"].to_pylist(), strict=True):
                difficulty[row] = value if value is not None and math.isfinite(value) else None
            break
    columns = [table[name].to_pylist() for name in ("prompt", "answer", "level")]
    return tuple(
        Program(prompt, answer, None if level is None else str(level), score)
        for prompt, answer, level, score in list(zip(*columns, difficulty, strict=True))[:MOST_PROGRAMS]
    )


def _evaluations(folder: Path, suite: str = SUITE, protocol: str = "greedy") -> tuple[Evaluation, ...]:
    """The evaluations of the map: of ``suite``, by ``protocol`` and on the test set where there are such."""
    try:
        listed = [item for item in reporting.evaluations(folder) if item.result.suite == suite]
    except (GradatimError, OSError):
        return ()
    listed = [item for item in listed if item.result.protocol == protocol] or listed
    return tuple([item for item in listed if item.result.split == "test"] or listed)


def _verdicts(
    folder: Path, evaluations: Sequence[Evaluation], size: int, notes: list[str]
) -> dict[tuple[int, int], str]:
    """The verdicts after each stage (cycle, index)."""
    verdicts: dict[tuple[int, int], str] = {}
    for evaluation in evaluations if size else ():
        place = evaluation.cycle, evaluation.stage
        if not evaluation.has_verdicts or place in verdicts:
            continue
        try:
            rows = _read(evaluation, folder)
        except (GradatimError, OSError) as error:
            notes.append(f"{evaluation.path.name} of stage {evaluation.stage_name} is skipped: {error}")
            continue
        marks = ["-"] * size
        for row, outcome in zip(rows["row"].to_pylist(), rows["outcome"].to_pylist(), strict=True):
            if row < size and outcome != "not evaluated":
                marks[row] = "1" if outcome == "passed" else "0"
        verdicts[place] = "".join(marks)
    return verdicts


def _read(evaluation: Evaluation, folder: Path) -> Any:
    return reporting.read_verdicts(folder, evaluation.label, cycle=evaluation.cycle, stage=evaluation.stage)


def _step(before: str | None, after: str) -> Step:
    earlier = before if before is not None and len(before) == len(after) else "0" * len(after)
    pairs = [*zip(earlier, after, strict=True)]
    return Step(
        learnt=sum(one != "1" and two == "1" for one, two in pairs),
        kept=pairs.count(("1", "1")),
        forgotten=pairs.count(("1", "0")),
        unlearnt=sum(one != "1" and two == "0" for one, two in pairs),
    )


def plain(content: Content) -> dict[str, Any]:
    """``content`` as JSON values for the script, without paths of this machine."""
    return {
        "title": content.title,
        "complete": content.complete,
        "runs": [
            {
                **{
                    name: getattr(run, name)
                    for name in ("key", "arm", "title", "seed", "complete", "metric", "test", "policy", "scratchpad")
                },
                "stages": [_plain_stage(stage) for stage in run.stages],
            }
            for run in content.runs
        ],
        "tests": {
            key: [[item.prompt, item.answer, item.level, item.difficulty] for item in programs]
            for key, programs in content.tests.items()
        },
    }


def _plain_stage(stage: StageView) -> dict[str, Any]:
    names = ("key", "cycle", "index", "name", "verdicts")
    return {
        **{name: getattr(stage, name) for name in names},
        "result": stage.result and [stage.result.passed, stage.result.total],
        "levels": {level: [counts.passed, counts.total] for level, counts in stage.levels.items()},
        "computed": stage.student.computed,
        "reason": stage.student.reason,
    }


@lru_cache(maxsize=256)
def packed(
    folder: Path, state: tuple[int, int], probes: weights.ProbeLayers | None, bits: weights.Bits = weights.DEFAULT_BITS
) -> bytes:
    """``weights.pack`` of a model folder; ``state``: size and modification time of its weights."""
    return weights.pack(folder, bits, probes)


def state_of(folder: Path) -> tuple[int, int]:
    """Size and modification time of the weights of a model folder."""
    file = (folder / "model.safetensors").stat()
    return file.st_size, file.st_mtime_ns
