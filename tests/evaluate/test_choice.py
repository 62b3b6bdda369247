"""Multiple-choice questions: the option that the model finds likeliest, as a direct computation finds it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradatim.errors import DataError, RecipeError, UserError
from gradatim.evaluation import SUITES, summary
from gradatim.evaluation.choice import ChoiceQuestion, choices_table, put, read_questions
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import bpe_tokenizer
from gradatim.stage import Counts

CONTEXT = 96
QUESTIONS = [
    {
        "question": f"What is {a} + {b}?",
        "options": [str(a + b), f"{a}zqk{b}", "é" * (2 + b), f"üß{a}"],
        "answer": (a * b) % 4,
        "category": "odd" if a % 2 else "even",
    }
    for a in range(5)
    for b in range(4)
]


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    torch.manual_seed(11)
    tokenizer = bpe_tokenizer(["Question: What is the sum?\nAnswer: nothing and 1 2 3\n" * 9, "A. B. C. D."], 300)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, initializer_range=0.6,
    )  # fmt: skip
    return LoadedModel(LlamaForCausalLM(config).eval(), tokenizer)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(student, path, **options):
    return SUITES.get("choice")(problems=path, **options)(student, pa.table({}), seed=0)


def likelihood(student, context: str, option: str) -> float:
    """The definition, one token at a time, without anything of ours."""
    encode = student.tokenizer.encode
    before, whole = encode(context), encode(context + option)
    total = 0.0
    for at in range(len(before), len(whole)):
        with torch.no_grad():
            logits = student.model(torch.tensor([whole[:at]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, -1)[whole[at]])
    return total


LENGTHS = {"accuracy": lambda option: 1, "acc_norm": len, "acc_bytes": lambda option: len(option.encode())}


@pytest.fixture(scope="module")
def best(student) -> dict[str, list[int]]:
    """For each score, the option that a direct computation finds best for each question."""
    found: dict[str, list[int]] = {name: [] for name in LENGTHS}
    for row in QUESTIONS[::2]:
        sums = [likelihood(student, f"Question: {row['question']}\nAnswer:", f" {option}") for option in row["options"]]
        for name, length in LENGTHS.items():
            found[name].append(
                int(np.argmax([value / length(o) for value, o in zip(sums, row["options"], strict=True)]))
            )
    return found


@pytest.mark.parametrize("truth", LENGTHS)
def test_scores_are_those_of_a_direct_computation(truth, best, student, tmp_path):
    """Were the best option by one score always right, that score would be whole, and the others what they agree on."""
    rows = [{**row, "answer": right} for row, right in zip(QUESTIONS[::2], best[truth], strict=True)]
    found = asked(student, written(tmp_path / "q.jsonl", rows))
    agree = {name: sum(map(int.__eq__, taken, best[truth])) for name, taken in best.items()}
    assert found.counts["all"]["all"] == Counts(agree["accuracy"], len(rows))
    assert dict(found.scores) == {name: (agree[name], len(rows)) for name in ("acc_norm", "acc_bytes")}
    assert set(summary(found)["scores"]) == set(LENGTHS)
    assert sorted(agree.values())[1] < agree[truth] == len(rows)  # no other score would pass for this one


@pytest.mark.parametrize("protocol", ["options", "continue", "letters"])
def test_batched_and_one_by_one_are_the_same(protocol, student, tmp_path):
    path = written(tmp_path / "q.jsonl", QUESTIONS)
    many, one = asked(student, path, protocol=protocol), asked(student, path, protocol=protocol, batch=1)
    assert (many.counts, many.scores, many.examples) == (one.counts, one.scores, one.examples)
    assert many.protocol == protocol


def test_categories_are_counted_apart_and_add_up(student, tmp_path):
    found = asked(student, written(tmp_path / "q.jsonl", QUESTIONS))
    assert {name: each.total for name, each in found.counts["category"].items()} == {"even": 12, "odd": 8}
    assert sum(each.passed for each in found.counts["category"].values()) == found.counts["all"]["all"].passed


def test_a_limit_asks_about_so_many(student, tmp_path):
    assert asked(student, written(tmp_path / "q.jsonl", QUESTIONS), limit=7).counts["all"]["all"].total == 7


def test_each_protocol_puts_the_question_in_its_own_way():
    each = ChoiceQuestion("1", "What is 1 + 1?", ("2", "two of it"), 0)
    assert put(each, "options") == ("Question: What is 1 + 1?\nAnswer:", (" 2", " two of it"))
    assert put(each, "continue") == ("What is 1 + 1?", (" 2", " two of it"))
    assert put(each, "letters") == ("What is 1 + 1?\nA. 2\nB. two of it\nAnswer:", (" A", " B"))


def test_an_answer_is_a_text_a_letter_or_an_index(tmp_path):
    rows = [{"question": "q", "options": ["x", "y", "B"], "answer": answer} for answer in ("y", "b", "B", 1, "1")]
    found = read_questions(written(tmp_path / "q.jsonl", rows)).questions
    assert [each.right for each in found] == [1, 1, 2, 1, 1]  # a text comes before a letter


def test_options_stand_in_a_list_or_in_columns(tmp_path):
    rows = [
        {"question": "q", "A": "x", "B": "y", "answer": "B"},
        {"question": "q", "choices": ["x", "y"], "answer": 1},
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    ]
    found = read_questions(written(tmp_path / "q.jsonl", rows)).questions
    assert [(each.options, each.right) for each in found] == [(("x", "y"), 1)] * 3


def test_parquet_and_json_lines_hold_the_same_questions(tmp_path):
    pq.write_table(pa.Table.from_pylist(QUESTIONS), tmp_path / "q.parquet")
    one, two = read_questions(tmp_path / "q.parquet"), read_questions(written(tmp_path / "q.jsonl", QUESTIONS))
    assert one.questions == two.questions


FAULTY = [
    ({"options": ["a", "b"], "answer": 0}, "no field 'question'"),
    ({"question": " ", "options": ["a", "b"], "answer": 0}, "not text, or empty"),
    ({"question": "q", "answer": 0}, "no options"),
    ({"question": "q", "options": "ab", "answer": 0}, "not a list"),
    ({"question": "q", "options": ["a"], "answer": 0}, "1 options"),
    ({"question": "q", "options": ["a", ""], "answer": 0}, "an option is not text"),
    ({"question": "q", "options": ["a", 3], "answer": 0}, "an option is not text"),
    ({"question": "q", "options": ["a", "a"], "answer": 0}, "two options are equal"),
    ({"question": "q", "A": "a", "C": "c", "answer": 0}, "leave one out"),
    ({"question": "q", "options": ["a", "b"]}, "no field 'answer'"),
    ({"question": "q", "options": ["a", "b"], "answer": 2}, "none of the options"),
    ({"question": "q", "options": ["a", "b"], "answer": -1}, "none of the options"),
    ({"question": "q", "options": ["a", "b"], "answer": True}, "none of the options"),
    ({"question": "q", "options": ["a", "b"], "answer": "C"}, "none of the options"),
    ({"question": "q", "options": ["a", "b"], "answer": "neither"}, "none of the options"),
]


def test_each_row_that_is_no_question_is_named_and_counted(student, tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [*(row for row, _ in FAULTY), QUESTIONS[0]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    rejected = read_questions(path).rejected
    assert [row.row for row in rejected] == [*range(1, len(FAULTY) + 1), len(rows) + 1]
    for row, (_, cause) in zip(rejected, FAULTY, strict=False):
        assert cause in row.cause
    heard = []
    found = SUITES.get("choice")(problems=str(path))(student, pa.table({}), seed=0, events=heard.append)
    assert found.counts["outcome"]["invalid"].total == len(FAULTY) + 1
    assert found.counts["all"]["all"].total == len(FAULTY) + 2
    notes = [event.text for event in heard if event.kind == "note"]
    assert len(notes) == len(FAULTY) + 1
    assert "row 3" in notes[2]


def test_a_question_longer_than_the_context_is_counted_and_not_cut(student, tmp_path):
    long = {**QUESTIONS[0], "question": "why " * CONTEXT}
    found = asked(student, written(tmp_path / "q.jsonl", [long, QUESTIONS[1]]))
    assert found.counts["outcome"]["too_long"].total == 1
    assert found.counts["all"]["all"].total == 2


def test_a_file_without_a_question_is_an_error(student, tmp_path):
    with pytest.raises(DataError, match="no row is a question"):
        asked(student, written(tmp_path / "q.jsonl", [{"text": "hello"}]))
    with pytest.raises(DataError, match="there is no such file"):
        asked(student, str(tmp_path / "q.parquet"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="Parquet"):
        asked(student, str(tmp_path / "torn.parquet"))


def test_it_needs_a_file_and_a_model_on_this_machine(tmp_path):
    with pytest.raises(RecipeError, match="needs a file"):
        SUITES.get("choice")()
    with pytest.raises(UserError, match="needs the model itself"):
        asked(object(), written(tmp_path / "q.jsonl", QUESTIONS))


def test_questions_become_samples_whose_options_the_difficulty_compares(tmp_path):
    found = choices_table(read_questions(written(tmp_path / "q.jsonl", QUESTIONS)))
    row = found.slice(1, 1).to_pylist()[0]
    assert row["prompt"] == "Question: What is 0 + 1?\nAnswer:"
    assert row["answer"] == row["options"][QUESTIONS[1]["answer"]] == " 1"
    assert row["category"] == "even"
