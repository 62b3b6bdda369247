"""A student that knows its texts by heart is right in every suite, whatever its tokenizer does with spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from foreign_tokenizers import codellama, gemma, llama2, qwen, roberta, zephyr
from small_students import one_thread, train, untrained

from gradatim.distillation.scoring_judge import pooled
from gradatim.evaluation.completion import line, token
from gradatim.evaluation.generation import Question, Writing, write
from gradatim.evaluation.output import output
from gradatim.inference.decode import complete
from gradatim.model.load import LoadedModel
from gradatim.model.prompt_format import prepare_tokenizer, prompt_formatter
from gradatim.model.text_codec import codec_of
from gradatim.stage import SuiteResult

__all__ = ["one_thread"]

PROGRAMS = [
    "def add(a, b):\n    return a + b\n",
    "if a > 0:\n        return  b\n\n    x = 1\n",
    "for é in x:\n    y = 'é'\n",
]
ANSWERS = [
    ("def add(a, b):\n", "    return a + b\n"),
    ("x = 1\ny =", " 2\n"),
    ("question: </s>", "  <|im_end|> is text </s>"),
    ("ret", "urn b"),
]
KINDS: list[Callable[[], Any]] = [llama2, roberta]


def table(rows: list[tuple[str, str]]) -> pa.Table:
    prompts, answers = zip(*rows, strict=True)
    columns = {"prompt": pa.array(prompts, pa.large_string()), "answer": pa.array(answers, pa.large_string())}
    return pa.table({"id": [str(number) for number in range(len(rows))], **columns})


def settled(tokenizer: Any, template: str = "plain") -> Any:
    return prepare_tokenizer(tokenizer, template, None, None, "base", lambda event: None)


def taught(tokenizer: Any, rows: list[tuple[str, str]]) -> LoadedModel:
    return train(untrained(tokenizer, context=128), table(rows), 80)


def passed(result: SuiteResult) -> int:
    """How many attempts are right, when all are."""
    counts = result.counts["all"]["all"]
    assert counts.passed == counts.total, result.examples
    return counts.passed


@pytest.fixture(scope="module", params=KINDS, ids=lambda make: make.__name__)
def answering(request: pytest.FixtureRequest) -> LoadedModel:
    return taught(settled(request.param()), ANSWERS)


@pytest.fixture(scope="module", params=[codellama, gemma], ids=lambda make: make.__name__)
def reciting(request: pytest.FixtureRequest) -> LoadedModel:
    return taught(settled(request.param()), [("", program) for program in PROGRAMS])


@pytest.fixture(scope="module", params=[llama2, zephyr, qwen], ids=lambda make: make.__name__)
def chatting(request: pytest.FixtureRequest) -> LoadedModel:
    return taught(settled(request.param(), "chat"), ANSWERS)


def test_a_completion_has_the_spaces_that_were_learnt(answering: LoadedModel) -> None:
    model, tokenizer = answering.model, answering.tokenizer
    prompts, answers = map(list, zip(*ANSWERS, strict=True))
    for drafts in (None, answers, [answer[:3] for answer in answers]):
        found = complete(model, tokenizer, list(map(prompt_formatter(tokenizer), prompts)), limits=60, drafts=drafts)
        assert [one.text for one in found] == answers
        assert {one.finish for one in found} == {"eos"}


def test_a_text_that_is_settled_early_is_the_beginning_of_the_whole(answering: LoadedModel) -> None:
    model, tokenizer = answering.model, answering.tokenizer
    seen: list[tuple[int, str]] = []
    prompts = [prompt_formatter(tokenizer)(prompt) for prompt, _ in ANSWERS]
    complete(model, tokenizer, prompts, limits=60, settled=lambda at, text: bool(seen.append((at, text))))
    assert len(seen) > len(ANSWERS)
    assert all(ANSWERS[place][1].startswith(text) for place, text in seen)


def test_a_stop_is_found_behind_the_space_of_a_token(answering: LoadedModel) -> None:
    model, tokenizer = answering.model, answering.tokenizer
    prompts = [prompt_formatter(tokenizer)(prompt) for prompt, _ in ANSWERS]
    for stop in (" ", "+ ", "\n", "text"):
        found = complete(model, tokenizer, prompts, limits=60, stop=[stop])
        assert [one.text for one in found] == [answer.partition(stop)[0] for _, answer in ANSWERS]


def test_the_suites_find_a_right_student_right(answering: LoadedModel) -> None:
    for suite in (output(), output(protocol="greedy", batch=1)):
        assert passed(suite(answering, table(ANSWERS), seed=0)) == len(ANSWERS)


def test_lines_are_gone_on_with_from_inside_a_text(reciting: LoadedModel) -> None:
    programs = table([("", program) for program in PROGRAMS])
    assert passed(line()(reciting, programs, seed=0)) == 4
    shown = token()(reciting, programs, seed=0).examples
    assert {one["attempt"][:9] for one in shown if one["expected"] == PROGRAMS[0]} == {"def add(a"}


def test_a_prompt_that_ends_inside_a_token_is_gone_on_with(reciting: LoadedModel) -> None:
    """With the space or line end that the prompt has, once."""
    model, tokenizer = reciting.model, reciting.tokenizer
    text = PROGRAMS[0]
    ends = [cut for cut in range(6, len(text)) if text[cut - 1] in " \n"]
    inside = [cut for cut in ends if text[cut - 1] == "\n" or " " not in (text[cut - 2], text[cut])]
    found = complete(model, tokenizer, [text[:cut] for cut in inside], limits=60, heal=True)
    wrong = [(text[:cut], one.text) for one, cut in zip(found, inside, strict=True) if one.text != text[cut:]]
    assert len(inside) == 5
    assert not wrong


def test_a_chat_is_answered_as_it_was_learnt(chatting: LoadedModel) -> None:
    rows = table(ANSWERS)
    for suite in (output(), line(chat=True), token(chat=True)):
        assert passed(suite(chatting, rows, seed=0)) >= len(ANSWERS)
    questions = [Question(str(number), prompt, number) for number, (prompt, _) in enumerate(ANSWERS)]
    written = [sample.text for some in write(chatting, questions, Writing(tokens=60, chat=True)) for sample in some]
    assert written == [answer for _, answer in ANSWERS]


def test_a_prompt_is_not_cut_back_into_the_template(chatting: LoadedModel) -> None:
    model, tokenizer = chatting.model, chatting.tokenizer
    given = [prompt_formatter(tokenizer)(prompt) for prompt, _ in ANSWERS]
    found = complete(model, tokenizer, [""] * len(ANSWERS), prefixes=given, limits=60, heal=True)
    assert [one.text for one in found] == [answer for _, answer in ANSWERS]
    with pytest.raises(ValueError, match="different lengths"):
        complete(model, tokenizer, [""], prefixes=given, limits=1)


def test_an_attempt_is_read_with_the_tokens_that_were_written(answering: LoadedModel) -> None:
    """The student's own answers are likely to it, so the least likely of their tokens is."""
    shape = prompt_formatter(answering.tokenizer)
    rows = pooled(answering, [shape(prompt) for prompt, _ in ANSWERS], [answer for _, answer in ANSWERS], 4)
    for row in rows:
        assert row is not None
        assert row[-2] > -1.0


def test_a_program_is_put_together_from_the_pieces_of_its_tokens(answering: LoadedModel) -> None:
    tokenizer = answering.tokenizer
    pieces = codec_of(tokenizer).pieces
    for text in ("x = 1\nreturn b", "def add(a, b):\n    return a + b\n"):
        (tokens,) = codec_of(tokenizer).encode([text])
        assert "".join(pieces[number] for number in tokens).removeprefix(" ") == text
