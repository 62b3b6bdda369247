"""Trackers: the metrics and results of run folders, sent to TensorBoard, Weights & Biases, Trackio or MLflow.

``TRACKERS`` has the trackers by name; each is one of accelerate's. ``entries`` reads a run folder as log entries,
``send`` sends those that are new and stores the position in the run folder, so that nothing is sent twice. Training
neither imports nor waits for a tracker: a separate process reads the files that a run writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..lazy import lazy_names
from ..registry import Contract, Registry
from .tracker import Tracker

__all__ = ["TRACKERS"]

TRACKERS: Registry[Callable[..., Any]] = Registry(
    "tracker", contracts=(Contract(Tracker, ("start", "log", "finish")),), arguments=1
)
TRACKERS.lazy("tensorboard", "gradatim.tracking.trackers:tensorboard", "event files for TensorBoard, on this machine")
TRACKERS.lazy("wandb", "gradatim.tracking.trackers:wandb", "Weights & Biases; offline with WANDB_MODE=offline")
TRACKERS.lazy("trackio", "gradatim.tracking.trackers:trackio", "Trackio, on this machine or in a Hugging Face Space")
TRACKERS.lazy("mlflow", "gradatim.tracking.trackers:mlflow", "MLflow, at MLFLOW_TRACKING_URI")

__getattr__ = lazy_names(__name__)
