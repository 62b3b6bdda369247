"""Generated programs are reproducible, distinct, well formed and fully accounted for."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from gradatim.errors import DataError
from gradatim.programs import LEVELS, Generated, Level, generate, stream
from gradatim.programs.grammar import characters
from gradatim.stage import Event
from gradatim.table import SCHEMA, sample_id

PUBLISHED = [name for name in LEVELS if not name.startswith("0.")]
TINY = replace(LEVELS["1.1"], name="tiny", initialisations=(1, 1), assignments=(0, 0), letters="ab")
"""A level with few distinct programs: `a = 4`, then a print of one operation."""

HASH = """
import hashlib, sys
from gradatim.programs import generate
if __name__ == "__main__":
    table = generate(3000, seed=7, workers=int(sys.argv[1])).table
    print(hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest())
"""


def texts(table: pa.Table) -> list[str]:
    return [p + a for p, a in zip(table["prompt"].to_pylist(), table["answer"].to_pylist(), strict=True)]


@pytest.fixture(scope="module")
def sample() -> Generated:
    return generate(7000, seed=3)


def test_workers_and_hash_seeds_do_not_change_a_byte(tmp_path: Path) -> None:
    script = tmp_path / "generate_and_hash.py"
    script.write_text(HASH)
    expected = hashlib.sha256(repr(generate(3000, seed=7).table.to_pylist()).encode()).hexdigest()
    for workers, hash_seed in (("1", "1"), ("3", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(script), workers]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == expected


def test_a_script_without_main_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text("from gradatim.programs import generate\ngenerate(50, workers=2)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "WorkFailed: generate: the processes that write programs ended" in done.stderr
    assert "__main__" in done.stderr.splitlines()[-1]


def test_the_counts_do_not_depend_on_the_workers() -> None:
    one, two = (generate(1500, levels=["1.1", "1.2"], seed=5, workers=workers) for workers in (1, 2))
    assert one.facts == two.facts
    assert one.table.equals(two.table)


def test_the_programs_of_a_seed_stay_the_same_in_later_versions() -> None:
    table = generate(70, seed=0).table
    digest = hashlib.sha256("\n".join(texts(table)).encode()).hexdigest()
    assert digest.startswith("6ab92a4519080e73"), "the generator changed: say so in the changelog"


def test_another_seed_or_digits_gives_other_programs() -> None:
    base, seed, digits = (
        set(texts(generate(1000, levels=["2.2"], **options).table)) for options in ({}, {"seed": 1}, {"digits": 255})
    )
    assert len(base & seed) < 10
    assert len(base & digits) < 10


def test_stream_gives_the_rows_of_generate_in_batches(sample: Generated) -> None:
    batches = stream(40_000, seed=3)
    parts = list(batches)
    assert len(parts) > 1
    assert all(part.schema == SCHEMA for part in parts)
    whole = generate(40_000, seed=3)
    assert pa.Table.from_batches(parts).to_pylist() == whole.table.to_pylist()
    assert batches.facts == whole.facts


def test_rows_have_the_schema_and_their_content_ids(sample: Generated) -> None:
    sample.table.validate(full=True)
    assert sample.table.schema == SCHEMA
    for row in sample.table.slice(0, 200).to_pylist():
        assert row["id"] == sample_id("python", row["prompt"])
        assert (row["language"], row["source"], row["parent"], row["rejected"]) == ("python", "tinypy", None, None)


def test_levels_share_evenly_and_are_interleaved(sample: Generated) -> None:
    levels = sample.table["level"].to_pylist()
    assert {name: levels.count(name) for name in PUBLISHED} == dict.fromkeys(PUBLISHED, 1000)
    assert set(levels[:7]) == set(PUBLISHED)
    uneven = generate(10, levels=["1.1", "2.1", "4.1"]).facts
    assert [level.kept for level in uneven.levels.values()] == [4, 3, 3]


def test_no_program_occurs_twice_and_every_attempt_is_counted(sample: Generated) -> None:
    prompts = sample.table["prompt"].to_pylist()
    assert len(set(prompts)) == len(prompts) == sample.facts.kept == sample.facts.asked
    assert sample.facts.duplicates > 0
    assert sample.facts.dropped.keys() == {"ZeroDivisionError"}


def test_dedupe_can_be_switched_off() -> None:
    found = generate(2000, levels=[TINY], dedupe=False)
    assert found.facts.duplicates == 0
    assert len(set(found.table["prompt"].to_pylist())) < 2000


def test_duplicates_are_those_that_dedupe_drops() -> None:
    kept = generate(400, levels=[TINY], seed=2)
    attempts = 400 + kept.facts.duplicates
    loose = generate(attempts, levels=[TINY], seed=2, dedupe=False)
    assert list(dict.fromkeys(texts(loose.table))) == texts(kept.table)


def test_a_level_that_runs_dry_says_how_many_programs_there_are() -> None:
    terms = ["x", *map(str, range(10))]
    every = {(n, a, o, b) for n in range(10) for a in terms for b in terms for o in "+-*/" if "x" in (a, b)}
    dividing_by_zero = sum(o == "/" and (b == "0" or (b == "x" and n == 0)) for n, a, o, b in every)
    distinct = 2 * (len(every) - dividing_by_zero)  # two letters
    with pytest.raises(DataError, match=r"level tiny: the level has too few distinct programs: \d+ found") as caught:
        generate(100_000, levels=[TINY])
    found = int(re.search(r"(\d+) found", str(caught.value))[1])  # type: ignore[index]
    assert 0.97 * distinct < found <= distinct


@pytest.mark.parametrize("digits", [9, 255])
def test_programs_look_like_tinypy(digits: int) -> None:
    table = generate(3500, digits=digits, seed=1).table
    for text in texts(table):
        program, _, output = text.partition("# output\n")
        assert re.fullmatch(r"(?:# -?[\d.e+-]+\n)+", output), text
        assert all(len(name) == 1 for name in re.findall(r"^\t?(\w+) =", program, re.M)), text
        assert all(line.endswith(" :") for line in re.findall(r"^.*:$", program, re.M)), text
        assert all(int(literal) <= digits for literal in re.findall(r"\b\d+\b", program)), text
    if digits == 255:
        assert re.search(r"\b2\d\d\b", "".join(texts(table)))


def test_each_level_holds_its_own_constructs(sample: Generated) -> None:
    programs: dict[str, str] = dict.fromkeys(PUBLISHED, "")
    for row in sample.table.to_pylist():
        programs[row["level"]] += row["prompt"]
    for name, words in {"2.1": "if", "2.2": "if and or not elif else", "3.1": "for", "4.1": "while"}.items():
        assert all(re.search(rf"\b{word}\b", programs[name]) for word in words.split())
    assert not re.search(r"\b(if|for|while|and|or|not)\b|\(\w [-+*/] \w\) ", programs["1.1"])
    assert not re.search(r"\b(for|while|and|or|not)\b", programs["2.1"])
    assert not re.search(r" [-+*/] ", programs["3.1"])
    assert not re.search(r"\b(if|for)\b", programs["4.1"])
    assert re.search(r"\(\w [-+*/] \w\) [-+*/]", programs["1.2"])


def test_initialisations_stay_under_the_published_maximum(sample: Generated) -> None:
    most = {"1.1": 2, "1.2": 3, "2.1": 2, "2.2": 5, "3.1": 2, "3.2": 4, "4.1": 2}
    seen = dict.fromkeys(most, 0)
    for row in sample.table.to_pylist():
        seen[row["level"]] = max(seen[row["level"]], len(re.findall(r"^\w = \d+$", row["prompt"], re.M)))
    # An assignment of a richer expression is never a bare literal, so what is counted are initialisations.
    assert seen == most


def test_loops_run_two_or_three_times(sample: Generated) -> None:
    loops = [r for r in sample.table.to_pylist() if r["level"] in {"3.1", "3.2", "4.1"}]
    for row in loops:
        # A name that no program has, counted up by the suite, tells how often the loop ran.
        counted = re.sub(r"^(for|while)(.*)\n", r"\1\2\n\tturns += 1\n", "turns = 0\n" + row["prompt"], flags=re.M)
        state: dict[str, object] = {"print": lambda value: None}
        exec(compile(ast.parse(counted), "row", "exec"), state)
        assert state["turns"] in (2, 3), row["prompt"]


def test_what_comes_before_the_published_levels_looks_a_number_up() -> None:
    newest = 0
    for row in generate(500, levels=["0.1"]).table.to_pylist():
        *lines, shown = row["prompt"].removesuffix("# output\n").splitlines()
        known = dict(line.split(" = ") for line in lines)
        name = shown.removeprefix("print(").removesuffix(")")
        assert 2 <= len(known) == len(lines) <= 4
        assert row["answer"] == f"# {int(known[name])}\n"
        newest += name == list(known)[-1]
    assert newest < 250  # no name is the safe guess


def test_what_comes_before_branches_asks_which_of_two_is_printed() -> None:
    shape = re.compile(r"(?:[a-z] = \d\n){1,2}if [a-z] \S+ \w :\n\tprint\(\w\)\nelse :\n\tprint\(\w\)\n# output\n")
    taken = Counter()
    for row in generate(500, levels=["0.2"]).table.to_pylist():
        assert shape.fullmatch(row["prompt"]), row["prompt"]
        first, second = re.findall(r"print\((\w)\)", row["prompt"])
        known = dict(re.findall(r"(\w) = (\d)", row["prompt"]))
        values = [known.get(word, word) for word in (first, second)]
        if values[0] != values[1]:
            taken[values.index(row["answer"].removeprefix("# ").strip())] += 1
    assert min(taken.values()) > 150  # neither branch is the safe guess


def test_what_comes_before_brackets_has_one_name_and_two_steps() -> None:
    for row in generate(500, levels=["0.3"]).table.to_pylist():
        assert re.fullmatch(r"[a-z] = \d\nprint\(.*\)\n# output\n", row["prompt"]), row["prompt"]
        assert len(re.findall(r" [-+*/] ", row["prompt"])) >= 2


def test_mean_lengths_are_near_the_published_ones(sample: Generated) -> None:
    total: dict[str, list[int]] = {name: [] for name in PUBLISHED}
    for level, text in zip(sample.table["level"].to_pylist(), texts(sample.table), strict=True):
        total[level].append(len(text))
    mean = {name: sum(lengths) / len(lengths) for name, lengths in total.items()}
    assert mean["1.1"] == pytest.approx(42, abs=4)
    assert mean["2.2"] == pytest.approx(98, abs=8)
    assert sum(mean.values()) / len(mean) == pytest.approx(70, abs=5)
    assert max(mean, key=mean.__getitem__) == "2.2"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"count": 0}, "number of programs"),
        ({"count": 2.5}, "number of programs"),
        ({"digits": 8}, "whole numbers from 9 to 65535"),
        ({"workers": 0}, "workers"),
        ({"levels": ["1.3"]}, "0.1, 0.2, 0.3, 1.1, 1.2, 2.1, 2.2, 3.1, 3.2, 4.1, all"),
        ({"levels": []}, "no TinyPy level"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_made(options: dict[str, object], part: str) -> None:
    with pytest.raises(DataError, match=part):
        stream(**{"count": 5, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"blocks": ("while",)}, {"bodies": ("jump",)}, {"letters": "ab"}, {"letters": "aaaaa"}]
)
def test_a_row_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="level x"):
        Level("x", "mine", (1, 2), **wrong)  # type: ignore[arg-type]


def test_events_tell_the_progress() -> None:
    heard: list[Event] = []
    generate(2000, levels="2.1", events=heard.append)
    assert [heard[0].kind, heard[-1].kind] == ["start", "finish"]
    assert all(a.done <= b.done for a, b in pairwise(heard))
    assert heard[-1].done == heard[-1].total == 2000


def test_a_stream_may_be_left_early() -> None:
    batches = stream(200_000, levels=["1.2"], workers=2)
    assert next(batches).num_rows >= 16_384
    batches.close()
    assert list(batches) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_large_sample_has_exactly_the_characters_of_its_level(level):
    table = generate(1500, levels=(level,), seed=5).table
    texts = [*table["prompt"].to_pylist(), *table["answer"].to_pylist()]
    assert {character for text in texts for character in text} == characters([level])
