"""The formatted training examples of ``plan --examples`` and of a run: separator, chat template and loss mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import base

from gradatim.experiment.assemble import corpus_maker
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import Recipe, parse
from gradatim.experiment.run import run
from gradatim.model.load import load_student
from gradatim.model.prompt_format import needed_separator, plain_prompt, prompt_format_of, prompt_formatter
from gradatim.stage import Event
from gradatim.training.batches import make_second_answers, row_tokens
from gradatim.training.examples import FormattedExample, formatted_examples
from gradatim.training.objective import OBJECTIVES

PAIRS = [(f"Return the sum of {a} and {b}.", f"def add():\n    return {a} + {b}\n") for a in range(6) for b in range(6)]


def recipe(path: Path, train: dict[str, Any] | None = None, **student: Any) -> Recipe:
    return parse(
        {
            "threads": 1,
            "data": {"source": "file", "path": str(path), "split": {"by": "text", "validation": 4, "test": 4}},
            "difficulty": {"metric": "size", "bands": {"names": ["all"]}},
            "budget": {"tokens": 200},
            "student": {"preset": "tiny", "context_length": 128, **student},
            "train": {"batching": "packed", "batch_size": 2, "max_length": 96, "objective": "answer_only"}
            | (train or {}),
            "evaluate": {"suites": []},
        }
    )


def write(path: Path, rows: list[tuple[str, str]], **more: Any) -> Path:
    path.write_text("".join(json.dumps({"prompt": p, "answer": a, **more}) + "\n" for p, a in rows))
    return path


def texts(example: FormattedExample) -> list[tuple[str, bool]]:
    return [(segment.text, segment.loss) for segment in example.segments]


@pytest.mark.parametrize("tokenizer", ["character", "word_level", "bpe"])
def test_plain_prompts_do_not_run_into_their_answers(tmp_path: Path, tokenizer: str) -> None:
    made = recipe(write(tmp_path / "pairs.jsonl", PAIRS), tokenizer=tokenizer, vocab_size=400)
    notes: list[str] = []
    first = plan_run(made, examples=True, events=lambda event: notes.append(event.text)).examples[0]
    (prompt, masked), (answer, loss) = texts(first)
    assert (masked, loss) == (False, True)
    assert prompt.endswith(".\n\n")
    assert answer.startswith("def add():")
    assert answer.endswith("<eos>")
    assert any("student.separator" in note for note in notes)


def test_a_trained_model_is_prompted_with_the_separator_of_its_training(tmp_path: Path) -> None:
    notes: list[str] = []

    def listen(event: Event) -> None:
        notes.extend([event.text] * (event.kind == "note"))

    run(recipe(write(tmp_path / "pairs.jsonl", PAIRS)), tmp_path / "run", events=listen)
    (folder,) = tmp_path.glob("run/cycle-00/stage-*/model")
    tokenizer = load_student(folder).tokenizer
    assert prompt_formatter(tokenizer)("Add.") == "Add.\n\n"
    assert prompt_formatter(tokenizer)("Add.\n") == "Add.\n"
    shown = [note for note in notes if note.startswith("training example")]
    assert len(shown) == 3
    assert "masked: Return the sum of " in shown[0]
    assert ".\\n\\n | loss: def add():\\n    return" in shown[0]
    run(recipe(tmp_path / "pairs.jsonl"), tmp_path / "run", events=listen)  # a finished run shows none again
    assert sum(note.startswith("training example") for note in notes) == 3


def test_a_separator_is_added_only_where_texts_run_together() -> None:
    assert needed_separator(["Add."], ["def f"]) == "\n\n"
    assert needed_separator(["Add.\n"], ["def f"]) == ""
    assert needed_separator(["def f():"], ["\n    return 1"]) == ""
    assert needed_separator(["", "", "Add."], ["x", "y", ""]) == ""
    assert [plain_prompt(text, "\n\n") for text in ("", "a", "a ", "a\n")] == ["", "a\n\n", "a ", "a\n"]


def test_a_recipe_can_set_or_omit_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    for separator in ("", " => "):
        (prompt, _), _ = texts(plan_run(recipe(path, separator=separator), examples=True).examples[0])
        assert prompt.endswith("." + separator)


def test_a_base_with_a_chat_template_gets_it_and_a_plain_one_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    folder = str(base(tmp_path / "base", context=256))
    chat, plain = (
        plan_run(recipe(path, base=folder, chat_template=template), examples=True).examples[0]
        for template in ("auto", "plain")
    )
    assert texts(chat)[0][0].startswith("<|im_start|>user\nReturn the sum of ")
    assert texts(chat)[0][0].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert texts(chat)[1][0].endswith("<|im_end|>")
    assert texts(plain)[0][0].endswith(".\n\n")


def test_tokens_of_an_earlier_version_stay_without_a_separator(tmp_path: Path) -> None:
    made = recipe(write(tmp_path / "pairs.jsonl", PAIRS))
    corpus = corpus_maker(made).make(tmp_path / "data")
    without = made.student.__class__(**{**vars(made.student), "separator": ""})
    corpus.tokens(without)
    config = next(corpus.folder.glob("tokens-*/tokenizer/tokenizer_config.json"))
    assert prompt_format_of(corpus.tokens(made.student)[0]).separator == "\n\n"  # "" was this recipe's choice
    config.write_text(
        json.dumps({key: value for key, value in json.loads(config.read_text()).items() if key != "gradatim"})
    )
    assert prompt_format_of(corpus.tokens(made.student)[0]).separator == ""


@pytest.mark.parametrize(
    ("objective", "isolated"),
    [("next_token", True), ("next_token", False), ("answer_only", False), ("preference", True), ("sft_dpo", True)],
)
def test_the_shown_mask_has_the_loss_tokens_of_the_budget(tmp_path: Path, objective: str, isolated: bool) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS, rejected="pass\n")
    made = recipe(path, {"objective": objective, "block_diagonal_attention": isolated})
    tokenizer, samples, _ = corpus_maker(made).make(tmp_path / "data").tokens(made.student)
    rows = [0, 1, 2]
    shown = formatted_examples(tokenizer, samples, made.train, rows)
    requirements = OBJECTIVES.get(objective).requirements(made.train)
    second = make_second_answers(objective, requirements, samples)
    expected = row_tokens(requirements, made.train, samples, np.array(rows), second)
    first = 0 if isolated or not requirements.prompt_loss else 1  # alone in its batch, a text has no first prediction
    assert [example.loss_tokens for example in shown] == (expected - first).tolist()


def test_plan_examples_prints_masked_and_learnt_text(gradatim: Any, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    (tmp_path / "mine.yaml").write_text(
        "data: {source: file, path: pairs.jsonl, split: {by: text, validation: 4, test: 4}}\n"
        "difficulty: {metric: size, bands: {names: [all]}}\nbudget: {tokens: 200}\n"
        "student: {preset: tiny, context_length: 128}\n"
        "train: {batching: packed, batch_size: 2, max_length: 96, objective: answer_only}\n"
    )
    shown = gradatim("plan", "mine.yaml", "--examples")
    assert shown.status == 0
    assert "masked: Return the sum of" in shown.out
    assert shown.out.count("  loss: def add():") == 3
    assert gradatim("plan", "demo", "--examples").status == 2
