"""The playground in an exported page and in a report: complete in one file, and in a browser without scripts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, ask, browser, needs_browser, said
from preset_students import samples, student
from scripts import needs_node

from gradatim import show
from gradatim.cli.main import main
from gradatim.errors import UserError
from gradatim.export.write import export_model
from gradatim.inference.decode import complete
from gradatim.model.load import load_student
from gradatim.programs import generate
from gradatim.show.page import model_page

PROMPT = "b = 3\nif b > 2 :\n\tprint(b * 7)\n# output\n"
TYPED = "b = 3\nif b>2:\n  print(b*7)\n"


@pytest.fixture(scope="module")
def model(finished: Path) -> Path:
    """The last model of the run."""
    return next(finished.glob("cycle-00/stage-02*/model"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def answer_of(model: Path) -> str:
    """The label of the greedy answer of a model to ``PROMPT``."""
    student = load_student(model)
    text = complete(student.model, student.tokenizer, [PROMPT], limits=len("# 21\n") + 16)[0].text
    return f"Answer: {text.removesuffix(chr(10)) or 'nothing'}"


def shown(page: str) -> str:
    """The text of a page without its scripts."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@needs_node
@pytest.mark.parametrize("bits", [8, 16])
def test_an_exported_page_of_fewer_bits_answers_as_the_model_does(model, tmp_path, bits):
    table = generate(4, levels=["1.1"], seed=1).table
    export = export_model(model, tmp_path / "out", "page", bits=bits, data=table)
    assert export.files == ("page.html",)
    assert export.texts >= 4
    assert export.mean_difference < (0.05 if bits == 8 else 0.001)
    assert (export.total, export.lost, export.won) == (4, 0, 0)
    assert "Open `FOLDER/page.html` in a browser" in (tmp_path / "out" / "README.md").read_text()
    weights = max(re.findall(r"[A-Za-z0-9+/=]{1000,}", (tmp_path / "out" / "page.html").read_text()), key=len)
    parameters = sum(parameter.numel() for parameter in load_student(model).model.parameters())
    assert 0 < len(weights) * 3 / 4 - parameters * bits / 8 < 10_000  # scales, tokens and the header


def test_the_page_of_a_model_has_the_test_programs_and_the_result_of_its_stage_alone(model, finished):
    page = model_page(model)
    content = show.content.read([finished])
    last = content.runs[0].stages[-1]
    data = json.loads(re.search(r'id="show-data">(.*?)</script>', page, re.DOTALL)[1])
    assert [stage["key"] for stage in data["runs"][0]["stages"]] == [last.key]
    assert page.count("<script") == page.count("</script>")
    assert page.count('data-student="') == 1
    (programs,) = data["tests"].values()
    assert len(programs) == 40


def test_a_model_outside_of_a_run_has_a_page_that_says_so(model, tmp_path):
    shutil.copytree(model, tmp_path / "student")
    page = model_page(tmp_path / "student")
    assert "The model belongs to no run folder" in shown(page)
    assert 'data-student="student"' in page


def test_a_model_that_the_page_cannot_compute_is_refused_with_another_format(model, tmp_path):
    shutil.copytree(model, tmp_path / "large")
    config = json.loads((tmp_path / "large/config.json").read_text())
    (tmp_path / "large/config.json").write_text(
        json.dumps({**config, "activation_function": "relu", "hidden_act": "relu"})
    )
    with pytest.raises(
        UserError, match=r"the page cannot compute this model: the page has no activation relu.*--to gguf"
    ):
        export_model(tmp_path / "large", tmp_path / "out", "page")
    assert not (tmp_path / "out").exists()


def test_a_report_with_a_playground_has_all_of_the_report_and_all_of_the_playground(finished, tmp_path, capfd):
    out, plain = tmp_path / "play.html", tmp_path / "plain.html"
    assert main(["report", str(finished), "--play", "--out", str(out)]) == 0
    assert main(["report", str(finished), "--out", str(plain)]) == 0
    page, report = out.read_text(), plain.read_text()
    assert set(re.findall(r'<section id="(\w+)"', report)) < set(re.findall(r'<section id="(\w+)"', page))
    identifiers = re.findall(r' id="([^"]+)"', shown(page))
    assert len(identifiers) == len(set(identifiers))
    assert len(re.findall('data-student="hybrid', page)) == 3
    assert main(["report", str(finished), "--play", "--json"]) == 2
    assert main(["report", str(finished), "--play", "--watch", "5", "--force", "--out", str(out)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "gradatim: --play: the playground is a part of the page; given: --json; try: --out FILE, or --play alone",
        "gradatim: --watch: a page with a playground is written once; given: --play; "
        "try: gradatim show, which follows a run",
    ]


@needs_browser
def test_a_typed_program_is_answered_in_a_report_and_in_an_exported_page(tab, finished, model, tmp_path):
    report = show.write_report(finished, tmp_path / "report.html")
    exported = tmp_path / "page.html"
    exported.write_text(model_page(model))
    tab.size(1200, 900)
    for page, answers in ((report, 3), (exported, 1)):
        tab.open(page.as_uri())
        ask(tab, TYPED)
        assert tab.value("document.getElementById('prints').textContent") == "21\n"
        assert len(said(tab)) == answers
        assert said(tab)[-1] == answer_of(model)
    assert tab.messages == []
    assert [address for address in tab.requests if not address.startswith(("file:", "data:"))] == []


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_with_a_playground_is_not_wider_than_360_pixels(tab, finished, tmp_path, dark):
    tab.size(360, 800, dark=dark)
    tab.open(show.write_report(finished, tmp_path / "report.html").as_uri())
    tab.wait("document.body.dataset.answered !== undefined")
    assert tab.value("document.documentElement.scrollWidth") <= 360


@needs_browser
def test_a_browser_without_javascript_shows_the_facts_and_says_what_needs_it(tab, finished, tmp_path):
    page = show.write_page(finished, tmp_path / "page.html")
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.call("Page.navigate", url=page.as_uri())
        tab.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        text = tab.value("document.body.innerText")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    content = show.content.read([finished])
    assert content.sentence in text
    assert all(stage.name in text for stage in content.runs[0].stages)
    assert "The map needs JavaScript" in text
    assert "The playground needs JavaScript." in text
    assert "Python prints" not in text


def seconds_of(tab: Browser) -> float:
    """Processor time of the page so far, which other work on the machine hardly changes."""
    metrics = tab.call("Performance.getMetrics")["metrics"]
    return next(float(item["value"]) for item in metrics if item["name"] == "TaskDuration")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("preset", ["modern", "paper"])
def test_an_answer_of_a_preset_takes_less_than_a_second(tab, preset, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(model_page(student(tmp_path / "model", preset, samples(200))))
    assert page.stat().st_size < 2_000_000
    tab.size(1200, 900)
    tab.open(page.as_uri())
    tab.wait("document.body.dataset.answered !== undefined")
    tab.call("Performance.enable", timeDomain="threadTicks")
    before = seconds_of(tab)
    ask(tab, "a = 4\nb = a + 3\nif b > 5 :\n\tprint(a * b)\n", typed=False)
    pause = 0.25  # after the last key
    assert 0 < seconds_of(tab) - before < 1 - pause
