"""The exact teacher of TinyPy: questions from the grammar, answers from the interpreter.

A new question has the statements of its parent with other literals, operators and names (``variation``); after
``TRIES`` without success it is drawn from the parent's level instead. With ``new_questions="level"`` every new
question is drawn from its parent's level, so that the parents decide on the shares of the levels alone. An incorrect
answer is the output of a program that differs in one place (``mutations``). Results are functions of (seed, draw, id),
so none of them is stored.

The oracle does not grade attempts; the judge ``output`` decides on correctness. Duplicates of existing questions are
dropped by the source of new questions, not here.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import DataError, UserError
from ..options import strict
from ..programs.equivalence import canonical
from ..programs.grammar import COMPARISONS, DIGITS, LEVELS, OPERATORS, countings, levels_named, ranges
from ..programs.interpret import commented, run_program
from .teacher import Grade, Question, Teacher, check_grade

if TYPE_CHECKING:
    import pyarrow as pa


TRIES = 40
"""Tries of a variation of the parent, and then as many of a program of the parent's level."""
MAX_STEPS = 1_000
"""Statements that a mutated program may execute: an endless loop gives no plausible answer."""


NewQuestions = Literal["variation", "level"]
"""New questions like their parents: with the same statements, or of the same level alone."""


class Oracle(Teacher):
    """The exact teacher. ``levels`` and ``digits`` bound the programs of ``seeds`` and of new questions."""

    exact = True

    def __init__(
        self,
        *,
        levels: str | Sequence[str] = ("all",),
        digits: int = 9,
        seed: int = 0,
        new_questions: NewQuestions = "variation",
    ) -> None:
        if not DIGITS[0] <= digits <= DIGITS[1]:
            raise DataError(
                "digits cannot be used", where="oracle", given=digits, allowed=f"{DIGITS[0]} to {DIGITS[1]}"
            )
        levels_named(levels)
        self.levels = (levels,) if isinstance(levels, str) else tuple(levels)
        self.digits, self.seed, self.new_questions = digits, seed, new_questions
        self._counts: Counter[str] = Counter()

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of results (``redrawn``: questions drawn from the level) and of missing results."""
        return dict(sorted(self._counts.items()))

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """The output of each program as comments; None for a text that is not TinyPy, fails, or prints nothing."""
        return [self._count("answers", _output(prompt)) for prompt in questions["prompt"].to_pylist()]

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """The output of a mutation of each program, different from the correct answer."""
        rows = zip(samples["id"].to_pylist(), samples["prompt"].to_pylist(), strict=True)
        return [self._count("faults", self._fault(prompt, self._random("fault", draw, id))) for id, prompt in rows]

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """One new program per parent with its output; never equal to the parent up to names."""
        check_grade(grade)
        columns = (parents[name].to_pylist() for name in ("id", "prompt", "level"))
        return [
            self._count("questions", self._question(prompt, level, self._random(grade, draw, id)))
            for id, prompt, level in zip(*columns, strict=True)
        ]

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """``count`` different programs, spread over the levels; deterministic for a seed."""
        # Imported here because the generator takes numpy, pyarrow and multiprocessing.
        from ..programs.generator import generate

        table = generate(count, levels=self.levels, digits=self.digits, seed=seed).table
        columns = (table[name].to_pylist() for name in ("prompt", "answer", "level"))
        return [Question(prompt, answer, level, "python") for prompt, answer, level in zip(*columns, strict=True)]

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """Not available: ``UserError``."""
        raise UserError(
            "the teacher 'oracle' decides on correctness only and has no opinion",
            where="rubric",
            hint="the judge output, or a teacher that is a language model",
        )

    def design(
        self,
        facts: str,
        *,
        form: str,
        reply: str = "",
        faults: Sequence[str] = (),
        prompt: str = "design",
        draw: int = 0,
    ) -> str | None:
        """Not available: ``UserError``."""
        raise UserError(
            "the teacher 'oracle' decides on correctness only and has no opinion of a curriculum",
            where="schedule.name: designed",
            hint="a schedule that needs no teacher, or a teacher that is a language model",
        )

    def _random(self, purpose: str, draw: int, id: str) -> Random:
        return Random(f"{self.seed}/{purpose}/{draw}/{id}")

    def _count(self, kind: str, result: Any) -> Any:
        self._counts[kind if result is not None else f"{kind} not to be had"] += 1
        return result

    def _fault(self, prompt: str, random: Random) -> str | None:
        correct = _output(prompt)
        if correct is None:
            return None
        outputs = (_output(program, MAX_STEPS) for program in mutations(prompt, random))
        return next((output for output in outputs if output is not None and output != correct), None)

    def _question(self, parent: str, level: str | None, random: Random) -> Question | None:
        parent_form = canonical(parent)
        if self.new_questions == "variation" and _output(parent) is not None:
            for _ in range(TRIES):
                prompt = variation(parent, self.digits, random)
                answer = _output(prompt, MAX_STEPS) if prompt is not None else None
                if prompt is not None and answer is not None and canonical(prompt) != parent_form:
                    return Question(prompt, answer, level, "python")
        return self._redraw(parent_form, level, random)

    def _redraw(self, parent_form: str, level: str | None, random: Random) -> Question | None:
        """Another program of the level; None for an unknown level."""
        from ..programs.generator import Drawer

        if level not in LEVELS:
            return None
        draw = Drawer(LEVELS[level], self.digits, str(random.getrandbits(64)))
        for _ in range(TRIES):
            try:
                prompt, answer = draw()
            except ArithmeticError:
                continue
            if canonical(prompt) != parent_form:
                self._counts["redrawn"] += 1
                return Question(prompt, answer, level, "python")
        return None


def _output(program: str, max_steps: int = 10_000) -> str | None:
    """The output of ``program`` as an answer; None where it is not TinyPy, fails, does not end, or prints nothing."""
    try:
        return commented(run_program(program, max_steps=max_steps)) or None
    except DataError:
        return None


@strict("teacher 'oracle'")
def oracle(
    *,
    levels: Annotated[str | Sequence[str], Field(description="TinyPy levels of seed questions and new questions.")] = (
        "all",
    ),
    digits: Annotated[int, Field(description="Largest integer literal.")] = 9,
    seed: int = 0,
    new_questions: Annotated[
        NewQuestions,
        Field(
            description="New questions have the statements of their parents with other literals, operators and names "
            "(`variation`), or are other programs of their parents' levels (`level`; none for a question without one)."
        ),
    ] = "variation",
) -> Teacher:
    """TinyPy: questions from the grammar, answers by running them"""
    return Oracle(levels=levels, digits=digits, seed=seed, new_questions=new_questions)


_WORDS = frozenset(["range", "print", *keyword.kwlist])
_TOKEN = re.compile(r"#[^\n]*|[A-Za-z_]\w*|\d+|[<>=!]=|//|[-+*/%<>]")
_FOR = re.compile(r"^(?P<indent>\t*)for (?P<name>\w+) in range\([^)\n]*\) :$")
_WHILE = re.compile(r"^while (?P<counter>[a-z]\w*) (?:[<>]=?|!=) (?P<bound>\w+) :$")


def variation(program: str, digits: int, random: Random) -> str | None:
    """A program with the statements of ``program`` and other literals, operators, comparisons and names.

    They have the grammar's distribution: literals in 0..``digits``, and loops as the grammar repeats them. None for a
    ``while`` loop that is not of the grammar. The text is not executed.
    """
    lines = program.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("while ")]
    fixed: dict[int, str] = {}
    if heads:
        loop_lines = _while_lines(lines, heads[0], digits, random) if len(heads) == 1 else None
        if loop_lines is None:
            return None
        fixed = loop_lines
    varied = [fixed[number] if number in fixed else _line(line, digits, random) for number, line in enumerate(lines)]
    return _rename("".join(f"{line}\n" for line in varied), random)


def _line(line: str, digits: int, random: Random) -> str:
    loop = _FOR.match(line)
    if loop:
        return f"{loop['indent']}for {loop['name']} in {random.choice(ranges(digits))[0]} :"

    def replacement(token: re.Match[str]) -> str:
        text = token[0]
        if text.isdigit():
            return str(random.randint(0, digits))
        if text in OPERATORS:
            return random.choice(OPERATORS)
        return random.choice(COMPARISONS) if text in COMPARISONS else text

    return _TOKEN.sub(replacement, line)


def _while_lines(lines: list[str], head: int, digits: int, random: Random) -> dict[int, str] | None:
    """New texts of the lines that control the ``while`` at line ``head``; None for a form outside the grammar."""
    loop = _WHILE.match(lines[head])
    if loop is None:
        return None
    counter, bound = loop["counter"], loop["bound"]
    starts = [number for number in range(head) if re.fullmatch(rf"{counter} = \d+", lines[number])]
    step = re.compile(rf"\t{counter} = {counter} [+-] \d+")
    steps = [number for number in range(head + 1, len(lines)) if step.fullmatch(lines[number])]
    bounds = [number for number in range(head) if re.fullmatch(rf"{bound} = \d+", lines[number])]
    if len(starts) != 1 or len(steps) != 1 or (not bound.isdigit() and len(bounds) != 1):
        return None
    start = random.choice([value for value, options in enumerate(countings(digits)) if options])
    sign, limit, move = random.choice(countings(digits)[start])
    fixed = {
        starts[0]: f"{counter} = {start}",
        steps[0]: f"\t{counter} = {counter} {'+' if move > 0 else '-'} {abs(move)}",
        head: f"while {counter} {sign} {limit if bound.isdigit() else bound} :",
    }
    return fixed if bound.isdigit() else {**fixed, bounds[0]: f"{bound} = {limit}"}


def _rename(program: str, random: Random) -> str:
    """``program`` with random letters as names; unchanged where it has more names than there are letters."""
    names = list(dict.fromkeys(token for token in _TOKEN.findall(program) if _is_name(token)))
    if len(names) > len(ascii_lowercase):
        return program
    letters = dict(zip(names, random.sample(ascii_lowercase, len(names)), strict=True))
    return _TOKEN.sub(lambda token: letters.get(token[0], token[0]), program)


def _is_name(token: str) -> bool:
    return token.isidentifier() and token not in _WORDS


def mutations(program: str, random: Random) -> Iterator[str]:
    """Programs that differ from ``program`` in one operator, comparison, literal or variable, in random order without
    repetition."""
    tokens = list(_TOKEN.finditer(program))
    names = list(dict.fromkeys(token[0] for token in tokens if _is_name(token[0])))
    changes = [(token, text) for token in tokens for text in _alternatives(token[0], names)]
    random.shuffle(changes)
    for token, text in changes:
        yield program[: token.start()] + text + program[token.end() :]


def _alternatives(token: str, names: list[str]) -> list[str]:
    if token.isdigit():
        return [str(value) for value in (int(token) - 1, int(token) + 1, int(token) + 2) if value >= 0]
    if token in OPERATORS:
        return [operator for operator in "+-*" if operator != token]
    if token in COMPARISONS:
        return [comparison for comparison in COMPARISONS if comparison != token]
    return [name for name in names if name != token] if _is_name(token) else []
