"""Training: it learns, it repeats its bits, it stops when the loss explodes, its models open anywhere."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from gradatim.errors import RecipeError, RunFolderError, Stopped, TrainingDiverged
from gradatim.model.settings import LRSchedulerSettings, ModelSettings, OptimizerSettings, TrainSettings
from gradatim.model.tokenizer import character_tokenizer, encode_table, texts_of
from gradatim.record import Metrics
from gradatim.stage import Event, Examination, Fitted, Stage, StageSpec, ignore_events
from gradatim.table import make_table
from gradatim.training.losses import make_losses, tensors
from gradatim.training.trainer import StageTrainer, _validation_batches

pytestmark = pytest.mark.xdist_group("elsewhere")  # one process for the files that open models elsewhere

TRAIN = TrainSettings(
    batching="packed",
    batch_size=4,
    max_length=64,
    prompt_loss_weight=0.3,
    optimizer=OptimizerSettings(name="muon", learning_rate=3e-3, muon_learning_rate=1e-2),
    lr_scheduler=LRSchedulerSettings(name="warmup_decay"),
    logging_steps=2,
    evaluations_per_stage=2,
)


@pytest.fixture(scope="module")
def samples() -> pa.Table:
    programs = [(a, b) for a in range(10) for b in range(10)]
    return make_table(
        {
            "prompt": [f"a = {a}\nb = {b}\nprint(a)\n# output\n" for a, b in programs],
            "answer": [f"# {a}\n" for a, _ in programs],
        }
    )


def learner(samples: pa.Table, folder: Path, train: TrainSettings = TRAIN, preset: str = "tiny") -> StageTrainer:
    tokenizer = character_tokenizer(texts_of(samples))
    encoded = encode_table(tokenizer, samples)
    # Of all samples, the validation loss would take longer than the steps.
    validation = encode_table(tokenizer, samples.take(list(range(0, len(samples), 7))))
    folder.mkdir(parents=True, exist_ok=True)
    return StageTrainer(
        tokenizer,
        encoded,
        validation,
        Metrics(folder / "metrics.jsonl"),
        5,
        ModelSettings(preset=preset, context_length=64),
        train,
    )


def stage(tokens: int = 4000, index: int = 0, first: int = 0, run: int | None = None) -> Stage:
    spec = StageSpec("all", (1.0,), tokens)
    return Stage(spec, index, np.arange(100), 11, first, run or tokens)


def fit(samples: pa.Table, folder: Path, train: TrainSettings = TRAIN, **more: int) -> Fitted:
    return learner(samples, folder, train).fit(stage(**more), folder / "stage", None)


def test_the_loss_falls(samples: pa.Table, tmp_path: Path) -> None:
    fit(samples, tmp_path, tokens=20_000)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert losses[-1] < 1.2 < 2.5 < rows[1]["loss"]


def test_the_validation_loss_is_recorded_from_token_0(samples: pa.Table, tmp_path: Path) -> None:
    fit(samples, tmp_path, tokens=2_000)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["step"], first["run_tokens"]) == (0, 0)
    assert first["validation_answer_loss"] > 2.5


def test_the_loss_of_the_answers_is_logged_beside_a_weighted_loss(samples: pa.Table, tmp_path: Path) -> None:
    weights = {}
    for weight in (0.0, 0.3):
        folder = tmp_path / str(weight)
        folder.mkdir()
        fit(samples, folder, replace(TRAIN, prompt_loss_weight=weight), tokens=4_000)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        weights[weight] = [row for row in rows if "loss" in row]
    assert all("answer_loss" not in row for row in weights[0.0])
    assert all(0 < row["answer_loss"] != row["loss"] for row in weights[0.3])


@pytest.mark.parametrize("batching", ["random_crops", "packed"])
@pytest.mark.parametrize("preset", ["paper", "gpt2-tied", "tiny"])
def test_the_same_stage_gives_the_same_weights(samples: pa.Table, tmp_path: Path, batching: str, preset: str) -> None:
    train = replace(TRAIN, batching=batching)
    digests = {
        learner(samples, tmp_path / name, train, preset).fit(stage(1500), tmp_path / name / "stage", None).weights
        for name in "ab"
    }
    assert len(digests) == 1


def test_a_stage_stopped_and_resumed_gives_the_same_weights_and_metrics(samples: pa.Table, tmp_path: Path) -> None:
    whole = fit(samples, tmp_path / "whole")
    steps = 0

    def stop_at_seventh(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "advance"
        if steps == 7:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(samples, tmp_path / "cut").fit(stage(), tmp_path / "cut" / "stage", None, stop_at_seventh)
    again = fit(samples, tmp_path / "cut")
    assert again.resumed_at == 7
    assert again.weights == whole.weights
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("restart", [True, False])
def test_the_optimizer_restarts_or_continues_as_asked(samples: pa.Table, tmp_path: Path, restart: bool) -> None:
    train = replace(TRAIN, reset_optimizer=restart, lr_scheduler=LRSchedulerSettings(name="constant"))
    whole = learner(samples, tmp_path / "whole", train).fit(stage(4000), tmp_path / "whole" / "stage", None)
    parts = learner(samples, tmp_path / "parts", train)
    parts.fit(stage(2000, run=4000), tmp_path / "parts" / "one", None)
    second = parts.fit(stage(2000, 1, 2000, 4000), tmp_path / "parts" / "two", tmp_path / "parts" / "one")
    assert second.weights != whole.weights  # the second stage draws its own order of samples
    kept = tmp_path / "parts" / "one" / "optimizer" / "optimizer.safetensors"
    assert kept.exists() != restart
    if not restart:  # the second stage depends on the momentum that the first one left
        save_file({name: torch.zeros_like(value) for name, value in load_file(kept).items()}, kept)
        forgetful = parts.fit(stage(2000, 1, 2000, 4000), tmp_path / "parts" / "three", tmp_path / "parts" / "one")
        assert forgetful.weights != second.weights


def test_the_learning_rate_shape_follows_the_stage_or_the_run(samples: pa.Table, tmp_path: Path) -> None:
    rates = {}
    for restart in (True, False):
        folder = tmp_path / str(restart)
        train = replace(
            TRAIN, reset_optimizer=restart, lr_scheduler=LRSchedulerSettings(name="paper_steps"), logging_steps=1
        )
        parts = learner(samples, folder, train)
        parts.fit(stage(2000, run=4000), folder / "one", None)
        parts.fit(stage(2000, 1, 2000, 4000), folder / "two", folder / "one")
        rates[restart] = [row["learning_rate"] for row in parts.metrics.rows() if "learning_rate" in row]
    base = TRAIN.optimizer.learning_rate
    assert min(rates[True][: len(rates[True]) // 2]) == pytest.approx(base * 1e-3)
    assert min(rates[False][: len(rates[False]) // 2]) == pytest.approx(base)
    assert min(rates[False]) == pytest.approx(base * 1e-3)


@pytest.mark.parametrize("name", ["warmup_decay", "cosine"])
def test_the_first_step_of_a_warm_up_has_its_share_of_the_learning_rate(
    samples: pa.Table, tmp_path: Path, name: str
) -> None:
    train = replace(TRAIN, lr_scheduler=LRSchedulerSettings(name=name, warmup_ratio=0.25), logging_steps=1)
    fitted = fit(samples, tmp_path, train)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] / TRAIN.optimizer.learning_rate for row in rows if "learning_rate" in row]
    ends = [row["tokens"] / 4000 for row in rows if "learning_rate" in row]
    assert len(rates) == fitted.steps > 8
    assert rates[:3] == pytest.approx([end / 0.25 for end in ends[:3]], rel=1e-2)
    assert rates[-1] < rates[len(rates) // 2]


@pytest.mark.parametrize("name", ["constant", "paper_steps", "warmup_decay", "cosine"])
def test_a_stage_of_one_step_trains_at_the_full_learning_rate(samples: pa.Table, tmp_path: Path, name: str) -> None:
    train = replace(TRAIN, lr_scheduler=LRSchedulerSettings(name=name), logging_steps=1)
    fitted = fit(samples, tmp_path, train, tokens=100)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert (fitted.steps, row["learning_rate"]) == (1, TRAIN.optimizer.learning_rate)


AVERAGED = replace(TRAIN, lr_scheduler=LRSchedulerSettings(name="constant"), logging_steps=1, swa_start=0.5)


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("reset", [True, False])
def test_a_finished_model_has_the_mean_of_the_weights_of_the_last_steps(
    samples: pa.Table, tmp_path: Path, reset: bool
) -> None:
    train = replace(AVERAGED, reset_optimizer=reset)
    whole = learner(samples, tmp_path / "whole", train).fit(stage(2000), tmp_path / "whole" / "stage", None)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    ends = [row["tokens"] for row in rows if "loss" in row and row["tokens"] > 1000]
    assert 3 < len(ends) < whole.steps
    models = []
    for tokens in ends:  # the rate is constant, so that a run that ends earlier has the same steps
        folder = tmp_path / str(tokens)
        fit(samples, folder, replace(train, swa_start=None), tokens=tokens)
        models.append(model_of(folder / "stage"))
    for name, value in model_of(tmp_path / "whole" / "stage").items():
        torch.testing.assert_close(value, torch.stack([model[name] for model in models]).mean(dim=0))
        assert not torch.equal(value, models[-1][name])


def test_validation_measures_the_averaged_weights(samples: pa.Table, tmp_path: Path) -> None:
    last = {}
    for start in (None, 0.5):
        fit(samples, tmp_path / str(start), replace(AVERAGED, swa_start=start), tokens=2000)
        rows = [json.loads(line) for line in (tmp_path / str(start) / "metrics.jsonl").read_text().splitlines()]
        last[start] = next(row["validation_loss"] for row in reversed(rows) if "validation_loss" in row)
    trainer = learner(samples, tmp_path / "again")
    for start, expected in last.items():
        model = trainer.initial(tmp_path / str(start) / "stage").eval()
        losses = make_losses(model, trainer.train)
        total = count = 0.0
        for batch in _validation_batches(trainer, trainer.train):
            inputs, labels, _, *context = tensors(batch)
            with torch.no_grad():
                total += float(losses(inputs, labels, *context).double().sum())
            count += int((labels != -100).sum())
        assert total / count == pytest.approx(expected, rel=1e-6)


def test_a_stage_stopped_while_weights_are_averaged_ends_with_the_same_mean(samples: pa.Table, tmp_path: Path) -> None:
    whole = fit(samples, tmp_path / "whole", AVERAGED, tokens=2000)

    def stop(event: Event) -> None:
        if event.kind == "advance" and (event.done or 0) > 1500:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(samples, tmp_path / "cut", AVERAGED).fit(stage(2000), tmp_path / "cut" / "stage", None, stop)
    again = fit(samples, tmp_path / "cut", AVERAGED, tokens=2000)
    assert again.resumed_at > whole.steps / 2
    assert again.weights == whole.weights


@pytest.mark.parametrize("reset", [True, False])
def test_of_a_schedule_over_the_run_the_last_stage_alone_is_averaged(
    samples: pa.Table, tmp_path: Path, reset: bool
) -> None:
    first, last = {}, {}
    for start in (None, 0.2, 0.5, 0.8):
        trainer = learner(samples, tmp_path / str(start), replace(AVERAGED, reset_optimizer=reset, swa_start=start))
        folders = tmp_path / str(start) / "one", tmp_path / str(start) / "two"
        first[start] = trainer.fit(stage(1500, 0, 0, 3000), folders[0], None).weights
        last[start] = trainer.fit(stage(1500, 1, 1500, 3000), folders[1], folders[0]).weights
    assert len(set(first.values())) == (4 if reset else 1)
    assert len(set(last.values())) == (4 if reset else 3)
    assert (last[0.2] == last[0.5]) != reset  # the second stage begins at half of the run


def test_a_mean_of_another_shape_is_a_damaged_checkpoint(samples: pa.Table, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "advance" and event.done > 1500:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(samples, tmp_path, AVERAGED).fit(stage(2000), tmp_path / "stage", None, stop)
    file = tmp_path / "stage" / "checkpoint" / "average.safetensors"
    tensors = load_file(file)
    name = next(name for name, value in tensors.items() if value.ndim == 2)
    save_file({**tensors, name: tensors[name][:1].clone()}, file)
    with pytest.raises(RunFolderError, match="damaged"):
        fit(samples, tmp_path, AVERAGED, tokens=2000)


def test_an_evaluation_along_the_run_reads_the_averaged_weights(samples: pa.Table, tmp_path: Path) -> None:
    seen = {}
    for start in (None, 0.5):
        folder = tmp_path / str(start)
        trainer = learner(samples, folder, replace(AVERAGED, swa_start=start))
        models = []

        def evaluate(model: Path, models: list[dict[str, torch.Tensor]] = models) -> list[dict[str, object]]:
            models.append(load_file(model / "model.safetensors"))
            return []

        replace(trainer, examination=Examination(500, evaluate)).fit(stage(2000), folder / "stage", None)
        seen[start] = models
    assert len(seen[None]) == len(seen[0.5]) > 2
    equal = [
        all(torch.equal(plain[name], mean[name]) for name in plain)
        for plain, mean in zip(seen[None], seen[0.5], strict=True)
    ]
    assert equal[0]
    assert not equal[-1]


def test_an_exploding_loss_stops_the_stage_and_keeps_the_last_good_checkpoint(
    samples: pa.Table, tmp_path: Path
) -> None:
    wild = replace(
        TRAIN,
        max_grad_norm=0.0,
        checkpoint_seconds=0.0,
        optimizer=OptimizerSettings(learning_rate=10.0, weight_decay=0.0),
        lr_scheduler=LRSchedulerSettings(name="warmup_decay", warmup_ratio=0.5),
    )
    with pytest.raises(TrainingDiverged, match="last good checkpoint is kept"):
        fit(samples, tmp_path, wild, tokens=20_000)
    assert not (tmp_path / "stage" / "model").exists()
    kept = load_file(tmp_path / "stage" / "checkpoint" / "model.safetensors")
    made = learner(samples, tmp_path / "again")
    model = made.initial(None).eval()
    model.load_state_dict(kept, strict=False)
    batch = next(_validation_batches(made, TRAIN))
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    with torch.no_grad():
        loss = float(make_losses(model, TRAIN)(inputs, labels).sum() / (labels != -100).sum())
    assert loss < 3 * np.log(len(made.tokenizer)) + 3  # the kept weights are from before the explosion


def test_a_damaged_checkpoint_is_named(samples: pa.Table, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "advance":
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(samples, tmp_path).fit(stage(), tmp_path / "stage", None, stop)
    (tmp_path / "stage" / "checkpoint" / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RunFolderError, match="checkpoint"):
        fit(samples, tmp_path)


def test_a_finished_model_opens_with_nothing_of_ours(
    samples: pa.Table, tmp_path: Path, elsewhere: Callable[..., None]
) -> None:
    fit(samples, tmp_path)
    code = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "stage" / "model")!r})
tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / "stage" / "model")!r})
model.generate(**tokenizer("a = 1", return_tensors="pt"), max_new_tokens=3)
"""
    elsewhere(code, tmp_path)


def test_the_tied_model_has_its_parameter_count_and_no_trained_bias(samples: pa.Table, tmp_path: Path) -> None:
    made = learner(samples, tmp_path, preset="gpt2-tied")
    made.fit(stage(600), tmp_path / "stage", None)
    model = made.initial(tmp_path / "stage")
    biases = [value for name, value in model.named_parameters() if name.endswith(".bias")]
    assert biases
    assert all(not bias.requires_grad and not bias.any() for bias in biases)
    vocabulary, context = len(made.tokenizer), 64
    published = (vocabulary + context) * 120 + 6 * (12 * 120**2 + 2 * 120) + 120
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == published


@pytest.mark.parametrize("preset", ["tiny", "modern"])
def test_an_isolated_sample_sees_nothing_of_its_neighbours(samples: pa.Table, tmp_path: Path, preset: str) -> None:
    from gradatim.model.architecture import create
    from gradatim.training.batches import Packed

    made = learner(samples, tmp_path)
    special = {"pad_token_id": 0, "eos_token_id": 1}
    model = create(preset, vocabulary=len(made.tokenizer), context=120, special=special, seed=0).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    losses = []
    for rows in ([3, 7], [90, 7]):
        order = replace(stage(), spec=StageSpec("x", (1.0,), 1, order="sorted"), rows=np.array(rows))
        batch = next(Packed(made.samples, order, 1, 120, 0, isolate=True).one_pass())
        each = make_losses(model, replace(TRAIN, block_diagonal_attention=True, precision="fp32"))(
            *[t for t in tensors(batch) if t.dtype != torch.bool][:2], *tensors(batch)[3:]
        )
        start = int(made.samples.offsets[rows[0] + 1] - made.samples.offsets[rows[0]])
        losses.append(each[0, start:][: len(made.samples.sample(7)) - 1])
        assert len(losses[-1]) == (losses[-1] > 0).sum()
    assert torch.allclose(losses[0], losses[1], atol=1e-6)
    # And it is read as by the model alone, whose masks are transformers' own.
    sample = torch.from_numpy(made.samples.sample(7).astype(np.int64))[None]
    alone = torch.nn.functional.cross_entropy(model(sample[:, :-1]).logits[0], sample[0, 1:], reduction="none")
    assert torch.allclose(losses[1], alone, atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "modern"])
def test_a_step_is_one_graph_for_every_batch_and_stage(samples: pa.Table, tmp_path: Path, preset: str) -> None:
    """Else a stage compiles again and again, until torch gives up and is slower than without."""
    from gradatim.training.batches import Packed

    made = learner(samples, tmp_path, replace(TRAIN, block_diagonal_attention=True), preset)
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):  # two stages
            step = torch.compile(make_losses(made.initial(None), made.train), backend=counting, dynamic=False)
            batches = Packed(made.samples, stage(), 4, 64, 0, isolate=True).one_pass()
            for _ in range(3):
                inputs, labels, _, *context = tensors(next(batches))
                step(inputs, labels, *context)
    assert len(graphs) == 1


def test_without_a_compiler_a_compiled_step_is_refused(
    samples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match=r"train\.compile: .*C\+\+ compiler.*train\.compile=false"):
        fit(samples, tmp_path, replace(TRAIN, compile=True), tokens=500)


@pytest.mark.slow
def test_compiled_training_repeats_its_bits_across_processes(samples: pa.Table, tmp_path: Path) -> None:
    pytest.importorskip("torch._inductor")
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler (Debian: g++)")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from dataclasses import replace
import torch
torch.set_num_threads(1)
import test_stage_trainer as t
samples = t.samples.__wrapped__() if hasattr(t.samples, "__wrapped__") else t.samples.__pytest_wrapped__.obj()
print(t.fit(samples, Path(sys.argv[1]), replace(t.TRAIN, compile=True), tokens=1500).weights)
"""
    found = set()
    for name in "ab":
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_events_tell_progress_up_to_the_budget(samples: pa.Table, tmp_path: Path) -> None:
    heard: list[Event] = []
    learner(samples, tmp_path).fit(stage(), tmp_path / "stage", None, heard.append)
    assert [heard[0].kind, heard[-1].kind] == ["start", "finish"]
    assert heard[-1].done == heard[-1].total == 4000
    assert ignore_events(heard[0]) is None


def test_a_budget_counts_the_predictions_that_are_learnt_from(samples: pa.Table, tmp_path: Path) -> None:
    only = replace(TRAIN, objective="answer_only", logging_steps=1)
    made = fit(samples, tmp_path, only, tokens=300)
    answers_a_batch = 4 * 64 * 3 / 28  # three or four of some 28 characters are the answer and its end
    assert 300 <= made.tokens < 300 + 2 * answers_a_batch
    assert made.steps > 300 / (2 * answers_a_batch)


def test_a_stage_may_name_its_own_objective(samples: pa.Table, tmp_path: Path) -> None:
    own = replace(stage(300), spec=StageSpec("all", (1.0,), 300, objective="answer_only"))
    by_stage = learner(samples, tmp_path / "a").fit(own, tmp_path / "a" / "stage", None)
    by_recipe = learner(samples, tmp_path / "b", replace(TRAIN, objective="answer_only")).fit(
        stage(300), tmp_path / "b" / "stage", None
    )
    assert by_stage.weights == by_recipe.weights
