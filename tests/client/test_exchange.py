"""No server can hold a request beyond its deadline, or fill the memory with its response."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import threading
import time
import zlib

import pytest
from serving import completion, sends, serving, waits, writes

from gradatim.client.exchange import reply_limit
from gradatim.errors import TeacherFailed

DEADLINE = 0.4
SLACK = 2.5
"""Seconds for a busy machine; every server here would go on for longer."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

DRIPS = {
    "body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "body without a length": (HEAD + b"\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X-A: b\r\n"),
    "headers": (HEAD, b"X-A: b\r\n"),
    "status line": (b"HTTP/1.1 ", b" "),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a compressed body": (HEAD + b"Content-Encoding: gzip\r\n\r\n", b"\x1f"),
    "an error's body": (b"HTTP/1.1 500 Oops\r\n\r\n", b" "),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_a_server_that_sends_a_byte_now_and_then_is_held_to_the_deadline_of_the_whole(kind, server, chat, ask):
    first, drop = DRIPS[kind]

    def drip(handler, body):
        handler.close_connection = True
        handler.wfile.write(first)
        for _ in range(100):
            handler.wfile.write(drop)
            time.sleep(DEADLINE / 8)  # far below any timeout of a single read

    server.actions = [drip]
    api_chat = chat(seconds=DEADLINE)
    start = time.monotonic()
    (reply,) = api_chat.ask(ask("a"))
    assert reply.text == "re: a"
    assert api_chat.facts["retried"] == {"timeout": 1}
    assert time.monotonic() - start < DEADLINE + SLACK


def test_redirections_count_for_the_same_deadline_and_come_to_an_end(server, chat, ask):
    def away(handler, body):
        time.sleep(DEADLINE / 3)
        handler.send(307, b"", {"Location": "/v1/chat/completions"})

    server.otherwise = away
    start = time.monotonic()
    with pytest.raises(TeacherFailed, match="timeout"):
        chat(seconds=DEADLINE, retries=0).ask(ask("a"))
    assert time.monotonic() - start < DEADLINE + SLACK
    server.otherwise = lambda handler, body: handler.send(307, b"", {"Location": "/v1/chat/completions"})
    server.heard.clear()
    with pytest.raises(TeacherFailed, match="redirects"):
        chat(retries=0).ask(ask("a"))
    assert len(server.heard) < 10


def test_a_server_that_never_reads_the_request_is_held_to_the_deadline(server, chat, ask):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        api_chat = chat(seconds=DEADLINE, retries=0)
        api_chat.base_url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        start = time.monotonic()
        with pytest.raises(TeacherFailed, match="timeout"):
            api_chat.ask(ask("a" * 20_000_000))
        assert time.monotonic() - start < DEADLINE + SLACK


def test_a_whole_reply_just_before_the_deadline_is_taken(server, chat, ask):
    server.actions = [waits(DEADLINE / 2)]
    api_chat = chat(seconds=DEADLINE)
    api_chat.ask(ask("a"))
    assert api_chat.facts["retried"] == {}


def test_no_thread_and_no_connection_is_left_of_a_request_that_was_cut_off(server, chat, ask):
    before = threading.active_count()
    server.actions = [writes(HEAD + b"\r\n", pause=2 * DEADLINE)]
    chat(seconds=DEADLINE).ask(ask("a"))
    end = time.monotonic() + 5
    # The server's own thread ends when it notices that nobody listens.
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() <= before


LIMIT = reply_limit(8)


def endless(handler, body):
    handler.close_connection = True
    handler.wfile.write(HEAD + b"\r\n")
    for _ in range(4000):
        handler.wfile.write(b" " * (1 << 20))


def chunked_endless(handler, body):
    handler.close_connection = True
    handler.wfile.write(CHUNKED)
    for _ in range(4000):
        handler.wfile.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")


def many_headers(handler, body):
    handler.close_connection = True
    handler.wfile.write(HEAD)
    for _ in range(4000):
        handler.wfile.write(b"X-A: " + b"b" * 60_000 + b"\r\n")


def bomb(size: int, wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)]) + packer.flush()


TOO_LARGE = {
    "a body without end": endless,
    "chunks without end": chunked_endless,
    "a length of gigabytes": writes(HEAD + b"Content-Length: 9000000000\r\n\r\n", b" " * (LIMIT + 5)),
    "headers without end": many_headers,
    "an error of gigabytes": writes(b"HTTP/1.1 500 Oops\r\n\r\n", b" " * (LIMIT + 5)),
}
BOMBS = {"a gzip bomb": ("gzip", 31), "a deflate bomb": ("deflate", 15), "a raw deflate bomb": ("deflate", -15)}
"""Encoding and window bits of bodies that are compressed only by their tests: it takes a second."""


@pytest.mark.parametrize("kind", [*TOO_LARGE, *BOMBS])
def test_a_response_beyond_the_limit_is_dropped_early_and_asked_for_again(kind, server, chat, ask):
    if kind in BOMBS:
        encoding, bits = BOMBS[kind]
        server.actions = [sends(bomb(200 << 20, bits), {"Content-Encoding": encoding})]
    else:
        server.actions = [TOO_LARGE[kind]]
    api_chat = chat()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (reply,) = api_chat.ask(ask("a", max_tokens=8))
    assert reply.text == "re: a"
    cause = "connection" if kind == "headers without end" else "too large"
    assert api_chat.facts["retried"] == {cause: 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10  # kilobytes


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", pytest.param("x" * 5000, id="long")])
def test_an_encoding_that_was_not_offered_is_refused(encoding, server, chat, ask):
    server.actions = [sends(completion("a"), {"Content-Encoding": encoding})]
    api_chat = chat()
    api_chat.ask(ask("a"))
    assert api_chat.facts["retried"] == {"broken reply": 1}


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(completion("a"))[:-9]], ids=["no gzip", "cut"])
def test_a_compressed_body_that_is_damaged_is_refused(body, server, chat, ask):
    server.actions = [sends(body, {"Content-Encoding": "gzip"})]
    api_chat = chat()
    api_chat.ask(ask("a"))
    assert api_chat.facts["retried"] == {"broken reply": 1}


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(completion("packed"))),
        ("deflate", zlib.compress(completion("packed"))),
        ("deflate", zlib.compress(completion("packed"))[2:-4]),
        ("identity", completion("packed")),
    ],
    ids=["gzip", "zlib", "raw deflate", "identity"],  # a gzip file has the time in it, and every worker needs one name
)
def test_a_compressed_reply_is_read(encoding, packed, server, chat, ask):
    server.actions = [sends(packed, {"Content-Encoding": encoding})]
    (reply,) = chat().ask(ask("a"))
    assert reply.text == "packed"
    assert json.loads(reply.raw)["choices"]


def test_a_long_reply_with_alternatives_for_each_token_is_within_the_limit():
    alternatives = [{"token": " method", "logprob": -12.345678, "bytes": [32, 109, 101, 116, 104, 111, 100]}] * 20
    assert 2000 * len(json.dumps(alternatives)) < reply_limit(2000)


def test_two_servers_at_once_are_cut_off_independently(server, chat, ask):
    with serving() as slow:
        slow.otherwise = waits(5)
        slow_chat = chat(seconds=DEADLINE, retries=0)
        slow_chat.base_url = slow.url
        server.otherwise = waits(DEADLINE / 2)
        failures: list[BaseException] = []

        def hold() -> None:
            try:
                slow_chat.ask(ask("a"))
            except TeacherFailed as failure:
                failures.append(failure)

        thread = threading.Thread(target=hold)
        thread.start()
        api_chat = chat(seconds=2 * DEADLINE)
        api_chat.ask(ask("a", "b", "c"))
        thread.join()
    assert api_chat.facts["retries"] == 0
    assert len(failures) == 1
