"""Tasks that rank 0 starts on all processes of a run: training a stage, loading a model for evaluation.

Rank 0 runs the experiment; ``experiment.ranks`` carries the tasks out on the other ranks. Paths are those of rank 0:
all processes see the run folder under one name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Stopped, TrainingDiverged
from ...stage import Events, Fitted, Stage, Trainer, ignore_events

if TYPE_CHECKING:
    from ...corpus import Corpus
    from ...processes import Processes


@dataclass(frozen=True)
class TrainStage:
    """Training on ``stage`` of the corpus in ``corpus``; other fields as in ``corpus.Corpus`` and ``Trainer.fit``."""

    corpus: Path
    first: Path | None
    stage: Stage
    folder: Path
    previous: Path | None


@dataclass(frozen=True)
class LoadModel:
    """Loading of the finished model of the stage folder ``folder``, for the shares of its evaluation."""

    folder: Path


@dataclass(frozen=True)
class SharedTrainer(Trainer):
    """``trainer`` on all ``processes``, which train on the same stage of ``dataset``."""

    trainer: Trainer
    dataset: Corpus
    processes: Processes

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """See ``stage.Trainer``. Divergence and a stop are found by all processes at the same step."""
        task = TrainStage(self.dataset.folder, self.dataset.first, stage, folder, previous)
        with self.processes.shared(task, common=(Stopped, TrainingDiverged)):
            return self.trainer.fit(stage, folder, previous, events)
