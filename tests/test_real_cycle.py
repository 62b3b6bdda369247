"""One whole cycle with real weights: SmolLM2 as student, SmolLM2 behind a real OpenAI-compatible server as teacher.

Takes the folders ``smollm2-hf`` and ``smollm2`` (with ``model.gguf``) from ``GRADATIM_MODELS`` and serves the second
with the package xllamacpp.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.run import run

pytestmark = pytest.mark.slow

SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_ctx, params.n_parallel = 4096, 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
params.offline, params.ui = True, False
server = xllamacpp.Server(params)
while True:
    time.sleep(3600)
"""

FUNCTIONS = {
    "add(a, b)": ("the sum of two numbers", "return a + b", "assert add(2, 3) == 5"),
    "double(n)": ("twice the number", "return 2 * n", "assert double(4) == 8"),
    "negate(n)": ("the number with the other sign", "return -n", "assert negate(3) == -3"),
    "first(items)": ("the first item of a list", "return items[0]", "assert first([7, 8]) == 7"),
    "last(items)": ("the last item of a list", "return items[-1]", "assert last([7, 8]) == 8"),
    "largest(items)": ("the largest number of a list", "return max(items)", "assert largest([1, 5, 2]) == 5"),
    "is_even(n)": ("whether the number is even", "return n % 2 == 0", "assert is_even(4) and not is_even(3)"),
    "shout(text)": ("the text in capital letters", "return text.upper()", "assert shout('ab') == 'AB'"),
    "count(items)": ("how many items a list has", "return len(items)", "assert count([1, 2, 3]) == 3"),
    "square(n)": ("the number times itself", "return n * n", "assert square(5) == 25"),
}


@pytest.fixture(scope="module")
def models() -> Path:
    folder = Path(os.environ.get("GRADATIM_MODELS", "/nowhere"))
    for part in ("smollm2-hf/config.json", "smollm2/model.gguf"):
        if not (folder / part).is_file():
            pytest.skip(f"GRADATIM_MODELS names no folder with {part}")
    return folder


@pytest.fixture(scope="module")
def endpoint(models: Path) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="the teacher is served with xllamacpp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(models / "smollm2/model.gguf"), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def recipe(models: Path, endpoint: str, seeds: Path) -> Recipe:
    return load(
        "distill/coder-cycles",
        [
            f"student.base={models / 'smollm2-hf'}",
            f"teacher.base_url={endpoint}",
            "teacher.model=smollm2",
            "teacher.max_tokens=200",
            f"data.seeds={seeds}",
            "data.count=10",
            "data.new=2",
            "data.rounds=1",
            "data.split={by: text, validation: 2, test: 2}",
            "feedback.questions=4",
            "feedback.max_new_tokens=60",
            "feedback.judges=[{judge: tests, weight: 2}, {judge: static}, {judge: rubric}]",
            "budget.tokens=1200",
            "train.max_length=256",
            "student.context_length=512",
            "train.evaluations_per_stage=1",
            "evaluate.suites=[]",
            "difficulty.bands={names: [all]}",
        ],
    )


def test_a_student_is_taught_by_a_real_model_over_http_and_a_second_start_asks_nothing(
    models: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    seeds = tmp_path / "seeds.jsonl"
    rows = [
        {
            "prompt": f"Write a Python function `{head}` that returns {what}.",
            "answer": f"```python\ndef {head}:\n    {body}\n```",
            "tests": tests,
        }
        for head, (what, body, tests) in FUNCTIONS.items()
    ]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = recipe(models, endpoint, seeds)
    stages = run(asked, tmp_path / "run")
    feedback = pq.read_table(tmp_path / "run/cycle-00/feedback.parquet").to_pylist()
    assert len(feedback) == 4
    assert all(row["attempt"].strip() for row in feedback)
    assert {row["verdict"] for row in feedback} <= {"passed", "failed", "timeout", "invalid", "unjudged"}
    assert any(row["judge_static"] is not None for row in feedback)
    told = json.loads((tmp_path / "run/cycle-00/feedback.json").read_text())["teacher"]
    assert told["requests"] >= 4
    ended = json.loads((tmp_path / "run/finished.json").read_text())
    assert ended["cycles"] == 2 or "new" in ended["dry"]
    assert stages[0].fitted.tokens >= 600
    assert (tmp_path / "run/cycle-00/stage-00-all/model/adapter_config.json").is_file()
    # A small model's new questions may all be of no use; what it said is kept either way.
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    (tmp_path / "run/finished.json").unlink()
    run(asked, tmp_path / "run")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == kept
