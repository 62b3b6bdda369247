"""Pairs: encoded beside the samples, never parted, learnt as the formulas say, and the same after a kill."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradatim.errors import DataError, RunFolderError, Stopped
from gradatim.model.load import load_student
from gradatim.model.settings import (
    DistillationSettings,
    LRSchedulerSettings,
    ModelSettings,
    OptimizerSettings,
    PreferenceSettings,
    TrainSettings,
)
from gradatim.model.tokenizer import Encoded, character_tokenizer, encode_table, separate_texts
from gradatim.record import Metrics
from gradatim.stage import Event, Fitted, Stage, StageSpec, ignore_events
from gradatim.table import make_table
from gradatim.training.batches import IGNORE, Packed, SecondAnswers, fitting_rows, paired_rows
from gradatim.training.losses import REFERENCE, make_losses, tensors
from gradatim.training.trainer import StageTrainer

TRAIN = TrainSettings(
    batching="packed",
    block_diagonal_attention=True,
    batch_size=4,
    max_length=48,
    objective="preference",
    optimizer=OptimizerSettings(learning_rate=3e-3, weight_decay=0.0),
    lr_scheduler=LRSchedulerSettings(name="constant"),
    logging_steps=2,
    evaluations_per_stage=0,
)
FEW = 40


def table(rejected: bool = True, attempts: bool = False) -> pa.Table:
    """Sums of digits; of every fourth no faulty answer is known."""
    asked = [(row % 10, row // 10) for row in range(FEW)]
    faulty = [None if row % 4 == 3 else f"# {a + b + 1}\n" for row, (a, b) in enumerate(asked)]
    made = make_table(
        {
            "prompt": [f"print({a}+{b})\n" for a, b in asked],
            "answer": [f"# {a + b}\n" for a, b in asked],
            "rejected": faulty if rejected else None,
        }
    )
    return made.append_column("attempt", pa.array(faulty, pa.large_string())) if attempts else made


def learner(folder: Path, samples: pa.Table, train: TrainSettings = TRAIN) -> StageTrainer:
    tokenizer = character_tokenizer(["".join(map(chr, range(32, 127))) + "\n"])
    encoded = encode_table(tokenizer, samples)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl")
    return StageTrainer(tokenizer, encoded, encoded, metrics, 5, ModelSettings(preset="tiny", context_length=48), train)


def stage(tokens: int = 600, rows: int = FEW) -> Stage:
    return Stage(StageSpec("all", (1.0,), tokens), 0, np.arange(rows), 11, 0, tokens)


def fit(folder: Path, samples: pa.Table, train: TrainSettings = TRAIN, tokens: int = 600, rows: int = FEW) -> Fitted:
    return learner(folder, samples, train).fit(stage(tokens, rows), folder / "stage", None)


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["fast", "general"])
def test_faulty_answers_are_encoded_beside_the_samples(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "general":
        monkeypatch.setattr("gradatim.model.tokenizer.character_codes", lambda tokenizer: None)
    samples = table()
    tokenizer = character_tokenizer(separate_texts(samples))
    for encoded in (encode_table(tokenizer, samples), encode_table(tokenizer, samples, tmp_path / "encoded")):
        assert encoded.rejected is not None
        assert encoded.attempt is None
        for row, text in enumerate(samples["rejected"].to_pylist()):
            expected = [] if text is None else [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            assert encoded.rejected.answer(row).tolist() == expected


def test_a_table_without_faulty_answers_is_encoded_as_before(tmp_path: Path) -> None:
    tokenizer = character_tokenizer(separate_texts(table()))
    plain = table(rejected=False)
    assert set(separate_texts(plain)) == set(plain["prompt"].to_pylist()) | set(plain["answer"].to_pylist())
    encode_table(tokenizer, plain.select(["prompt", "answer"]), tmp_path / "plain")
    encode_table(tokenizer, table(), tmp_path / "again")  # a folder that held faulty answers forgets them
    for samples in (plain, table(rejected=False)):
        encode_table(tokenizer, samples, tmp_path / "again")
        files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("plain", "again")]
        assert files[0] == files[1]
        assert Encoded.open(tmp_path / "again").rejected is None


def test_an_unknown_character_in_a_faulty_answer_names_the_column_and_the_row() -> None:
    samples = make_table({"answer": ["ab", "b", "a"], "rejected": [None, "b", "bé"]})
    with pytest.raises(DataError, match="sample 2, character 1 of the column 'rejected'"):
        encode_table(character_tokenizer(["ab"]), samples)


def packed(order: str = "shuffled") -> Packed:
    encoded = encode_table(character_tokenizer(separate_texts(table())), table())
    assert encoded.rejected is not None
    one = replace(stage(), spec=StageSpec("all", (1.0,), 600, order=order))
    return Packed(
        encoded, one, 3, 48, 0, isolate=True, chunk=16, second_answers=SecondAnswers(encoded, encoded.rejected)
    )


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_both_answers_of_a_pair_lie_in_one_line_behind_their_prompt(order: str) -> None:
    batcher = packed(order)
    encoded, seen = batcher.encoded, []
    for batch in batcher.one_pass():
        assert batch.rows is not None
        assert batch.pairs is not None
        assert batch.second is not None
        assert batch.segments is not None
        seen += batch.rows.tolist()
        for number, row in enumerate(batch.rows):
            start = encoded.answer_starts[row]
            expected = [encoded.sample(row)[start:], encoded.rejected.answer(row)]  # type: ignore[union-attr]
            lines = set(np.flatnonzero((batch.pairs == number).any(axis=1)).tolist())
            assert len(lines) == 1
            for second, tokens in zip((False, True), expected, strict=True):
                at = (batch.pairs == number) & (batch.second == second) & (batch.labels != IGNORE)
                assert batch.labels[at].tolist() == tokens.tolist()
                line, place = (int(axis[0]) for axis in np.nonzero(at))
                behind = batch.inputs[line, place + 1 - start : place + 1]
                assert behind.tolist() == encoded.sample(row)[:start].tolist()
        assert not (batch.second & ~batch.answer & (batch.labels != IGNORE)).any()  # a prompt is learnt once
    assert sorted(seen) == [row for row in range(FEW) if row % 4 != 3]


def test_batches_of_pairs_after_a_position_do_not_depend_on_what_came_before() -> None:
    batcher = packed()
    whole = list(islice(batcher.stream(batcher.start), 40))
    for at in (0, 3, 17, 30):
        again, position = next(iter(batcher.stream(whole[at][1])))
        assert position == whole[at + 1][1]
        for name in ("inputs", "labels", "pairs", "second", "rows"):
            assert np.array_equal(getattr(again, name), getattr(whole[at + 1][0], name))


def test_a_pair_that_is_too_long_for_a_line_is_left_out_whole() -> None:
    encoded = packed().encoded
    assert encoded.rejected is not None
    beside = SecondAnswers(encoded, encoded.rejected)
    rows = np.arange(FEW)
    alone, together = encoded.offsets[1:] - encoded.offsets[:-1], beside.sizes(rows)
    assert (together[rows % 4 == 3] == alone[rows % 4 == 3]).all()
    assert (together[rows % 4 != 3] > 1.9 * alone[rows % 4 != 3]).all()
    kept, dropped = fitting_rows(encoded, rows, 27, beside)
    assert dropped > 0
    assert kept.tolist() == rows[together <= 28].tolist()
    with pytest.raises(DataError, match="no pair"):
        fitting_rows(encoded, paired_rows(beside, rows), 20, beside)


def pair_margin(folder: Path, samples: pa.Table) -> float:
    """How much likelier than the faulty answer the right one is for the student in ``folder``, first row, in nats."""
    made = learner(folder, samples)
    assert made.samples.rejected is not None
    model = load_student(folder / "stage" / "model").model if (folder / "stage").exists() else made.initial(None)
    model.set_attn_implementation("eager")
    one = replace(stage(), rows=np.array([0]))
    batch = next(
        Packed(
            made.samples, one, 1, 48, 0, True, second_answers=SecondAnswers(made.samples, made.samples.rejected)
        ).one_pass()
    )
    inputs, labels, _, *context = tensors(batch)
    with torch.no_grad():
        losses = make_losses(model, TRAIN)(inputs, labels, *context)[0]
    pairs, second = torch.from_numpy(batch.pairs[0]) == 0, torch.from_numpy(batch.second[0])  # type: ignore[index]
    return float(losses[pairs & second].sum() - losses[pairs & ~second].sum())


@pytest.mark.parametrize("contrast", [PreferenceSettings(), PreferenceSettings(reference_free=True, gamma=0.5)])
def test_the_margin_grows_when_one_pair_is_learnt(tmp_path: Path, contrast: PreferenceSettings) -> None:
    train = replace(TRAIN, preference=contrast, batch_size=1, logging_steps=1)
    before = pair_margin(tmp_path, table())
    fit(tmp_path, table(), train, tokens=150, rows=1)
    rows = logged(tmp_path)
    assert pair_margin(tmp_path, table()) > before + 1
    assert rows[-1]["margin"] > rows[0]["margin"] + 0.1
    assert rows[-1]["contrast_loss"] == rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["accuracy_of_preference"] == 1.0


def test_the_first_step_of_dpo_is_at_the_reference(tmp_path: Path) -> None:
    fit(tmp_path, table(), replace(TRAIN, logging_steps=1), tokens=30)
    first = logged(tmp_path)[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["margin"] == pytest.approx(0, abs=1e-4)


def test_the_reference_is_the_student_at_the_start_of_the_stage(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    expected = pair_margin(tmp_path / "new", table())
    fit(tmp_path, table(), tokens=200)
    kept = load_file(tmp_path / "stage" / REFERENCE)
    assert kept["rows"].tolist() == [row for row in range(FEW) if row % 4 != 3]
    right, faulty = kept["log_probabilities"][0]
    assert right - faulty == pytest.approx(expected, abs=1e-4)


def cut(folder: Path, samples: pa.Table, train: TrainSettings, at: int) -> None:
    """Train until the step ``at`` and stop there, with everything saved."""
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "advance" and event.task.startswith("train")
        if steps == at:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        learner(folder, samples, train).fit(stage(), folder / "stage", None, stop)


@pytest.mark.parametrize(
    "train", [TRAIN, replace(TRAIN, objective="sft_dpo", gradient_accumulation_steps=2)], ids=["preference", "sft_dpo"]
)
def test_a_stage_of_pairs_stopped_and_resumed_gives_the_same_weights(tmp_path: Path, train: TrainSettings) -> None:
    whole = fit(tmp_path / "whole", table(), train)
    cut(tmp_path / "cut", table(), train, at=3)
    again = fit(tmp_path / "cut", table(), train)
    assert (again.resumed_at, again.weights) == (3, whole.weights)
    for name in ("metrics.jsonl", f"stage/{REFERENCE}"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_resumed_stage_reads_its_reference_back(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    cut(tmp_path, table(), TRAIN, at=3)
    path = tmp_path / "stage" / REFERENCE
    kept = load_file(path)
    save_file({**kept, "log_probabilities": kept["log_probabilities"] - np.float32([30, 0])}, path)
    fit(tmp_path, table())
    assert logged(tmp_path)[-1]["margin"] > 2 > logged(tmp_path)[0]["margin"]  # the 30 nats put in, times beta, are 3


def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    cut(tmp_path, table(), TRAIN, at=1)
    (tmp_path / "stage" / REFERENCE).write_bytes(b"\0" * 30)
    with pytest.raises(RunFolderError, match=REFERENCE):
        fit(tmp_path, table())


def test_a_contrast_without_faulty_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rejected"):
        fit(tmp_path, table(rejected=False))


def test_the_contrast_leaves_samples_without_a_faulty_answer_out_and_says_so(tmp_path: Path) -> None:
    heard: list[Event] = []
    learner(tmp_path, table()).fit(stage(40), tmp_path / "stage", None, heard.append)
    assert [event.text for event in heard if event.kind == "note"] == [
        "10 of 40 samples have no second answer and are left out"
    ]


def test_correct_and_fault_without_faulty_answers_learns_what_next_token_learns(tmp_path: Path) -> None:
    train = replace(TRAIN, prompt_loss_weight=0.3)
    weights = {
        name: fit(tmp_path / name, table(rejected=False), replace(train, objective=name), tokens=200).weights
        for name in ("next_token", "sft_dpo")
    }
    assert weights["next_token"] == weights["sft_dpo"]


def test_correct_and_fault_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    rows = {}
    for weight in (0.5, 2.0):
        contrast = PreferenceSettings(weight=weight)
        train = replace(TRAIN, objective="sft_dpo", preference=contrast, prompt_loss_weight=0.0, logging_steps=1)
        fit(tmp_path / str(weight), table(), train, tokens=20)
        rows[weight] = logged(tmp_path / str(weight))[0]
    supervised = rows[0.5]["loss"] - 0.5 * rows[0.5]["contrast_loss"]
    assert rows[2.0]["loss"] == pytest.approx(supervised + 2.0 * rows[2.0]["contrast_loss"])
    assert rows[0.5]["contrast_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert supervised > 3  # nats a token of some hundred characters that a new student guesses among


def test_a_budget_counts_both_answers_of_a_pair(tmp_path: Path) -> None:
    made = packed("sorted")
    batch = next(made.one_pass())
    assert batch.rows is not None
    assert made.encoded.rejected is not None
    both = sum(
        len(made.encoded.sample(row))
        - made.encoded.answer_starts[row]
        + made.encoded.rejected.sizes(np.array([row]))[0]
        for row in batch.rows
    )
    assert int(np.count_nonzero(batch.pairs >= 0)) == both  # type: ignore[operator]
    fitted = fit(tmp_path, table(), replace(TRAIN, batch_size=1), tokens=1, rows=1)
    assert (fitted.steps, fitted.tokens) == (1, len("# 0\n") + len("# 1\n") + 2)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Two batches of four lines give the gradient of the same eight lines at once, with several terms too."""
    train = replace(TRAIN, objective="sft_dpo", prompt_loss_weight=0.3, logging_steps=1)
    for name, change in {"large": {"batch_size": 8}, "accumulated": {"gradient_accumulation_steps": 2}}.items():
        fit(tmp_path / name, table(), replace(train, **change), tokens=900)
    large, accumulated = logged(tmp_path / "large"), logged(tmp_path / "accumulated")
    assert len(large) == len(accumulated) >= 2
    for one, other in zip(large, accumulated, strict=True):
        assert one["tokens"] == other["tokens"]
        for key in ("loss", "contrast_loss", "gradient_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-3)


def test_a_plain_stage_tells_no_column_of_pairs(tmp_path: Path) -> None:
    fit(tmp_path, table(), replace(TRAIN, objective="next_token"), tokens=100)
    names = {name for row in logged(tmp_path) for name in row}
    assert not names & {"contrast_loss", "margin", "accuracy_of_preference", "divergence"}


def taught(folder: Path, **settings: object) -> TrainSettings:
    kl = DistillationSettings(teacher_model=str(folder), **settings)  # type: ignore[arg-type]
    return replace(TRAIN, objective="distillation", distillation=kl, logging_steps=1)


def a_teacher(folder: Path) -> Path:
    fit(folder, table(), replace(TRAIN, objective="next_token"), tokens=2000)
    return folder / "stage" / "model"


@pytest.mark.parametrize("divergence", ["jsd", "skewed_forward", "skewed_reverse"])
def test_a_student_is_at_no_distance_from_itself_and_comes_nearer_to_another(tmp_path: Path, divergence: str) -> None:
    teacher = a_teacher(tmp_path / "teacher")
    train = taught(teacher, divergence=divergence)
    fit(tmp_path / "student", table(), train, tokens=500)
    rows = logged(tmp_path / "student")
    assert rows[-1]["divergence"] < 0.5 * rows[0]["divergence"]
    assert rows[0]["loss"] == rows[0]["divergence"]
    again = learner(tmp_path / "self", table(), train)
    again.fit(stage(20), tmp_path / "self" / "stage", teacher.parent)
    assert logged(tmp_path / "self")[0]["divergence"] == pytest.approx(0, abs=1e-6)


def test_the_teacher_may_be_compared_on_attempts(tmp_path: Path) -> None:
    """One prompt with an attempt: the tokens counted tell on whose answers the two are compared."""
    teacher = a_teacher(tmp_path / "teacher")
    sizes = {"teacher": len("# 0\n") + 1, "student": len("# 1\n") + 1, "both": len("# 0\n# 1\n") + 2}
    firsts = {}
    for on, size in sizes.items():
        made = fit(
            tmp_path / f"on-{on}",
            table(attempts=True),
            replace(taught(teacher, answers=on), batch_size=1),
            tokens=1,
            rows=1,
        )
        assert made.tokens == size
        firsts[on] = logged(tmp_path / f"on-{on}")[0]["divergence"]
    assert firsts["teacher"] != firsts["student"]
    assert firsts["both"] == pytest.approx((firsts["teacher"] + firsts["student"]) / 2)
    part = replace(taught(teacher, answers="student", weight=0.75), batch_size=1, prompt_loss_weight=0.0)
    made = fit(tmp_path / "part", table(attempts=True), part, tokens=1, rows=1)
    row = logged(tmp_path / "part")[0]
    assert made.tokens == sizes["both"]
    assert row["divergence"] == pytest.approx(firsts["student"])
    assert (row["loss"] - 0.75 * row["divergence"]) / 0.25 > 3  # cross-entropy of the right answer, by a new student


def test_without_completions_the_answers_are_compared_and_a_note_says_so(tmp_path: Path) -> None:
    teacher, heard = a_teacher(tmp_path / "teacher"), list[Event]()
    made = learner(tmp_path / "student", table(), taught(teacher, answers="student"))
    made.fit(stage(20), tmp_path / "student" / "stage", None, heard.append)
    assert any("no sample has a completion" in event.text for event in heard)
    assert logged(tmp_path / "student")[0]["divergence"] > 0


def test_a_teacher_with_another_tokenizer_is_refused_and_both_are_named(tmp_path: Path) -> None:
    fit(tmp_path / "teacher", table(), replace(TRAIN, objective="next_token"), tokens=100)
    teacher = tmp_path / "teacher" / "stage" / "model"
    student = learner(tmp_path / "student", table(), taught(teacher))
    other = character_tokenizer(separate_texts(table()))
    student = replace(student, tokenizer=other, samples=encode_table(other, table()))
    with pytest.raises(DataError, match=rf"teacher {teacher} with 98 tokens, student .* with {len(other)}"):
        student.fit(stage(20), tmp_path / "student" / "stage", None, ignore_events)
