"""A model that was taught through a chat template can be asked through it, by suites and by difficulties."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_models import base

from gradatim.difficulty.model_based import ScoringRequest
from gradatim.errors import DataError, RecipeError
from gradatim.evaluation import SUITES
from gradatim.experiment.assemble.components import make_difficulty
from gradatim.inference import decode
from gradatim.inference.loglikelihood import read_model
from gradatim.model.load import LoadedModel, load_student
from gradatim.model.prompt_format import PromptFormat, chat_formatter, with_prompt_format
from gradatim.table import make_table

SAMPLES = {"prompt": ["print(12 + 7)", "a = 3"], "answer": ["# 19\nb = 5\n", "print(a)\n\n# 3"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return base(tmp_path_factory.mktemp("chat") / "model", context=256)


@pytest.fixture(scope="module")
def student(folder) -> LoadedModel:
    return load_student(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return base(tmp_path_factory.mktemp("plain") / "model", template=None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))


def asked(student, suite, samples=None, **options):
    table = make_table(SAMPLES) if samples is None else samples
    return SUITES.get(suite)(**options)(student, table, seed=0)


def chances(student, prompt: str, text: str) -> np.ndarray:
    """ln p of every token after each place of the rendered prompt and the text, one at a time; (tokens, vocabulary)."""
    rendered = student.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    before = student.tokenizer(rendered)["input_ids"]
    tokens = student.tokenizer(text)["input_ids"]
    with torch.no_grad():
        rows = [
            torch.log_softmax(student.model(torch.tensor([before + tokens[:at]])).logits[0, -1].double(), -1).numpy()
            for at in range(len(tokens))
        ]
    return np.stack(rows)


def test_token_asks_about_the_answer_from_its_first_token_after_the_rendered_prompt(student):
    passed = total = 0
    for prompt, answer in zip(*SAMPLES.values(), strict=True):
        truth = np.array(student.tokenizer(answer)["input_ids"])
        passed += int((chances(student, prompt, answer).argmax(1) == truth).sum())
        total += len(truth)
    found = asked(student, "token", chat=True)
    assert (found.counts["all"]["all"].passed, found.counts["all"]["all"].total) == (passed, total)
    first = found.examples[0]
    assert (first["prompt"], first["expected"]) == (SAMPLES["prompt"][0], SAMPLES["answer"][0])
    best = chances(student, *(each[0] for each in SAMPLES.values())).argmax(1)
    assert first["attempt"] == student.tokenizer.decode(best)
    assert asked(student, "token", chat=False).counts["all"]["all"].total != total


def test_what_does_not_fit_behind_a_long_prompt_stays_in_the_total(student):
    long = make_table({"prompt": ["a = 3\n" * 200], "answer": ["# 19\n"]})
    found = asked(student, "token", long, chat=True)
    tokens = len(student.tokenizer("# 19\n")["input_ids"])
    assert found.counts["outcome"]["too_long"].total == found.counts["all"]["all"].total == tokens


def test_line_asks_for_every_line_of_the_answer_after_the_rendered_prompt(student, monkeypatch):
    heard: list[tuple[str, str]] = []
    complete = decode.complete

    def listening(model, tokenizer, prompts, **how):
        heard.extend(zip(how["prefixes"], prompts, strict=True))
        return complete(model, tokenizer, prompts, **how)

    monkeypatch.setattr(decode, "complete", listening)
    found = asked(student, "line", chat=True)
    shape = chat_formatter(student.tokenizer)
    one, two = map(shape, SAMPLES["prompt"])
    assert heard == [(one, ""), (one, "# 19\n"), (two, ""), (two, "print(a)\n\n")]
    assert found.counts["all"]["all"].total == 4
    shown = [row["prompt"] for row in found.texts()]
    before = ["print(12 + 7)\n\n", "print(12 + 7)\n\n# 19\n", "a = 3\n\n", "a = 3\n\nprint(a)\n\n"]
    assert shown == before
    monkeypatch.undo()
    plain_lines = asked(student, "line", make_table(SAMPLES), chat=False)
    assert plain_lines.counts["all"]["all"].total == 0  # prompts of one line


def test_choice_compares_options_as_the_beginning_of_the_reply(student, tmp_path):
    rows = [
        {"question": f"{number} + 7", "options": ["12", "# 3", "a = b", str(number)], "answer": number % 4}
        for number in range(8)
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = 0
    for row in rows:
        sums = []
        for option in row["options"]:
            each = chances(student, f"Question: {row['question']}\nAnswer:", option)
            sums.append(each[np.arange(len(each)), student.tokenizer(option)["input_ids"]].sum())
        right += int(np.argmax(sums)) == row["answer"]
    found = asked(student, "choice", pa.table({}), problems=str(path), chat=True)
    assert (found.counts["all"]["all"].passed, found.counts["all"]["all"].total) == (right, 8)


TINYPY = {"prompt": ["a = 3\nprint(a)\n# output\n"] * 2, "answer": ["# 3\n"] * 2}
WITHOUT_PROMPTS = {"prompt": ["", ""], "answer": ["a = 3\nprint(a)\n", "b = 5\nprint(b)\n"]}


def trained(folder, template: str) -> LoadedModel:
    """The model as a student that was trained here on prompts in ``template``."""
    opened = load_student(folder)
    with_prompt_format(opened.tokenizer, PromptFormat(template))
    return opened


@pytest.mark.parametrize("suite", ["token", "line", "output"])
@pytest.mark.parametrize(
    ("model", "samples", "chat"),
    [
        ("untrained", SAMPLES, True),
        ("untrained", TINYPY, False),
        ("chat", SAMPLES, True),
        ("chat", TINYPY, True),
        ("plain", SAMPLES, False),
        ("without a template", SAMPLES, False),
    ],
)
def test_the_model_decides_whether_prompts_are_in_its_chat_template(
    folder, plain, suite, model, samples, chat, monkeypatch
):
    student = load_student(plain if model == "without a template" else folder)
    student = trained(folder, model) if model in ("chat", "plain") else student
    notes: list[str] = []
    heard: list[str] = []
    table = make_table(samples)

    def listening(inner):
        def listen(model, tokenizer, texts, **options):
            heard.extend([*texts, *(options.get("prefixes") or ())])
            return inner(model, tokenizer, texts, **options)

        return listen

    for name in ("complete", "predict_next"):
        monkeypatch.setattr(decode, name, listening(getattr(decode, name)))
    found = SUITES.get(suite)()(student, table, seed=0, events=lambda event: notes.append(event.text))
    assert any("<|im_start|>" in text for text in heard) is chat
    wanted = asked(student, suite, table, chat=chat)
    assert found.counts == wanted.counts
    assert [*found.texts()] == [*wanted.texts()]
    said = [text for text in notes if "chat template" in text]
    assert len(said) == (chat and not (suite == "output" and model == "chat"))


@pytest.mark.parametrize("suite", ["token", "line"])
def test_samples_without_prompts_and_whole_texts_stay_plain(folder, suite):
    student = trained(folder, "chat")
    without = make_table(WITHOUT_PROMPTS)
    assert [*asked(student, suite, without).texts()] == [*asked(student, suite, without, chat=False).texts()]
    whole = asked(student, suite, make_table(TINYPY), text="all")
    assert whole.counts == asked(student, suite, make_table(TINYPY), text="all", chat=False).counts


def test_plain_prompts_for_a_chat_model_are_said_where_they_are_the_default(student, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "a", "options": ["1", "2"], "answer": 0}\n')
    for chat in (False, True):
        notes: list[str] = []
        suite = SUITES.get("choice")(problems=str(tmp_path / "q.jsonl"), chat=chat)
        suite(student, pa.table({}), seed=0, events=lambda event, notes=notes: notes.append(event.text))
        said = "choice: the prompts are plain text; chat=true puts them into the model's chat template" in notes
        assert said is not chat


@pytest.mark.parametrize("suite", ["token", "line", "output", "choice"])
def test_a_chat_without_a_template_is_one_line(suite, plain, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "a", "options": ["1", "2"], "answer": 0}\n')
    options = {"problems": str(tmp_path / "q.jsonl")} if suite == "choice" else {}
    with pytest.raises(DataError, match="chat: the model's tokenizer has no chat template; try: leave out chat"):
        asked(load_student(plain), suite, chat=True, **options)


@pytest.mark.parametrize("suite", ["token", "line"])
def test_a_chat_about_whole_programs_is_refused(suite):
    with pytest.raises(RecipeError, match=f"the suite '{suite}': with a chat template only answers"):
        SUITES.get(suite)(chat=True, text="all")


def test_a_difficulty_by_chat_is_that_of_the_answer_after_the_rendered_prompt(folder, student):
    table = make_table(SAMPLES)
    wanted = []
    for prompt, answer in zip(*SAMPLES.values(), strict=True):
        each = chances(student, prompt, answer)
        wanted.append(-each[np.arange(len(each)), student.tokenizer(answer)["input_ids"]].mean())
    assert make_difficulty("loss", {"model": str(folder), "chat": True})(table) == pytest.approx(wanted, abs=1e-5)
    other = make_difficulty("loss", {"model": str(folder)})(table)  # remembered apart
    assert not np.allclose(other, wanted, atol=1e-3)
    assert make_difficulty("loss", {"model": str(folder), "chat": True})(table) == pytest.approx(wanted, abs=1e-5)


def test_options_by_chat_are_compared_as_the_suite_does(folder, student):
    options = (" 12", " # 3", " a = b")
    (found,) = (
        part[0]
        for part in read_model(str(folder), "choice", [ScoringRequest("3 + 7", " # 3", options)], chat=True)
        if part
    )
    sums = []
    for option in options:
        each = chances(student, "3 + 7", option[1:])
        sums.append(each[np.arange(len(each)), student.tokenizer(option[1:])["input_ids"]].sum())
    shares = np.exp(np.array(sums) - max(sums))
    assert found == pytest.approx(shares[1] / shares.sum(), abs=1e-5)


def test_a_difficulty_by_chat_without_a_template_is_one_line(plain):
    with pytest.raises(DataError, match="chat: the model's tokenizer has no chat template"):
        make_difficulty("attention", {"model": str(plain), "chat": True})(make_table(SAMPLES))


def test_another_template_is_another_model_to_those_who_ask_through_it(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    plain, chat = (
        make_difficulty("loss", {"model": str(copy)}).identity,
        make_difficulty("loss", {"model": str(copy), "chat": True}).identity,
    )
    assert plain != chat
    file = copy / "chat_template.jinja"
    file.write_text(file.read_text() + " ")
    assert make_difficulty("loss", {"model": str(copy)}).identity == plain
    assert make_difficulty("loss", {"model": str(copy), "chat": True}).identity != chat
