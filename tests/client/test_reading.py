"""A body that is no completion is no reply: it is refused with a reason, asked for again and never kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving import completion, says, sends

from gradatim.client.endpoint import Parameters
from gradatim.errors import TeacherFailed
from gradatim.teacher.reply_store import Cached


def with_usage(prompt: str, written: str = "5") -> bytes:
    return (
        completion("a", prompt=7, written=8)
        .replace(b": 7,", f": {prompt},".encode())
        .replace(b": 8,", f": {written},".encode())
    )


def chosen(choice: Any) -> bytes:
    return json.dumps({"choices": [choice]}).encode()


NESTED = b'{"a":' * 5000 + b"1" + b"}" * 5000
UNREADABLE = {
    "a usage of 4,000 digits": (with_usage("9" * 4000), "usage of more than"),
    "a usage of 5,000 digits": (with_usage("9" * 5000), "digits"),
    "a completion of 20 digits": (with_usage("5", "9" * 20), "usage of more than"),
    "objects nested 5,000 deep": (NESTED, "nested"),
    "lists nested 100,000 deep": (b"[" * 100_000, "nested"),
    "a reply with a detail nested 300 deep": (
        completion("a").replace(b'"model": "m"', b'"model": ' + b"[" * 300 + b"]" * 300),
        "nested",
    ),
    "an error with status 200": (b'{"error": {"message": "the model is overloaded"}}', "overloaded"),
    "an error that is a string": (b'{"error": "the model is overloaded"}', "overloaded"),
    "no choices": (b'{"choices": []}', "without choices"),
    "choices that are null": (b'{"choices": null}', "without choices"),
    "choices by number": (b'{"choices": {"0": {"message": {"content": "a"}}}}', "without choices"),
    "a choice that is text": (b'{"choices": ["a"]}', "without choices"),
    "no message": (chosen({"text": "a"}), "without a message"),
    "a message that is text": (chosen({"message": "a"}), "without a message"),
    "content that is a number": (chosen({"message": {"content": 7}}), "no text"),
    "a page": (b"<!DOCTYPE html><title>502</title>", "a page"),
    "an event stream": (b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n', "event stream"),
    "nothing": (b"", "empty body"),
    "a body cut short": (completion("a")[:-9], "no JSON"),
    "two bodies": (completion("a") * 2, "no JSON"),
    "bytes that are no text": (b"\xff\x00\x9c\x81", "no JSON|not UTF-8"),
    "latin-1": (completion("caf\u00e9").replace(b"caf\\u00e9", b"caf\xe9"), "not UTF-8"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_body_is_refused_with_its_reason_and_asked_for_again(kind, server, chat, ask, tmp_path):
    body, reason = UNREADABLE[kind]
    server.actions = [sends(body)]
    cached_chat = Cached(chat(), tmp_path)
    assert cached_chat.ask(ask("a"))[0].text == "re: a"
    assert cached_chat.facts["retried"] == {"broken reply": 1}
    server.otherwise = sends(body)
    with pytest.raises(TeacherFailed, match=f"broken reply.*({reason})") as error:
        cached_chat.ask(ask("b"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    server.otherwise = says("now")
    assert Cached(chat(), tmp_path).ask(ask("a", "b"))[1].text == "now"  # nothing was kept that stops the next start


@pytest.mark.parametrize("charset", ["zlib", "punycode", "idna", "unicode_escape", "rot13", "hex", "nosuch", "a" * 500])
def test_a_charset_that_is_none_for_text_is_refused(charset, server, chat, ask):
    server.actions = [sends(completion("a"), {"Content-Type": f"application/json; charset={charset}"})]
    api_chat = chat()
    assert api_chat.ask(ask("a"))[0].text == "re: a"
    assert api_chat.facts["retried"] == {"broken reply": 1}


def test_an_error_in_an_odd_charset_is_an_error_like_others(server, chat, ask):
    server.actions = [
        lambda handler, body: handler.send(500, b"\xff\xfe", {"Content-Type": "text/html; charset=zlib"}),
        lambda handler, body: handler.send(429, NESTED),
    ]
    api_chat = chat()
    api_chat.ask(ask("a"))
    assert api_chat.facts["retried"] == {"429": 1, "500": 1}


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json", "utf-8"),
        ("application/json", "utf-8-sig"),
        ("application/json", "utf-16"),
        ("application/json; charset=utf-8", "utf-8"),
        ("application/json; charset=ISO-8859-1", "latin-1"),
        ('application/json; charset="iso-8859-1"', "utf-8"),
        ("application/json;charset=windows-1252", "cp1252"),
        ("", "utf-8"),
    ],
)
def test_a_reply_is_read_in_the_encoding_it_is_in(content_type, encoding, server, chat, ask):
    body = json.dumps({"choices": [{"message": {"content": "caf\u00e9"}}]}, ensure_ascii=False).encode(encoding)
    server.actions = [sends(body, {"Content-Type": content_type})]
    assert chat().ask(ask("a"))[0].text == "caf\u00e9"


PARTS = [
    {"type": "reasoning", "text": "hm"},
    {"type": "text", "text": "the "},
    {"type": "output_text", "text": "answer"},
    {"type": "thinking", "thinking": "hm"},
    {"type": "image_url", "image_url": {"url": "data:"}},
    None,
    7,
]


@pytest.mark.parametrize(
    ("message", "text", "finish"),
    [
        ({"content": PARTS}, "the answer", "stop"),
        ({"content": []}, "", "empty"),
        ({"content": ["the ", "answer"]}, "the answer", "stop"),
        ({"content": "the answer", "reasoning_content": "```python\nwrong()\n```"}, "the answer", "stop"),
        ({"content": "the answer", "reasoning": "hm", "thinking": "hm"}, "the answer", "stop"),
        ({"content": "", "reasoning_content": "the answer"}, "", "empty"),
        ({"content": None, "reasoning_content": "the answer"}, "", "empty"),
        ({"content": "a", "refusal": ""}, "a", "stop"),
        ({"content": "a", "refusal": {"a": 1}}, "a", "stop"),
    ],
)
def test_the_answer_is_the_content_and_nothing_beside_it(message, text, finish, server, chat, ask):
    server.actions = [sends(chosen({"message": message, "finish_reason": "stop"}))]
    (reply,) = chat().ask(ask("a"))
    assert (reply.text, reply.finish) == (text, finish)


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": -1}]
)
def test_a_usage_that_says_nothing_counts_as_the_most(usage, server, chat, ask):
    server.actions = [sends(json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}).encode())]
    api_chat = chat()
    api_chat.ask(ask("a", max_tokens=40))
    assert (api_chat.facts["without_usage"], api_chat.facts["completion_tokens"]) == (1, 40)


def refuses(name: str, message: str, code: str | None = None, field: str | None = None):
    """A server that takes no request with the parameter ``name``."""
    from serving import echo, fails

    def action(handler, body):
        details = {} if code is None else {"code": code, "param": field}
        (fails(400, message, **details) if name in body else echo)(handler, body)

    return action


REFUSALS = {
    "the limit, as OpenAI says it": (
        "max_tokens",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "unsupported_parameter",
        "max_tokens",
    ),
    "the temperature, as OpenAI says it": (
        "temperature",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        "unsupported_value",
        "temperature",
    ),
    "the seed, as a strict server says it": ("seed", "seed: Extra inputs are not permitted", None, None),
    "the seed, unrecognized": ("seed", "Unrecognized request argument supplied: seed", None, None),
    "the temperature, deprecated": ("temperature", "`temperature` is not supported by this model", None, None),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_parameter_that_the_server_does_not_know_is_found_out_once_and_said(kind, server, chat, ask):
    name = REFUSALS[kind][0]
    server.otherwise = refuses(*REFUSALS[kind])
    notes = []
    api_chat = chat()
    replies = api_chat.ask(ask("a", "b"), lambda event: notes.append(event.text) if event.kind == "note" else None)
    assert [reply.text for reply in replies] == ["re: a", "re: b"]
    assert [name in body for body in server.heard] == [True, False, False]
    assert [note for note in notes if name in note] == notes != []
    assert ("max_completion_tokens" in server.heard[1]) == (name == "max_tokens")
    assert api_chat.facts["failed"] == {}
    api_chat.ask(ask("c"))
    assert len(server.heard) == 4


def test_all_three_parameters_can_be_refused(server, chat, ask):
    def picky(handler, body):
        from serving import echo, fails

        wrong = next((name for name in ("max_tokens", "temperature", "seed") if name in body), None)
        (echo if wrong is None else fails(400, f"unknown parameter: {wrong}", param=wrong))(handler, body)

    server.otherwise = picky
    assert chat().ask(ask("a"))[0].text == "re: a"
    assert set(server.heard[-1]) == {"messages", "model", "max_completion_tokens"}


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 512. This model supports at most 100",
        "temperature must be between 0 and 2",
        "unknown tool in message",
        "the prompt is not supported",
    ],
)
def test_another_refusal_changes_no_parameter(message):
    fields = {"messages": [], "max_tokens": 1, "temperature": 0, "seed": 1}
    parameters = Parameters()
    assert not parameters.adapt(fields, message, "invalid_value", "")
    assert (parameters.limit_name, parameters.notes) == ("max_tokens", [])
    assert all(parameters.sent.values())
