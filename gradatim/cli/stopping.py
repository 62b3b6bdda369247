"""What happens on Ctrl-C?

The first one (or a SIGTERM) is remembered: the next event that the work tells raises ``Stopped``, on which it saves
its state. The second one ends this process and its children at once; what is written is written whole, so even then
only the work since the last checkpoint is lost. This module saves nothing itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["heeding_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"


@contextlib.contextmanager
def heeding_signals() -> Iterator[Callable[[], bool]]:
    """Inside, the value yielded tells whether the user asked to stop. Only the main thread can hear signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if heard:
            _abort()
        heard.append(number)
        # Not through rich: a signal may come while it draws, and its state is then in between.
        _say(b"\ngradatim: stopping as soon as the state is saved; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abort() -> None:
    """End without cleaning up: what is being waited for may take long, and nothing needs it."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    _say((SHOW_CURSOR if os.isatty(2) else b"") + b"\ngradatim: stopped at once; what was saved before is kept\n")
    os._exit(130)


def _say(words: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, words)
