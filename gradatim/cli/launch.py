"""``gradatim run --processes N``: the same command in N processes of this machine, supervised.

A process of its own for each rank; rank 0 has the terminal. The supervisor passes Ctrl-C on to rank 0 alone, whose
vote stops all ranks after the same step; the second Ctrl-C ends all at once. When a rank ends early the others are
ended too, and one line tells which rank it was. Processes on several machines are started by torchrun, accelerate
launch or srun instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import WorkFailed
from ..processes import LAUNCHED, LOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

PRELOADED = ["gradatim.cli.training", "gradatim.experiment.run", "gradatim.training.trainer", "gradatim.evaluation"]
"""Modules that are imported once, before the ranks are forked."""
GRACE = 15.0
"""Seconds in which the other ranks end by themselves after one has ended early."""


def command(words: Sequence[str]) -> int:
    """The exit code of the command line ``words`` in this process."""
    from .main import main

    return main(words)


def supervise(main: Callable[[], int], count: int, hint: Callable[[], str]) -> int:
    """Run ``main`` in ``count`` processes as the ranks of one group; return the exit code of rank 0.

    ``main`` is pickled; its result is the exit code of its rank. Raises ``WorkFailed`` when another rank ended first;
    ``hint`` tells how to go on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    address |= {"LOCAL_WORLD_SIZE": str(count), LAUNCHED: "1"}
    with tempfile.TemporaryDirectory(prefix="gradatim-") as messages:
        ranks = [context.Process(target=_run_rank, args=(main, address, rank, messages)) for rank in range(count)]
        for rank in ranks:
            rank.start()
        with _passing_signals(ranks):
            first = _wait_for_end(ranks)
        return _exit_code(ranks, first, Path(messages), hint)


def _run_rank(main: Callable[[], int], address: dict[str, str], rank: int, messages: str) -> None:
    """``main`` in a process of its own, as one rank. Only rank 0 writes to the terminal."""
    os.setsid()  # the supervisor alone receives Ctrl-C
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if rank:
        target = os.open(_message_file(Path(messages), rank), os.O_WRONLY | os.O_CREAT, 0o600)
        for stream in (1, 2):
            os.dup2(target, stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main())


def _end_with_parent() -> None:
    """A supervisor that is killed leaves no process behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _message_file(folder: Path, rank: int) -> Path:
    """The file that receives the output of a rank other than 0."""
    return folder / str(rank)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _passing_signals(ranks: Sequence[BaseProcess]) -> Iterator[None]:
    """Pass the first SIGINT or SIGTERM on to rank 0; kill all ranks at the second."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for rank in ranks if len(received) > 1 else ranks[:1]:
            _signal(rank, number if len(received) == 1 else signal.SIGKILL)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if len(received) > 1:
        raise KeyboardInterrupt


def _signal(rank: BaseProcess, number: int) -> None:
    if rank.pid is not None and rank.exitcode is None:
        os.kill(rank.pid, number)


def _wait_for_end(ranks: Sequence[BaseProcess]) -> int | None:
    """Wait until all ranks have ended; the rank that ended first with an error, None without one.

    A rank that was killed by a signal precedes one that only noticed it. The others have ``GRACE`` seconds to end.
    """
    first: int | None = None
    deadline = float("inf")
    while running := [rank.sentinel for rank in ranks if rank.exitcode is None]:
        wait(running, timeout=None if first is None else max(deadline - time.monotonic(), 0))
        failed = [number for number, rank in enumerate(ranks) if rank.exitcode not in (None, 0)]
        if failed and first is None:
            killed = [number for number in failed if (ranks[number].exitcode or 0) < 0]
            own = [number for number in failed if ranks[number].exitcode != LOST]
            first, deadline = (killed or own or failed)[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for rank in ranks:
                _signal(rank, signal.SIGKILL)
    return first


def _exit_code(ranks: Sequence[Any], first: int | None, messages: Path, hint: Callable[[], str]) -> int:
    """The exit code of rank 0 where it ended in order; otherwise ``WorkFailed`` for the rank that did not."""
    code = ranks[0].exitcode
    if first is None or code == 0:
        return int(code)
    ended = ranks[first].exitcode
    if ended < 0:
        name = signal.Signals(-ended).name
        raise WorkFailed(f"process {first} of {len(ranks)} was ended by signal {-ended} ({name})", hint=hint())
    if code > 0 and code != LOST:
        return int(code)  # rank 0 has reported its error
    lines = _message_file(messages, first).read_text(errors="replace").splitlines() if first else []
    own = " ".join(line.removeprefix("gradatim: ") for line in lines[-1:])
    raise WorkFailed(f"process {first} of {len(ranks)} ended", given=own or f"exit code {ended}", hint=hint())
