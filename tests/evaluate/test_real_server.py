"""A student behind a real server, llama.cpp with its OpenAI-compatible API, is evaluated as the model folder is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import CONTEXT, Serving, fails
from small_models import base

from gradatim.cli.main import main
from gradatim.errors import RecipeError
from gradatim.evaluation import SUITES, summary
from gradatim.evaluation.generation import endpoint
from gradatim.export import EXPORTERS
from gradatim.model.load import load_student


@pytest.fixture(scope="module")
def llama(expert, tmp_path_factory) -> Iterator[str]:
    """The address of a llama.cpp server with the expert."""
    for package in ("openai", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("gguf")
    exporter = EXPORTERS.make("gguf", options={})
    exporter.write(expert, folder, folder)
    with exporter.open(folder, expert) as runtime:
        yield f"{runtime.address}/v1"


@pytest.fixture(scope="module")
def llama_chat(tmp_path_factory) -> Iterator[str]:
    """The address of a llama.cpp server with a chat model of random weights."""
    for package in ("openai", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    student = load_student(base(tmp_path_factory.mktemp("chat")))
    folder = tmp_path_factory.mktemp("gguf-chat")
    exporter = EXPORTERS.make("gguf", options={})
    exporter.write(student, folder, folder)
    with exporter.open(folder, student) as runtime:
        yield f"{runtime.address}/v1"


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ssl.create_default_context", CONTEXT)


@pytest.mark.parametrize("protocol", ["greedy", "paper"])
def test_the_outputs_of_a_student_behind_a_server_are_those_of_its_folder(protocol, expert, programs, llama):
    suite = SUITES.make("output", options={"protocol": protocol})
    here, there = suite(expert, programs, seed=3), suite(endpoint(f"{llama}#expert"), programs, seed=3)
    assert there.counts == here.counts, "by level, band and outcome too"
    assert summary(here)["counts"]["passed"] >= 7


def test_the_command_evaluates_outputs_over_http(programs, llama, tmp_path: Path, capsys):
    import pyarrow.parquet as pq

    pq.write_table(programs.drop_columns(["twin"]), tmp_path / "programs.parquet")
    words = ["evaluate", f"{llama}#expert", "--data", str(tmp_path / "programs.parquet"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["passed"] == 8


def test_options_of_an_endpoint_are_refused_for_a_folder(expert, programs):
    with pytest.raises(RecipeError, match="an endpoint has this option, and the model is none"):
        SUITES.make("output", options={"server": {"concurrency": 2}})(expert, programs, seed=0)


def test_what_a_real_server_supports_is_listed(llama_chat, capsys):
    assert main(["doctor", "--endpoint", llama_chat, "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    good = ("models", "chat", "completion", "parameters", "log-probabilities", "token counts")
    assert {name: findings[name]["state"] for name in good} == dict.fromkeys(good, "good"), findings
    assert findings["echo"]["state"] == "absent", "llama.cpp has no log-probabilities of a prompt"
    assert "completions" in findings["log-probabilities"]["found"]


def test_a_server_without_completions_says_so(server: Serving, capsys):
    def chat_only(handler, body) -> None:
        if "prompt" in body:
            fails(404, "no route /v1/completions")(handler, body)
        elif "seed" in body:
            fails(400, "Unsupported parameter: 'seed'", param="seed")(handler, body)
        else:
            handler.send(200, json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode())

    server.otherwise = chat_only
    assert main(["doctor", "--endpoint", f"{server.url}#m", "--json"]) == 0
    found = {finding["name"]: finding["found"] for finding in json.loads(capsys.readouterr().out)}
    assert "no route /v1/completions" in found["completion"]
    assert found["parameters"] == "the server does not support 'seed'; it is left out"
    assert found["token counts"] == "none; an upper bound is counted"


def test_bad_addresses_keys_and_models_are_one_line(server: Serving, capsys, monkeypatch):
    assert main(["doctor", "--endpoint", "http://127.0.0.1:9/v1"]) == 1
    assert "the endpoint does not answer" in capsys.readouterr().err
    assert main(["doctor", "--endpoint", "localhost"]) == 2
    assert main(["doctor", "--model", "m"]) == 2
    assert "--model: a model belongs to a server" in capsys.readouterr().err
    monkeypatch.setenv("MY_KEY", "a-secret-key")
    server.otherwise = fails(401, "bad key a-secret-key")
    assert main(["doctor", "--endpoint", server.url, "--model", "m", "--key", "MY_KEY"]) == 2
    error = capsys.readouterr().err
    assert "the endpoint refuses the key" in error
    assert "a-secret-key" not in error
    server.otherwise = fails(404, "no model m")
    assert main(["doctor", "--endpoint", server.url, "--model", "m"]) == 2
    assert "no such model" in capsys.readouterr().err
