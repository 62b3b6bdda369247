"""Thinking in a model's reply is never taken as the answer, and a program about tags is left whole."""

from __future__ import annotations

import pytest

from gradatim.languages import LANGUAGES
from gradatim.languages.thinking import strip_thinking

WRONG = "```python\ndef add(a, b):\n    return a - b\n```\n"
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```\n"
HARMONY = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"
TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<Thinking >", "</Thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ('<think type="draft">', "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("<|think|>", "<|/think|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
]


@pytest.mark.parametrize(("opening", "closing"), TAGS)
@pytest.mark.parametrize("form", ["{0}\n{wrong}{1}\n{right}", "{wrong}{1}\n{right}", "Sure.\n{0}{wrong}{1}{right}"])
def test_thinking_between_any_tags_is_not_the_answer(opening, closing, form):
    reply = form.format(opening, closing, wrong=WRONG, right=RIGHT)
    assert LANGUAGES.get("python").extract(strip_thinking(reply), "add").code == RIGHT.split("\n", 1)[1][:-4]
    assert "a - b" not in strip_thinking(reply)


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>\nA draft:\n{WRONG}",
        f"Okay. <think> A draft:\n{WRONG}",
        f"Sure.\n\n<thinking>\n{WRONG}",
        f"<think>{WRONG}</think>",
        f"{WRONG}</think>\n",
        f"<|channel|>analysis<|message|>{WRONG}",
        f"<|channel|>analysis<|message|>{WRONG}<|end|>",
        f"<|start|>assistant<|channel|>commentary to=functions.run <|constrain|>json<|message|>{WRONG}<|call|>",
    ],
)
def test_a_reply_that_is_nothing_but_thinking_has_no_answer(reply):
    assert "a - b" not in strip_thinking(reply)


@pytest.mark.parametrize(
    "reply",
    [
        HARMONY.format(WRONG, RIGHT),
        HARMONY.format(WRONG, f"{RIGHT[:-1]}<|return|>"),
        f"<|start|>assistant{HARMONY.format('It is `a - b`.', RIGHT)}<|end|>",
        f"a - b, I think.<|end|><|start|>assistant<|channel|>final<|message|>{RIGHT}",
        f"<|channel|>analysis<|message|>{WRONG}<|end|>\n<|channel|>commentary<|message|>{WRONG}<|end|>"
        f"<|start|>assistant<|channel|>final <|constrain|>python<|message|>{RIGHT}<|return|>",
        f"analysisWe need {WRONG}assistantfinal{RIGHT}",
    ],
)
def test_only_the_final_channel_is_the_answer(reply):
    assert strip_thinking(reply).strip() == RIGHT.strip()


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>one</think><think>{WRONG}</think>{RIGHT}",
        f"<think>\nUse <think> or not? {WRONG}</think>\n{RIGHT}",
        f"<think>a <think>b</think> {WRONG}</think>{RIGHT}",
        f"That's wrong:\n```python\na - b\n\nI'll stop.\n</think>\n{RIGHT}",
        f'<think>Split at "</think>", then\n{WRONG}</think>\n{RIGHT}',
        f"<think>\n{WRONG}</thinking>\n{RIGHT}",
    ],
)
def test_thinking_that_is_nested_or_left_open_ends_at_its_last_tag(reply):
    assert strip_thinking(reply).strip() == RIGHT.strip()


@pytest.mark.parametrize(
    "answer",
    [
        '```python\ndef f(s):\n    return s.split("</think>")[-1].replace("<think>", "")\n```\n',
        '```python\nTEXT = """\n<think>\nno\n</think>\n"""\n```\n',
        '```python\nTEXT = """\n</think>\n"""\n```\nand\n```python\nprint(TEXT)\n```\n',
        "```cpp\nstd::vector<thought> all;\n```\n",
        "def f(s):\n    return s.split('</think>')[-1].replace('<think>', r'</think>')\n",
        "class A {\n    List<Thought> all;\n}\n",
        "The tags `<think>` and `</think>` are cut:\n```python\n1\n```\n",
        "# Remove <think> tags\ndef f(s):\n    return s\n",
        "```python\nprint('<|channel|>final<|message|>')\n```\nDone.<|end",
        "It's [think] or `[THINK]`.\n\n1\n",
    ],
)
@pytest.mark.parametrize("before", ["", "<think>\nHm.\n</think>\n"])
def test_a_program_about_tags_is_left_whole(answer, before):
    assert strip_thinking(before + answer).removeprefix("\n") == answer


def test_text_without_thinking_is_returned_as_it_is():
    assert strip_thinking(RIGHT) is RIGHT
