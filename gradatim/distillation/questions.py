"""Questions of the source ``taught``: seeds in the first cycle, then new questions from the feedback.

The first cycle has the seed questions of a table or file, or else the teacher's; the teacher answers those without an
answer. In a later cycle parents are chosen among the questions that the student attempted, as many of each grade as
``ratio`` gives (``graded``, ``apportion``, ``round_robin``), and the teacher writes a question of each parent's kind.
A question that is not new (``novelty``) is refused and another requested, up to a limit; then the source is exhausted,
which its facts report. Every row names its parent and the grade that it was written for.

Answers are verified where possible: a TinyPy program is run, other answers go to ``right``. Unjudged questions belong
to no group but ``random``, which ignores grades. ``attempts`` grades questions; the corpus holds samples out, and every
sample in ``Feedback.known`` counts as existing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, GradatimError, TeacherFailed
from ..programs import commented, run_program
from ..random_streams import parents_seed
from ..stage import Drawn, Event, Feedback
from ..table import SCHEMA, dedupe, make_table
from ..table.rows import asks_for_output, largest_remainder
from ..teacher.teacher import GRADES, used_since
from .answer_format import format_answer, match_format
from .novelty import Contamination, Known, Refusals, refusal
from .question_options import QuestionOptions

if TYPE_CHECKING:
    from ..teacher import Question


class NoNewQuestions(DataError):
    """No new question for a cycle; the run ends with the cycles before it. ``facts``: the counts of the requests."""

    def __init__(self, message: str, *, facts: Mapping[str, Any] = MappingProxyType({}), **details: Any) -> None:
        self.facts = facts
        super().__init__(message, **details)


def graded(table: pa.Table | None, grade: Literal["feedback", "random"]) -> dict[str, pa.Table]:
    """Unique questions of a feedback by grade, or all of them as ``random``."""
    if table is None or not table.num_rows:
        return {}
    questions = dedupe(table, "id").table
    grades = pc.cast(questions["grade"], pa.string())
    groups = {name: questions.filter(pc.equal(grades, name)) for name in GRADES}
    if grade == "random":
        groups = {"random": questions}
    return {
        name: make_table({column: group[column] for column in SCHEMA.names if column in group.column_names})
        for name, group in groups.items()
        if group.num_rows
    }


def apportion(
    count: int, ratio: Mapping[str, float], groups: Mapping[str, pa.Table]
) -> tuple[dict[str, int], dict[str, int]]:
    """Number of questions for each grade, and the numbers that grades without parents leave to the others."""
    weights = {name: share for name, share in ratio.items() if share > 0}
    ideal = largest_remainder(count, weights)
    present = {name: share for name, share in weights.items() if name in groups}
    moved = {name: number for name, number in ideal.items() if name not in present and number}
    return largest_remainder(count, present), moved


def round_robin(parents: int, seed: int) -> Callable[[int], tuple[int, list[int]]]:
    """A function that returns the pass number and the next parents of that pass, at most a given number.

    Each pass visits every parent once, in an order of its own. No parent occurs twice in a pass, since an equal request
    with an equal sample index returns an equal reply.
    """
    generator = np.random.default_rng(seed)
    number = -1
    order: list[int] = []

    def following(limit: int) -> tuple[int, list[int]]:
        nonlocal number, order
        if not order:
            number, order = number + 1, generator.permutation(parents).tolist()
        rows, order = order[:limit], order[limit:]
        return number, rows

    return following


PASSES = 1_000
"""Passes whose sample indices follow those of the cycle before; further passes lie beyond those of all cycles."""
CYCLES = 1_000_000
"""More cycles than any run has."""


@dataclass
class QuestionDraw:
    """The samples of one cycle; counts go to ``facts`` and ``refusals``.

    ``facts``: ``cycle``, ``kept``, ``new``, ``learnt`` (rows of earlier cycles), ``asked``, ``refused`` by cause, and
    ``dry``, the reason for too few questions, or None. With seeds also ``seeds``: the number of seeds, of duplicate
    ids, of those beyond ``count``, and the counts of the seed file. After the first cycle also, by grade, ``parents``
    (candidates), ``wanted``, ``had``, and ``moved`` (of a grade without parents, left to the others).
    """

    options: QuestionOptions
    cycle: int
    facts: dict[str, Any] = field(default_factory=dict, init=False)
    refusals: Refusals = field(default_factory=Refusals, init=False)
    known: Known = field(default_factory=Known, init=False)

    def __post_init__(self) -> None:
        """Index the evaluation's problems and begin the facts."""
        self.evaluated = Contamination(self.options.evaluation)
        self.facts.update(cycle=self.cycle, asked=0, learnt=0, dry=None)

    def drawn(self, feedback: Feedback) -> Drawn:
        """The samples of the cycle with their facts, and the seed file's unused rows (first cycle) and fingerprint."""
        samples, seeds = self.table(feedback), self.options.seed_samples
        if seeds is None:
            return Drawn(samples, self.facts)
        return Drawn(samples, self.facts, seeds.rejected if self.cycle == 0 else None, seeds.origin)

    def table(self, feedback: Feedback) -> pa.Table:
        """The samples of the cycle, in ``table.SCHEMA``; deterministic.

        Raises ``DataError`` when no seed is usable or the seeds are the evaluation's problems, ``NoNewQuestions`` when
        a later cycle has no new question.
        """
        options, teacher = self.options, self.options.teacher
        before = deepcopy(dict(teacher.facts))
        questions = self.later(feedback) if self.cycle else self.first()
        self.facts.update(new=questions.num_rows, refused=self.refusals.facts())
        if "requests" in teacher.facts:
            self.facts["teacher"] = used_since(before, teacher.facts)
        if not questions.num_rows and not (self.cycle and options.new == 0):
            raise self._exhausted()
        earlier = self._earlier(feedback) if self.cycle and (options.accumulate or options.new == 0) else None
        tables = [questions] if earlier is None else [earlier, questions]
        self.facts.update(
            learnt=0 if earlier is None else earlier.num_rows, kept=sum(table.num_rows for table in tables)
        )
        return pa.concat_tables([table.cast(SCHEMA) for table in tables]).unify_dictionaries().combine_chunks()

    def first(self) -> pa.Table:
        """The seed questions with correct answers that are no problems of the evaluation."""
        options, seeds = self.options, self.options.seed_samples
        if seeds is None:
            questions = options.teacher.seeds(options.count, seed=options.seed)
            self.facts["asked"] += len(questions)
            table = _table(questions)
        else:
            self._check_seeds(seeds.table)
            unique = dedupe(seeds.table.select(SCHEMA.names).cast(SCHEMA), "id")
            number, table = seeds.table.num_rows, _random_rows(unique.table, options.count, options.seed)
            beyond = unique.table.num_rows - table.num_rows
            self.facts["seeds"] = {
                **seeds.facts,
                "given": number,
                "duplicates": unique.dropped,
                "beyond": beyond,
            }
        table = self._accepted(table, [self.evaluated.refuses(prompt) for prompt in texts(table, "prompt")])
        return self._answered(table, draw=0)

    def later(self, feedback: Feedback) -> pa.Table:
        """New questions after the graded questions of ``feedback``."""
        options = self.options
        groups = graded(feedback.table, options.grade)
        ratio = {"random": 1.0} if options.grade == "random" else options.ratio
        count = options.count if options.new is None else options.new
        goals, moved = apportion(count, ratio, groups)
        self.facts.update(parents={name: group.num_rows for name, group in groups.items()}, wanted=goals, moved=moved)
        known = feedback.known if feedback.known is not None else feedback.table
        # A sample of several cycles is compared once: every new question is compared with all existing ones.
        self.known = Known(dict.fromkeys(texts(known, "prompt") if known is not None else ()), limit=options.limit)
        tables = {name: self.children(name, groups[name], number) for name, number in goals.items() if number}
        numbers = {name: table.num_rows for name, table in tables.items()}
        self.facts.update(had=numbers)
        short = [
            f"{numbers[name]} of {number} {name}" for name, number in goals.items() if numbers.get(name, 0) < number
        ]
        if short:
            self.facts["dry"] = f"new questions had: {', '.join(short)}"
        if count and not goals:
            self.facts["dry"] = "no question has a grade that new ones are written for"
        return pa.concat_tables([SCHEMA.empty_table(), *tables.values()])

    def children(self, grade: str, parents: pa.Table, number: int) -> pa.Table:
        """Up to ``number`` new questions with answers, each of the kind of one of ``parents``."""
        options, task = self.options, f"new {grade} questions"
        following = round_robin(parents.num_rows, parents_seed(options.seed, self.cycle, grade))
        budget = number * (1 + options.rounds)
        tables: list[pa.Table] = [SCHEMA.empty_table()]
        count = 0
        options.events(Event("start", task, 0, number))
        while count < number and budget:
            pass_number, rows = following(min(number - count, budget))
            draw = sample_index(self.cycle, pass_number)
            budget -= len(rows)
            self.facts["asked"] += len(rows)
            batch = parents.take(rows)
            questions = options.teacher.questions(batch, grade="middle" if grade == "random" else grade, draw=draw)
            fresh = self._fresh(zip(texts(batch, "id"), questions, strict=True))
            tables.append(self._answered(_table(*fresh, grade=grade), draw=draw))
            count += tables[-1].num_rows
            options.events(Event("advance", task, count, number))
        options.events(Event("finish", task, count, number))
        return pa.concat_tables(tables)

    def _fresh(self, children: Iterator[tuple[str, Question | None]]) -> tuple[list[Question], list[str]]:
        """The accepted questions and their parents' ids; accepted questions count as existing from here on."""
        questions, parents = [], []
        for parent, question in children:
            cause = "no_question" if question is None else refusal(question.prompt, self.known, self.evaluated)
            if question is None or cause is not None:
                self.refusals.count(cause or "no_question")
                continue
            self.known.add(question.prompt)
            questions.append(question)
            parents.append(parent)
        return questions, parents

    def _answered(self, table: pa.Table, draw: int) -> pa.Table:
        """The rows with an answer that is neither proved wrong nor the evaluation's."""
        answers = texts(table, "answer")
        missing = [row for row, answer in enumerate(answers) if not answer]
        if missing:
            replies = self.options.teacher.answers(table.take(missing), draw=draw)
            for row, answer in zip(missing, replies, strict=True):
                answers[row] = answer or ""
            column = SCHEMA.get_field_index("answer")
            table = table.set_column(column, SCHEMA.field(column), pa.array(answers, pa.large_string()))
        table = self._accepted(table, [None if answer else "unanswered" for answer in answers])
        table = self._formatted(table)
        return self._accepted(table, self._wrong(table))

    def _formatted(self, table: pa.Table) -> pa.Table:
        """The rows with answers and rejected answers in the options' format; those without a program are refused."""
        answer_format = self.options.answer_format
        if answer_format is None:
            return table
        rows = table.select(["prompt", "answer", "rejected", "tests", "language"]).to_pylist()
        answers = [
            format_answer(row["prompt"], row["answer"], row["language"], answer_format)
            or (None if row["tests"] else row["answer"])  # without tests an answer may be words
            for row in rows
        ]
        rejected = [
            None
            if answer is None or row["rejected"] is None
            else match_format(row["prompt"], answer, row["rejected"], row["language"])
            for answer, row in zip(answers, rows, strict=True)
        ]
        for name, column in (("answer", [answer or "" for answer in answers]), ("rejected", rejected)):
            index = SCHEMA.get_field_index(name)
            table = table.set_column(index, SCHEMA.field(index), pa.array(column, pa.large_string()))
        return self._accepted(table, ["no_program" if answer is None else None for answer in answers])

    def _wrong(self, table: pa.Table) -> list[str | None]:
        """Cause of refusal for each row's answer, None for an acceptable one."""
        prompts, answers = texts(table, "prompt"), texts(table, "answer")
        causes = [
            _output_fault(prompt, answer) if asks_for_output(prompt) else self.evaluated.refuses(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        rows = [row for row, prompt in enumerate(prompts) if causes[row] is None and not asks_for_output(prompt)]
        if rows and self.options.right is not None:
            verdicts = self.options.right(table.take(rows), [answers[row] for row in rows])
            for row, verdict in zip(rows, verdicts, strict=True):
                causes[row] = "wrong_answer" if verdict is False else None
        return causes

    def _accepted(self, table: pa.Table, causes: Sequence[str | None]) -> pa.Table:
        """The rows without a cause of refusal; the causes are counted."""
        for cause in causes:
            if cause is not None:
                self.refusals.count(cause)
        return table.filter(pa.array([cause is None for cause in causes], pa.bool_()))

    def _check_seeds(self, seeds: pa.Table) -> None:
        """Raise ``DataError`` when half of the seeds or of the evaluation's texts are equal: it is the same file."""
        same = sum(self.evaluated.holds(prompt) for prompt in texts(seeds, "prompt"))
        if same and 2 * same >= min(seeds.num_rows, len(self.evaluated)):
            raise DataError(
                "the seed questions are problems that the student is examined with",
                where="source.seeds",
                given=f"{same} of {seeds.num_rows} seeds are in the evaluation",
                hint="other seeds, or another evaluation",
            )

    def _earlier(self, feedback: Feedback) -> pa.Table:
        """Unique samples of earlier cycles; only rejected answers from the seeds stay, others are delivered anew."""
        if feedback.learnt is None:
            raise DataError("there are no samples of former cycles", where="source taught", given="an empty feedback")
        table = dedupe(feedback.learnt.select(SCHEMA.names), "text").table
        answers: dict[str, str | None] = {}
        seeds = self.options.seed_samples
        if seeds is not None and "rejected" in seeds.table.column_names:
            answers = dict(zip(texts(seeds.table, "id"), seeds.table["rejected"].to_pylist(), strict=True))
        rejected = pa.array([answers.get(id) for id in texts(table, "id")], pa.large_string())
        return table.set_column(SCHEMA.get_field_index("rejected"), SCHEMA.field("rejected"), rejected)

    def _exhausted(self) -> GradatimError:
        causes = ", ".join(f"{cause} {number}" for cause, number in self.refusals.facts().items())
        causes = causes or "nothing was asked"
        if self.cycle == 0:
            return DataError("no seed question can be used", where="source taught", given=causes)
        usage = self.facts.get("teacher", {})
        if (
            usage.get("requests")
            and set(self.refusals.facts()) == {"no_question"}
            and any(usage["unreadable"].values())
        ):
            return TeacherFailed(
                f"no reply of the teacher can be read as a question, in cycle {self.cycle}",
                where="source taught",
                given=f"{usage['requests']:,} replies",
                hint="a larger teacher.max_tokens, prompts of your own (teacher.prompts) or another model, with --out",
            )
        reason = self.facts["dry"] or "no new question"
        return NoNewQuestions(
            f"the source has run dry in cycle {self.cycle}: {reason}",
            where="source taught",
            given=causes,
            facts=self.facts,
        )


def sample_index(cycle: int, pass_number: int) -> int:
    """Sample index of a pass over the parents of ``cycle``; unique, so that cached replies are not reused."""
    block, index = divmod(pass_number, PASSES)
    return block * PASSES * CYCLES + cycle * PASSES + index


def _random_rows(table: pa.Table, count: int, seed: int) -> pa.Table:
    """``count`` rows of a larger table, chosen by ``seed``, in the table's order."""
    if table.num_rows <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).permutation(table.num_rows)[:count]))


def _table(questions: Sequence[Question], parents: Sequence[str] | None = None, grade: str | None = None) -> pa.Table:
    """The questions as samples; a missing answer is empty."""
    return make_table(
        {
            "prompt": [question.prompt for question in questions],
            "answer": [question.answer or "" for question in questions],
            "tests": [question.tests for question in questions],
            "level": [question.level for question in questions],
            "category": [grade or question.category for question in questions],
            "language": [question.language for question in questions],
            "parent": parents if parents is not None else [None] * len(questions),
            "source": ["taught"] * len(questions),
        }
    )


def texts(table: pa.Table, column: str) -> list[str]:
    """A column of texts as a list."""
    values: list[str] = table[column].to_pylist()
    return values


def _output_fault(program: str, answer: str) -> str | None:
    """``cannot_run`` or ``wrong_answer`` when ``answer`` is not the output of ``program``, else None."""
    try:
        output = commented(run_program(program))
    except DataError:
        return "cannot_run"
    return None if output == answer else "wrong_answer"
