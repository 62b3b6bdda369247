"""Splits: disjoint, deterministic, with twins counted."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import DataError
from gradatim.programs.equivalence import canonical, sliced
from gradatim.table import Split, make_table, questions, split
from gradatim.table.rows import largest_remainder


def programs(count: int, names: str = "abc", values: int = 60) -> pa.Table:
    """``count`` programs of few forms under several names, in three levels of sizes 6 : 3 : 1."""
    draw = random.Random(count)
    prompts, levels = [], []
    for i in range(count):
        one, two = draw.sample(names, 2)
        level = "1.1" if i % 10 < 6 else "2.1" if i % 10 < 9 else "3.1"
        prompts.append(f"{one} = {draw.randrange(values)}\n{two} = {one} + {level}\nprint({two})\n# output\n")
        levels.append(level)
    return make_table({"prompt": prompts, "answer": ["# 1\n"] * count, "level": levels})


def forms(table: pa.Table, form: Callable[[str], str] = canonical) -> set[str]:
    return {form(text) for text in questions(table).to_pylist()}


def rows(*tables: pa.Table) -> Counter[str]:
    return Counter(str(row) for table in tables for row in table.select(["prompt", "answer", "level"]).to_pylist())


def fingerprint(made: Split) -> str:
    content = str([made.test.to_pylist(), made.validation.to_pylist(), sorted(rows(made.train).items())])
    return hashlib.sha256(content.encode()).hexdigest()


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(30, 150),
    values=st.integers(60, 300),
    seed=st.integers(0, 2**40),
    by=st.sampled_from(["canonical", "text", "random"]),
)
def test_the_three_sets_together_are_the_table(count, values, seed, by):
    table = programs(count, values=values)
    made = split(table, validation=3, test=5, seed=seed, by=by)
    assert rows(made.train, made.validation, made.test) == rows(table)
    assert made.test.num_rows <= 5
    assert made.validation.num_rows <= 3


@settings(deadline=None, max_examples=40)
@given(count=st.integers(30, 150), values=st.integers(60, 300), seed=st.integers(0, 2**40))
def test_no_canonical_form_is_in_two_sets(count, values, seed):
    made = split(programs(count, values=values), validation=6, test=9, seed=seed, by="canonical")
    assert not forms(made.train) & forms(made.test)
    assert not forms(made.train) & forms(made.validation)
    assert not forms(made.validation) & forms(made.test)
    assert set(made.test["twin"].to_pylist()) == {"new"}
    assert made.facts["twins"] == {"test": 0, "validation": 0}


def with_unused_assignments(count: int) -> pa.Table:
    """``count`` programs, each in three variants that differ in a variable that is never used."""
    rows = [
        (f"a = {number}\n{unused}print(a + {number % 7})\n# output\n", "1.1" if number % 2 else "2.1")
        for number in range(count)
        for unused in ("", "b = 3\n", "b = 4\n")
    ]
    prompts, levels = zip(*rows, strict=True)
    return make_table({"prompt": prompts, "answer": ["# 1\n"] * len(rows), "level": levels})


def test_by_slice_a_program_with_an_unused_assignment_is_not_new():
    table = with_unused_assignments(100)
    made = split(table, validation=10, test=20, seed=4)
    sets = [forms(part, sliced) for part in (made.train, made.validation, made.test)]
    assert [len(forms_of_set) for forms_of_set in sets] == [70, 10, 20]
    assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]
    assert set(made.test["twin"].to_pylist()) == {"new"}


def test_by_slice_one_row_of_each_form_is_held_out_and_the_others_are_dropped():
    made = split(with_unused_assignments(100), validation=10, test=20, seed=4)
    assert (made.train.num_rows, made.validation.num_rows, made.test.num_rows) == (210, 10, 20)
    assert made.facts["dropped"] == 60
    assert made.facts["rows"]["test"] == {"all": 20, "1.1": 10, "2.1": 10}


@pytest.mark.parametrize(("by", "form"), [("slice", sliced), ("canonical", canonical), ("text", str)])
def test_dropped_duplicates_leave_one_training_program_of_each_form_and_the_held_out_sets_as_they_are(by, form):
    table = programs(600, values=40)
    kept = split(table, validation=20, test=40, seed=3, by=by)
    dropped = split(table, validation=20, test=40, seed=3, by=by, duplicates="drop")
    assert dropped.validation.equals(kept.validation)
    assert dropped.test.equals(kept.test)
    assert forms(dropped.train, form) == forms(kept.train, form)
    assert dropped.train.num_rows == len(forms(kept.train, form)) < kept.train.num_rows
    further = kept.train.num_rows - dropped.train.num_rows
    assert dropped.facts["dropped"] - kept.facts.get("dropped", 0) == further
    shuffled = table.take(np.random.default_rng(5).permutation(table.num_rows))
    again = split(shuffled, validation=20, test=40, seed=3, by=by, duplicates="drop")
    assert rows(again.train) == rows(dropped.train)


def test_levels_that_are_only_trained_on_keep_their_duplicates():
    table = programs(600, values=40)
    levels = {"validation": 5, "test": 10, "seed": 3, "by": "slice", "levels": ["1.1", "2.1"]}
    kept, dropped = split(table, **levels), split(table, **levels, duplicates="drop")
    count = {name: Counter(made.train["level"].to_pylist()) for name, made in (("kept", kept), ("dropped", dropped))}
    assert count["dropped"]["3.1"] == count["kept"]["3.1"]
    assert count["dropped"]["1.1"] < count["kept"]["1.1"]


def test_of_several_answers_one_stays_whatever_the_order_of_the_rows():
    prompts = programs(200, values=30)["prompt"].to_pylist()
    table = make_table({"prompt": [*prompts, *prompts], "answer": ["# 1\n"] * 200 + ["# 2\n"] * 200})
    made = split(table, validation=5, test=10, seed=3, by="text", duplicates="drop")
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    again = split(shuffled, validation=5, test=10, seed=3, by="text", duplicates="drop")
    assert rows(made.train) == rows(again.train)
    assert set(made.train["answer"].to_pylist()) == {"# 1\n", "# 2\n"}
    assert made.train.num_rows == len(forms(made.train, str))


def test_by_canonical_form_rows_with_the_slice_of_a_training_program_are_marked():
    made = split(with_unused_assignments(300), validation=10, test=60, seed=4, by="canonical")
    trained = forms(made.train, sliced)
    twins = ["twin" if sliced(row["prompt"]) in trained else "new" for row in made.test.to_pylist()]
    assert made.test["twin"].to_pylist() == twins
    assert made.facts["twins"]["test"] == twins.count("twin") > 0


def test_by_text_equal_programs_stay_together_and_renamed_twins_are_marked():
    table = programs(600)
    made = split(table, validation=20, test=60, seed=3, by="text")
    assert not set(made.train["prompt"].to_pylist()) & set(made.test["prompt"].to_pylist())
    trained = forms(made.train, sliced)
    for row in made.test.to_pylist():
        assert row["twin"] == ("twin" if sliced(row["prompt"]) in trained else "new")
    assert made.facts["twins"]["test"] == made.test["twin"].to_pylist().count("twin") > 0


def test_at_random_even_equal_rows_may_part():
    table = make_table({"answer": ["same"] * 100})
    made = split(table, validation=10, test=20, seed=1, by="random")
    assert (made.train.num_rows, made.validation.num_rows, made.test.num_rows) == (70, 10, 20)
    assert made.facts["twins"] == {"test": 20, "validation": 10}


@pytest.mark.parametrize("by", ["slice", "canonical", "text", "random"])
def test_the_order_of_the_rows_changes_nothing(by):
    table = programs(500)
    order = list(range(500))
    random.Random(1).shuffle(order)
    made = split(table, validation=30, test=50, seed=5, by=by)
    again = split(table.take(pa.array(order)), validation=30, test=50, seed=5, by=by)
    assert fingerprint(made) == fingerprint(again)
    assert made.facts == again.facts


def test_the_test_set_does_not_depend_on_the_validation_set():
    table = programs(500)
    small, large = (split(table, validation=n, test=50, seed=5).test for n in (1, 100))
    assert small.equals(large)


def test_another_seed_gives_another_test_set():
    table = programs(500)
    assert forms(split(table, validation=0, test=50, seed=1).test) != forms(
        split(table, validation=0, test=50, seed=2).test
    )


def test_every_process_makes_the_same_split_whatever_its_hash_seed():
    script = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]\n"
        "from test_split import fingerprint, programs\nfrom gradatim.table import split\n"
        "print(fingerprint(split(programs(300), validation=10, test=20, seed=7)))"
    )
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("0", "1")
    ]
    printed = {run.stdout.strip() for run in runs}
    assert printed == {fingerprint(split(programs(300), validation=10, test=20, seed=7))}


def test_each_level_has_its_share_of_the_test_set():
    table = programs(2000, names="abcdefghij", values=10**6)
    made = split(table, validation=50, test=100, seed=2)
    assert made.facts["rows"]["test"] == {"all": 100, "1.1": 60, "2.1": 30, "3.1": 10}
    assert made.facts["rows"]["validation"] == {"all": 50, "1.1": 30, "2.1": 15, "3.1": 5}
    assert made.facts["rows"]["train"]["all"] == 1850
    assert made.facts["short"] == {"test": {}, "validation": {}}


def test_samples_without_a_level_are_split_as_one():
    made = split(make_table({"answer": [f"x = {i}" for i in range(50)]}), validation=0, test=10, seed=0)
    assert made.facts["rows"]["test"] == {"all": 10, "none": 10}


def test_twins_are_not_divided_even_when_a_set_then_comes_out_short():
    answers = [f"{name} = {value}\n" for value in range(10) for name in "abc"]
    made = split(make_table({"answer": answers}), validation=0, test=7, seed=0, by="canonical")
    assert made.test.num_rows == 6
    assert made.facts["short"]["test"] == {"none": 1}
    assert made.facts["forms"] == {"train": 8, "validation": 0, "test": 2}
    assert made.facts["twin_groups"] == {"train": 8, "validation": 0, "test": 2}


def test_another_key_makes_other_twins():
    table = make_table({"answer": [f"{word} {i}" for i in range(20) for word in ("how", "why")]})
    made = split(table, validation=0, test=6, seed=0, by="canonical", key=lambda text: text.split()[1])
    numbers = [{text.split()[1] for text in side["answer"].to_pylist()} for side in (made.train, made.test)]
    assert not numbers[0] & numbers[1]
    assert made.test.num_rows == 6


def test_several_answers_to_one_question_stay_together():
    table = make_table({"prompt": [f"q{i % 20}" for i in range(60)], "answer": [str(i) for i in range(60)]})
    made = split(table, validation=0, test=9, seed=0, by="text", key=str)
    assert not set(made.train["prompt"].to_pylist()) & set(made.test["prompt"].to_pylist())


@pytest.mark.parametrize("by", ["canonical", "text", "random"])
def test_levels_that_are_not_named_are_only_learnt_from(by):
    table = programs(300)
    made = split(table, validation=10, test=20, seed=1, by=by, levels=["2.1", "3.1"])
    for part in (made.validation, made.test):
        assert set(part["level"].to_pylist()) == {"2.1", "3.1"}
    assert (made.validation.num_rows, made.test.num_rows) == (10, 20)
    assert made.train["level"].to_pylist().count("1.1") == 180
    assert rows(made.train, made.validation, made.test) == rows(table)


def test_a_twin_of_what_is_only_learnt_from_is_learnt_from():
    shared = "a = 1\nprint(a)\n"
    others = [f"a = {number}\nprint(a)\n" for number in range(2, 9)]
    level = ["0.1", "1.1"] + ["1.1"] * len(others)
    table = make_table({"prompt": [shared, shared, *others], "answer": ["# 1\n"] * 9, "level": level})
    for seed in range(8):
        made = split(table, validation=1, test=6, seed=seed, levels=["1.1"])
        assert made.train["prompt"].to_pylist() == [shared, shared]


def test_a_level_that_is_not_there_cannot_be_held_out():
    with pytest.raises(DataError, match=r"no such level.*2\.2.*1\.1, 2\.1, 3\.1"):
        split(programs(60), validation=1, test=1, seed=0, levels=["1.1", "2.2"])


def test_the_first_rows_of_the_test_set_are_a_sample_of_all_its_levels():
    made = split(programs(2000, names="abcdefghij", values=10**6), validation=0, test=200, seed=2)
    assert set(made.test["level"].to_pylist()[:40]) == {"1.1", "2.1", "3.1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"validation": 5, "test": 5}, "given: 10 samples, validation 5, test 5"),
        ({"validation": -1, "test": 5}, "validation -1"),
        ({"validation": 1, "test": 1, "by": "canon"}, "there is no such split; given: canon"),
    ],
)
def test_a_split_that_cannot_be_made_is_told_with_its_numbers(arguments, said):
    with pytest.raises(DataError) as caught:
        split(programs(10), seed=0, **arguments)
    assert said in str(caught.value)


def test_a_set_that_no_group_of_twins_fits_into_is_told():
    table = make_table({"answer": [f"{name} = 1" for name in "abcdefghij"]})
    with pytest.raises(DataError, match="no group of twins is small enough for the test set"):
        split(table, validation=0, test=3, seed=0, by="canonical")


@pytest.mark.parametrize(
    ("count", "weights", "numbers"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (10, [0.5, 0.25, 0.25], [5, 3, 2]),
        (7, [3, 0, 1], [5, 0, 2]),
        (10**18 + 1, [1, 1], [5 * 10**17 + 1, 5 * 10**17]),
        (0, [1.0], [0]),
        (0, [0, 0], [0, 0]),
    ],
)
def test_numbers_are_apportioned_by_the_largest_remainder(count, weights, numbers):
    assert largest_remainder(count, dict(enumerate(weights))) == dict(enumerate(numbers))


def test_held_out_sets_that_take_every_form_are_an_error():
    table = make_table({"prompt": [f"a = {i % 4}\nprint(a)\n" for i in range(40)], "answer": ["# 1\n"] * 40})
    with pytest.raises(DataError, match="leave no sample for training; given: 4 different forms in 40 samples"):
        split(table, validation=2, test=3, seed=0)


def test_a_histogram_of_values_that_are_too_close_for_bins_has_one_bin():
    from gradatim.results import _histogram

    counts, edges = _histogram(np.array([1.7e18] * 3))
    assert counts.tolist() == [3]
    assert edges[0] < 1.7e18 < edges[1]
