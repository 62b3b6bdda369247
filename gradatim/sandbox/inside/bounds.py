"""Bounds on kernel memory that no resource limit of a process counts.

The module uses no Linux function, so that it can be imported on every system.
"""

from __future__ import annotations

import _socket
import functools

__all__ = ["SIGNALS", "socket_bytes"]

SIGNALS = 1024
"""Maximum of queued signals and timers in a sandbox; each takes kernel memory that is counted per user only."""


@functools.cache
def socket_bytes() -> int:
    """Bytes that one socket can hold: its buffer, which a sandboxed program cannot enlarge, and one more message."""
    one, peer = _socket.socketpair()
    size: int = one.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
    one.close()
    peer.close()
    return 2 * size
