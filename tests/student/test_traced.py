"""Being asked what a program computes on its way: it is learnt, by the layers that are asked, and no head stays."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gradatim.errors import RecipeError, RunFolderError, Stopped
from gradatim.model.settings import (
    LRSchedulerSettings,
    ModelSettings,
    OptimizerSettings,
    TraceSupervisionSettings,
    TrainSettings,
)
from gradatim.model.tokenizer import character_tokenizer, encode_table, separate_texts, texts_of, word_level_tokenizer
from gradatim.programs import generate
from gradatim.record import Metrics
from gradatim.stage import Event, Events, Fitted, Stage, StageSpec, ignore_events
from gradatim.table import make_table
from gradatim.training.batches import IGNORE, Packed
from gradatim.training.objective import LossContext
from gradatim.training.objectives import TraceLoss
from gradatim.training.trace_heads import Parts, TraceHeads, TraceLabels
from gradatim.training.trainer import StageTrainer

TRAIN = TrainSettings(
    batching="packed",
    block_diagonal_attention=True,
    objective="trace_supervision",
    batch_size=8,
    max_length=64,
    prompt_loss_weight=0.1,
    optimizer=OptimizerSettings(name="muon", learning_rate=4e-3, muon_learning_rate=5e-3),
    lr_scheduler=LRSchedulerSettings(name="warmup_decay"),
    logging_steps=5,
    evaluations_per_stage=1,
)


@pytest.fixture(scope="module")
def programs() -> pa.Table:
    return generate(600, levels=["1.1", "2.1"], seed=4).table


def learner(table: pa.Table, folder: Path, train: TrainSettings = TRAIN) -> StageTrainer:
    tokenizer = word_level_tokenizer(separate_texts(table), 512)
    encoded = encode_table(tokenizer, table)
    validation = encode_table(tokenizer, table.slice(0, 60))  # of all samples it would take longer than the steps
    folder.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl")
    student = ModelSettings(preset="tiny", context_length=64)
    return StageTrainer(tokenizer, encoded, validation, metrics, 5, student, train)


def stage(tokens: int, index: int = 0, objective: str | None = None) -> Stage:
    spec = StageSpec("all", (1.0,), tokens, objective=objective)
    return Stage(spec, index, np.arange(600), 11, index * tokens, 3 * tokens)


def stage_of_one_row() -> Stage:
    return Stage(StageSpec("all", (1.0,), 1, order="sorted"), 0, np.arange(1), 0, 0, 1)


def fit(table: pa.Table, folder: Path, train: TrainSettings = TRAIN, events: Events = ignore_events) -> Fitted:
    return learner(table, folder, train).fit(stage(6000), folder / "stage", None, events)


def told(folder: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def whole_values(*classes: str) -> Parts:
    return Parts("values", (classes,))


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (True, ("True", None, None, None, None)),
        (7, ("int", "7", "0", "0", None)),
        (-481, ("-int", "1", "8", "4", None)),
        (1234, ("int", None, None, None, None)),
        (0.5, ("float", "0", "0", "0", "0.5")),
        (-0.0, ("-float", "0", "0", "0", "0.0")),
        (-5 / 3, ("-float", "1", "0", "0", "0.66667")),
        (2.9999999999999996, ("float", "3", "0", "0", "0.0")),
        (1e300, ("float", None, None, None, "0.0")),
        (float("inf"), ("float", None, None, None, None)),
    ],
)
def test_a_value_has_a_class_for_its_kind_its_digits_and_its_fraction(value: object, texts: tuple[str | None]) -> None:
    parts = Parts.of("digits", [0.5, -5 / 3, 3.0, 4, True], 100)
    labels = parts.labels(value)
    classes = [None if label == IGNORE else parts.classes[part][label] for part, label in enumerate(labels)]
    assert tuple(classes) == texts


def test_the_most_frequent_fractions_or_values_are_classes() -> None:
    values = [0.5, 0.5, 2.5, 1.25, 3.75, 0.75, 7, 7, 7, True]
    assert Parts.of("digits", values, 2).classes[-1] == ("0.5", "0.75")
    assert Parts.of("digits", values, 2).labels(1.25)[-1] == IGNORE
    assert Parts.of("values", values, 2).classes == (("7", "0.5"),)


def test_equal_numbers_of_other_types_have_labels_of_their_own() -> None:
    prompt = "a = 1\nb = a / 1\nif a == 1 :\n\tprint(b)\n# output\n"
    table = make_table({"prompt": [prompt], "answer": ["# 1.0\n"]})
    tokenizer = character_tokenizer(texts_of(table))
    batcher = Packed(encode_table(tokenizer, table), stage_of_one_row(), 1, 80, 0, isolate=True)
    pieces = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    parts = Parts.of("digits", [1.0], 1)
    operands, results = TraceLabels(pieces, parts).labels(next(batcher.one_pass()))[:, 0, 0, 0]
    kinds = [[parts.classes[0][label] for label in labels if label != IGNORE] for labels in (operands, results)]
    assert kinds == [["int", "int", "float"], ["float", "True", "True"]]  # the comparison, and the branch taken


def test_heads_of_earlier_versions_are_whole_values(tmp_path: Path) -> None:
    file = tmp_path / "auxiliary.safetensors"
    text = torch.tensor(list(b'["7", "True"]'), dtype=torch.uint8)
    save_file({"text": text, "operands": torch.ones(4, 8), "results": torch.zeros(4, 8)}, file)
    heads = TraceHeads.load(file)
    assert (heads.parts, heads.turns) == (whole_values("7", "True"), 2)
    assert torch.equal(heads.text, text)  # a checkpoint of that version loads
    save_file(heads.state_dict(), file)
    assert torch.equal(TraceHeads.load(file).operands, torch.ones(4, 8))


def test_samples_without_floats_have_one_fraction() -> None:
    parts = Parts.of("digits", [7, True], 100)
    assert parts.sizes[-1] == 1
    assert parts.labels(0.5)[-1] == IGNORE


def test_each_token_is_asked_for_what_is_known_there() -> None:
    table = make_table(
        {
            "prompt": ["a = 3\nb = a - 5\nprint(b)\n# output\n", "c = 2\nprint(c)\n# output\n"],
            "answer": ["# -2\n", "# 2\n"],
        }
    )
    tokenizer = character_tokenizer(texts_of(table))
    encoded = encode_table(tokenizer, table)
    rows = Stage(StageSpec("all", (1.0,), 1, order="sorted"), 0, np.arange(2), 0, 0, 1)
    batch = next(Packed(encoded, rows, 1, 80, 0, isolate=True).one_pass())
    pieces = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    operands, results = TraceLabels(pieces, whole_values("-2", "3", "2")).labels(batch)[:, 0, 0, 0]
    text = [pieces[number] for number in batch.inputs[0]]
    (first, second, third), (only,) = np.flatnonzero(operands != IGNORE), np.flatnonzero(results != IGNORE)
    assert [(text[at], int(operands[at])) for at in (first, second, third)] == [("a", 1), ("b", 0), ("c", 2)]
    assert "".join(text[only - 4 : only + 1]) == "a - 5"
    assert results[only] == 0
    assert not (operands[batch.answer[0]] != IGNORE).any()


def test_each_turn_of_a_loop_has_labels_of_its_own() -> None:
    prompt = "a = 1\nfor i in range(0, 3) :\n\ta = a + 4\nprint(a)\n# output\n"
    table = make_table({"prompt": [prompt], "answer": ["# 13\n"]})
    tokenizer = character_tokenizer(texts_of(table))
    batcher = Packed(encode_table(tokenizer, table), stage_of_one_row(), 1, 80, 0, isolate=True)
    pieces = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    parts = whole_values(*map(str, range(20)))
    operands, results = TraceLabels(pieces, parts, turns=2).labels(next(batcher.one_pass()))[:, :, 0, 0]
    read, printed, end = prompt.index("a + 4"), prompt.index("(a)") + 1, prompt.index("+ 4") + 2
    assert [operands[turn, read] for turn in (0, 1)] == [1, 5]
    assert [operands[turn, printed] for turn in (0, 1)] == [13, IGNORE]
    assert [results[turn, end] for turn in (0, 1)] == [5, 9]


def test_later_turns_are_learned_by_heads_of_their_own(tmp_path: Path) -> None:
    table = generate(600, levels=["3.2"], seed=4).table
    two = replace(TRAIN, trace_supervision=TraceSupervisionSettings(turns=2))
    made = learner(table, tmp_path, two)
    made.fit(stage(30_000), tmp_path / "one", None)
    losses = told(tmp_path, "result_loss")
    assert losses[-1] < 0.9 * losses[0]
    heads = load_file(tmp_path / "one" / "auxiliary.safetensors")
    first, second = heads["results"].chunk(2)
    assert first.abs().sum() > 0
    assert second.abs().sum() > 0
    made.fit(stage(2_000, 1), tmp_path / "two", tmp_path / "one")
    assert load_file(tmp_path / "two" / "auxiliary.safetensors")["results"].shape == heads["results"].shape


def test_a_value_that_is_no_class_is_not_asked_for(programs: pa.Table, tmp_path: Path) -> None:
    made = learner(programs, tmp_path)
    pieces = [made.tokenizer.decode([number]) for number in range(len(made.tokenizer))]
    batch = next(Packed(made.samples, stage(1), 8, 64, 0, isolate=True).one_pass())
    every = TraceLabels(pieces, whole_values(*map(str, range(-81, 82)))).labels(batch)
    zeros = TraceLabels(pieces, whole_values("0")).labels(batch)
    assert 0 < (zeros != IGNORE).sum() < (every != IGNORE).sum()
    assert set(zeros[zeros != IGNORE]) == {0}


@pytest.mark.parametrize("labels", ["digits", "values"])
def test_what_inner_layers_are_asked_is_learnt(
    programs: pa.Table, tmp_path: Path, labels: Literal["digits", "values"]
) -> None:
    train = replace(TRAIN, trace_supervision=TraceSupervisionSettings(labels=labels))
    learner(programs, tmp_path, train).fit(stage(30_000), tmp_path / "stage", None)
    for name in ("operand_loss", "result_loss"):
        losses = told(tmp_path, name)
        assert losses[-1] < 0.7 * losses[0]


def test_the_layers_that_are_asked_get_gradients_and_later_ones_none(programs: pa.Table, tmp_path: Path) -> None:
    made = learner(
        programs,
        tmp_path,
        replace(TRAIN, trace_supervision=TraceSupervisionSettings(variable_layer=1, result_layers=(1,))),
    )
    model = made.initial(None)
    batcher = Packed(made.samples, stage(1), 8, 64, 0, isolate=True)
    loss = TraceLoss(LossContext(model, made.tokenizer, made.train, batcher, 600, tmp_path, ignore_events))
    torch.nn.init.normal_(loss.auxiliary.operands)
    loss.sums(next(batcher.one_pass()))[1].backward()
    first, second = (layer.mlp.down_proj.weight.grad for layer in model.model.layers)
    assert first.abs().sum() > 0
    assert second.abs().sum() == 0


def test_a_stage_stopped_and_resumed_gives_the_same_weights_and_metrics(programs: pa.Table, tmp_path: Path) -> None:
    whole = fit(programs, tmp_path / "whole")
    steps = 0

    def stop_at_fifth(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "advance"
        if steps == 5:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        fit(programs, tmp_path / "cut", events=stop_at_fifth)
    again = fit(programs, tmp_path / "cut")
    assert again.resumed_at == 5
    assert again.weights == whole.weights
    heads = [load_file(tmp_path / name / "stage" / "auxiliary.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_nothing_of_the_heads_is_in_the_model(programs: pa.Table, tmp_path: Path) -> None:
    fitted = fit(programs, tmp_path)
    saved = load_file(tmp_path / "stage" / "model" / "model.safetensors")
    plain = fit(programs, tmp_path / "plain", replace(TRAIN, objective="next_token"))
    assert not [name for name in saved if "auxiliary" in name]
    assert fitted.parameters == plain.parameters
    heads = load_file(tmp_path / "stage" / "auxiliary.safetensors")
    weights = [value for value in heads.values() if value.is_floating_point()]  # the classes are a buffer of bytes
    assert fitted.auxiliary_parameters == sum(value.numel() for value in weights) > 0
    assert plain.auxiliary_parameters == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "stage" / "model")


@pytest.mark.parametrize("restart", [True, False])
def test_heads_go_on_in_the_next_stage(programs: pa.Table, tmp_path: Path, restart: bool) -> None:
    made = learner(programs, tmp_path, replace(TRAIN, reset_optimizer=restart))
    made.fit(stage(15_000), tmp_path / "one", None)
    made.fit(stage(2_000, 1), tmp_path / "two", tmp_path / "one")
    losses = told(tmp_path, "operand_loss")
    assert losses[-1] < 0.8 * losses[0]
    assert losses[-1] < 1.3 * losses[-2]


def test_stages_with_and_without_heads_may_follow_each_other(programs: pa.Table, tmp_path: Path) -> None:
    made = learner(programs, tmp_path, replace(TRAIN, reset_optimizer=False))
    made.fit(stage(2_000), tmp_path / "one", None)
    made.fit(stage(2_000, 1, "next_token"), tmp_path / "two", tmp_path / "one")
    assert not (tmp_path / "two" / "auxiliary.safetensors").exists()
    made.fit(stage(2_000, 2), tmp_path / "three", tmp_path / "two")
    assert (tmp_path / "three" / "auxiliary.safetensors").exists()


def test_damaged_heads_are_reported(programs: pa.Table, tmp_path: Path) -> None:
    made = learner(programs, tmp_path)
    made.fit(stage(1_000), tmp_path / "one", None)
    (tmp_path / "one" / "auxiliary.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match=r"auxiliary\.safetensors.*trained again"):
        made.fit(stage(1_000, 1), tmp_path / "two", tmp_path / "one")


def test_other_texts_than_programs_are_refused(tmp_path: Path) -> None:
    table = make_table({"prompt": ["What is 2 + 2?\n"] * 600, "answer": ["4\n"] * 600})
    with pytest.raises(RecipeError, match=r"train\.objective: .*TinyPy.*next_token"):
        fit(table, tmp_path)


def test_a_layer_that_the_student_has_not_is_refused(programs: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.trace_supervision: .*variable_layer 1, result_layers 2, 9.*1 to 2"):
        fit(
            programs,
            tmp_path,
            replace(TRAIN, trace_supervision=TraceSupervisionSettings(variable_layer=1, result_layers=(2, 9))),
        )


def test_windows_are_refused() -> None:
    from gradatim.training.objective import check_objective

    with pytest.raises(RecipeError, match=r"block_diagonal_attention: true are needed"):
        check_objective("trace_supervision", replace(TRAIN, block_diagonal_attention=False))


def test_a_step_is_one_graph_for_every_batch_and_stage(programs: pa.Table, tmp_path: Path) -> None:
    made = learner(programs, tmp_path)
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    def compiled(function: object, settings: TrainSettings) -> object:
        return torch.compile(function, backend=counting, dynamic=False)

    torch.compiler.reset()
    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(error_on_recompile=True):
        patch.setattr("gradatim.training.losses.compiled", compiled)
        for _ in range(2):  # two stages
            batcher = Packed(made.samples, stage(1), 8, 64, 0, isolate=True)
            context = LossContext(made.initial(None), made.tokenizer, made.train, batcher, 600, tmp_path, ignore_events)
            loss, batches = TraceLoss(context), batcher.one_pass()
            for _ in range(3):
                loss.sums(next(batches))
    assert len(graphs) == 1
