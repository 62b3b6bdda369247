"""The server of ``gradatim show``: the page, live, on the loopback interface.

    GET  /            the page
    GET  /state       a version of the run folders; it changes with their files
    GET  /content     overview, questions and data of the page, after a change
    GET  /students    ``?key=`` the weights of a stage for the page's script
    POST /ask         ``{key, prompt, limit}``: the answer of a student that the page cannot compute, by torch

Requests are answered only for a loopback name in ``Host``, and a POST only as JSON from the page itself, so that no
other page in the same browser can read the runs. Run folders are only read.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import DataError, GradatimError, UserError
from ..experiment.run_lock import FINISHED
from .content import Content, Student, packed, plain, read, state_of
from .page import overview, questions, render

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
LARGEST_REQUEST = 1 << 20
MOST_TOKENS = 512
LIKELIEST = 5
_FOLLOWED = ("study.json", "recipe.yaml", "metrics.jsonl", "result.json", FINISHED)
"""Files whose change makes a new version of the page."""


def open_server(folders: Sequence[Path], port: int) -> ShowServer:
    """A server that listens on ``port`` (0: any free one); ``serve_forever`` runs it.

    Raises what ``reporting.collect`` raises, and ``UserError`` when the port is in use or not allowed.
    """
    pages = Pages(tuple(folders))
    try:
        return ShowServer((HOST, port), pages)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise UserError(f"the port {reason}", where="--port", given=port, hint="--port 0 takes a free one") from error


class Pages:
    """The content of the run folders, read again when their files change. Threads may share it."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders = folders
        self._lock = Lock()
        self._version = version(folders)
        self._content = read(folders)

    def current(self) -> tuple[str, Content]:
        """The version and the content."""
        with self._lock:
            now = version(self.folders)
            if now != self._version:
                try:
                    self._content = read(self.folders)
                except (GradatimError, OSError):
                    return self._version, self._content  # a file is being written; the next request reads it
                self._version = now
            return self._version, self._content


def version(folders: Sequence[Path]) -> str:
    """A digest of size and time of the files that the page shows."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(_followed(folders)):
        try:
            state = path.stat()
        except OSError:
            continue
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _followed(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for name in _FOLLOWED:
            for depth in ("", "cycle-*/stage-*/", "*/seed-*/", "*/seed-*/cycle-*/stage-*/"):
                yield from folder.glob(f"{depth}{name}")


class ShowServer(ThreadingHTTPServer):
    """The server; ``pages`` is its content."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self.answers = Answers()
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


@dataclass
class Answers:
    """Answers by torch, one at a time; the student of the last request stays open."""

    lock: Lock = field(default_factory=Lock)
    opened: tuple[Path, Any] | None = None

    def __call__(self, student: Student, prompt: str, limit: int) -> list[dict[str, Any]]:
        """The greedy completion, a token at a time: text, probability, the likeliest tokens."""
        from ..model.load import load_student

        with self.lock:
            if self.opened is None or self.opened[0] != student.folder:
                self.opened = (student.folder, load_student(student.folder))
            return _complete(self.opened[1], prompt, limit)


def _complete(student: Any, prompt: str, limit: int) -> list[dict[str, Any]]:
    import torch

    from ..model.prompt_format import prompt_formatter
    from ..model.vocabulary import Vocabulary

    vocabulary = Vocabulary(student.tokenizer)
    ids = vocabulary.encode(prompt_formatter(student.tokenizer)(prompt))
    context = int(getattr(student.model.config, "max_position_embeddings", 1 << 20))
    if ids is None:
        raise DataError("the program has a character that the student has no token for")
    if not 0 < len(ids) < context:
        raise DataError(f"the program has {len(ids)} tokens; the student reads at most {context}")
    tokens: list[dict[str, Any]] = []
    end = student.tokenizer.eos_token_id

    def text(token: int) -> str:
        return "" if token == end else str(student.tokenizer.decode([token]))

    with torch.inference_mode():
        output = student.model(torch.tensor(ids[None]), use_cache=True)
        for _ in range(min(limit, context - len(ids))):
            top = output.logits[0, -1].float().softmax(-1).topk(LIKELIEST)
            likeliest = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            choices = [
                {"id": token, "text": text(token), "end": token == end, "probability": share}
                for token, share in likeliest
            ]
            tokens.append({**choices[0], "top": choices})
            if choices[0]["end"]:
                break
            following = torch.tensor([[choices[0]["id"]]])
            output = student.model(following, past_key_values=output.past_key_values, use_cache=True)
    return tokens


class _Handler(BaseHTTPRequestHandler):
    server: ShowServer

    def do_GET(self) -> None:
        """Answer a GET request."""
        url = urlsplit(self.path)
        routes: dict[str, Callable[[], None]] = {
            "/": self._page,
            "/state": self._state,
            "/content": self._content,
            "/students": lambda: self._student(parse_qs(url.query).get("key", [""])[0]),
        }
        self._answer(routes.get(url.path))

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._answer(self._ask if urlsplit(self.path).path == "/ask" else None)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print no line per request."""

    def _answer(self, route: Callable[[], None] | None) -> None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in NAMES:
            self._send(HTTPStatus.FORBIDDEN, b"This server answers on the loopback interface only.", "text/plain")
        elif route is None:
            self._send(HTTPStatus.NOT_FOUND, b"There is no such page.", "text/plain")
        else:
            try:
                route()
            except ConnectionError:  # the browser has left the page
                self.close_connection = True
            except (GradatimError, OSError) as error:
                self._send(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain; charset=utf-8")

    def _page(self) -> None:
        self._send(HTTPStatus.OK, render(self.server.pages.current()[1]).encode(), "text/html; charset=utf-8")

    def _state(self) -> None:
        self._json({"version": self.server.pages.current()[0]})

    def _content(self) -> None:
        number, content = self.server.pages.current()
        parts = {"overview": overview(content), "questions": questions(content)}
        self._json({"version": number, **parts, "data": plain(content)})

    def _student(self, key: str) -> None:
        student = self._find(key)
        file = packed(student.folder, state_of(student.folder), student.probes)
        self._send(HTTPStatus.OK, file, "application/octet-stream")

    def _ask(self) -> None:
        origin = self.headers.get("Origin")
        if self.headers.get_content_type() != "application/json" or (
            origin is not None and urlsplit(origin).netloc != self.headers.get("Host")
        ):
            raise UserError("a question is JSON from the page itself")
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > LARGEST_REQUEST:
            raise UserError("the question has no length, or is too long", allowed=f"{LARGEST_REQUEST} bytes")
        try:
            question = json.loads(self.rfile.read(int(size)))
            key, prompt, limit = str(question["key"]), str(question["prompt"]), int(question.get("limit", 64))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError("the question cannot be read", given=error, allowed="key, prompt, limit") from error
        self._json({"tokens": self.server.answers(self._find(key), prompt, max(1, min(limit, MOST_TOKENS)))})

    def _find(self, key: str) -> Student:
        student = self.server.pages.current()[1].students.get(key)
        if student is None:
            raise UserError("there is no such stage", given=key)
        return student

    def _json(self, value: Any) -> None:
        self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
