"""Scratchpads on the page, in `gradatim sample` and in exports: only the printed lines are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import ask, browser, needs_browser, said
from conftest import SMALL
from small_students import train, untrained

from gradatim import api
from gradatim.cli.main import main
from gradatim.export import proof
from gradatim.model.load import load_student
from gradatim.model.tokenizer import character_tokenizer, texts_of
from gradatim.show.content import plain, read
from gradatim.show.page import write_page

PROMPT = "b = 3\nif b > 2 :\n\tprint(b * 7)\n# output\n"
STEPS = ("# b = 3\n# b=3 > 2 = True\n# b=3 * 7 = 21\n", "# b = 3\n# b=3 > 2 = False\n# b=3 * 9 = 21\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three models: they write true steps, false steps with the right output, and a wrong output."""
    folder = tmp_path_factory.mktemp("show") / "scratchpad"
    protocols = ("paper", "greedy", "scratchpad")
    suites = "evaluate.suites=[" + ", ".join(f"{{suite: output, protocol: {name}}}" for name in protocols) + "]"
    changes = ("data.scratchpad=true", suites, "student.context_length=256", "train.max_length=256")
    api.run("smoke/hybrid", folder, changes=(*SMALL, *changes))
    answers = [f"{STEPS[0]}# 21\n", f"{STEPS[1]}# 21\n", f"{STEPS[0]}# 27\n"]
    for path, answer in zip(sorted(folder.glob("cycle-*/stage-*/model")), answers, strict=True):
        known = pa.table({"id": ["a"], "prompt": [PROMPT], "answer": [answer]})
        student = train(untrained(character_tokenizer([*texts_of(known), *STEPS, "0123456789"]), 128), known, 100)
        student.model.save_pretrained(path)
        student.tokenizer.save_pretrained(path)
    return folder


def test_the_map_is_that_of_the_printed_lines(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    for path in (tmp_path / "run").glob("cycle-*/stage-*/evaluation-output-scratchpad.parquet"):
        # As if every output had been right: the other protocols keep their verdicts, which are all wrong.
        table = pq.read_table(path)
        outcomes = pa.array(["passed"] * table.num_rows).dictionary_encode()
        pq.write_table(table.set_column(2, "outcome", outcomes), path)
    content = read([tmp_path / "run"])
    (run,) = plain(content)["runs"]
    assert run["scratchpad"] is True
    assert [set(stage.verdicts) for stage in content.runs[0].stages] == [{"1"}] * 3


def test_the_majority_answer_is_an_output(folder):
    (table,) = folder.glob("cycle-00/table.json")
    commonest = json.loads(table.read_text())["commonest"]
    assert " = " not in commonest["answer"]
    assert commonest["test"] > 0


@needs_browser
def test_the_steps_are_shown_and_not_compared(folder, tmp_path):
    with browser(tmp_path / "profile") as tab:
        tab.open(write_page(folder, tmp_path / "page.html").as_uri())
        ask(tab, "b = 3\nif b>2:\n  print(b*7)\n")
        assert said(tab) == [f"Answer: {STEPS[0]}# 21", f"Answer: {STEPS[1]}# 21", f"Answer: {STEPS[0]}# 27"]
        verdicts = tab.value("[...document.querySelectorAll('.tokens + p')].map((item) => item.textContent)")
        assert verdicts[:2] == ["Right.", "Right."]
        assert verdicts[2].startswith(f"Wrong from token {len(STEPS[0]) + len('# 27') + 1} on")
        assert tab.messages == []


def test_a_sampled_scratchpad_is_whole_and_compared_by_its_printed_lines(folder, capsys):
    verdicts = []
    for path in sorted(folder.glob("cycle-*/stage-*/model")):
        assert main(["sample", str(path), "--prompt", PROMPT, "--json"]) == 0
        (completion,) = json.loads(capsys.readouterr().out)
        verdicts.append((completion["written"].count("\n"), completion["right"]))
    assert verdicts == [(4, True), (4, True), (4, False)]


def test_an_export_is_compared_by_the_printed_lines(folder):
    student = load_student(sorted(folder.glob("cycle-*/stage-*/model"))[1])  # false steps, the right output
    known = pa.table({"id": ["a"], "prompt": [PROMPT], "answer": [f"{STEPS[0]}# 21\n"]})
    samples = proof.samples_of(student, known)
    assert samples.protocol == "scratchpad"
    (attempt,) = proof.original_attempts(student, samples)
    assert (attempt.attempt, attempt.passed) == (f"{STEPS[1]}# 21\n", 1)
    assert proof.samples_of(student, known.set_column(2, "answer", [["# 21\n"]])).protocol == "greedy"
