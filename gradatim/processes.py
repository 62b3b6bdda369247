"""The processes of one training: rank and size from the environment, and collectives of torch.distributed.

Any launcher that sets RANK, WORLD_SIZE and LOCAL_RANK starts them: ``gradatim run --processes``, torchrun, accelerate
launch, srun. Rank 0 runs the experiment and is the only one that writes; the other ranks wait for tasks (training, a
share of the rows of an evaluation), which rank 0 broadcasts. Two groups: ``control`` carries Python objects and small
sums by gloo, without a practical timeout, as rank 0 may evaluate or wait for a teacher for hours; ``data`` carries
gradients, by gloo on CPUs and by the accelerator's own backend elsewhere. Objects are pickled between processes of the
same training, as everywhere in torch.distributed; no pickle is written to a file.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import ProcessLost, UserError
from .lazy import np, torch

if TYPE_CHECKING:
    import numpy.typing as npt

JOIN_TIMEOUT = timedelta(minutes=10)
"""The longest wait for all processes to connect at the start."""
CONTROL_TIMEOUT = timedelta(days=365)
"""The longest wait for the next task. A process that ends is noticed at once, by its closed connections."""
DATA_TIMEOUT = timedelta(days=1)
"""The longest wait for a gradient: rank 0 may write a checkpoint or evaluate meanwhile."""
LAUNCHED = "GRADATIM_LAUNCHED"
"""Variable that ``gradatim run --processes`` sets for its processes, whose ends it reports itself."""
LOST = 75
"""Exit code of such a process after it lost another one."""


def available_cores() -> int:
    """CPU cores that this process may use: its affinity where the system has one (Linux), else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Launch:
    """The position of this process among those that a launcher started; ``local`` counts this machine alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launch() -> Launch:
    """The position from RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; a single process without WORLD_SIZE.

    Raises ``UserError`` for a value that is no rank or size.
    """
    if "WORLD_SIZE" not in os.environ:
        return Launch()
    size = _number("WORLD_SIZE", 1, None)
    if size == 1:
        return Launch()
    rank = _number("RANK", 0, size - 1)
    local_rank = _number("LOCAL_RANK", 0, size - 1) if "LOCAL_RANK" in os.environ else rank
    local_size = _number("LOCAL_WORLD_SIZE", 1, size) if "LOCAL_WORLD_SIZE" in os.environ else 1
    return Launch(rank, size, local_rank, local_size)


def is_other_rank() -> bool:
    """Whether a launcher started this process as another rank than 0."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def _number(name: str, least: int, most: int | None) -> int:
    text = os.environ.get(name)
    number = int(text) if text is not None and text.isdecimal() else -1
    if number < least or (most is not None and number > most):
        raise UserError(
            "the launcher of several processes sets this variable",
            where=name,
            given="nothing" if text is None else repr(text),
            allowed=f"a number from {least}" + ("" if most is None else f" to {most}"),
            hint="torchrun, or gradatim run --processes; unset WORLD_SIZE for a single process",
        )
    return number


class Processes:
    """The connected processes of a training, or with the defaults this process alone.

    Every method is a collective: all ranks call it, in the same order. Raises ``ProcessLost`` when a rank has ended.
    """

    def __init__(self, rank: int = 0, size: int = 1, control: Any = None, data: Any = None) -> None:
        self.rank, self.size = rank, size
        self._control, self._data = control, data
        self.in_step = True
        """Whether all ranks are at the same place: false while rank 0 has left a shared task by an error."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which runs the experiment and writes all files."""
        return self.rank == 0

    def add(self, tensor: torch.Tensor) -> None:
        """Add ``tensor`` over all ranks, in place; afterwards the ranks hold the same bits. Any device."""
        if self.size > 1:
            with _lost_processes():
                torch.distributed.all_reduce(tensor, group=self._data)

    def add_values(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum of small arrays over all ranks."""
        if self.size == 1:
            return values
        total = torch.from_numpy(np.array(values))
        with _lost_processes():
            torch.distributed.all_reduce(total, group=self._control)
        return np.asarray(total.numpy())

    def mesh(self, device_type: str) -> Any:
        """The device mesh of all ranks, for sharded tensors."""
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh.from_group(self._data, device_type)

    def broadcast(self, value: Any = None) -> Any:
        """The ``value`` of rank 0, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        with _lost_processes():
            torch.distributed.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _lost_processes():
            torch.distributed.all_gather_object(values, value, group=self._control)
        return values

    @contextlib.contextmanager
    def shared(self, task: Any, *, common: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """On rank 0: start ``task`` on the other ranks and take part in it within the context.

        ``common``: errors that all ranks raise at the same place. After any other one the ranks are out of step, and no
        further collective is possible.
        """
        if self.size == 1:
            yield
            return
        self.broadcast(task)
        self.in_step = False
        try:
            yield
        except common:
            self.in_step = True
            raise
        self.in_step = True


SINGLE = Processes()
"""This process alone."""


@contextlib.contextmanager
def _lost_processes() -> Iterator[None]:
    """Convert the error of a collective whose partner has ended to ``ProcessLost``."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost("another process of this training ended") from error


@cache
def connect() -> Processes:
    """Connect the processes that the launcher started; ``SINGLE`` without one. One connection per process.

    Raises ``UserError`` when they cannot connect, or have no device each: processes with accelerators have one each.
    """
    here = launch()
    if here.size == 1:
        return SINGLE
    distributed = torch.distributed
    try:
        distributed.init_process_group("gloo", timeout=JOIN_TIMEOUT)
        control = distributed.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise UserError(
            f"the {here.size} processes cannot connect",
            where="MASTER_ADDR, MASTER_PORT",
            given=f"{address}: {str(error).splitlines()[0]}",
            hint="the address of process 0 and a free port there; GLOO_SOCKET_IFNAME names the network interface",
        ) from error
    processes = Processes(here.rank, here.size, control, control)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = 0 if accelerator is None else torch.accelerator.device_count()
    kind = "cpu" if accelerator is None else accelerator.type
    check_devices(processes.gather((socket.gethostname(), kind, count, here.local_rank)))
    if accelerator is None:
        return processes
    torch.accelerator.set_device_index(here.local_rank)
    backend = distributed.get_default_backend_for_device(accelerator)
    data = distributed.new_group(backend=backend, timeout=DATA_TIMEOUT)
    return Processes(here.rank, here.size, control, data)


def check_devices(devices: list[tuple[str, str, int, int]]) -> None:
    """Raise ``UserError`` unless all ranks have the same kind of device and, if accelerators, one each.

    ``devices``: host, kind, number of devices on the host and LOCAL_RANK, by rank.
    """
    kinds = [kind for _, kind, _, _ in devices]
    if len(set(kinds)) > 1:
        odd = next(rank for rank, kind in enumerate(kinds) if kind != kinds[0])
        raise UserError(
            "all processes need the same kind of device",
            where=f"process {odd} on {devices[odd][0]}",
            given=f"{kinds[odd]}; process 0 has {kinds[0]}",
            hint="machines with accelerators only, or CUDA_VISIBLE_DEVICES= for CPUs on all of them",
        )
    for rank, (host, kind, count, local_rank) in enumerate(devices):
        if kind != "cpu" and local_rank >= count:
            raise UserError(
                f"each process needs a {kind} device of its own",
                where=f"process {rank} on {host}",
                given=f"LOCAL_RANK {local_rank} of {count} devices",
                allowed=f"at most {count} processes on this machine",
                hint="CUDA_VISIBLE_DEVICES= trains on the CPU",
            )
