"""Facts about the suites of next characters and next lines."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from small_students import train, untrained

from gradatim.evaluation import SUITES
from gradatim.evaluation.completion import edit_similarity, fuzzy_ratio
from gradatim.evaluation.generation import Question, Writing, write
from gradatim.model.tokenizer import bpe_tokenizer, texts_of
from gradatim.stage import Counts


def ask(suite, student, samples, seed=0, **options):
    return SUITES.get(suite)(**options)(student, samples, seed=seed)


def test_token_counts_the_likeliest_character_after_every_prefix(novice, programs):
    passed = total = 0
    for prompt in programs["prompt"].to_pylist():
        numbers = novice.tokenizer(prompt)["input_ids"]
        for place in range(1, len(numbers)):
            with torch.no_grad():
                best = int(novice.model(torch.tensor([numbers[:place]])).logits[0, -1].argmax())
            passed, total = passed + (best == numbers[place]), total + 1
    assert ask("token", novice, programs).counts["all"]["all"] == Counts(passed, total)


def test_an_expert_foresees_more_than_a_novice(novice, expert, programs):
    for protocol in ("greedy", "paper"):
        for suite in ("token", "line"):
            low, high = (
                ask(suite, student, programs, protocol=protocol).counts["all"]["all"].passed
                for student in (novice, expert)
            )
            assert high > low


def test_text_all_asks_about_the_answer_too(expert, programs):
    total = ask("token", expert, programs, text="all").counts["all"]["all"].total
    assert total == sum(len(text) - 1 for text in texts_of(programs))


def test_code_without_a_prompt_is_asked_about_as_it_is(expert, programs):
    code = pa.table({"prompt": ["", ""], "answer": programs["prompt"].to_pylist()[:2]})
    as_prompts = pa.table({"prompt": code["answer"], "answer": code["prompt"]})
    for suite in ("token", "line"):
        assert ask(suite, expert, code).counts == ask(suite, expert, as_prompts).counts


def test_characters_beyond_the_context_and_unknown_ones_stay_in_the_total(expert):
    table = pa.table({"prompt": ["a" * 100, "aé = 1", "a"], "answer": ["", "", ""]})
    outcome = ask("token", expert, table).counts["outcome"]
    assert outcome["too_long"].total == 99 - 80
    assert outcome["invalid"].total == 5
    assert outcome["passed"].total + outcome["failed"].total == 80


def test_every_line_after_the_first_is_asked_once(expert):
    table = pa.table({"prompt": ["a = 1\n\nb = 2\nprint(a)", "a\n", "", "a = 3\nb"], "answer": [""] * 4})
    result = ask("line", expert, table)
    assert result.counts["all"]["all"].total == 3
    assert [(one["prompt"], one["expected"]) for one in sorted(result.examples, key=lambda one: one["prompt"])] == [
        ("a = 1\n\n", "b = 2"),
        ("a = 1\n\nb = 2\n", "print(a)"),
        ("a = 3\n", "b"),
    ]


def test_a_line_is_as_long_as_the_true_one_and_its_similarity_is_summed(novice, programs):
    for protocol in ("greedy", "paper"):
        result = ask("line", novice, programs.slice(0, 3), protocol=protocol)
        shown = result.examples
        assert len(shown) == result.counts["all"]["all"].total == 6
        assert all(len(one["attempt"].replace("<pad>", "0")) <= len(one["expected"]) for one in shown)
        total = sum(edit_similarity(one["attempt"], one["expected"]) for one in shown)
        assert result.scores["edit_similarity"] == (pytest.approx(total), 6)
        fuzzy = sum(fuzzy_ratio(one["attempt"], one["expected"]) for one in shown)
        assert result.scores.get("fuzzy_ratio") == (None if protocol == "greedy" else (pytest.approx(fuzzy), 6))


def test_a_known_line_is_written_exactly(expert, programs):
    result = ask("line", expert, programs, text="all")
    known = [one for one in result.examples if one["expected"].startswith("# ") and one["passed"]]
    assert known
    passed, total = result.scores["edit_similarity"]
    assert 0.5 < passed / total <= 1


def test_a_limit_on_lines_chooses_by_the_seed(novice, programs):
    first, again, other = (ask("line", novice, programs, seed=seed, limit=4) for seed in (1, 1, 2))
    assert first.counts["all"]["all"].total == 4
    assert first.examples == again.examples
    assert first.examples != other.examples


@pytest.fixture(scope="module")
def indented():
    """A program, and a student that knows it by heart, whose tokens join line ends and the indentation behind them."""
    program = "def f(a):\n    return a\n    if b:\n        return 2\n"
    samples = pa.table({"prompt": [program], "answer": [""]})
    student = train(untrained(bpe_tokenizer([program] * 20, 300)), samples, 60)
    tokens = map(student.tokenizer.decode, student.tokenizer(program)["input_ids"])
    assert sum(text.startswith("\n ") for text in tokens) == 3
    return program, samples, student


def test_a_line_is_asked_where_the_tokenizer_would_have_cut(indented):
    _, samples, student = indented
    assert ask("line", student, samples).counts["all"]["all"] == Counts(3, 3)


def test_a_problem_without_a_template_is_asked_where_the_tokenizer_would_have_cut(indented):
    program, _, student = indented
    header, _, body = program.partition("\n")
    (some,) = write(student, [Question("f", header + "\n", 0, stop=("\n",))], Writing(tokens=20))
    assert [each.text for each in some] == [body.partition("\n")[0]]
