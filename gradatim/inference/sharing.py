"""Division of the rows of an inference among processes, with the same results as by one process.

Rank 0 evaluates; the functions of ``decode`` and ``loglikelihood`` look the model up here. For a model that every
process has loaded, each computes a contiguous share of the rows, and rank 0 collects the results in their order. For
any other model nothing changes. The results of a row depend on no other row, up to the last bits.

Instead of the processes of a training, the workers of an executor may share a model: each loads it by its path once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from .. import executors
from ..processes import Processes
from ..stage import Event, Events, Model, ignore_events

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")

_PROCESSES: WeakKeyDictionary[PreTrainedModel, Processes | ModelWorkers] = WeakKeyDictionary()
"""The processes that have loaded a model, besides rank 0, or the workers that load it."""

SHARES_PER_WORKER = 4
"""Shares of the rows for each worker of an executor: a lost worker repeats one of them, and slow ones take fewer."""


@dataclass(frozen=True)
class ModelWorkers:
    """The workers of an executor as processes that share the model at ``path``, a folder or a name on the hub."""

    executor: executors.Executor
    path: str

    @property
    def size(self) -> int:
        """The number of shares."""
        return SHARES_PER_WORKER * self.executor.max_workers


@dataclass(frozen=True)
class SharedCall:
    """A function of the model and one share of its rows, for all processes: ``function(student, **shares[rank])``."""

    function: Callable[..., Any]
    shares: Sequence[Mapping[str, Any]]


def share_model(model: PreTrainedModel, processes: Processes) -> None:
    """Divide the rows of later inferences with ``model``, which all ``processes`` have loaded."""
    if processes.size > 1:
        _PROCESSES[model] = processes


def share_model_on(model: PreTrainedModel, executor: executors.Executor, path: str) -> None:
    """Divide the rows of later inferences with ``model`` among the workers of ``executor``, which load ``path``."""
    _PROCESSES[model] = ModelWorkers(executor, path)


def processes_of(model: PreTrainedModel) -> Processes | ModelWorkers | None:
    """The processes or workers that divide the rows of ``model``; None for a model of this process alone."""
    return _PROCESSES.get(model)


def spans(rows: int, size: int) -> list[tuple[int, int]]:
    """The first row and the end of each process's share of ``rows`` rows; sizes differ by one at most."""
    return [(rows * rank // size, rows * (rank + 1) // size) for rank in range(size)]


def collect(
    processes: Processes | ModelWorkers,
    function: Callable[..., Result],
    student: Model,
    shares: Sequence[Mapping[str, Any]],
    events: Events,
) -> list[Result]:
    """The results of ``function(student, **share)`` by rank; rank 0 computes its own share and reports the progress.

    ``function`` is a module-level function, and takes ``events``. When ``events`` raises ``Stopped`` the processes
    end: nothing of an unfinished inference is kept.
    """
    if isinstance(processes, ModelWorkers):
        return list(_by_workers(processes, function, shares, events))
    with processes.shared(SharedCall(function, shares)):
        own = function(student, **shares[0], events=_scaled(events, processes.size))
        return processes.gather(own)


def _by_workers(
    workers: ModelWorkers, function: Callable[..., Result], shares: Sequence[Mapping[str, Any]], events: Events
) -> Iterator[Result]:
    calls = [ModelCall(workers.path, function, share) for share in shares]
    task = next((str(share["task"]) for share in shares if "task" in share), "evaluate")
    done = 0

    def beat() -> None:
        events(Event("advance", task, done, len(calls)))

    events(Event("start", task, 0, len(calls)))
    for result in executors.ordered(workers.executor, call_model, calls, beat):
        yield result
        done += 1
        beat()
    events(Event("finish", task, done, len(calls)))


@dataclass(frozen=True)
class ModelCall:
    """``function(student, **share)`` with the model at ``path``, as a task."""

    path: str
    function: Callable[..., Any]
    share: Mapping[str, Any]


def call_model(call: ModelCall) -> Any:
    """In a worker of an executor: the results of one share of the rows."""
    return call.function(_loaded(call.path), **call.share, events=ignore_events)


@lru_cache(maxsize=1)
def _loaded(path: str) -> Model:
    from ..model import hardware, load

    device = hardware.device()
    return load.load_student(Path(path), device) if Path(path).is_dir() else load.load_model(path, device)


def _scaled(events: Events, size: int) -> Events:
    """Events about one share as events about all rows, of which the shares are equal up to one row."""

    def listen(event: Event) -> None:
        total = None if event.total is None else event.total * size
        events(replace(event, done=event.done * size, total=total))

    return listen
