"""The report in a real browser: charts, legend, tables, downloads and filters work, and nothing is requested."""

from __future__ import annotations

import time

import pytest
from chromium_page import CHROMIUM, TIMEOUT, Page
from make_study import ARMS, FURTHER, make_study

from gradatim.reporting import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("runs") / "s", (1, 2))
    return write_report(folder, folder / "report.html")


@pytest.fixture(scope="module")
def page(path, tmp_path_factory):
    with Page(path, tmp_path_factory.mktemp("profile")) as page:
        yield page


def count(page, selector):
    return page.value(f"document.querySelectorAll({selector!r}).length")


def resize(page, width):
    """Give the window a width, and wait until the script has drawn its charts for it."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    drawn = (
        "[...document.querySelectorAll('.chart svg[role=img]')].every((item) => item.clientWidth <= innerWidth)"
        f" && innerWidth === {width} && document.querySelectorAll('.chart svg').length > 5"
    )
    end = time.monotonic() + TIMEOUT
    while not page.value(drawn):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_every_figure_with_data_is_a_chart_and_its_drawing_is_hidden(page):
    assert count(page, "figure[data-chart]") == count(page, "figure .chart") == 5
    assert count(page, "figure[data-chart] .drawing:not([hidden])") == 0


def test_nothing_but_the_page_is_requested(page):
    assert page.requests == [page.address]


def test_a_click_on_the_legend_hides_an_arm_in_all_charts(page):
    lines = count(page, "#learning .line.main")
    page.value("document.querySelector('.legend button[data-arm=\"2\"]').click()")
    assert count(page, "#learning .line.main") < lines
    assert page.value("document.querySelectorAll('.legend [aria-pressed=false]').length") > 1
    page.value("document.querySelector('.legend button[data-arm=\"2\"]').click()")
    assert count(page, "#learning .line.main") == lines


def test_values_appear_under_the_pointer(page):
    page.value(
        "(() => { const chart = document.querySelector('#learning .plot svg'), box = chart.getBoundingClientRect();"
        "chart.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + 200, clientY: box.top + 50})); })()"
    )
    text = page.value("document.querySelector('.tip:not([hidden])').textContent")
    assert "tokens" in text
    assert all(title in text for title, *_ in ARMS.values())


def test_the_scale_changes_between_logarithmic_and_linear(page):
    ticks = (
        "[...document.querySelector('#learning .plot svg').querySelectorAll('text')].map((e) => e.textContent).join()"
    )
    before = page.value(ticks)
    page.value("document.querySelector('#learning .tools input[type=checkbox]').click()")
    assert page.value(ticks) != before


def test_a_click_on_a_heading_sorts_the_table_by_number(page):
    column = "[...document.querySelectorAll('table.result tbody tr')].map((row) => +row.cells[1].dataset.v)"
    page.value("document.querySelectorAll('table.result thead button')[1].click()")
    assert page.value(column) == sorted(page.value(column))
    page.value("document.querySelectorAll('table.result thead button')[1].click()")
    assert page.value(column) == sorted(page.value(column), reverse=True)


def test_a_table_is_downloaded_as_csv_with_its_numbers(page):
    page.value(
        "window.saved = null; const create = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { window.saved = blob; return create(blob); };"
        "document.querySelector('#result .scroll + .downloads button').click()"
    )
    lines = page.value("window.saved.text()").splitlines()
    assert lines[0].startswith("arm,accuracy,")
    assert len(lines) == 1 + len(ARMS)
    assert 0 < float(lines[1].split(",")[1]) < 1


def test_the_filter_shows_items_with_a_wrong_answer_alone(page):
    page.value(
        "(() => { const select = document.querySelector('.filters [name=outcome]'); select.value = 'wrong';"
        "select.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    shown = page.value("[...document.querySelectorAll('.item:not([hidden])')].map((item) => item.dataset.outcomes)")
    assert shown
    assert all("false" in outcomes for outcomes in shown)
    assert count(page, ".item[hidden]") > 0


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_window_of_400_pixels(path, tmp_path, dark):
    with Page(path, tmp_path / "profile", width=500, dark=dark) as page:
        resize(page, 400)
        assert page.value("document.documentElement.scrollWidth") <= 400
        assert count(page, ".chart svg") > 5


@pytest.fixture(scope="module")
def ten_arms(tmp_path_factory):
    arms = (*ARMS, *FURTHER)
    folder = make_study(tmp_path_factory.mktemp("runs") / "ten", (1, 2), arms, tests=210)
    return write_report(folder, folder / "report.html")


def beyond(page, selector, width):
    """The texts of the elements that reach beyond ``width`` pixels."""
    return page.value(
        f"[...document.querySelectorAll({selector!r})].filter((item) => item.getBoundingClientRect().right > {width})"
        ".map((item) => item.textContent)"
    )


@pytest.mark.parametrize("width", [360, 1280])
def test_the_names_of_ten_arms_are_neither_cut_nor_crossed_by_a_line(ten_arms, tmp_path, width):
    with Page(ten_arms, tmp_path / "profile") as page:
        resize(page, width)
        assert page.value("document.documentElement.scrollWidth") <= width
        assert count(page, ".legend button") >= 10
        assert beyond(page, ".arms span, .legend button, .chart .name", width) == []
        names = "figure[data-chart='differences'] .chart .name"
        assert count(page, names) == 9
        if width > 1000:  # beside the plot
            axis = page.value(
                "Math.min(...[...document.querySelectorAll(\"figure[data-chart='differences'] .chart line\")]"
                ".map((item) => item.getBoundingClientRect().left))"
            )
            assert beyond(page, names, axis) == []
        alone = """[...document.querySelectorAll("tbody th > .swatch")].filter((item) => {
            const range = document.createRange();
            range.selectNodeContents(item.nextSibling);
            return range.getClientRects()[0]?.top > item.getBoundingClientRect().bottom;
        }).length"""  # swatches without a word of the name on their line
        assert count(page, "tbody th > .swatch") > 10
        assert page.value(alone) == 0
