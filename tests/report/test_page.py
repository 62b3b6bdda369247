"""Is the page whole, safe and the same each time?"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from make_study import make_run, make_study

from gradatim.errors import StorageFailed, UserError
from gradatim.reporting import collect, write_report
from gradatim.reporting.figures import LIGHT, by_group, differences, styles
from gradatim.reporting.html import render
from gradatim.reporting.summary import summarise

HOSTILE = "</code></pre><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ --> ]]> {{ 7 * 7 }}"
VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("runs") / "study")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One run that has only begun: its page takes no time to draw."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("seed: 1\n")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return render(collect(folder))


class Reader(HTMLParser):
    """Tags in order; complains about one that closes another."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_every_tag_is_closed_and_every_id_is_unique(page):
    ids = read(page).ids
    assert len(ids) == len(set(ids))


def test_drawings_refer_only_to_their_own_parts(page):
    ids = set(read(page).ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= ids


SCRIPT = re.compile(r"<script(.*?)>(.*?)</script>", re.DOTALL)


def test_nothing_is_fetched(page):
    assert not re.search(r"(?i)https?:|src=|@import|<link|url\((?!#)", SCRIPT.sub("", page))
    assert not re.search(r"fetch|XMLHttpRequest|WebSocket|import\(|innerHTML|eval\(", page)


def test_the_policy_allows_the_one_script_of_the_page_by_its_digest(page):
    scripts = [content for kind, content in SCRIPT.findall(page) if "application/json" not in kind]
    assert scripts == [files("gradatim.reporting").joinpath("report.js").read_text("utf-8")]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_figure_of_values_has_its_data_for_the_script(page):
    data = {
        re.search('id="(.*?)"', kind)[1]: json.loads(content)
        for kind, content in SCRIPT.findall(page)
        if "json" in kind
    }
    drawn = set(re.findall(r'data-chart="(.*?)"', page))
    assert drawn == {"curves", "differences", "stages", "level", "band"}
    assert drawn <= set(data["charts"]["charts"])
    assert data["results"]["verdict"] == "too few"


def test_the_page_has_every_part_a_study_has(page):
    tags = read(page).tags
    assert tags.count("svg") == 6
    for title in (
        "Result",
        "Against the controls",
        "Training",
        "Predictions side by side",
        "Settings that differ between the arms",
        "Data, recipes and environment",
    ):
        assert title in page
    assert "No difference can be claimed with 3 seeds" in page
    assert "dropped: division by zero" in page
    assert "title: The baseline arm" in page
    assert "title: The hybrid arm" not in page


def test_drawings_have_a_label_and_follow_light_and_dark(page):
    assert page.count('<svg role="img" aria-label="') == 6
    assert "prefers-color-scheme: dark" in page
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not any(colour in drawings for colour in LIGHT.values())
    assert "var(--arm-1)" in drawings


def test_the_same_study_gives_the_same_page_in_another_process(folder, page, tmp_path):
    code = "import sys; from gradatim.reporting import write_report; write_report(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, folder, tmp_path / "r.html"], check=True)
    assert (tmp_path / "r.html").read_text("utf-8") == page


def test_hostile_programs_titles_and_facts_stay_text(tmp_path):
    folder = make_study(tmp_path / "s", (1,), ("baseline", "hybrid"), titles={"hybrid": HOSTILE})
    for path in folder.glob("hybrid/*/cycle-00/stage-02*/result.json"):
        content = json.loads(path.read_text())
        for example in content["evaluations"][0]["examples"]:
            example.update(prompt=HOSTILE, attempt=HOSTILE, expected=HOSTILE, level=HOSTILE, band=HOSTILE)
        content["evaluations"][0]["counts"]["level"] = {HOSTILE: {"passed": 1, "total": 2}}
        path.write_text(json.dumps(content))
    for path in folder.glob("*/*/recipe.yaml"):
        path.write_text(HOSTILE)
    for path in folder.glob("*/*/environment.json"):
        path.write_text(json.dumps({HOSTILE: HOSTILE}))
    for path in folder.glob("*/*/cycle-00/table.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "facts": {HOSTILE: {HOSTILE: HOSTILE}}}))
    page = render(collect(folder))
    tags = read(page).tags
    assert tags.count("script") == 3
    assert "img" not in tags
    assert all("</" not in content for kind, content in SCRIPT.findall(page) if "json" in kind)
    assert "{{ 7 * 7 }}" in page
    assert page.count("&lt;script&gt;") > 10


def test_missing_runs_are_named_and_the_rest_is_shown(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "study")
    shutil.rmtree(copy / "hybrid" / "seed-3")
    shutil.rmtree(copy / "sequential")
    page = render(collect(copy))
    read(page)
    assert "4 runs are not finished" in page
    assert "Hybrid, seed 3: not started" in page
    assert "not started</summary>" not in page


def test_many_runs_that_are_not_started_are_folded(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "study")
    for arm in ("hybrid", "sequential", "incremental"):
        shutil.rmtree(copy / arm)
    study = collect(copy)
    page = render(study)
    read(page)
    assert len(study.missing) > 5
    assert f"<summary>{len(study.missing)} not started</summary>" in page
    assert all(line in page for line in study.missing)


def test_a_run_alone_has_a_page_without_comparison(tmp_path):
    page = render(collect(make_run(tmp_path / "mine", "hybrid", 1)))
    read(page)
    assert "vs. baseline" not in page
    comparing = ("All arms share", "of 1 correct", "side by side", "runs disagree come first")
    assert [words for words in comparing if words in page] == []
    assert "By grammar level" in page


def test_a_run_that_has_only_begun_has_a_page(small):
    page = render(collect(small))
    read(page)
    assert "No run is finished yet" in page


def test_write_report_makes_the_folder_and_leaves_no_half_file(small, tmp_path):
    out = write_report(small, tmp_path / "new" / "report.html")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_a_folder_is_no_place_for_a_page(small, tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        write_report(small, tmp_path)


def test_a_disk_that_refuses_is_told_in_one_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be written"):
        write_report(small, tmp_path / "file" / "report.html")


def test_the_baseline_is_grey_and_no_two_of_eight_arms_look_alike():
    arms = ["baseline", *"abcdefg"]
    look = styles(arms, "baseline")
    assert look["baseline"].colour == LIGHT["arm-0"]
    assert len({(style.colour, style.marker) for style in look.values()}) == 8


def test_five_seeds_draw_one_interval_per_arm_and_three_draw_one_per_run(tmp_path):
    drawn = {}
    for seeds in (3, 5):
        study = collect(make_study(tmp_path / str(seeds), range(seeds), ("baseline", "hybrid")))
        lines = re.findall(
            r'<g id="by-band-LineCollection_\d+".*?</g>', by_group(study, summarise(study), "band"), re.S
        )
        drawn[seeds] = sum(line.count("<path") for line in lines)
    assert drawn == {3: 2 * 3 * 3, 5: 2 * 3}


def test_a_figure_that_has_nothing_to_show_is_left_out(tmp_path):
    study = collect(make_run(tmp_path / "mine", "hybrid", 1))
    assert differences(study, summarise(study)) is None


def test_arms_that_do_not_differ_at_all_can_be_drawn(tmp_path):
    folder = make_study(tmp_path / "s", (1, 2), ("baseline",))
    shutil.copytree(folder / "baseline", folder / "hybrid")
    study = json.loads((folder / "study.json").read_text())
    study["arms"].append({"name": "hybrid", "title": "Hybrid"})
    (folder / "study.json").write_text(json.dumps(study))
    data = collect(folder)
    assert "Hybrid" in differences(data, summarise(data))


def test_an_attempt_of_nothing_is_said_in_words(tmp_path):
    folder = make_run(tmp_path / "mine", "hybrid", 1)
    path = next(folder.glob("cycle-00/stage-02*/result.json"))
    content = json.loads(path.read_text())
    for example, attempt in zip(content["evaluations"][0]["examples"], ["", "\n" * 30] * 4, strict=True):
        example.update(attempt=attempt, passed=False)
    path.write_text(json.dumps(content))
    page = render(collect(folder))
    assert "<small>empty</small>" in page
    assert "<small>only white space</small>" in page


def test_examples_of_a_suite_without_levels_are_shown(tmp_path):
    """Functional problems have neither a level nor a band."""
    folder = make_run(tmp_path / "mine", "hybrid", 1)
    path = next(folder.glob("cycle-00/stage-02*/result.json"))
    content = json.loads(path.read_text())
    for example in content["evaluations"][0]["examples"]:
        del example["level"], example["band"]
        example["prompt"] = "from HumanEval"
    path.write_text(json.dumps(content))
    assert "from HumanEval" in render(collect(folder))


def test_importing_the_report_loads_no_heavy_library():
    code = (
        "import sys, gradatim.reporting; print(sorted({'scipy', 'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
