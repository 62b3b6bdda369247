"""Bounds of what a program may hold in the kernel, beside the limits that are set for it.

No resource limit of a process counts these. The module needs no function of Linux, so that it can be imported anywhere.
"""

from __future__ import annotations

import _socket
import functools

__all__ = ["SIGNALS", "socket_bytes"]

SIGNALS = 1024
"""Queued signals and timers of a sandbox: each is memory of the kernel that counts for the user only."""


@functools.cache
def socket_bytes() -> int:
    """What one socket can hold: its buffer, whose size no program can raise in a sandbox, and one message more."""
    first, second = _socket.socketpair()
    size: int = first.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
    first.close()
    second.close()
    return 2 * size
