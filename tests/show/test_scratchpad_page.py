"""The page of a run whose answers have a scratchpad: its steps are shown, and only the printed lines are compared."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from browser import ask, browser, needs_browser, said
from conftest import SMALL
from small_students import train, untrained

from gradatim import api
from gradatim.model.tokenizer import character_tokenizer, texts_of
from gradatim.show.content import plain, read
from gradatim.show.page import write_page

PROMPT = "b = 3\nif b > 2 :\n\tprint(b * 7)\n# output\n"
STEPS = ("# 3 > 2 = True\n# 3 * 7 = 21\n", "# 3 > 2 = False\n# 3 * 9 = 21\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three models: they write true steps, false steps with the right output, and a wrong output."""
    folder = tmp_path_factory.mktemp("show") / "scratchpad"
    suites = "evaluate.suites=[{suite: output, protocol: scratchpad, limit: 20}]"
    changes = ("data.scratchpad=true", suites, "student.context_length=256", "train.max_length=256")
    api.run("smoke/hybrid", folder, changes=(*SMALL, *changes))
    answers = [f"{STEPS[0]}# 21\n", f"{STEPS[1]}# 21\n", f"{STEPS[0]}# 27\n"]
    for path, answer in zip(sorted(folder.glob("cycle-*/stage-*/model")), answers, strict=True):
        known = pa.table({"id": ["a"], "prompt": [PROMPT], "answer": [answer]})
        student = train(untrained(character_tokenizer([*texts_of(known), "0123456789"]), 128), known, 100)
        student.model.save_pretrained(path)
        student.tokenizer.save_pretrained(path)
    return folder


def test_the_run_is_marked_and_its_map_has_verdicts(folder):
    content = plain(read([folder]))
    (run,) = content["runs"]
    assert run["scratchpad"] is True
    assert all(stage["verdicts"] is not None for stage in run["stages"])


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
