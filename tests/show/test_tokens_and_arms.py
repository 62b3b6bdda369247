"""A person at the served page: the attention of a clicked token, and two runs side by side for one program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Browser, ask, browser, choose, click, needs_browser, said
from served import serving

from gradatim.inference.decode import complete
from gradatim.model.hardware import quiet
from gradatim.model.load import load_student

pytestmark = needs_browser

PROMPT = "b = 3\nif b > 2 :\n\tprint(b * 7)\n# output\n"
TYPED = "b = 3\nif b>2:\n  print(b*7)\n"
LIMIT = len("# 21\n") + 16
TOLERANCE = 0.1
"""Percentage points between the page, which rounds to one decimal, and torch."""
ANSWERS = "[...document.querySelectorAll('#answers > div')]"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(finished: Path, baseline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Copies of two runs whose models are perturbed: after so short a training all attend to all tokens alike and give
    the same answer. The rows of a matrix are multiples of a scale, so that the 8 bits of the page are exact."""
    folder = tmp_path_factory.mktemp("perturbed")
    noise = torch.Generator().manual_seed(0)
    for run in (finished, baseline):
        shutil.copytree(run, folder / run.name)
        for path in models(folder / run.name):
            model: Any = load_student(path).model
            with torch.no_grad(), quiet():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.3)
                    if parameter.ndim == 2:
                        scales = parameter.abs().amax(1, keepdim=True) / 127
                        parameter.copy_(torch.round(parameter / scales) * scales)
                model.save_pretrained(path)
    return folder / finished.name, folder / baseline.name


def models(run: Path) -> list[Path]:
    """The models of a run after each stage."""
    return sorted(run.glob("cycle-*/stage-*/model"))


def label(model: Path) -> str:
    """The name that the page gives to the greedy answer of a model."""
    student = load_student(model)
    text = complete(student.model, student.tokenizer, [PROMPT], limits=LIMIT)[0].text
    return f"Answer: {text.removesuffix(chr(10)) or 'nothing'}"


def percentage(title: str) -> float:
    """The number in a title like "12.5 %", 0 for "< 0.1 %"."""
    return 0.0 if title.startswith("<") else float(title.removesuffix(" %"))


def shaded(tab: Browser) -> tuple[list[str], list[float]]:
    """The tokens that are shaded by attention, and their percentages."""
    spans = "[...document.querySelectorAll('#token .attention span')]"
    found = tab.value(f"{spans}.map((item) => [item.textContent, item.title])")
    return [text for text, _ in found], [percentage(title) for _, title in found]


def test_a_clicked_token_shows_its_likeliest_tokens_and_the_attention_that_torch_computes(tab, runs):
    student = load_student(models(runs[0])[-1])
    prompt = student.tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    index = 1  # the second token of the answer, before which the first one was read
    with torch.inference_mode():
        read = student.model.generate(torch.tensor([prompt]), max_new_tokens=index + 1, do_sample=False)[:, :-1]
        student.model.set_attn_implementation("eager")
        result = student.model(read, output_attentions=True)
    assert read.shape[1] == len(prompt) + index
    attention = [100 * layer[0, :, -1].mean(0) for layer in result.attentions]
    assert all(float(layer.max() - layer.min()) > 50 * TOLERANCE for layer in attention)
    assert float((attention[0] - attention[-1]).abs().max()) > 50 * TOLERANCE
    likeliest = torch.softmax(result.logits[0, -1], -1).topk(5).values * 100

    button = f"[...document.querySelectorAll('.tokens')].at(-1).querySelectorAll('button')[{index}]"
    tab.size(1200, 900)
    with serving(runs[0]) as server:
        tab.open(server.url)
        ask(tab, TYPED)
        assert tab.value("document.getElementById('token').hidden")
        click(tab, button)
        assert tab.value(f"{button}.getAttribute('aria-pressed')") == "true"
        assert not tab.value("document.getElementById('token').hidden")
        rows = tab.value("[...document.querySelectorAll('.likeliest tbody .n')].map((cell) => cell.textContent)")
        layers = tab.value("[...document.querySelectorAll('#token option')].map((item) => item.value)")
        last = shaded(tab)
        choose(tab, "document.querySelector('#token select')", layers[0])
        first = shaded(tab)
    assert [percentage(row) for row in rows] == pytest.approx(likeliest.tolist(), abs=TOLERANCE)
    assert layers == [str(layer) for layer in range(len(attention))]
    pieces = [student.tokenizer.decode([token]) for token in read[0].tolist()]
    for shown, expected in ((first, attention[0]), (last, attention[-1])):
        assert shown[0] == pieces
        assert shown[1] == pytest.approx(expected.tolist(), abs=TOLERANCE)


def test_two_runs_answer_one_program_side_by_side(tab, runs):
    expected = [[label(model) for model in models(run)] for run in runs]
    assert set(expected[0]).isdisjoint(expected[1])
    tab.size(1200, 900)
    with serving(*runs) as server:
        tab.open(server.url)
        ask(tab, TYPED)
        keys = tab.value("[...document.getElementById('play-run').options].map((item) => item.value)")
        titles = tab.value("[...document.getElementById('play-run').options].map((item) => item.textContent)")
        first, second = (next(key for key in keys if key.startswith(run.name)) for run in runs)
        choose(tab, "document.getElementById('play-run')", first)
        tab.value("delete document.body.dataset.answered")
        choose(tab, "document.getElementById('play-other')", second)
        tab.wait("document.body.dataset.answered !== undefined")
        assert said(tab) == [*expected[0], *expected[1]]
        headings = tab.value(f"{ANSWERS}.map((item) => item.querySelector('h3').textContent)")
        assert headings == [titles[keys.index(first)], titles[keys.index(second)]]
        assert len(set(headings)) == 2
        lists = tab.value(f"{ANSWERS}.map((item) => item.querySelectorAll('.tokens').length)")
        assert lists == [len(models(run)) for run in runs]
        places = f"{ANSWERS}.map((item) => {{ const box = item.getBoundingClientRect(); return [box.left, box.top]; }})"
        (left, top), (right, other) = tab.value(places)
        assert left < right
        assert top == other
        tab.size(360, 800)
        (left, top), (right, other) = tab.value(places)
        assert left == right
        assert top < other
        assert tab.value("document.documentElement.scrollWidth") <= 360
        choose(tab, "document.getElementById('play-other')", "")
        tab.wait(f"{ANSWERS}.length === 1")
    assert tab.messages == []
