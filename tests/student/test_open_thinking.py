"""A chat template that opens a block of thinking: answers are taught and compared behind it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from small_models import TEMPLATE, base, tokenizer

from gradatim.evaluation.generation import Question, Writing, write
from gradatim.evaluation.problems import Problem
from gradatim.evaluation.verdicts import candidate_of
from gradatim.model.load import load_student
from gradatim.model.prompt_format import (
    chat_formatter,
    has_prompt_format,
    opens_thinking,
    prepare_tokenizer,
    prompt_formatter,
    thinking_close,
    thinking_open,
    token_key,
)
from gradatim.model.tokenizer import encode_table
from gradatim.sandbox.limits import Verdict
from gradatim.table import make_table

R1 = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
assert R1 != TEMPLATE
TABLE = make_table({"prompt": ["print(12 + 7)"], "answer": ["# 19\n"]})


def taught(template: str | None, notes: list[str] | None = None):
    made = tokenizer(template=template)
    listen = (notes if notes is not None else []).append
    return prepare_tokenizer(made, "auto", None, SimpleNamespace(eos_token_id=2), "x", lambda event: listen(event.text))


@pytest.mark.parametrize(
    ("prompt", "tag", "closed"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>", "\n</think>\n\n"),
        ("<|Assistant|><think>", "<think>", "\n\n</think>\n\n"),
        ("assistant\n<thinking>\n\n", "<thinking>", "</thinking>\n\n"),
        ("[/INST][THINK]", "[THINK]", "\n\n[/THINK]\n\n"),
        ("assistant\n<think>\n\n</think>\n\n", "", ""),
        ("assistant\n", "", ""),
        ("what is <think>?", "", ""),
        ("", "", ""),
    ],
)
def test_the_block_that_a_prompt_leaves_open_is_closed_as_templates_close_it(prompt, tag, closed):
    assert (thinking_open(prompt), thinking_close(prompt)) == (tag, closed)


def test_an_answer_is_taught_behind_the_block_and_that_is_said_once():
    notes: list[str] = []
    made = taught(R1, notes)
    encoded = encode_table(made, TABLE)
    text = made.decode(encoded.sample(0))
    assert "<think>\n\n</think>\n\n# 19\n" in text
    assert made.decode(encoded.sample(0)[int(encoded.answer_starts[0]) :]).startswith("# 19\n")
    assert len([note for note in notes if "<think>" in note]) == 1
    plain: list[str] = []
    assert "think" not in made.decode(encode_table(taught(TEMPLATE, plain), TABLE).sample(0))
    assert not [note for note in plain if "think" in note]


def test_a_student_is_asked_behind_the_block_behind_which_it_was_taught():
    made = taught(R1)
    prompts = [shape("a") for shape in (prompt_formatter(made), chat_formatter(made))]
    assert all(prompt.endswith("<think>\n\n</think>\n\n") for prompt in prompts)
    assert chat_formatter(made, thinking=True)("a").endswith("<think>\n")


def test_samples_encoded_inside_the_block_by_older_versions_are_not_used_again():
    made = taught(R1)
    said = token_key(made)
    made.chat_template = TEMPLATE
    plain = token_key(made)
    assert said != plain
    assert opens_thinking(made) == ""


@pytest.mark.parametrize(
    "template", [None, "{{ raise_exception('only two messages') }}", "{{ nosuch.name }}", TEMPLATE]
)
def test_a_template_that_opens_nothing_or_refuses_changes_nothing(template):
    assert opens_thinking(tokenizer(template=template)) == ""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return load_student(base(tmp_path_factory.mktemp("thinking") / "model", template=R1, context=256))


def test_a_model_of_others_thinks_and_what_is_cut_off_in_it_is_no_answer(student):
    assert not has_prompt_format(student.tokenizer)
    ((sample,),) = write(student, [Question("a", "print(1)", 0)], Writing(tokens=5, chat=True))
    assert sample.text.startswith("<think>")
    assert len(sample.text) > len("<think>")
    problem = Problem("a", "python", "", "assert True", whole=True)
    assert isinstance(candidate_of(problem, sample), Verdict)


def test_a_taught_student_writes_its_answer_at_once(student, monkeypatch):
    import gradatim.inference.decode as decode

    heard: list[str] = []
    complete = decode.complete
    monkeypatch.setattr(decode, "complete", lambda *given, **how: heard.extend(given[2]) or complete(*given, **how))
    prepare_tokenizer(student.tokenizer, "auto", None, student.model.config, "x", lambda event: None)
    try:
        ((sample,),) = write(student, [Question("a", "print(1)", 0)], Writing(tokens=5, chat=True))
    finally:
        del student.tokenizer.init_kwargs["gradatim"]
    assert re.search(r"<think>\n\n</think>\n\n\Z", heard[0])
    assert not sample.text.startswith("<think>")
