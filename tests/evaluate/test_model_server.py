"""A model folder behind a server that is started for it: the same texts as here, and clear ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from serving import CONTEXT

from gradatim.cli.main import main
from gradatim.errors import RecipeError, UserError, WorkFailed
from gradatim.evaluation import SUITES
from gradatim.evaluation.generation import Question, Writing, write
from gradatim.evaluation.model_server import ModelServer, ServedModel, check_command
from gradatim.experiment.recipe import load
from gradatim.experiment.run import check_server
from gradatim.model.hardware import quiet
from gradatim.model.load import load_student
from gradatim.table import write_table

SERVE = f"{sys.executable} {Path(__file__).with_name('serve_gguf.py')} {{model}} {{port}}"


@pytest.fixture(autouse=True)
def direct(monkeypatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ssl.create_default_context", CONTEXT)


@pytest.fixture(scope="module")
def served(expert, tmp_path_factory):
    for package in ("openai", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("model")
    with quiet():
        expert.model.save_pretrained(folder)
        expert.tokenizer.save_pretrained(folder)
    with ModelServer(SERVE) as server:
        yield ServedModel(folder, server, expert.tokenizer, lambda: load_student(folder))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["greedy", "paper"])
def test_outputs_of_a_served_folder_are_those_of_the_loaded_one(protocol, served, expert, programs):
    suite = SUITES.make("output", options={"protocol": protocol})
    assert suite(served, programs, seed=3).counts == suite(expert, programs, seed=3).counts
    assert "model" not in vars(served), "the weights were not loaded here"


@pytest.mark.slow
def test_prompts_that_do_not_fit_are_not_sent_and_end_as_those_of_a_loaded_model(served, expert, programs):
    prompts = [*programs.column("prompt").to_pylist(), "ß", "a = 5\n" * 40]
    questions = [Question(str(number), prompt, number) for number, prompt in enumerate(prompts)]
    there, here = (
        [sample for group in write(student, questions, Writing(tokens=12)) for sample in group]
        for student in (served, expert)
    )
    assert [(sample.text, sample.finish) for sample in there] == [(sample.text, sample.finish) for sample in here]
    assert [sample.finish for sample in there][-2:] == ["unknown_character", "too_long"]


def test_a_command_that_can_serve_nothing_is_one_line(tmp_path: Path, capsys):
    for command, message in {
        "vllm serve {model}": "the command of a server lacks {port}",
        "no-such-program {model} {port}": "there is no such program; given: no-such-program",
        "vllm 'serve {model} {port}": "this is no command line",
    }.items():
        with pytest.raises(UserError) as error:
            check_command(command)
        assert message in str(error.value)
        assert main(["run", "smoke/baseline", "--out", str(tmp_path / "run"), "--server", command]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_policy_is_not_served():
    recipe = load("mobile/designed")
    with pytest.raises(RecipeError, match=r"--server: a server reads language models; given: kind: policy"):
        check_server(recipe, f"{sys.executable} {{model}} {{port}}")


def test_a_server_that_ends_is_named_with_its_last_line(tmp_path: Path):
    pytest.importorskip("openai")
    command = f"{sys.executable} -c 'print(1); raise SystemExit(\"no GPU here\")' {{model}} {{port}}"
    with (
        ModelServer(command) as server,
        pytest.raises(WorkFailed, match="the server ended with exit code 1; given: no GPU here"),
    ):
        server.address(tmp_path)


@pytest.mark.slow
def test_a_run_whose_texts_come_from_a_server_counts_the_same(tmp_path: Path):
    for package in ("openai", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    small = ["cycles=2", "data.count=120", "data.new=20", "feedback.questions=12", "budget.tokens=3000"]
    small += ["data.split.test=12", "data.split.validation=12", "train.batch_size=4", "train.checkpoint_seconds=1000"]
    sets = [word for change in small for word in ("--set", change)]
    counts = []
    for name, options in {"here": [], "served": ["--server", SERVE]}.items():
        folder = tmp_path / name
        assert main(["run", "smoke/distill-tinypy", "--out", str(folder), *sets, *options]) == 0
        feedback = json.loads((folder / "cycle-00" / "feedback.json").read_text())
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("cycle-*/*/result.json"))]
        counts.append((feedback["verdicts"], [result["evaluations"][0]["counts"] for result in results]))
        server = json.loads((folder / "environment.json").read_text())["server"]
        assert server == (Path(sys.executable).name if options else None)
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_study_with_adapters_behind_a_server_counts_the_same(expert, programs, tmp_path: Path):
    for package in ("openai", "gguf", "xllamacpp", "peft"):
        pytest.importorskip(package)
    with quiet():
        expert.model.save_pretrained(tmp_path / "base")
        expert.tokenizer.save_pretrained(tmp_path / "base")
    write_table(programs.select(["id", "prompt", "answer"]), tmp_path / "programs.parquet")
    context = expert.model.config.max_position_embeddings
    sets = ["data.source=file", f"data.path={tmp_path / 'programs.parquet'}", "data.split={by: text, validation: 1}"]
    sets += ["data.split.test=3", f"student={{base: {tmp_path / 'base'}, lora: {{rank: 2}}, chat_template: plain}}"]
    sets += [f"student.context_length={context}", f"train.max_length={context}", "train.batch_size=2", "threads=1"]
    sets += ["budget.tokens=60", "train.optimizer={name: adamw, learning_rate: 0.01}", "difficulty.metric=size"]
    sets += ["difficulty.bands={names: [easy, hard], quantiles: [0.5]}"]
    options = ["--seeds", "1", *(word for change in sets for word in ("--set", change))]
    counts = []
    for name, server in {"here": [], "served": ["--server", SERVE]}.items():
        folder = tmp_path / name
        assert main(["study", "smoke/baseline", "smoke/sequential", "--out", str(folder), *options, *server]) == 0
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*/cycle-*/*/result.json"))]
        counts.append([result["evaluations"][0]["counts"] for result in results])
        for path in folder.glob("*/*/environment.json"):
            assert json.loads(path.read_text())["server"] == (Path(sys.executable).name if server else None)
    assert counts[0] == counts[1]
    assert len(counts[0]) > 1
