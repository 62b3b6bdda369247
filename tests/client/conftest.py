"""The server that misbehaves on demand, and a chat that asks it."""

from __future__ import annotations

from serving import ask, chat, server  # noqa: F401
