"""A server that misbehaves on demand, and a chat that asks it."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Serving, serving

from gradatim.teacher import Request
from gradatim.teacher.api import ApiChat

SECRET = "sk-very-secret-0123456789"
CONTEXT = functools.cache(ssl.create_default_context)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    # Every client reads all certificates, which takes longer than a test; here nothing is encrypted.
    monkeypatch.setattr(ssl, "create_default_context", CONTEXT)
    with serving() as made:
        yield made


@pytest.fixture
def chat(server: Serving) -> Callable[..., ApiChat]:
    """A chat with the server, in a hurry."""

    def make(**options: Any) -> ApiChat:
        quick = {"key": "TEACHER_KEY", "first_wait": 0.002, "concurrency": 1, "retries": 2, "seconds": 5.0}
        return ApiChat(server.url, "m", **{**quick, **options})

    return make


@pytest.fixture
def ask() -> Callable[..., list[Request]]:
    def make(*texts: str, draw: int = 0, **options: Any) -> list[Request]:
        return [Request((("user", text),), draw, **options) for text in texts]

    return make


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "replies"
