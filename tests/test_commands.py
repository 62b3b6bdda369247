"""Every ``gradatim`` command of README, the pages and ``--help`` runs to its end, with small budgets.

A folder has stand-ins for what a reader has: data, a model, finished runs. A command runs there as it is written, with
further options at its end that make it small. Commands of ``sh`` blocks run in ``test_docs``, unchanged.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from serving import Serving, completion, served_until_interrupted, serving
from small_models import base
from test_docs import PAGES, ROOT, WRITTEN, blocks, prose, shell_lines

from gradatim.cli.main import COMMANDS, main
from gradatim.experiment.recipe import load
from gradatim.experiment.recipe_files import find_study
from gradatim.sandbox.command import sandbox_support

SPLIT = ("data.split.validation=10", "data.split.test=10")
TINY_STUDENT = ("student.preset=tiny", "student.context_length=128", "train.max_length=128", "train.batch_size=4")
SHORT = ("budget.tokens=1500", "train.evaluations_per_stage=0", "evaluate.suites=[]", "threads=1")
SMALL_POLICY = ("budget.steps=400", "data.count=12", "data.steps=10", "data.split.validation=8", "data.split.test=8",
                "student.num_envs=2", "student.batch_size=20", "evaluate.suites=[]", "threads=1")  # fmt: skip
HUMANEVAL = [{"task_id": "HumanEval/0", "completion": "    return False\n"} for _ in range(10)]
CRUX = {"id": "s0", "code": "def f(a):\n    return a + 1", "input": "1", "output": "2"}
RUNS = ("a", "b", "fast", "curriculum-fast", "demo", "demo-baseline", "hybrid-study")
MORE_RUNS = re.compile(r"runs/(taught|distill-coder|chat)")
SLOW = re.compile(
    rf"gradatim run | study | --time|designed| --to | --lm-eval|--on ray|http:|functional|{MORE_RUNS.pattern}"
)
ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
DESIGN = '{"reason": "One stage.", "cycles": [{"stages": [{"name": "all", "share": 1, "bands": BANDS}]}]}'.replace(
    "BANDS", '{"easy": 1, "medium": 1, "hard": 1}'
)
REMOTE = "http://localhost:8000/v1"


def help_examples() -> Iterator[tuple[str, str]]:
    for verb, (address, _) in COMMANDS.items():
        module = import_module(address.partition(":")[0])
        yield from ((f"{verb} --help", example) for example in getattr(module, f"{verb.upper()}_EXAMPLES"))


def page_commands() -> Iterator[tuple[str, str]]:
    """Commands after a $ on the pages, and whole commands in sentences and tables."""
    for page in PAGES:
        if page.name in WRITTEN or page.name == "CHANGELOG.md":
            continue
        name = str(page.relative_to(ROOT))
        for block in blocks(page):
            yield from ((name, line) for line in shell_lines(block) if block.language == "console")
        spans = re.findall(r"`(gradatim (?:study|run|check|plan) [^`]*)`", prose(page))
        yield from ((name, span) for span in spans if not re.search(r" [A-Z]+( |$)", span))  # a form, no command


def shown_commands() -> list[object]:
    """Parameters (place, command line) of the test; commands that train, generate code or convert are slow."""
    lines: dict[tuple[str, str], str] = {}
    for place, line in [*help_examples(), *page_commands()]:
        command = re.split(r" +# ", line)[0]
        own_file = place if ".yaml" in command else ""  # a recipe of the page
        if "gradatim " in command and not command.startswith("docker "):  # no container engine in the tests
            lines.setdefault((own_file, command), place)
    return [
        pytest.param(place, line, id=f"{place}: {line}"[:110], marks=pytest.mark.slow if SLOW.search(line) else [])
        for (_, line), place in lines.items()
    ]


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has followed the pages: files, a model and finished runs under the names shown."""
    folder = tmp_path_factory.mktemp("reader")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["generate", "programs.parquet", "--count", "60", "--level", "1.1,2.1"]) == 0
        for name in ("asked.parquet", "test.parquet"):
            shutil.copy("programs.parquet", name)
        write_rows(Path("samples.jsonl"), HUMANEVAL)
        tests = "def check(candidate):\n    assert candidate() is False\n"
        problem = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "test": tests}
        Path("problems.jsonl.gz").write_bytes(gzip.compress(json.dumps(problem).encode()))
        Path("alpaca.csv").write_text("instruction,output\nadd,a + b\n")
        Path("my_project").mkdir()
        Path("my_project/module.py").write_text("for i in range(3):\n    print(i)\n")
        Path("program.py").write_text("a = 3\nprint(a * a)\n")
        write_rows(Path("cruxeval.jsonl"), [CRUX])
        pairs = [{"prompt": f"{n} + 1\n", "answer": f"print({n + 1})\nprint({n})\n"} for n in range(280)]
        for name in ("pairs.jsonl", "heldout.jsonl", "functions.jsonl", "questions.jsonl"):
            write_rows(Path(name), pairs)
        messages = [
            [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["answer"]}]
            for row in pairs
        ]
        write_rows(Path("conversations.jsonl"), [{"messages": entry} for entry in messages])
        base(Path("FOLDER"), context=512)
        for block in blocks(ROOT / "README.md"):
            if block.file is not None:
                Path(block.file).write_text(block.text, "utf-8")
        stages = sets("data.count=200", *SPLIT, *SHORT, "evaluate.suites=[{suite: output, limit: 4}]")
        assert main(["run", "smoke/sequential", "--out", "runs/smoke-sequential", *stages]) == 0
        for name in RUNS:
            shutil.copytree("runs/smoke-sequential", f"runs/{name}")
        for name in ("MODEL", "OTHER"):
            shutil.copytree(next(Path("runs/smoke-sequential").glob("cycle-00/stage-02-*/model")), name)
        verdicts = ["--data", "programs.parquet", "--limit", "4", "--verdicts", "before.parquet"]
        assert main(["evaluate", "MODEL", *verdicts]) == 0
        shutil.copy("before.parquet", "after.parquet")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="session")
def more_runs(reader: Path) -> Path:
    """The same folder with runs of cycles and of adapters."""
    before = Path.cwd()
    os.chdir(reader)
    try:
        oracle = ("data.count=80", "data.new=10", "feedback.questions=10", "cycles=2")
        assert main(["run", "smoke/distill-tinypy", "--out", "runs/taught", *sets(*oracle, *SPLIT, *SHORT)]) == 0
        adapter = sets("student={base: FOLDER, context_length: 96, lora: {rank: 2}}", *SHORT)
        adapter += sets("data={source: file, path: pairs.jsonl, split: {by: text, validation: 4, test: 4}}")
        adapter += sets(
            "difficulty={metric: size, bands: {names: [short, long], quantiles: [0.5]}}",
            "schedule={name: baseline}",
            "train.max_length=90",
            "train.batch_size=2",
        )
        assert main(["run", "smoke/baseline", "--out", "runs/chat", *adapter]) == 0
        shutil.copytree("runs/chat", "runs/distill-coder")
    finally:
        os.chdir(before)
    return reader


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    monkeypatch.setenv("MY_API_KEY", "a-key-of-this-test")
    with serving() as server:
        code = "```python\ndef f():\n    pass\n```"
        server.otherwise = lambda handler, body: handler.send(
            200, completion(DESIGN if "stage table" in str(body.get("messages")) else code)
        )
        yield server


def small(words: list[str], place: str) -> list[str]:
    """Options that make the command small."""
    verb = words[0]
    if verb == "generate":
        return ["--count", "20"]
    if verb == "evaluate":
        limit = ["--limit", "2"]
        return limit + (sets("max_new_tokens=4") if {"functional", "cruxeval"} & set(words) else [])
    if verb not in ("run", "plan", "study") or "--power" in words:
        return []
    names = [word for word in words[1:] if not word.startswith("-")][:1]
    study = find_study(names[0])
    recipe = load(names[0] if study is None else study.address(next(iter(study.arms))))
    changes = [*SHORT]
    if not recipe.is_language:
        changes = [*SMALL_POLICY]
    elif recipe.base is None:
        changes += TINY_STUDENT
    else:
        changes += ["student.base=FOLDER", "student.context_length=96", "train.max_length=90", "student.dtype=fp32"]
        changes += ["train.batch_size=2"]
    if recipe.data.source in ("tinypy", "taught"):
        changes += ["data.count=300", *SPLIT]
    if recipe.data.source == "taught":
        changes += ["data.new=10", "feedback.questions=10"]
    small_study = ["--seeds", "1", "--workers", "1"] if verb == "study" else []
    return sets(*changes) + small_study + (["--processes", "2"] if "--processes" in words else [])


@pytest.mark.parametrize(("place", "line"), shown_commands())
def test_the_command_runs(place: str, line: str, reader: Path, tmp_path: Path, monkeypatch, capsys, request) -> None:
    if MORE_RUNS.search(line):
        request.getfixturevalue("more_runs")
    shutil.copytree(reader, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    for block in blocks(ROOT / place) if place.endswith(".md") else ():
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, "utf-8")
    line = re.split(r" > | +# ", line)[0]
    piped = re.fullmatch(r"cat (\S+) \| (.*)", line)
    if piped:
        monkeypatch.setattr("sys.stdin", io.StringIO(Path(piped[1]).read_text()))
        line = piped[2]
    words = shlex.split(line)
    assert words[0] == "gradatim"
    words = ["FOLDER" if word == ON_THE_HUB else word for word in words[1:]]
    outputs = [words[1]] if words[0] == "generate" else []
    outputs += [after for option, after in pairwise(words) if option == "--verdicts"]
    for output in outputs:
        Path(output).unlink(missing_ok=True)  # the reader writes it for the first time
    if "--push" in words:
        pytest.skip("sends to the hub: tests/export push to a server of their own")
    if "ray" in words:
        pytest.importorskip("ray", reason="needs the extra 'ray'")
    if "gguf" in words:
        pytest.importorskip("gguf", reason="needs the extra 'gguf'")
    if {"functional", "humaneval", "cruxeval", "check"} & set(words) and not sandbox_support().available:
        pytest.skip("no sandbox")
    if "--server" in words:
        pytest.importorskip("openai")
        real = f"{sys.executable} {ROOT / 'tests/evaluate/serve_gguf.py'}"
        words = [word.replace("vllm serve", real) for word in words]
    if "track" in words or "--track" in words:
        pytest.importorskip("tensorboard", reason="needs the extra 'track'")
    if "wandb" in words:
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")
    requests = {"taught.yaml", "adaptive/designed"} & set(words)
    if any(word.startswith(REMOTE) for word in words) or requests:
        server: Serving = request.getfixturevalue("endpoint")
        words = [word.replace(REMOTE, server.url) for word in words]
        words += sets(f"teacher.base_url={server.url}") if requests else []
    if words[0] == "show" and "--out" not in words:
        assert served_until_interrupted([*words, "--port", "0", "--no-browser"]) == 0
        return
    if "--power" in words:  # of a study with two finished seeds
        assert main([*words[:2], *small(words[:2], place), "--seeds", "2"]) == 0
    status = main([*words, *small(words, place)])
    result = capsys.readouterr()
    assert status == 0, result.err
