"""Facts about the suite of whole outputs."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_students import train, untrained

from gradatim.errors import DataError
from gradatim.evaluation import SUITES, summary
from gradatim.evaluation.output import can_become, numbers_in, paper_limit, values_in
from gradatim.inference.decode import complete
from gradatim.model.tokenizer import character_tokenizer, texts_of
from gradatim.programs import generate
from gradatim.stage import Counts


def ask(student, samples, seed=0, **options):
    return SUITES.get("output")(**options)(student, samples, seed=seed)


def with_answer(samples, *answers):
    return samples.set_column(samples.column_names.index("answer"), "answer", pa.array(answers, pa.large_string()))


def test_a_student_that_knows_the_programs_is_always_right(expert, programs):
    for protocol in ("greedy", "paper"):
        result = ask(expert, programs, protocol=protocol)
        assert result.counts["all"]["all"] == Counts(8, 8), result.examples
        assert (result.suite, result.protocol) == ("output", protocol)


def test_a_student_that_knows_nothing_is_always_wrong(novice, programs):
    for protocol in ("greedy", "paper"):
        assert ask(novice, programs, protocol=protocol).counts["all"]["all"] == Counts(0, 8)


def test_counts_are_split_by_every_column_that_is_there(expert, programs):
    counts = ask(expert, programs).counts
    assert counts["level"] == {"1.1": Counts(4, 4), "1.2": Counts(2, 2), "2.1": Counts(1, 1), "3.1": Counts(1, 1)}
    assert counts["band"] == {"easy": Counts(4, 4), "hard": Counts(3, 3), "none": Counts(1, 1)}
    assert counts["twin"] == {"new": Counts(4, 4), "twin": Counts(4, 4)}
    assert "category" not in counts


@pytest.mark.parametrize("protocol", ["greedy", "scratchpad", "paper"])
def test_the_same_seed_gives_the_same_result_whatever_the_batch(expert, programs, protocol):
    results = [ask(expert, programs, seed=3, protocol=protocol, batch=batch) for batch in (None, 1, 3)]
    assert len({str((result.counts, result.examples)) for result in results}) == 1


@pytest.mark.parametrize(
    ("truth", "greedy", "paper"),
    [
        ("# 5\n", 1, 1),
        ("#  5\n", 0, 1),
        ("# 5", 0, 1),
        ("# -5\n", 0, 0),
        ("# 5.0\n", 0, 1),
        ("# 5.1\n", 0, 0),
        ("# 5\n# 5\n", 0, 0),
    ],
)
def test_greedy_asks_for_the_whole_output_and_the_paper_for_its_numbers(expert, programs, truth, greedy, paper):
    question = with_answer(programs.slice(0, 1), truth)  # the expert writes "# 5\n"
    assert ask(expert, question).counts["all"]["all"].passed == greedy
    assert ask(expert, question, protocol="paper").counts["all"]["all"].passed == paper


@pytest.fixture(scope="module")
def stepper():
    """A student that writes a scratchpad, and its one program."""
    prompt = "a = 5\nprint(a * 2)\n# output\n"
    known = pa.table({"id": ["a"], "prompt": [prompt], "answer": ["# 5 * 2 = 10\n# 10\n"]})
    return train(untrained(character_tokenizer([*texts_of(known), "0123456789-"])), known, 80), known


@pytest.mark.parametrize(
    ("truth", "greedy", "scratchpad"),
    [
        ("# 5 * 2 = 10\n# 10\n", 1, 1),
        ("# 2 * 5 = 10\n# 10\n", 0, 1),
        ("# 10\n", 0, 1),
        ("# 5 * 2 = 10\n# 11\n", 0, 0),
        ("# 5 * 2 = 10\n# 10\n# 10\n", 0, 0),
        ("# 5 * 2 = 10\n", 0, None),  # no printed line: invalid
    ],
)
def test_the_protocol_scratchpad_compares_the_printed_lines_only(stepper, truth, greedy, scratchpad):
    student, known = stepper
    question = with_answer(known, truth)
    assert ask(student, question).counts["all"]["all"].passed == greedy
    result = ask(student, question, protocol="scratchpad")
    assert (result.protocol, result.counts["all"]["all"].passed) == ("scratchpad", scratchpad or 0)
    assert result.counts["outcome"]["invalid"].total == (scratchpad is None)
    assert result.examples[0]["attempt"] == "# 5 * 2 = 10\n# 10\n"


def test_the_papers_twenty_or_thirty_characters_begin_with_the_newline_after_the_program(expert, oddities):
    assert [paper_limit(text) for text in ("a\n# output\n", "for a\n# output\n", "a\n# output", "form\n")] == [
        19,
        29,
        20,
        19,
    ]
    long = oddities.slice(0, 2)
    assert ask(expert, long).counts["all"]["all"] == Counts(2, 2)
    result = ask(expert, long, protocol="paper")
    attempts = {example["id"]: (example["passed"], len(example["attempt"])) for example in result.examples}
    assert attempts == {"id0": (False, 19), "id1": (True, 28)}


def test_the_paper_reads_up_to_the_first_blank_line(expert, oddities):
    question = with_answer(oddities.slice(2, 1), "# 5\n")  # the expert writes "# 5\n\n# 9\n"
    assert ask(expert, question, protocol="paper").counts["all"]["all"] == Counts(1, 1)
    assert ask(expert, question).counts["all"]["all"] == Counts(0, 1)


def test_a_perfect_student_is_cut_where_outputs_are_long():
    """What the protocol can give at most; the issue's measurement on the published data is 97.5 %."""
    table = generate(2000, levels=["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"], seed=3).table
    pairs = list(zip(table["prompt"].to_pylist(), table["answer"].to_pylist(), strict=True))
    right = sum(values_in(answer[: paper_limit(prompt)]) == values_in(answer) for prompt, answer in pairs)
    assert 0.96 < right / len(pairs) < 0.99


def test_numbers_keep_their_sign_fraction_and_exponent():
    assert numbers_in("# -5.3\n# 12 -0 1e-05\n#7") == ["-5.3", "12", "-0", "1e-05", "7"]
    assert numbers_in("5") != numbers_in("5.0")
    assert values_in("5 -5.30 1e1") == values_in("5.0 -5.3 10") == [5.0, -5.3, 10.0]
    assert numbers_in("# output: none") == []


@given(st.text("-0159.eE+ #\n", max_size=30), st.integers(0, 30))
@example("# 9.99999999999999999999", 3)
@example("# 0.9e1", 5)
@example("# 12e-1", 4)
def test_a_text_can_always_become_what_it_becomes(text, end):
    assert can_become(text[:end], values_in(text))


@pytest.mark.parametrize(
    ("text", "numbers", "possible"),
    [
        ("", [5], True),
        ("# 1", [12], True),
        ("# 12\n# ", [12, 3], True),
        ("# 1.", [1.5], True),
        ("# 4.0", [4], True),
        ("# 4.0\n", [4], True),
        ("# 3", [4], True),  # 3.99999999999999999 is 4.0
        ("# 2", [12], False),
        ("# -1", [12], False),
        ("# 12\n", [1], False),
        ("# 1\n# 3", [12, 3], False),
        ("# 12\n# 3\n# 4", [12, 3], False),
    ],
)
def test_a_number_that_went_wrong_cannot_be_mended(text, numbers, possible):
    assert can_become(text, numbers) is possible


def own_words(student, protocol):
    """360 programs whose true answer is what the student writes, nearly that, something else, or wider."""
    names = "abcdefgh"
    prompts = [f"{names[n % 8]} = {n % 10}\n{'print' if n % 5 else 'for '}({n // 10})\n# output\n" for n in range(360)]
    greedy = protocol != "paper"
    limits = [80 if greedy else 29 if "for" in prompt else 19 for prompt in prompts]
    stop = () if greedy else ("\n\n",)
    found = complete(student.model, student.tokenizer, prompts, limits=limits, greedy=greedy, seed=4, stop=stop)
    written = [replace(one, text=one.text[:limit]) for one, limit in zip(found, limits, strict=True)]
    answers = []
    for n, one in enumerate(written):
        near = one.text[:-1] + "7" if n % 2 else one.text + " 7"
        respaced = one.text.replace(" ", "  ")
        answers.append((one.text, near, f"# {n}\n", respaced)[n % 4] or "# 1\n")
    table = pa.table({"prompt": prompts, "answer": answers, "level": [f"{n:03}" for n in range(360)]})
    return table, answers, written


@pytest.mark.parametrize("protocol", ["greedy", "scratchpad", "paper"])
def test_verdicts_and_examples_are_those_of_texts_written_to_the_end(guesser, protocol):
    table, answers, written = own_words(guesser, protocol)
    if protocol != "paper":
        right = [one.finish == "eos" and one.text == answer for one, answer in zip(written, answers, strict=True)]
    else:
        right = [
            bool(numbers_in(answer)) and values_in(one.text) == values_in(answer.split("\n\n")[0])
            for one, answer in zip(written, answers, strict=True)
        ]
    assert 20 < sum(right) < 300
    result = ask(guesser, table, seed=4, protocol=protocol)
    assert [result.counts["level"][f"{n:03}"].passed for n in range(360)] == right
    assert len(result.examples) == 12
    for shown in result.examples:
        assert shown["attempt"] == written[int(shown["level"])].text


def test_a_greedy_student_is_read_once_and_writes_for_the_examples_only(novice, programs):
    widths = []
    handle = novice.model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    steps = []
    try:
        for often in (8, 64):
            widths.clear()
            ask(novice, pa.concat_tables([programs] * often), batch=16)
            assert sum(width > 1 for width in widths) == often // 2 + 1
            steps.append(widths.count(1))
    finally:
        handle.remove()
    assert steps[0] == steps[1]


def test_what_cannot_be_asked_is_counted_and_named(expert, programs):
    table = pa.table(
        {
            "prompt": ["é = 1\n# output\n", "a" * 90, programs["prompt"][0].as_py(), "a\n", "a\n# output\n"],
            "answer": ["# 1\n", "# 5\n", "# 5\n", "", "# nothing\n"],
        }
    )
    result = ask(expert, table)
    assert result.counts["outcome"] == {
        "passed": Counts(1, 1),
        "failed": Counts(0, 1),
        "too_long": Counts(0, 1),
        "invalid": Counts(0, 2),
    }
    assert summary(result)["counts"] == {"passed": 1, "failed": 2, "timeout": 0, "invalid": 2, "total": 5}
    assert ask(expert, table, protocol="paper").counts["outcome"]["invalid"] == Counts(0, 3)
    assert [example["outcome"] for example in result.examples][:2] == ["passed", "invalid"]


def test_a_limit_chooses_by_the_seed_and_a_larger_one_keeps_the_smaller(expert, programs):
    def ids(limit, seed):
        return {example["id"] for example in ask(expert, programs, seed=seed, limit=limit).examples}

    assert len(ids(3, 1)) == 3
    assert ids(3, 1) <= ids(5, 1)
    assert len({frozenset(ids(3, seed)) for seed in range(6)}) > 1
    assert ask(expert, programs, limit=99).counts["all"]["all"].total == 8


def test_examples_are_six_of_each_kind_at_most(novice, expert, programs):
    assert [example["passed"] for example in ask(expert, programs).examples] == [True] * 6
    wrong = ask(novice, programs).examples
    assert [example["passed"] for example in wrong] == [False] * 6
    assert wrong[0]["prompt"] == programs["prompt"][0].as_py()
    assert wrong[0]["expected"] == "# 5\n"
    assert {"id", "attempt", "level", "band"} <= set(wrong[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda t: t.slice(0, 0), "no samples"), (lambda t: t.drop_columns(["answer"]), "no column 'answer'")],
)
def test_a_table_that_cannot_be_asked_says_why(expert, programs, change, words):
    with pytest.raises(DataError, match=words):
        ask(expert, change(programs))
