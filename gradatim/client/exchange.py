"""One HTTP exchange with a total deadline and a size limit, and the removal of an API key from a server's texts.

A timeout of httpx bounds a single read or write, so a slow trickle of bytes can hold a request for ever, in the headers
as well as in the body. An ``Exchange`` shuts the connection down at its deadline, in whatever phase the request is: TLS
handshake, sending, waiting, reading, a redirect. Bodies are read in chunks and decompressed with a limit, as a small
compressed body can expand to gigabytes. Only public extension points of httpx are used (event hooks of a client, the
extension ``trace`` of a request); name resolution and connection attempts have timeouts of their own.

Servers repeat the key in errors and replies, plain or escaped: JSON and backslash escapes, percent-encoding, HTML
entities, quoted-printable, base64, hexadecimal, reversed, in other letter case. ``Redactor`` replaces all of these
forms, mixed ones too; it is applied to the raw body and again to the decoded values.
"""

from __future__ import annotations

import base64
import contextlib
import html.entities
import importlib
import re
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

REPLACEMENT = "***"
SHORTEST = 8
"""Length of the shortest secret. Shorter values are placeholders such as ``EMPTY``, which occur in ordinary code."""
ANY_CASE = 16
"""Length of a secret from which a match that differs in letter case only is no coincidence."""
_ENTITIES: dict[str, list[str]] = {}
for _name, _character in html.entities.html5.items():
    if len(_character) == 1 and _character.isascii() and _name.endswith(";"):
        _ENTITIES.setdefault(_character, []).append(_name[:-1])


class Redactor:
    """Removal of ``secret`` from texts; None removes nothing."""

    def __init__(self, secret: str | None) -> None:
        usable = secret is not None and len(secret) >= SHORTEST
        self._pattern = re.compile("|".join(_forms(secret))) if secret is not None and usable else None
        # Plain substrings are searched much faster than patterns.
        self._codes = list(_base64_codes(secret.encode())) if secret is not None and usable else []

    def text(self, text: str) -> str:
        """``text`` with three asterisks in place of the secret."""
        if self._pattern is None:
            return text
        for code in self._codes:
            if code in text:
                # The neighbouring characters can hold some bits of the key too.
                text = re.sub(f"[A-Za-z0-9+/_-]?{re.escape(code)}[A-Za-z0-9+/_-]?={{0,2}}", REPLACEMENT, text)
        return self._pattern.sub(REPLACEMENT, text)

    def is_clean(self, value: Any) -> bool:
        """Whether no text of a decoded JSON value holds the secret. Iterative, as values may be nested deeply."""
        if self._pattern is None:
            return True
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str) and self.text(item) != item:
                return False
            if isinstance(item, dict):
                stack += [*item, *item.values()]
            elif isinstance(item, list):
                stack += item
        return True


def _forms(secret: str) -> Iterator[str]:
    """Patterns of the secret's forms."""
    any_case = len(secret) >= ANY_CASE
    for text in (secret, secret[::-1]):
        yield "".join(_character_pattern(character, any_case) for character in text)
    yield f"(?i:{secret.encode().hex()})"


def _character_pattern(character: str, any_case: bool) -> str:
    """One character as it is or escaped. Every repetition is bounded, so that a search takes linear time."""
    code = ord(character)
    names = "".join(f"|{name}" for name in _ENTITIES.get(character, ()))
    escapes = (
        rf"\\{{1,8}}u\{{?0{{0,6}}{code:x}\}}?",
        rf"\\{{1,8}}x{code:02x}",
        rf"\\{{1,8}}0?{code:03o}",
        rf"%(?:25){{0,8}}{code:02x}",
        rf"={code:02x}",
        rf"&(?:amp;){{0,8}}(?:#0{{0,8}}{code}|#x0{{0,8}}{code:x}{names});?",
    )
    literal = re.escape(character) if character.isalnum() else rf"\\{{0,8}}{re.escape(character)}"
    return f"(?:(?i:{'|'.join(escapes)})|{f'(?i:{literal})' if any_case else literal})"


def _base64_codes(secret: bytes) -> Iterator[str]:
    """The characters of a base64 text that encode ``secret`` alone, for each alignment."""
    for offset, first in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * offset + secret).decode()
        code = encoded[first : (offset + len(secret)) * 8 // 6]
        yield from {code, code.translate(str.maketrans("+/", "-_"))}


_CURRENT: ContextVar[Exchange] = ContextVar("exchange")
_HEADERS = 1 << 18
"""Most bytes of all headers of an exchange."""


class BadBody(Exception):
    """A body that cannot be decompressed."""


class TooLarge(Exception):
    """A response larger than the limit."""


def reply_limit(max_tokens: int) -> int:
    """Most bytes of a response, before and after decompression: enough for 20 alternatives to each token."""
    return (1 << 20) + 2048 * max_tokens


class Exchange:
    """Context of one request by a client of ``open_client``: a deadline in ``seconds`` and a ``limit`` in bytes.
    ``expired`` is true after the deadline."""

    def __init__(self, seconds: float, limit: int) -> None:
        self.limit, self.expired = limit, False
        self._read = 0
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Exchange:
        self._token = _CURRENT.set(self)
        self._timer.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._timer.cancel()
        _CURRENT.reset(self._token)
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for connection in self._sockets:
                _shut_down(connection)

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """The extension ``trace`` of the request: records new connections."""
        if not event.endswith(("connect_tcp.complete", "connect_unix_socket.complete")):
            return
        connection = info["return_value"].get_extra_info("socket")
        if connection is None:
            return
        # A duplicate stays valid when TLS takes over the descriptor of the connection.
        copy = connection.dup()
        with self._lock:
            self._sockets.append(copy)
            if self.expired:
                _shut_down(copy)

    def receive(self, response: Any) -> None:
        """Read and decompress the body of ``response``, which then replaces its stream."""
        encodings = response.headers.get("content-encoding", "").lower().replace(" ", "").split(",")
        encodings = [encoding for encoding in encodings if encoding not in ("", "identity")]
        stream = response.stream
        try:
            if sum(len(name) + len(value) for name, value in response.headers.raw) > _HEADERS:
                raise TooLarge(f"headers of more than {_HEADERS} bytes")
            body = _decompressed(self._chunks(stream), encodings, self.limit)
        finally:
            stream.close()
        for name in ("content-encoding", "content-length"):
            if name in response.headers:
                del response.headers[name]
        response.stream = _library(type(response)).ByteStream(body)
        # Otherwise openai decodes errors by the server's charset, which may be any codec of Python.
        response.encoding = "utf-8"

    def _chunks(self, stream: Iterable[bytes]) -> Iterable[bytes]:
        for chunk in stream:
            self._read += len(chunk)
            if self._read > self.limit:
                raise TooLarge(f"a response of more than {self.limit} bytes")
            yield chunk


def open_client(openai: Any, base_url: str, secret: str | None, seconds: float) -> Any:
    """A client of the package ``openai``, without retries, for requests within an ``Exchange``.

    There is no keep-alive: each request then opens its connection under its own ``Exchange``, at a cost that is small
    beside the time of a generation.
    """
    http_client = openai.DefaultHttpxClient(
        event_hooks={"request": [_begin], "response": [_receive]},
        headers={"Accept-Encoding": "gzip, deflate"},
        limits=_library(openai.DefaultHttpxClient.__base__).Limits(max_keepalive_connections=0),
        max_redirects=5,
        timeout=seconds,
    )
    # Local servers mostly need no key, but the package requires one.
    key = secret or "none"
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=seconds, http_client=http_client)


def _library(kind: type) -> Any:
    """The HTTP library that defines ``kind``: httpx, or httpx2 under newer versions of ``openai``."""
    return importlib.import_module(kind.__module__.partition(".")[0])


def _begin(request: Any) -> None:
    request.extensions = {**request.extensions, "trace": _CURRENT.get().trace}


def _receive(response: Any) -> None:
    _CURRENT.get().receive(response)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _decompressed(chunks: Iterable[bytes], encodings: list[str], limit: int) -> bytes:
    """The body of at most ``limit`` bytes."""
    if not encodings:
        return b"".join(chunks)
    if encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        for _ in chunks:  # to enforce the limit here too
            pass
        raise BadBody(f"content-encoding {', '.join(encodings)[:40]!r}, which the request did not allow")
    packed = b"".join(chunks)
    # A zlib header is two bytes with a checksum; some servers send deflate without it.
    wrapped = encodings != ["deflate"] or (len(packed) > 1 and int.from_bytes(packed[:2], "big") % 31 == 0)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS + 32 if wrapped else -zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        raise BadBody(f"the body is no {encodings[0]}: {error}") from None
    if len(body) > limit:
        raise TooLarge(f"a response of more than {limit} bytes after decompression")
    if not unpacker.eof:
        raise BadBody(f"the {encodings[0]} body ends early")
    return body
