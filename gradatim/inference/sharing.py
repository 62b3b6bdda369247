"""Division of the rows of an inference among the processes of a training, with the same results as by one process.

Rank 0 evaluates; the functions of ``decode`` and ``loglikelihood`` look the model up here. For a model that every
process has loaded, each computes a contiguous share of the rows, and rank 0 collects the results in their order. For
any other model nothing changes. The results of a row depend on no other row, up to the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ..processes import Processes
from ..stage import Event, Events, Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")

_PROCESSES: WeakKeyDictionary[PreTrainedModel, Processes] = WeakKeyDictionary()
"""The processes that have loaded a model, besides rank 0."""


@dataclass(frozen=True)
class SharedCall:
    """A function of the model and one share of its rows, for all processes: ``function(student, **shares[rank])``."""

    function: Callable[..., Any]
    shares: Sequence[Mapping[str, Any]]


def share_model(model: PreTrainedModel, processes: Processes) -> None:
    """Divide the rows of later inferences with ``model``, which all ``processes`` have loaded."""
    if processes.size > 1:
        _PROCESSES[model] = processes


def processes_of(model: PreTrainedModel) -> Processes | None:
    """The processes among which the rows of ``model`` are divided; None for a model of this process alone."""
    return _PROCESSES.get(model)


def spans(rows: int, size: int) -> list[tuple[int, int]]:
    """The first row and the end of each process's share of ``rows`` rows; sizes differ by one at most."""
    return [(rows * rank // size, rows * (rank + 1) // size) for rank in range(size)]


def collect(
    processes: Processes,
    function: Callable[..., Result],
    student: Model,
    shares: Sequence[Mapping[str, Any]],
    events: Events,
) -> list[Result]:
    """The results of ``function(student, **share)`` by rank; rank 0 computes its own share and reports the progress.

    ``function`` is a module-level function, and takes ``events``. When ``events`` raises ``Stopped`` the processes
    end: nothing of an unfinished inference is kept.
    """
    with processes.shared(SharedCall(function, shares)):
        own = function(student, **shares[0], events=_scaled(events, processes.size))
        return processes.gather(own)


def _scaled(events: Events, size: int) -> Events:
    """Events about one share as events about all rows, of which the shares are equal up to one row."""

    def listen(event: Event) -> None:
        total = None if event.total is None else event.total * size
        events(replace(event, done=event.done * size, total=total))

    return listen
