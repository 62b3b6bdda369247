"""The page says what the run folders hold, is complete without a network, and answers in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, ask, browser, choose, click, contrast, needs_browser, said

from gradatim import reporting
from gradatim.errors import UserError
from gradatim.inference.decode import complete
from gradatim.model.load import load_student
from gradatim.reporting.summary import percent
from gradatim.show import write_page
from gradatim.show.content import Content, Program, read
from gradatim.show.page import SCRIPTS, embedded, is_page, render
from gradatim.stage import Counts


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(finished, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_verdicts_of_the_page_are_those_of_the_run(finished):
    run = read([finished]).runs[0]
    assert len(run.stages) == 3
    for stage in run.stages:
        table = reporting.read_verdicts(finished, cycle=stage.cycle, stage=stage.index)
        passed = {row for row, outcome in zip(*(table[name].to_pylist() for name in ("row", "outcome")), strict=True)
                  if outcome == "passed"}  # fmt: skip
        assert stage.verdicts is not None
        assert {row for row, mark in enumerate(stage.verdicts) if mark == "1"} == passed
        assert stage.result is not None
        assert stage.verdicts.count("1") == stage.result.passed


def test_learnt_kept_and_forgotten_add_up(finished):
    content = read([finished])
    stages = content.runs[0].stages
    changed = (
        replace(stages[0], verdicts="1100-"),
        replace(stages[1], verdicts="10100"),
        replace(stages[2], verdicts=None),
    )
    steps = replace(content.runs[0], stages=changed).steps
    assert steps[0] is not None
    assert (steps[0].learnt, steps[0].kept, steps[0].forgotten, steps[0].unlearnt) == (2, 0, 0, 2)
    assert steps[1] is not None
    assert (steps[1].learnt, steps[1].kept, steps[1].forgotten, steps[1].unlearnt) == (1, 1, 1, 2)
    assert steps[2] is None


def test_the_result_and_the_stages_are_text_without_a_script(page, finished):
    text = re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)
    content = read([finished])
    assert content.sentence in text.replace("&#39;", "'")
    for stage in content.runs[0].stages:
        assert f"<strong>{stage.name}</strong>" in text
        assert stage.result is not None
        assert f"{percent(stage.result.passed / stage.result.total)} <span" in text
    assert text.count("not learnt") >= 1


def test_a_program_cannot_end_the_script_element(finished):
    content = read([finished])
    text = "print('</script><script>alert(1)</script><!--')\n"
    tests = {key: (Program(text, "<b>", None, None), *programs) for key, programs in content.tests.items()}
    rendered = render(replace(content, tests=tests, title="</title><script>alert(2)</script>"))
    assert rendered.count("<script") == rendered.count("</script>") == 1 + len(SCRIPTS)
    assert "alert(1)" in rendered
    assert "<script>alert" not in rendered


def test_a_run_without_verdicts_is_shown_with_what_is_missing(run):
    for file in run.glob("cycle-*/stage-*/evaluation-*.parquet"):
        file.unlink()
    content = read([run])
    assert [stage.verdicts for stage in content.runs[0].stages] == [None] * 3
    assert any("no verdict per program" in note for note in content.notes)
    assert "no verdict per program" in render(content)


def test_a_run_that_is_being_written_is_shown_as_far_as_it_goes(run):
    (run / "finished.json").unlink()
    last = next(run.glob("cycle-00/stage-02*"))
    (last / "result.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"cycle": 0, "stage": 2, "los')
    half = next(run.glob("cycle-00/stage-01*/evaluation-*.parquet"))
    half.write_bytes(half.read_bytes()[:100])
    content = read([run])
    assert not content.complete
    assert [stage.verdicts is not None for stage in content.runs[0].stages] == [True, False]
    assert any(half.name in note for note in content.notes)
    page = render(content)
    assert "in progress" in page
    assert all(f"<strong>{stage.name}</strong>" in page for stage in content.runs[0].stages)


def test_a_damaged_model_is_named_and_the_rest_is_shown(run):
    file = next(run.glob("cycle-*/stage-01*/model/config.json"))
    file.write_text("{")
    content = read([run])
    computed = [stage.student.computed for stage in content.runs[0].stages]
    assert computed == ["page", "nowhere", "page"]
    assert len(embedded(content)) == 2


def test_the_page_replaces_pages_only(page, tmp_path):
    assert is_page(page)
    other = tmp_path / "other.html"
    other.write_text("<p>mine")
    assert not is_page(other)
    with pytest.raises(UserError, match="not a folder"):
        write_page(tmp_path, tmp_path)


@needs_browser
def test_a_typed_program_gets_its_output_and_the_answer_that_torch_gives(tab, page, finished):
    tab.size(1200, 900)
    tab.open(page.as_uri())
    ask(tab, "b = 3\nif b>2:\n  print(b*7)\n")
    assert tab.value("document.getElementById('prints').textContent") == "21\n"
    assert "Level 2.1" in tab.value("document.getElementById('facts').textContent")
    prompt = "b = 3\nif b > 2 :\n\tprint(b * 7)\n# output\n"
    expected = []
    for folder in sorted(finished.glob("cycle-*/stage-*/model")):
        student = load_student(folder)
        text = complete(student.model, student.tokenizer, [prompt], limits=len("# 21\n") + 16)[0].text
        expected.append(f"Answer: {text.removesuffix(chr(10)) or 'nothing'}")
    assert said(tab) == expected
    assert tab.messages == []
    assert [address for address in tab.requests if not address.startswith(("file:", "data:"))] == []


@needs_browser
def test_a_text_outside_tinypy_is_refused_with_its_line_and_not_guessed(tab, page):
    tab.open(page.as_uri())
    ask(tab, "a = 1\nprint('</script>')\n")
    assert tab.value("document.getElementById('prints').textContent").startswith(
        "Line 2: this is not TinyPy: print('</script>')"
    )
    assert tab.value("document.querySelectorAll('#answers .answer').length") == 0
    ask(tab, "a = 1\n" * 10_000 + "print(a)\n", typed=False)
    assert "does not end within 10000 steps" in tab.value("document.getElementById('prints').textContent")
    ask(tab, "a = 1\n" * 300 + "print(a)\n", typed=False)
    assert "the student reads at most 128" in tab.value("document.getElementById('answers').textContent")


@needs_browser
def test_the_map_is_read_with_the_keyboard(tab, page, finished):
    tab.size(1200, 900)
    tab.open(page.as_uri())
    tab.value("document.getElementById('waffles').focus()")
    for key in ("ArrowRight", "ArrowRight"):
        tab.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    prompts = {program.prompt for programs in read([finished]).tests.values() for program in programs}
    shown = tab.value("document.querySelector('#program pre').textContent")
    assert any(shown.startswith(prompt) for prompt in prompts)
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Enter")
    tab.wait("document.activeElement.id === 'code'")
    assert shown.startswith(tab.value("document.getElementById('code').value"))
    rows = tab.value(
        "document.getElementById('list').open = true; document.querySelectorAll('.programs tbody tr').length"
    )
    assert rows == 25


def with_verdicts(finished: Path, *verdicts: str) -> Content:
    """The content of ``finished`` as if its stages had these verdicts."""
    content = read([finished])
    stages = [replace(stage, verdicts=text) for stage, text in zip(content.runs[0].stages, verdicts, strict=True)]
    return replace(content, runs=(replace(content.runs[0], stages=tuple(stages)),))


@needs_browser
def test_the_buttons_give_test_programs_of_a_level_and_one_that_is_answered_wrong(tab, finished, tmp_path):
    (programs,) = read([finished]).tests.values()
    wrong = 7
    verdicts = "".join("0" if row == wrong else "1" for row in range(len(programs)))
    content = with_verdicts(finished, "0" * len(programs), "0" * len(programs), verdicts)
    level = programs[wrong].level
    other = next(program.level for program in programs if program.level != level)
    stages = [replace(stage, levels={level: Counts(3, 8)}) for stage in content.runs[0].stages]
    content = replace(content, runs=(replace(content.runs[0], stages=tuple(stages)),))
    file = tmp_path / "page.html"
    file.write_text(render(content, {}))
    tab.size(1200, 900)
    tab.open(file.as_uri())
    tab.wait("document.body.dataset.answered !== undefined")

    def press(button: str) -> tuple[str, str]:
        tab.value("delete document.body.dataset.answered; document.getElementById('facts').textContent = ''")
        click(tab, f"document.getElementById('{button}')")
        tab.wait("document.getElementById('facts').textContent !== ''")
        return tab.value("document.getElementById('code').value"), tab.value(
            "document.getElementById('facts').textContent"
        )

    text, facts = press("play-wrong")
    assert programs[wrong].prompt == f"{text}# output\n"
    assert f"Level {level}" in facts
    assert "; a program of the test set" in facts
    answers = tab.value("document.getElementById('answers').innerText")
    assert f"37.5 % of the test programs of level {level} right" in answers
    choose(tab, "document.getElementById('play-level')", other)
    assert press("play-wrong") == (text, "There is no such program.")
    text, facts = press("play-random")
    assert f"{text}# output\n" in {program.prompt for program in programs if program.level == other}
    assert f"Level {other}" in facts


@needs_browser
def test_a_square_of_the_map_is_clicked_and_the_table_is_sorted_and_filtered(tab, finished, tmp_path):
    (programs,) = read([finished]).tests.values()
    count = len(programs)
    forgotten, learnt = 3, 11
    first = "".join("1" if row == forgotten else "0" for row in range(count))
    last = "".join("1" if row == learnt else "0" for row in range(count))
    file = tmp_path / "page.html"
    file.write_text(render(with_verdicts(finished, first, first, last), {}))
    tab.size(1200, 900)
    tab.open(file.as_uri())
    label = tab.value("document.querySelectorAll('#waffles canvas')[2].getAttribute('aria-label')")
    assert label.endswith(f"learnt 1, kept 0, forgotten 1, not learnt {count - 2}")
    choose(tab, "document.getElementById('map-order')", "history")
    tab.value("document.getElementById('waffles').scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = tab.value("(({ x, y }) => [x, y])(document.querySelectorAll('#waffles canvas')[2].getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):  # the first square: right after the first stage
        tab.call("Input.dispatchMouseEvent", type=kind, x=box[0] + 3, y=box[1] + 3, button="left", clickCount=1)
    assert f"Program {forgotten + 1}," in tab.value("document.querySelector('#program strong').textContent")
    assert tab.value("[...document.querySelectorAll('#program li span')].map((item) => item.textContent)") == [
        "right: learnt in this stage",
        "right",
        "wrong: forgotten",
    ]

    cells = "[...document.querySelectorAll('.programs tbody tr')].map((row) => row.cells[{}].textContent)"
    tab.value("document.getElementById('list').open = true")
    for name, row in (("forgotten", forgotten), ("right", learnt)):
        choose(tab, "document.getElementById('list-filter')", name)
        assert tab.value("document.querySelectorAll('.programs tbody tr').length") == 1
        assert (
            tab.value("document.querySelector('.programs tbody code').title")
            == programs[row].prompt[: -len("# output\n")]
        )
    choose(tab, "document.getElementById('list-filter')", "all")
    shown = []
    for _ in range(2):
        click(tab, "document.querySelectorAll('.programs th button')[2]")
        shown.append([float(value) for value in tab.value(cells.format(2))])
    numbers = sorted(round(program.difficulty, 3) for program in programs if program.difficulty is not None)
    assert len(numbers) == count
    assert numbers[0] < numbers[-1]
    assert shown == [numbers[:25], numbers[::-1][:25]]
    assert tab.value("document.querySelectorAll('.programs th')[2].ariaSort") == "descending"


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_cut_at_360_pixels_and_every_control_has_a_name(tab, page, dark):
    tab.size(360, 800, dark=dark)
    tab.open(page.as_uri())
    tab.wait("document.body.dataset.answered !== undefined")
    assert tab.value("document.documentElement.scrollWidth") <= 360
    names = (
        "[...document.querySelectorAll('button, select, textarea')]"
        ".filter((item) => !(item.labels?.length || item.textContent.trim() || item.ariaLabel)).length"
    )
    assert tab.value(names) == 0
    assert contrast(tab) >= 4.5


def many_arms(finished: Path) -> Content:
    """The content of ``finished`` as if ten arms had given it."""
    content = read([finished])
    runs = [replace(content.runs[0], arm=f"arm-{n}", title=f"A curriculum of number {n}, seed 1") for n in range(10)]
    return replace(content, runs=tuple(runs))


def test_the_stages_of_many_arms_are_folded_but_for_the_first(finished):
    assert "one-arm" not in re.sub("<style.*?</style>", "", render(read([finished])), flags=re.DOTALL)
    folds = re.findall(r'<details class="one-arm"[^>]*>.*?</summary>', render(many_arms(finished)), re.DOTALL)
    assert len(folds) == 10
    assert [" open>" in fold for fold in folds] == [True, *[False] * 9]
    result = read([finished]).runs[0].stages[-1].result
    assert result is not None
    assert all(f"{percent(result.passed / result.total)} after 3 stages" in fold for fold in folds)


@needs_browser
def test_tables_of_stages_fit_360_pixels_and_wider_tables_have_a_shade(tab, finished, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(render(many_arms(finished), {}))
    tab.size(360, 800)
    tab.open(file.as_uri())
    tab.value("for (const item of document.querySelectorAll('#run details')) item.open = true")
    assert tab.value("document.documentElement.scrollWidth") <= 360
    cut = "[...document.querySelectorAll('#run .scroll')].filter((item) => item.scrollWidth > item.clientWidth).length"
    assert tab.value(cut) == 0
    shaded = (
        "[...document.querySelectorAll('.scroll')].every((item) => getComputedStyle(item).backgroundImage !== 'none')"
    )
    assert tab.value(shaded)
