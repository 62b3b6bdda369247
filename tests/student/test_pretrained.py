"""Students that others pretrained: opened, taught in their own form, fine-tuned as a whole or by an adapter."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from small_models import base

from gradatim.errors import DataError, RunFolderError, Stopped
from gradatim.model.hub import is_hub_name, model_size
from gradatim.model.load import (
    export,
    fingerprint,
    load_before_training,
    load_student,
    open_base,
    open_tokenizer,
)
from gradatim.model.prompt_format import prompt_format_of, prompt_formatter, token_key
from gradatim.model.settings import LoraSettings, LRSchedulerSettings, ModelSettings, OptimizerSettings, TrainSettings
from gradatim.model.tokenizer import encode_table
from gradatim.record import Metrics
from gradatim.stage import Event, Fitted, Stage, StageSpec
from gradatim.table import make_table
from gradatim.training.trainer import StageTrainer

TRAIN = TrainSettings(
    batching="packed",
    batch_size=2,
    max_length=96,
    block_diagonal_attention=True,
    prompt_loss_weight=0.0,
    gradient_accumulation_steps=2,
    optimizer=OptimizerSettings(learning_rate=1e-2),
    lr_scheduler=LRSchedulerSettings(name="constant"),
    logging_steps=2,
    evaluations_per_stage=1,
    precision="fp32",
)
BF16 = replace(TRAIN, precision="bf16")
LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: base(folder / family, family) for family in ("llama", "qwen2")}


@pytest.fixture(scope="module")
def samples() -> pa.Table:
    programs = [(a, b) for a in range(4) for b in range(4)]
    return make_table(
        {
            "prompt": [f"a = {a}\nb = {b}\nprint(a)\n# output\n" for a, b in programs],
            "answer": [f"# {a}\n" for a, _ in programs],
        }
    )


def learner(samples: pa.Table, folder: Path, model: ModelSettings, train: TrainSettings = TRAIN) -> StageTrainer:
    tokenizer = open_tokenizer(model)
    encoded = encode_table(tokenizer, samples)
    folder.mkdir(parents=True, exist_ok=True)
    return StageTrainer(tokenizer, encoded, encoded, Metrics(folder / "metrics.jsonl"), 5, model, train)


def stage(tokens: int = 160, index: int = 0, cycle: int = 0) -> Stage:
    return Stage(StageSpec("all", (1.0,), tokens), index, np.arange(16), 11 + index, 0, tokens, cycle)


def fit(samples: pa.Table, folder: Path, model: ModelSettings, train: TrainSettings = TRAIN) -> Fitted:
    return learner(samples, folder, model, train).fit(stage(), folder / "stage", None)


def settings(folder: Path, **more: Any) -> ModelSettings:
    return ModelSettings(base=str(folder), context_length=96, **more)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_base_is_stopped_and_resumed_to_the_same_weights(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path, family: str, lora: LoraSettings | None
) -> None:
    model = settings(bases[family], lora=lora)
    whole = fit(samples, tmp_path / "whole", model)
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "advance"
        if steps == 2:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(samples, tmp_path / "cut", model).fit(stage(), tmp_path / "cut" / "stage", None, stop)
    again = fit(samples, tmp_path / "cut", model)
    assert (again.resumed_at, again.weights) == (2, whole.weights)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_answer_loss"] < rows[0]["validation_answer_loss"] - 0.1


def test_a_killed_process_goes_on_with_the_same_dropout(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, often = settings(bases["llama"], lora=LORA), replace(TRAIN, checkpoint_seconds=0.0)
    whole = fit(samples, tmp_path / "whole", model)

    def die(event: Event) -> None:
        if event.kind == "advance" and event.done > 50:
            raise MemoryError("killed, so nothing is saved on the way out")

    with pytest.raises(MemoryError):
        learner(samples, tmp_path / "cut", model, often).fit(stage(), tmp_path / "cut" / "stage", None, die)
    again = fit(samples, tmp_path / "cut", model, often)
    assert again.resumed_at > 0
    assert again.weights == whole.weights


def test_only_the_answers_and_their_end_are_learnt_through_the_chat_template(
    bases: dict[str, Path], samples: pa.Table
) -> None:
    model = settings(bases["llama"], system_prompt="Run it.")
    tokenizer = open_tokenizer(model)
    encoded = encode_table(tokenizer, samples)
    start = int(encoded.answer_starts[5])
    tokens = encoded.sample(5).tolist()
    assert tokenizer.decode(tokens[:start]) == (
        "<|im_start|>system\nRun it.<|im_end|>\n<|im_start|>user\na = 1\nb = 1\nprint(a)\n# output\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.decode(tokens[start:]) == "# 1\n<|im_end|>"
    said = [{"role": "system", "content": "Run it."}, {"role": "user", "content": samples["prompt"][5].as_py()}]
    said.append({"role": "assistant", "content": "# 1\n"})
    whole = tokenizer.apply_chat_template(said, tokenize=False)
    assert tokenizer(whole, add_special_tokens=False)["input_ids"][: len(tokens)] == tokens


def test_a_plain_student_and_one_with_a_template_have_other_tokens(bases: dict[str, Path], samples: pa.Table) -> None:
    chat, plain = (open_tokenizer(settings(bases["llama"], chat_template=name)) for name in ("auto", "plain"))
    assert (prompt_format_of(chat).template, prompt_format_of(plain).template) == ("chat", "plain")
    assert prompt_formatter(plain)("a = 1") == "a = 1"
    assert token_key(chat) != token_key(plain)


def test_the_form_travels_with_the_tokenizer(bases: dict[str, Path], samples: pa.Table, tmp_path: Path) -> None:
    fit(samples, tmp_path, settings(bases["llama"], system_prompt="Run it."))
    student = load_student(tmp_path / "stage" / "model")
    assert prompt_formatter(student.tokenizer)("x").startswith("<|im_start|>system\nRun it.")


def test_an_adapter_is_all_that_is_kept_and_all_that_changes(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    before = (bases["llama"] / "model.safetensors").read_bytes()
    fitted = fit(samples, tmp_path, settings(bases["llama"], lora=LORA))
    model, checkpoint = tmp_path / "stage" / "model", tmp_path / "stage" / "checkpoint"
    for file in (model / "adapter_model.safetensors", checkpoint / "model.safetensors"):
        assert all("lora_" in name for name in load_file(file))
    assert sum(value.numel() for value in load_file(checkpoint / "model.safetensors").values()) == fitted.parameters
    assert not (model / "model.safetensors").exists()
    assert (bases["llama"] / "model.safetensors").read_bytes() == before
    assert model_size(str(bases["llama"]), LORA).trainable == fitted.parameters


def test_the_next_stage_goes_on_from_the_adapter(bases: dict[str, Path], samples: pa.Table, tmp_path: Path) -> None:
    made = learner(samples, tmp_path, settings(bases["llama"], lora=LORA))
    made.fit(stage(), tmp_path / "one", None)
    made.fit(stage(30, 1), tmp_path / "two", tmp_path / "one")
    first, second = (load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("one", "two"))
    apart = {name: float((first[name] - second[name]).norm() / first[name].norm()) for name in first}
    assert 0 < max(apart.values()) < 0.5


def test_a_cycle_may_begin_from_the_base_again(bases: dict[str, Path], samples: pa.Table, tmp_path: Path) -> None:
    weights = {}
    for start in ("continue", "base"):
        made = learner(samples, tmp_path / start, settings(bases["llama"], start=start))
        first = made.fit(stage(), tmp_path / start / "one", None)
        second = made.fit(stage(cycle=1), tmp_path / start / "two", tmp_path / start / "one")
        weights[start] = (first.weights, second.weights)
    assert weights["base"][0] == weights["base"][1] == weights["continue"][0]
    assert weights["continue"][1] != weights["continue"][0]


def test_an_exported_adapter_answers_as_the_student_did(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fit(samples, tmp_path, settings(bases["qwen2"], lora=LORA))
    found = export(tmp_path / "stage" / "model", tmp_path / "whole", merge=True)
    assert found.merged == str(bases["qwen2"])
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    own = load_student(tmp_path / "stage" / "model")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    asked = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "whole")("print(12 + 7)")["input_ids"]])
    untaught = open_base(str(bases["qwen2"]), dtype=torch.float32)
    with torch.no_grad():
        told, own_told, before = (model(asked).logits for model in (whole, own.model, untaught))
    assert torch.equal(told, own_told)
    assert not torch.allclose(told, before, atol=1e-2)
    with pytest.raises(Exception, match="--out"):
        export(tmp_path / "stage" / "model", tmp_path / "whole", merge=True)


def test_gradient_checkpointing_changes_no_bit(bases: dict[str, Path], samples: pa.Table, tmp_path: Path) -> None:
    digests = {
        fit(samples, tmp_path / str(saving), settings(bases["llama"], lora=LORA, gradient_checkpointing=saving)).weights
        for saving in (False, True)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("train", [TRAIN, BF16])
@pytest.mark.parametrize("lora", [None, LORA])
def test_weights_may_be_bf16_while_an_adapter_stays_fp32(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path, lora: LoraSettings | None, train: TrainSettings
) -> None:
    made = learner(samples, tmp_path, settings(bases["llama"], lora=lora, dtype="bf16"), train)
    kinds = {parameter.dtype for parameter in made.initial(None).parameters() if parameter.requires_grad}
    assert kinds == {torch.bfloat16 if lora is None else torch.float32}
    again = made.fit(stage(), tmp_path / "stage", None)
    assert np.isfinite(again.loss)
    assert next(load_student(tmp_path / "stage" / "model").model.parameters()).dtype is torch.float32


def test_an_evaluation_in_bf16_has_the_weights_of_the_training_and_an_adapter_of_its_own(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    """Merged into bf16 weights, small changes of an adapter would be rounded away."""
    model = settings(bases["llama"], lora=LORA, dtype="bf16", evaluation_dtype="bf16")
    fit(samples, tmp_path, model, BF16)
    folder = tmp_path / "stage" / "model"
    merged, student = load_student(folder).model, load_student(folder, dtype="bf16").model
    assert merged.get_input_embeddings().weight.dtype == torch.float32
    assert student.get_input_embeddings().weight.dtype == torch.bfloat16
    assert any("lora" in name for name, _ in student.named_parameters())
    tokens = torch.arange(5, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(student(tokens).logits.float(), merged(tokens).logits, atol=0.05, rtol=0)
    before = load_before_training(model, open_tokenizer(model), "cpu").model
    assert before.get_input_embeddings().weight.dtype == torch.bfloat16


def test_an_adapter_on_another_base_is_refused(bases: dict[str, Path], samples: pa.Table, tmp_path: Path) -> None:
    moved = base(tmp_path / "base")
    assert fingerprint(open_base(str(moved), dtype=torch.float32)) == fingerprint(
        open_base(str(bases["llama"]), dtype=torch.bfloat16)
    )
    fit(samples, tmp_path, settings(moved, lora=LORA))
    base(moved, seed=1)
    with pytest.raises(DataError, match="differs from the one that this adapter was trained on"):
        load_student(tmp_path / "stage" / "model")
    with pytest.raises(RunFolderError, match="checkpoint belongs to another base"):
        fit(samples, tmp_path, settings(moved, lora=LORA))


def test_a_full_checkpoint_of_another_model_is_refused(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    fit(samples, tmp_path, settings(bases["llama"]))
    with pytest.raises(RunFolderError, match="belongs to another model"):
        fit(samples, tmp_path, settings(bases["qwen2"]))


def test_a_target_that_matches_nothing_is_told_with_what_there_is(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"q_prj.*all-linear, down_proj, .*did you mean 'q_proj'"):
        fit(samples, tmp_path, settings(bases["llama"], lora=LoraSettings(targets=("v_proj", "q_prj"))))


def test_a_tokenizer_without_padding_takes_its_end_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    folder = base(tmp_path / "base", pad=None)
    tokenizer = open_tokenizer(settings(folder), lambda event: told.append(event.text))
    assert tokenizer.pad_token == tokenizer.eos_token
    assert any("padding" in text for text in told)


def test_a_tokenizer_without_an_end_takes_the_models(tmp_path: Path) -> None:
    told: list[str] = []
    folder = base(tmp_path / "base", end=None, template=None)
    tokenizer = open_tokenizer(settings(folder), lambda event: told.append(event.text))
    assert tokenizer.eos_token == "<|im_end|>"  # number 2, as config.json says
    assert any("end token" in text for text in told)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    with pytest.raises(DataError, match="no end token"):
        open_tokenizer(settings(folder))


def test_answers_end_as_the_template_ends_them(tmp_path: Path) -> None:
    told: list[str] = []
    folder = base(tmp_path / "base", end="<|endoftext|>")
    assert open_tokenizer(settings(folder), lambda event: told.append(event.text)).eos_token == "<|im_end|>"
    assert any("<|im_end|>" in text for text in told)
    assert open_tokenizer(settings(folder, chat_template="plain")).eos_token == "<|endoftext|>"


def test_a_base_that_cannot_be_used_is_one_clear_line(bases: dict[str, Path], tmp_path: Path) -> None:
    bare = base(tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    untemplated = base(tmp_path / "untemplated", template=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    (tmp_path / "text.gguf").write_text("hello")
    refused = {
        str(bare): "no tokenizer",
        str(tmp_path / "empty"): "no config.json",
        str(tmp_path / "nowhere"): "no such model",
        str(tmp_path / "broken.gguf"): "cannot be opened",
        str(tmp_path / "text.gguf"): "not a GGUF file",
        "somebody/no-such-model": "hf download somebody/no-such-model",
    }
    for given, line in refused.items():
        with pytest.raises(DataError, match=line) as caught:
            open_tokenizer(ModelSettings(base=given))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no chat template"):
        open_tokenizer(settings(untemplated, chat_template="chat"))
    with pytest.raises(DataError, match="context"):
        open_tokenizer(ModelSettings(base=str(bases["llama"]), context_length=4096))


def test_more_tokens_than_embeddings_are_refused(samples: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more tokens than the model"):
        fit(samples, tmp_path, settings(base(tmp_path / "base", vocabulary=200)))


def test_samples_longer_than_a_line_are_counted_and_all_of_them_refused(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path
) -> None:
    long = make_table({"prompt": ["x = 1\n" * 60], "answer": ["# 1\n"]})
    mixed = pa.concat_tables([samples.slice(0, 15), long])
    assert fit(mixed, tmp_path / "some", settings(bases["llama"])).dropped == 1
    with pytest.raises(DataError, match="no sample of the stage fits"):
        fit(samples, tmp_path / "all", settings(bases["llama"]), replace(TRAIN, max_length=16))


def test_a_conversation_goes_through_the_template_turn_by_turn(bases: dict[str, Path]) -> None:
    from gradatim.table.instruction import prompt_of

    prompt = prompt_of([("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "three")])
    shape = prompt_formatter(open_tokenizer(settings(bases["llama"], system_prompt="not this one")))
    said = shape(prompt)
    assert said.count("<|im_start|>") == 5
    assert said.startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant"
    )
    assert (
        prompt_formatter(open_tokenizer(settings(bases["llama"], chat_template="plain")))(prompt)
        == "Be brief.\n\none\n\ntwo\n\nthree"
    )


def test_names_on_the_hub_are_told_from_paths(tmp_path: Path) -> None:
    assert is_hub_name("codellama/CodeLlama-7b-hf")
    assert is_hub_name("gpt2")
    assert not is_hub_name("./gpt2")
    assert not is_hub_name("a/b/c")
    assert not is_hub_name(str(tmp_path))


def test_a_missing_peft_is_told_with_what_to_install(
    bases: dict[str, Path], samples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DataError, match=r"pip install 'gradatim\[lora\]'"):
        fit(samples, tmp_path, settings(bases["llama"], lora=LORA))
