"""The server that misbehaves on demand, a chat that asks it, and a folder for replies."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import ask, chat, server  # noqa: F401


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "replies"
