"""Files that are none, that never end, or that are of another kind: one line, exit 2, and nothing of their content."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from gradatim.client.endpoint import check_address
from gradatim.errors import DataError, RecipeError, UserError
from gradatim.evaluation.generation import endpoint
from gradatim.evaluation.problems import read_rows
from gradatim.experiment.recipe import load
from gradatim.files import open_input, read_input
from gradatim.options import parse_json, parse_yaml
from gradatim.table import read_table

SECRET = "hunter2"
SHADOW = f"root:${SECRET}:19700:0:99999:7:::\ndaemon:*:19700:0:99999:7:::\n"
KEYS = f"[default]\naws_secret_access_key = {SECRET}\n"
DOCKER = json.dumps({"auths": {"registry": {"auth": SECRET}}})
NETRC = f"machine example.org\n  login me\n  password: {SECRET}\n"
YAML = f"password: {SECRET}\nusers:\n- {SECRET}\n"
SECRETS = {"shadow": SHADOW, "keys": KEYS, "docker": DOCKER, "netrc": NETRC, "yaml": YAML, "tab": f"a:\t- {SECRET}: {{"}


def assert_one_line(said: Any, *words: str) -> None:
    assert said.status == 2, said
    assert said.err.startswith("gradatim: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    row = {"task_id": "a", "prompt": "def a():\n", "entry_point": "a", "test": "def check(candidate):\n    pass\n"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "s.jsonl").write_text('{"task_id": "a", "completion": "    return 1\\n"}\n')
    return tmp_path


# A file of another kind is not shown.


@pytest.mark.parametrize("content", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("named", ["../secret/shadow", "../secret/shadow.yaml", "../secret/link", "shadow"])
def test_what_a_recipe_extends_is_not_shown_unless_it_is_a_recipe(gradatim, tmp_path, content, named):
    (tmp_path / "secret").mkdir()
    (tmp_path / "mine").mkdir()
    for name in ("secret/shadow", "secret/shadow.yaml", "mine/shadow", "shadow"):
        (tmp_path / name).write_text(content)
    (tmp_path / "secret" / "link.yaml").symlink_to("shadow")
    (tmp_path / "mine" / "r.yaml").write_text(f"extends: {named}\n")
    said = gradatim("plan", "mine/r.yaml")
    assert_one_line(said)
    assert SECRET not in said.err


def test_only_recipes_are_extended(gradatim, tmp_path):
    (tmp_path / "base.txt").write_text("seed: 3\n")
    (tmp_path / "base.yaml").write_text("seed: 4\n")
    for named, seed in (("base.yaml", 4), ("base", 4), ("smoke/baseline", 1)):
        (tmp_path / "r.yaml").write_text(f"extends: {named}\n")
        assert load(tmp_path / "r.yaml").seed == seed
    for named in (
        "base.txt",
        "/etc/passwd",
        ".",
        "..",
        "''",
        "[base.yaml]",
        "'a\\0b'",
        "'" + "n" * 5000 + "'",
        "r.yaml",
    ):
        (tmp_path / "r.yaml").write_text(f"extends: {named}\n")
        with pytest.raises(RecipeError) as caught:
            load(tmp_path / "r.yaml")
        assert len(str(caught.value)) < 500


READERS = {
    "a recipe": ("plan", "FILE"),
    "a recipe to run": ("run", "FILE", "--out", "out"),
    "samples to check": ("check", "FILE", "--problems", "p.jsonl"),
    "problems": ("check", "s.jsonl", "--problems", "FILE"),
    "verdicts": ("check", "s.jsonl", "--problems", "p.jsonl", "--out", "FILE"),
    "a table": ("score", "FILE.jsonl"),
    "passes": ("score", "s.jsonl", "--correlate", "--passes", "FILE.jsonl"),
    "data of a recipe": ("plan", "data.yaml", "--data"),
    "questions": ("evaluate", "nowhere", "--suite", "choice", "--problems", "FILE"),
}


@pytest.mark.parametrize("content", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_a_file_of_another_kind_is_not_shown(gradatim, problems, command, content):
    for name in ("FILE", "FILE.jsonl"):
        (problems / name).write_text(content)
    (problems / "data.yaml").write_text("data: {source: file, path: FILE, format: jsonl}\n")
    said = gradatim(*command)
    assert_one_line(said)
    assert SECRET not in said.err
    assert (problems / "FILE").read_text() == content


def test_what_lies_in_a_lock_is_not_shown(gradatim, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text(SECRET)
    said = gradatim("run", "smoke/baseline", "--out", "out")
    assert_one_line(said, ".lock")
    assert SECRET not in said.err


# A file that is none, or has no end.


@pytest.fixture
def no_files(problems: Path) -> dict[str, Path]:
    names = {}
    for ending in ("", ".jsonl", ".jsonl.gz", ".parquet", ".txt", ".yaml"):
        os.mkfifo(problems / f"pipe{ending}")
        (problems / f"zero{ending}").symlink_to("/dev/zero")
        (problems / f"folder{ending}").mkdir()
    return names


INPUTS = {
    "check": [("check", "{}.jsonl", "--problems", "p.jsonl"), ("check", "s.jsonl", "--problems", "{}")],
    "score": [("score", f"{{}}{ending}") for ending in (".jsonl", ".jsonl.gz", ".parquet", ".txt")],
    "passes": [("score", "s.jsonl", "--correlate", "--passes", "{}.parquet")],
    "recipe": [("plan", "{}.yaml"), ("plan", "extends-{}.yaml")],
    "evaluate": [("evaluate", "nowhere", "--data", "{}.jsonl")],
}


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
@pytest.mark.parametrize("commands", INPUTS.values(), ids=INPUTS)
@pytest.mark.usefixtures("no_files")
def test_a_pipe_a_device_or_a_folder_is_no_input(gradatim, problems, commands, kind):
    (problems / f"extends-{kind}.yaml").write_text(f"extends: {kind}.yaml\n")
    for command in commands:
        began = time.monotonic()
        assert_one_line(gradatim(*(word.format(kind) for word in command)))
        assert time.monotonic() - began < 10


def bomb(path: Path, unpacked: int) -> None:
    """A small gzip file of one JSON string that has no end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        file.write(packer.compress(b'{"answer": "'))
        block = b"0" * (1 << 20)
        for _ in range(unpacked >> 20):
            file.write(packer.compress(block))
        file.write(packer.flush())


@pytest.mark.parametrize(("read", "name"), [(read_table, "b.jsonl.gz"), (lambda path: list(read_rows(path)), "b")])
def test_a_gzip_file_that_unpacks_without_end_is_refused_early(tmp_path, monkeypatch, read, name):
    monkeypatch.setattr("gradatim.files.LARGEST_UNPACKED", 1 << 22)
    bomb(tmp_path / name, 1 << 25)
    with pytest.raises(DataError, match=r"unpacks to far more|too large"):
        read(tmp_path / name)


def test_a_gzip_file_of_ordinary_text_is_read(tmp_path):
    rows = [json.dumps({"answer": f"a = {number}\nprint(a)\n"}) for number in range(2000)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    assert read_table(tmp_path / "a.jsonl.gz").num_rows == 2000
    assert sum(1 for _ in read_rows(tmp_path / "a.jsonl.gz")) == 2000


def test_a_sparse_file_is_refused_by_its_size_or_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr("gradatim.files.LARGEST_LINE", 1 << 22)
    with open(tmp_path / "large.jsonl", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="too large"):
        read_input(tmp_path / "large.jsonl")
    with open_input(tmp_path / "large.jsonl") as file, pytest.raises(DataError, match="line is too long"):
        next(iter(file))


# Text that no parser expects.


UNREASONABLE = {
    "brackets": "[" * 200_000,
    "braces": "{" * 200_000,
    "dashes": "- " * 200_000,
    "itself": "a: &a [*a]",
    "digits": "a: " + "9" * 5000,
}


@pytest.mark.parametrize("content", UNREASONABLE.values(), ids=UNREASONABLE)
def test_a_recipe_without_reason_is_one_line_and_ends_no_process(tmp_path, content):
    (tmp_path / "r.yaml").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "gradatim", "plan", "r.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "not YAML" in done.stderr


def test_aliases_that_multiply_are_refused():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]")
    with pytest.raises(ValueError, match="more than 200,000 values"):
        parse_yaml("\n".join(lines))
    assert parse_yaml("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "a: 2024-13-45",
        "!!timestamp x",
        "!!int x",
        "!!bool x",
        "\ud800",
        "a: \0",
        "!!python/object:os.system x",
        b"\xff",
    ],
)
def test_yaml_that_cannot_be_a_value_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)


@pytest.mark.parametrize(
    "content", [b"[" * 1200 + b"]" * 1200, b"9" * 5000, b"\xff", b"1e999", b"NaN", b"", b"[1"], ids=range(7)
)
def test_json_that_cannot_be_a_value_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


@pytest.mark.parametrize(
    "host", ["h\r\nX-Evil: 1", "h\n", "h\t", "h h", "h:99999", "h:x", "", "\u200b", "h\0", "." * 300]
)
def test_an_address_with_hidden_characters_is_none(gradatim, host):
    with pytest.raises(RecipeError):
        check_address(f"http://{host}/v1")
    with pytest.raises(UserError):
        endpoint(f"http://{host}/v1#model")
    change = json.dumps(f"http://{host}/v1")
    common = ("plan", "distill/tinypy", "--no-data", "--set", "teacher.name=api", "--set", "teacher.model=m")
    assert_one_line(gradatim(*common, "--set", f"teacher.base_url={change}"))


def test_an_ordinary_address_is_one():
    for address in ("http://localhost:8000/v1", "https://[::1]:8000/v1", "https://bücher.example/v1"):
        check_address(address)
        assert endpoint(f"{address}#model") is not None


def test_a_prompt_on_standard_input_that_is_no_text_is_one_line(tmp_path):
    for source in ("printf '\\xff'", "cat /dev/zero"):
        command = f"{source} | {sys.executable} -m gradatim sample nowhere --prompt -"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "stdin" in done.stderr
