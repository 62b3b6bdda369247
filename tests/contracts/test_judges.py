"""What every judge in the registry owes: the same battery for each, with a teacher that really reads its replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gradatim.distillation import JUDGES, Judge, View
from gradatim.distillation.judge import NeedsStudent
from gradatim.errors import RecipeError
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer
from gradatim.sandbox.command import sandbox_support
from gradatim.table import make_table
from gradatim.teacher import Request
from gradatim.teacher.llm_teacher import LanguageTeacher, ScriptedChat

GARBLED = "I would rather not give points."
POINTS = """\
It {does}.
<scores>
basic functionality: {basic}
boundary checks: 0.5
requirement coverage: {rest}
readability and documentation: 1
coding practices: {rest}
</scores>
"""


@dataclass(frozen=True)
class Example:
    """Samples with a right and a wrong attempt each, and one (sample, attempt) that this judge cannot judge."""

    samples: pa.Table
    right: list[str]
    wrong: list[str]
    unjudgeable: tuple[pa.Table, str]


def rows(prompts: list[str], answers: list[str], tests: str | None = None) -> pa.Table:
    many = {"tests": [tests] * len(prompts), "language": ["python"] * len(prompts)}
    return make_table({"prompt": prompts, "answer": answers, **many})


def printed(count: int) -> tuple[pa.Table, list[str], list[str]]:
    right = [f"# {number}\n" for number in range(count)]
    return rows([f"print({number})\n# output\n" for number in range(count)], right), right, ["# x\n"] * count


def programs() -> tuple[pa.Table, list[str], list[str]]:
    names = ["add", "plus", "both"]
    prompts = [f'def {name}(a, b):\n    """The sum."""\n' for name in names]
    right = ["    return a + b\n"] * 3
    samples = pa.concat_tables(
        [rows([prompt], [right[0]], f"assert {name}(1, 2) == 3\n") for name, prompt in zip(names, prompts, strict=True)]
    )
    return samples, right, ["    return (a\n", "    return a - b\n", "    retrun a + b\n"]


EXAMPLES: dict[str, Callable[[], Example]] = {
    "output": lambda: Example(*printed(3), (rows(["print(1)\n# output\n"], [""]), "# 1\n")),
    "tests": lambda: Example(*programs(), (rows(["def f():\n"], ["    pass\n"]), "    pass\n")),
    "static": lambda: Example(*programs(), (rows(["print(1)\n# output\n"], ["# 1\n"]), "# 1\n")),
    "rubric": lambda: Example(*programs(), (rows(["Say something."], ["x"]), "garbled")),
    "scoring": lambda: Example(*printed(30), (rows(["Say something."], ["x"]), "garbled")),
}
"""A new judge adds its own."""

EVERY = pytest.mark.parametrize("name", JUDGES.names())


def replies(example: Example) -> Callable[[Request], str]:
    """A teacher's replies: many points for the right attempts, few for others, nothing readable about one."""

    def reply(request: Request) -> str:
        attempt = request.messages[-1][1].partition("```python\n")[2].partition("\n```")[0]
        if attempt == "garbled":
            return GARBLED
        good = attempt in example.right
        return POINTS.format(does="works" if good else "fails", basic=2 if good else 0, rest=1 if good else 0)

    return reply


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    torch.manual_seed(1)
    tokenizer = character_tokenizer(["".join(map(chr, range(32, 127))) + "\n"])
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=60, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    return LoadedModel(GPT2LMHeadModel(config).eval(), tokenizer)


@pytest.fixture
def example(name: str) -> Example:
    return EXAMPLES[name]()


@pytest.fixture
def judge(name: str, example: Example, student: LoadedModel) -> Judge:
    walls = sandbox_support()
    if name in ("tests", "static") and not walls.available:
        pytest.skip(f"no walls: {walls.reason}; {walls.advice}")
    made = JUDGES.get(name)(LanguageTeacher(ScriptedChat(replies(example))))
    return made.by(student, seed=3) if isinstance(made, NeedsStudent) else made


@pytest.fixture
def both(example: Example) -> tuple[pa.Table, list[str]]:
    """Every sample twice: with its right attempt, then with its wrong one."""
    return pa.concat_tables([example.samples] * 2), example.right + example.wrong


SEEN: dict[str, list[View]] = {}


def seen(name: str, judge: Judge, both: tuple[pa.Table, list[str]]) -> list[View]:
    """What the judge says of its examples, asked once for all tests: some judges start a program for each."""
    if name not in SEEN:
        SEEN[name] = judge(*both)
    return SEEN[name]


@EVERY
class TestEveryJudge:
    def test_gives_one_view_per_attempt_and_tells_whether_it_proves(self, name, judge, both):
        views = seen(name, judge, both)
        assert len(views) == len(both[1])
        assert isinstance(judge.proves, bool)
        assert all(view.reason and "\n" not in view.reason for view in views)

    def test_scores_right_attempts_above_wrong_ones(self, name, judge, both):
        scores = [view.score for view in seen(name, judge, both)]
        right, wrong = scores[: len(scores) // 2], scores[len(scores) // 2 :]
        assert None not in scores
        assert sum(right) > 1.5 * sum(wrong)
        assert name == "scoring" or all(one >= other for one, other in zip(right, wrong, strict=True))

    def test_keeps_the_order(self, name, judge, both):
        samples, attempts = both
        views = seen(name, judge, both)
        backwards = judge(samples.take(list(range(len(attempts)))[::-1]), attempts[::-1])[::-1]
        assert [view.verdict for view in backwards] == [view.verdict for view in views]
        assert [view.score for view in backwards] == pytest.approx([view.score for view in views], abs=1e-4)

    def test_says_the_same_again(self, name, judge, both):
        assert judge(*both) == seen(name, judge, both)

    def test_has_no_number_for_what_it_cannot_judge(self, name, judge, example, both):
        odd, attempt = example.unjudgeable
        (view,) = judge(odd, [attempt])
        assert (view.score, view.verdict) == (None, "unjudged")
        assert view.reason
        samples = pa.concat_tables([both[0], odd])
        if name != "scoring":  # which asks the teacher about a part only
            found = judge(samples, [*both[1], attempt])
            assert found[-1] == view
            assert [each.score is None for each in found].count(True) == 1

    def test_of_nothing_says_nothing(self, name, judge, example):
        assert judge(example.samples.slice(0, 0), []) == []

    def test_refuses_options_that_it_does_not_have(self, name, example):
        with pytest.raises(RecipeError, match="has no option 'wieght'"):
            JUDGES.get(name)(LanguageTeacher(ScriptedChat(replies(example))), wieght=2)

    def test_is_listed_with_a_line_that_says_what_it_is(self, name):
        summary = next(entry.summary for entry in JUDGES if entry.name == name)
        assert 10 < len(summary) <= 100


def test_every_judge_has_an_example_here():
    assert sorted(EXAMPLES) == JUDGES.names()
