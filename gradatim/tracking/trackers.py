"""The trackers, each by its class in ``accelerate.tracking``.

Imports accelerate and torch, as accelerate does. Its trackers ask ``PartialState`` for the main process, which would
join the group of a launcher: the state is that of a single process on the CPU.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from ..errors import UserError
from .tracker import TrackedRun, Tracker

STEP = "step"
"""The metric of Weights & Biases that serves as the horizontal axis."""
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def tensorboard(run: TrackedRun) -> Tracker:
    """Event files in GROUP/NAME below the folder; read them by `tensorboard --logdir FOLDER`."""
    tracking = _accelerate("tensorboard")
    return TensorBoard(tracking.TensorBoardTracker(f"{run.group}/{run.name}", run.folder / "tensorboard"))


def wandb(run: TrackedRun) -> Tracker:
    """A run of Weights & Biases; its host, entity, key and mode come from its own environment variables."""
    tracking = _accelerate("wandb")
    run.folder.mkdir(parents=True, exist_ok=True)
    settings = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True}
    named = {"group": run.group, "name": f"{run.group} {run.name}", "id": run.id, "dir": str(run.folder)}
    return Wandb(tracking.WandBTracker(run.project, resume="allow", settings=settings, **named))


def trackio(run: TrackedRun) -> Tracker:
    """A run of Trackio, in its own folder on this machine, or in the Space of TRACKIO_SPACE_ID."""
    tracking = _accelerate("trackio")
    options = {"group": run.group, "name": f"{run.group} {run.name}", "resume": "allow", "embed": False}
    options |= {"auto_log_gpu": False, "auto_log_cpu": False, "space_id": os.environ.get("TRACKIO_SPACE_ID")}
    return Trackio(tracking.TrackioTracker(run.project, **options))


def mlflow(run: TrackedRun) -> Tracker:
    """A run of MLflow, in the experiment of the project's name at MLFLOW_TRACKING_URI."""
    tracking = _accelerate("mlflow")
    return Mlflow(tracking.MLflowTracker, run)


class AccelerateTracker(Tracker):
    """A tracker of accelerate. Its package prints to standard output, which is for results: this text is dropped."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    def start(self) -> None:
        with redirect_stdout(io.StringIO()):
            self.tracker.start()

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.tracker.store_init_configuration(dict(values))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.tracker.log(dict(values), step=step)

    def finish(self) -> None:
        with redirect_stdout(io.StringIO()):
            self.tracker.finish()


class TensorBoard(AccelerateTracker):
    """Event files."""

    def address(self) -> str:
        """The folder of the event files."""
        return str(self.tracker.logging_dir)


class Wandb(AccelerateTracker):
    """A run of Weights & Biases.

    Its own step counter refuses a value for an earlier step, also after a run was continued: the step is a metric.
    """

    def start(self) -> None:
        super().start()
        self.tracker.tracker.define_metric("*", step_metric=STEP)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.tracker.log({**values, STEP: step})

    def address(self) -> str:
        """The URL of the run, or the command that sends an offline run."""
        run = self.tracker.tracker
        return f"wandb sync {os.path.dirname(run.dir)}" if run.settings._offline else str(run.url)


class Trackio(AccelerateTracker):
    """A run of Trackio."""

    def finish(self) -> None:
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()  # a run that is finished by its own method is finished again at the exit

    def address(self) -> str:
        """The command that shows the project."""
        return f"trackio show --project {self.tracker.run_name}"


class Mlflow(AccelerateTracker):
    """A run of MLflow. The server chooses its id, so that the id of the run folder is stored as a tag."""

    TAG = "gradatim.id"

    def __init__(self, make: Any, run: TrackedRun) -> None:
        super().__init__(None)
        self.make, self.run = make, run

    def start(self) -> None:
        import mlflow

        experiment = mlflow.get_experiment_by_name(self.run.project)
        ids = [] if experiment is None else [experiment.experiment_id]
        runs = ids and mlflow.search_runs(
            ids, f"tags.`{self.TAG}` = '{self.run.id}'", output_format="list", max_results=1
        )
        tags = {self.TAG: self.run.id, "arm": self.run.group}
        named = {"run_id": runs[0].info.run_id} if runs else {"run_name": f"{self.run.group} {self.run.name}"}
        self.tracker = self.make(self.run.project, tags=tags, **named)
        super().start()

    def address(self) -> str:
        """The tracking URI."""
        import mlflow

        return str(mlflow.get_tracking_uri())


def _accelerate(package: str) -> Any:
    """The module ``accelerate.tracking``; ``UserError`` where it or the tracker's package is missing."""
    for name in ("accelerate", package):
        if importlib.util.find_spec(name) is None:
            extra = name in ("accelerate", "tensorboard")
            raise UserError(
                f"the tracker {package} needs the package {name!r}",
                where="--to",
                given=package,
                hint="pip install 'gradatim[track]'" if extra else f"pip install {name}",
            )
    kept = {name: os.environ.pop(name) for name in LAUNCHER if name in os.environ}
    try:
        from accelerate import PartialState, tracking

        PartialState(cpu=True)
    finally:
        os.environ.update(kept)
    return tracking
