"""A real HTTP server that speaks OpenAI's protocol on 127.0.0.1 and can misbehave in every way that servers do; and the
fixtures that start it and ask it."""

from __future__ import annotations

import functools
import json
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from forked_commands import ForkedCommand

from gradatim.teacher import Request
from gradatim.teacher.llm_teacher import ApiChat

SECRET = "sk-very-secret-0123456789"
CONTEXT = functools.cache(ssl.create_default_context)
Action = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Plays the next of the server's actions, in the order of the requests; answers politely when there is none."""

    protocol_version = "HTTP/1.1"
    server: Serving

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.heard.append(body)
            self.server.times.append(time.monotonic())
            self.server.keys.append(self.headers.get("Authorization", ""))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            action = self.server.actions.pop(0) if self.server.actions else self.server.otherwise
        try:
            action(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has left, as it may
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def do_GET(self) -> None:
        """The list of models, as the servers of local models have one."""
        with self.server.lock:
            self.server.at_once += 1
        self.send(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode())
        with self.server.lock:
            self.server.at_once -= 1

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        with self.server.lock:
            self.server.at_once -= 1  # the client may ask again as soon as it has read this
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        finally:
            with self.server.lock:
                self.server.at_once += 1

    def log_message(self, *words: Any) -> None:
        """Tests are quiet."""


class Serving(ThreadingHTTPServer):
    """The server, what it was asked, and what it shall do next."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.heard: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.actions: list[Action] = []
        self.otherwise: Action = echo

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def asked(self) -> list[str]:
        """The last message or the prompt of every request, in the order they came."""
        return [body["prompt"] if "prompt" in body else body["messages"][-1]["content"] for body in self.heard]


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


@contextmanager
def serving() -> Iterator[Serving]:
    with Serving() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def completion(text: str | None, finish: str = "stop", prompt: int = 10, written: int = 5, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(whole).encode()


def echo(handler: Handler, body: dict[str, Any]) -> None:
    if "prompt" in body:
        choice = {"index": 0, "text": "re: " + body["prompt"], "finish_reason": "stop"}
        handler.send(200, json.dumps({"object": "text_completion", "choices": [choice]}).encode())
    else:
        handler.send(200, completion("re: " + body["messages"][-1]["content"]))


def says(text: str | None, finish: str = "stop", **message: Any) -> Action:
    return lambda handler, body: handler.send(200, completion(text, finish, **message))


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Action:
    told = json.dumps({"error": {"message": message, "type": "error", **error}}).encode()
    return lambda handler, body: handler.send(status, told, headers)


def sends(body: bytes, headers: dict[str, str] | None = None) -> Action:
    return lambda handler, asked: handler.send(200, body, headers)


def writes(*parts: bytes, pause: float = 0.0, repeat: int = 1) -> Action:
    """Raw bytes of a response, headers too, with a pause after each part; the connection ends behind them."""

    def action(handler: Handler, body: dict[str, Any]) -> None:
        handler.close_connection = True
        for _ in range(repeat):
            for part in parts:
                handler.wfile.write(part)
                time.sleep(pause)

    return action


def waits(seconds: float, then: Action = echo) -> Action:
    def action(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        then(handler, body)

    return action


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    """The connection ends in the middle of the reply."""
    whole = completion("half")
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.close_connection = True


def served_until_interrupted(words: Sequence[str]) -> int:
    """The exit code of a command that serves a page, interrupted once it has printed the address."""
    process = ForkedCommand(words)
    try:
        end = time.monotonic() + 120
        while not process.stdout.startswith("page: http://127.0.0.1:"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        return process.wait(60)
    finally:
        process.kill()
