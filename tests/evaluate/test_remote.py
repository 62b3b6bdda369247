"""An evaluation over HTTP scores what a model answered, and nothing that it did not answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from serving import Serving, completion, echo, fails, hangs_up, says, sends, waits

from gradatim.cli.main import main
from gradatim.errors import GradatimError, RecipeError, Stopped, UserError, WorkFailed
from gradatim.evaluation import SUITES
from gradatim.evaluation.generation import Question, Writing, endpoint, write
from gradatim.evaluation.problems import read_samples
from gradatim.table import make_table

NOTHING = make_table({"answer": []})


def text_completion(text: Any, finish: str = "stop") -> bytes:
    return json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": finish}]}).encode()


@pytest.fixture
def place(server: Serving, monkeypatch: pytest.MonkeyPatch):
    """The server as an endpoint that is asked in a hurry, one request at a time."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = endpoint(server.url + "#m")
    assert made is not None
    return replace(made, concurrency=1, retries=2, first_wait=0.002, seconds=5.0)


def questions(*prompts: str) -> list[Question]:
    return [Question(prompt, prompt, number) for number, prompt in enumerate(prompts)]


def written(place, *prompts: str, events=lambda event: None, **how: Any):
    samples = []
    try:
        for some in write(place, questions(*prompts), Writing(**how), events):
            samples += some
    except GradatimError as error:
        return [(sample.task, sample.text) for sample in samples], error
    return [(sample.task, sample.text) for sample in samples], None


NO_REPLY = {
    "an error with status 200": sends(b'{"error": {"message": "the model is overloaded"}}'),
    "no choices": sends(b'{"choices": []}'),
    "choices that are null": sends(b'{"choices": null}'),
    "a page": sends(b"<html>busy</html>", {"Content-Type": "text/html"}),
    "an event stream": sends(b'data: {"choices": []}\n\ndata: [DONE]\n\n', {"Content-Type": "text/event-stream"}),
    "latin-1": sends(b'{"choices": [{"message": {"content": "\xe9"}, "text": "\xe9"}]}'),
    "an odd charset": sends(completion("a"), {"Content-Type": "application/json; charset=zlib"}),
    "values nested deeply": sends(b"[" * 5000 + b"]" * 5000),
    "a figure of 5,000 digits": sends(
        b'{"choices": [{"text": "a", "message": {"content": "a"}}], "n": ' + b"9" * 5000 + b"}"
    ),
    "null": sends(json.dumps({"choices": [{"text": None, "message": {"content": None}}]}).encode()),
    "a number": sends(json.dumps({"choices": [{"text": 7, "message": {"content": 7}}]}).encode()),
    "nothing": sends(b""),
    "a cut connection": hangs_up,
    "status 503": fails(503),
}


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
@pytest.mark.parametrize("kind", NO_REPLY)
def test_what_is_no_reply_is_asked_for_again_and_never_an_answer(kind, chat, server, place):
    server.actions = [NO_REPLY[kind]]
    assert written(place, "a", "b", chat=chat) == ([("a", "re: a"), ("b", "re: b")], None)
    server.otherwise = NO_REPLY[kind]
    samples, error = written(place, "a", "b", chat=chat)
    assert samples == []
    assert isinstance(error, WorkFailed)
    assert "\n" not in str(error)


def test_one_question_that_is_never_answered_leaves_the_others_and_no_score(server, place):
    def poisoned(handler, body):
        (fails(400, "too long") if body["prompt"] == "b" else echo)(handler, body)

    server.otherwise = poisoned
    samples, error = written(place, "a", "b", "c")
    assert samples == [("a", "re: a"), ("c", "re: c")]
    assert isinstance(error, WorkFailed)
    assert "1 of 3 texts did not arrive" in str(error)
    assert "400: too long" in str(error)


def test_an_empty_reply_is_an_answer(server, place):
    server.actions = [sends(text_completion("")), sends(text_completion("x", "length"))]
    (one, two) = [each for some in write(place, questions("a", "b"), Writing()) for each in some]
    assert (one.text, one.finish, two.text, two.finish) == ("", "stop", "x", "limit")


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": None, "reasoning_content": "x = 1"}, "length", ""),
        ({"content": None, "refusal": "I cannot."}, "stop", "I cannot."),
        ({"content": None, "tool_calls": []}, "tool_calls", ""),
        ({"content": [{"type": "text", "text": "parts"}]}, "stop", "parts"),
        ({"content": "answer", "reasoning_content": "```python\nwrong\n```"}, "stop", "answer"),
    ],
)
def test_a_reply_that_says_why_it_has_no_text_is_an_answer(message, finish, text, server, place):
    server.actions = [sends(json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode())]
    assert written(place, "a", chat=True) == ([("a", text)], None)


def test_a_byte_now_and_then_is_held_to_the_deadline_of_the_whole(server, place):
    import time

    def drip(handler, body):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    server.actions = [drip]
    begun = time.monotonic()
    samples, error = written(replace(place, seconds=0.3), "a")
    assert (samples, error) == ([("a", "re: a")], None)
    assert time.monotonic() - begun < 3


def test_what_was_received_is_handed_on_when_the_server_goes_down_or_the_user_stops(server, place):
    server.actions = [echo, echo]
    server.otherwise = fails(503)
    samples, error = written(place, "a", "b", "c", "d")
    assert samples == [("a", "re: a"), ("b", "re: b")]
    assert "503" in str(error)
    server.otherwise = waits(0.05)

    def stop(event):
        if event.kind == "advance" and event.done:
            raise Stopped("stopped")

    samples, error = written(place, *"abcdefgh", events=stop)
    assert isinstance(error, Stopped)
    assert samples[:1] == [("a", "re: a")]


def test_the_key_of_the_environment_is_sent_and_removed_from_what_comes_back(server, place, monkeypatch):
    secret = "sk-another-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    quoted = secret.replace("-", "%2D")
    server.actions = [says(f"your key {quoted}")]
    assert written(place, "a", chat=True) == ([("a", "your key ***")], None)
    assert server.keys == [f"Bearer {secret}"]
    server.otherwise = fails(401, f"bad key {quoted}")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as told:
        list(write(place, questions("a"), Writing()))
    assert quoted not in str(told.value)


def test_the_quirks_of_newer_servers_are_options_and_found_out_without_them(server, place):
    def new(handler, body):
        wrong = next((name for name in ("max_tokens", "temperature", "seed") if name in body), None)
        (echo if wrong is None else fails(400, f"Unsupported parameter: '{wrong}'", param=wrong))(handler, body)

    server.otherwise = new
    options = {"limit_name": "max_completion_tokens", "seeded": False, "send_temperature": False}
    samples, error = written(place, "a", chat=True, server={**options, "extra": {"reasoning_effort": "low"}})
    assert (samples, error) == ([("a", "re: a")], None)
    assert len(server.heard) == 1
    assert server.heard[0]["reasoning_effort"] == "low"
    notes: list[str] = []
    samples, error = written(
        place, "a", chat=True, events=lambda event: notes.append(event.text) if event.kind == "note" else None
    )
    assert (samples, error) == ([("a", "re: a")], None)
    assert len(notes) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit_name": "tokens"}, "limit_name"),
        ({"nosuch": 1}, "nosuch"),
        ({"seconds": 0}, "seconds 0"),
        ({"concurrency": 0}, "concurrency 0"),
    ],
)
def test_an_option_of_the_server_that_does_not_fit_is_refused(options, words):
    for suite in ("functional", "cruxeval"):
        with pytest.raises(UserError, match=words):
            SUITES.get(suite)(server=options)


def test_an_option_of_the_server_for_a_local_model_is_refused():
    with pytest.raises(UserError, match="no endpoint"):
        list(write(object(), questions("a"), Writing(server={})))


@pytest.mark.parametrize("address", ["http://me:secret@h/v1#m", "http://h/v1?key=secret#m"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(address):
    with pytest.raises(UserError, match="secrets") as told:
        endpoint(address)
    assert "secret@" not in str(told.value)
    assert "key=" not in str(told.value)


@pytest.mark.parametrize("address", ["http://#m", "http://[::1/v1#m", "http://h\r\nX: y/v1#m", "http://h/v1"])
def test_what_is_no_address_is_one_line(address):
    with pytest.raises(UserError) as told:
        endpoint(address)
    assert "\n" not in str(told.value)


PROBLEM = {
    "task_id": "add",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "test": "def check(f):\n    assert f(1, 2) == 3\n",
}


def test_the_command_ends_with_one_line_and_goes_on_with_what_is_missing(server, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({**PROBLEM, "task_id": name}) + "\n" for name in "abc"))

    def evaluate():
        command = ["evaluate", f"{server.url}#m", "--suite", "functional", "--problems", str(file), "--json"]
        keep = ["--keep", str(tmp_path / "kept"), "--set", "server.retries=0", "--set", "server.concurrency=1"]
        status = main([*command, *keep])
        return status, *capsys.readouterr()

    server.actions = [sends(text_completion("    return a + b\n")), sends(b'{"choices": []}')]
    status, out, err = evaluate()
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    assert "without choices" in err
    (kept,) = (tmp_path / "kept").glob("*/samples.jsonl")
    assert [each.text for each in read_samples(kept).samples] == ["    return a + b\n"]
    server.otherwise = sends(text_completion("    return a + b\n"))
    heard = len(server.heard)
    status, out, err = evaluate()
    assert status == 0, err
    assert len(server.heard) - heard == 2
    assert json.loads(out)["scores"]["pass@1"]["value"] == 1.0


def test_an_option_of_an_option_is_set_by_its_path():
    from gradatim.cli.models import _options

    assert _options(["server.seeded=false", "server.extra={a: 1}", "chat=true"]) == {
        "server": {"seeded": False, "extra": {"a": 1}},
        "chat": True,
    }
    with pytest.raises(UserError, match="no nested options"):
        _options(["chat=true", "chat.deep=1"])


def test_recipe_errors_of_the_option_hold_its_allowed_names():
    with pytest.raises(RecipeError, match="send_temperature"):
        SUITES.get("functional")(server={"send_temperatur": False})
