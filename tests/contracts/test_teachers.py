"""What every teacher owes the loop, whoever it is: rows in their order, the same for the same call, counts."""

from __future__ import annotations

import functools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradatim.errors import RecipeError, UserError
from gradatim.model.tokenizer import bpe_tokenizer
from gradatim.programs import generate
from gradatim.teacher import TEACHERS, Grade, Question
from gradatim.teacher.prompts import PACKAGED

PROGRAM = "b = 3\nprint(b + 1)\n"
SCRIPT = {
    "begins with": f"```python\n{PROGRAM}```",
    "learner say": "```\n-7\n```",
    "print?": "```\n4\n```",
    "stage table": '{"reason": "all"}',
    "attempt": "It is fine.\n<scores>\nbasic functionality: 2\nboundary checks: 1\nrequirement coverage: 1\n"
    "readability and documentation: 0.5\ncoding practices: 1\n</scores>",
}
CONTEXT = functools.cache(ssl.create_default_context)
EVERY = pytest.mark.parametrize("name", TEACHERS.names())


@pytest.fixture
def options(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """For each teacher, options with which it stands; nobody is asked yet. A new teacher adds its own."""
    return {
        "api": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "key": None, "retries": 0, "cache": tmp_path / "c"},
        "local": {"cache": tmp_path / "c", "max_tokens": 12},
        "oracle": {"seed": 2},
        "scripted": {"replies": SCRIPT},
    }


@pytest.fixture
def make(options: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Teachers that answer: the endpoint is a real server that follows the script, the local model a tiny student."""

    def made(name: str) -> Any:
        given = dict(options[name])
        if name == "api":
            given["base_url"] = request.getfixturevalue("endpoint")
        if name == "local":
            given["model"] = request.getfixturevalue("folder")
        return TEACHERS.get(name)(**given)

    return made


class Endpoint(BaseHTTPRequestHandler):
    """Replies by the script to what the last message holds."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        text = next(reply for words, reply in SCRIPT.items() if words in asked)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    # Every client reads all certificates, which takes longer than a test; here nothing is encrypted.
    monkeypatch.setattr(ssl, "create_default_context", CONTEXT)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that knows the characters of the prompts. It answers nonsense, which is an answer too."""
    torch.manual_seed(1)
    place = tmp_path_factory.mktemp("model")
    known = [path.read_text() for path in PACKAGED.glob("*.md")] + ["0123456789\tPython: = + - * / ( ) < > ! #"] * 20
    tokenizer = bpe_tokenizer(known, 400)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=4096,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def samples() -> Any:
    return generate(6, levels=["1.1", "3.1"], seed=1).table


def everything(teacher: Any, samples: Any, draw: int = 0) -> list[Any]:
    """What the teacher says to all that it can be asked about these samples."""
    told = [teacher.answers(samples, draw=draw), teacher.faults(samples, draw=draw)]
    return [*told, *(teacher.questions(samples, grade=grade, draw=draw) for grade in ("easy", "middle", "hard"))]


@EVERY
def test_each_row_has_one_result_of_the_right_kind(name, make, samples):
    answers, faults, *questions = everything(make(name), samples)
    assert len(answers) == len(faults) == samples.num_rows
    assert all(answer is None or answer.endswith("\n") for answer in (*answers, *faults))
    for made in questions:
        assert len(made) == samples.num_rows
        assert all(each is None or isinstance(each, Question) for each in made)
        assert all(each is None or each.language == "python" for each in made)


@EVERY
def test_a_fault_is_not_the_right_answer(name, make, samples):
    faults = make(name).faults(samples)
    assert not any(fault == right for fault, right in zip(faults, samples["answer"].to_pylist(), strict=True))
    if name != "local":  # a model that knows nothing writes no answer that can be read
        assert any(faults)


@EVERY
def test_the_same_call_gives_the_same(name, make, samples):
    assert everything(make(name), samples) == everything(make(name), samples)


@EVERY
def test_a_row_is_told_the_same_among_others(name, make, samples):
    teacher = make(name)
    turned = samples.take(list(range(samples.num_rows))[::-1])
    assert [each[::-1] for each in everything(teacher, turned)] == everything(make(name), samples)


@EVERY
def test_nothing_to_do_is_nothing_to_ask(name, make, samples):
    assert everything(make(name), samples.slice(0, 0)) == [[], [], [], [], []]


@EVERY
def test_facts_are_plain_json_and_grow(name, make, samples):
    teacher = make(name)
    before = json.dumps(teacher.facts)
    teacher.answers(samples)
    assert json.loads(json.dumps(teacher.facts)) == teacher.facts
    assert json.dumps(teacher.facts) != before


@EVERY
def test_the_rubric_is_a_grade_of_six_points_or_unread_or_not_to_be_had(name, make, samples):
    teacher = make(name)
    attempts = ["# 1\n"] * samples.num_rows
    if name == "oracle":
        with pytest.raises(UserError, match="try: "):
            teacher.rubric(samples, attempts)
        return
    grades = teacher.rubric(samples, attempts)
    assert len(grades) == samples.num_rows
    assert all(grade is None or (isinstance(grade, Grade) and 0 <= grade.points <= 6) for grade in grades)
    assert all(grade is None or sum(grade.parts.values()) == grade.points for grade in grades)
    assert name == "local" or all(grade is not None and grade.points == 5.5 for grade in grades)


@EVERY
def test_a_design_is_a_text_or_not_to_be_had_and_the_same_for_the_same_question(name, make):
    asked = {"facts": "three bands", "form": '{"type": "object"}'}
    if name == "oracle":
        with pytest.raises(UserError, match="try: "):
            make(name).design(**asked)
        return
    first, mended = make(name).design(**asked), make(name).design(**asked, reply="{}", faults=["no reason"])
    assert (first, mended) == (make(name).design(**asked), make(name).design(**asked, reply="{}", faults=["no reason"]))
    if name != "local":
        assert first == mended == '{"reason": "all"}'
    else:
        assert first is None or isinstance(first, str)


@EVERY
def test_an_unknown_grade_is_the_users_mistake(name, make, samples):
    with pytest.raises(UserError, match="easy, middle, hard"):
        make(name).questions(samples, grade="unjudged")


@EVERY
def test_an_unknown_option_is_a_mistake_in_the_recipe(name, options):
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        TEACHERS.get(name)(**options[name], nonsense=1)


@EVERY
def test_it_is_listed_with_a_line_that_says_what_it_is(name):
    summary = next(entry.summary for entry in TEACHERS if entry.name == name)
    assert 10 < len(summary) <= 100
    assert TEACHERS.get(name).__doc__ == summary
