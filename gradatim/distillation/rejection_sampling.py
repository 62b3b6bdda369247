"""Rejection sampling: the student's own passing replies as answers, its failing replies as rejected answers.

Rejection-sampling fine-tuning (arXiv 2308.01825; expert iteration): ``num_samples`` replies per problem are generated
by the student at ``temperature``, the tests decide, and training is on the replies that pass. The answers have the
student's own form, so training changes the choice of the program and not the manner of replying. Later cycles use the
judged attempts of the student after the cycle before.

With ``replies: all`` every reply is an answer, whatever its verdict, for on-policy distillation (GKD, arXiv
2306.13649): the teacher's distribution decides what is learnt from a wrong reply, so the objective must be
``distillation`` without cross-entropy. Replies are used as they were sampled, one that was cut off as far as it goes,
so that a small ``max_new_tokens`` is a horizon: the first tokens alone are generated and trained on (arXiv 2605.31490).

With ``replies: reference`` no model replies: the answer to each problem is its reference solution, the same in every
cycle, and the options of the replies have no effect. It is the comparison that tells what a model's answers add to the
solutions which a file of problems has anyway.

A problem without a passing reply is skipped, or answered by the teacher or by the problem's reference solution, in the
format of the recipe. Otherwise a reply that was cut off is neither a right nor a rejected answer. Columns of the
samples beside the schema: ``failure_rate``, the share of replies that do not pass (0 to 1), a difficulty for curricula
by pass rate (NaN without replies); ``category`` is the number of passing replies and of all, such as ``3/4``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .. import table
from ..errors import RecipeError
from ..evaluation import functional, generation
from ..evaluation.problems import TRUNCATED, Folds, Problem, check_fold, read_problems
from ..lazy import pa
from ..model import hardware, load
from ..options import BatchSize, strict
from ..stage import CyclePlan, Drawn, Events, Feedback, Model, Source, ignore_events
from .answer_format import format_answer, match_format
from .judges import by_tests
from .novelty import Contamination

if TYPE_CHECKING:
    from ..evaluation.verdicts import Judged
    from ..model.settings import AnswerFormat, Dtype
    from ..teacher import Teacher

Unsolved = Literal["skip", "teacher", "reference"]
ReplyChoice = Literal["passing", "all", "reference"]
Weighting = Literal["uniform", "learnability"]

FAILURE_RATE = "failure_rate"


@dataclass(frozen=True)
class Replies:
    """The judged replies of one problem, in order: ``passing`` and ``failing`` ones are complete, ``sampled`` are all.

    ``passed`` of ``total`` replies passed, the cut-off ones included; ``truncated`` were cut off.
    """

    passing: tuple[str, ...]
    failing: tuple[str, ...]
    passed: int
    total: int
    truncated: int = 0
    sampled: tuple[str, ...] = ()

    @property
    def failure_rate(self) -> float:
        """The share of replies that did not pass."""
        return 1 - self.passed / self.total if self.total else math.nan


def replies_of(outcomes: Sequence[tuple[str, str, str]]) -> Replies:
    """The replies of one problem from (text, verdict, finish) of each; equal texts are used once."""
    complete = [(text, verdict) for text, verdict, finish in outcomes if finish not in TRUNCATED and text.strip()]
    passing = dict.fromkeys(text for text, verdict in complete if verdict == "passed")
    failing = dict.fromkeys(text for text, verdict in complete if verdict == "failed")
    passed = sum(verdict == "passed" for _, verdict, _ in outcomes)
    truncated = sum(finish in TRUNCATED for _, _, finish in outcomes)
    sampled = dict.fromkeys(text for text, _, _ in outcomes if text.strip())
    return Replies(tuple(passing), tuple(failing), passed, len(outcomes), truncated, tuple(sampled))


def quota(replies: Replies, answers: int, weighting: Weighting) -> int:
    """The largest number of answers of a problem: ``answers``, or by ``learnability`` in proportion to p(1 − p).

    p is the pass rate; a problem of p = 1/2 has all ``answers``, one that always passes or never passes has none.
    """
    if weighting == "uniform":
        return answers
    rate = replies.failure_rate
    return round(4 * rate * (1 - rate) * answers)


@dataclass(frozen=True)
class RejectionSampling(Source):
    """Samples from the student's own replies to ``problems``; see the module docstring.

    ``problems``: a file or a benchmark by name; of ``folds`` folds, ``fold`` is held out. ``model``: a folder, a .gguf
    file, a name on the hub, or ``http://HOST/v1#NAME``. ``answers``: the largest number of answers of a problem.
    ``replies``: which answers are used, passing replies, all replies (for distillation on the student's own ones) or
    reference solutions; without replies ``model`` may be None.
    ``keep``: folder of replies and verdicts, from which a later call resumes. ``dtype``: type of the weights of a local
    model. ``evaluation``: texts of evaluation problems, which are refused, or a function that reads them. Raises
    ``RecipeError`` for a value out of range.
    """

    problems: str
    model: str | None
    num_samples: int = 4
    temperature: float = 0.8
    max_new_tokens: int = 512
    answers: int = 4
    replies: ReplyChoice = "passing"
    weighting: Weighting = "uniform"
    unsolved: Unsolved = "skip"
    folds: int = 1
    fold: int = 0
    keep: str | None = None
    batch: int | None = None
    answer_format: AnswerFormat = "reply"
    dtype: Dtype = "fp32"
    teacher: Teacher | None = None
    evaluation: Sequence[str] | Callable[[], Sequence[str]] = field(default=(), compare=False, repr=False)
    seed: int = 0
    workers: int = field(default=1, compare=False)
    events: Events = field(default=ignore_events, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the options. Raises ``RecipeError``."""
        object.__setattr__(self, "changes", self.replies != "reference")
        self.sampling  # noqa: B018  (checks its values)
        if self.answers < 1:
            raise RecipeError("too few", where="data.answers", given=self.answers, allowed="1 or more")
        if self.folds > 1:
            check_fold("source 'rejection_sampling'", self.folds, self.fold)
        for name, value, default in (("weighting", self.weighting, "uniform"), ("unsolved", self.unsolved, "skip")):
            if self.replies != "passing" and value != default:
                raise RecipeError(
                    f"this depends on which replies pass, and with replies: {self.replies} the answers do not",
                    where=f"data.{name}",
                    given=value,
                    allowed=default,
                    hint="or data.replies: passing",
                )
        if self.model is None and self.replies != "reference":
            raise RecipeError("there is no model that replies", where="data.model", hint="student.base: FOLDER")
        if self.unsolved == "teacher" and self.teacher is None:
            raise RecipeError(
                "the teacher's answers need a teacher", where="data.unsolved", hint="name one, or unsolved: skip"
            )

    @property
    def sampling(self) -> functional.SamplingOptions:
        """The options of generation and execution."""
        return functional.SamplingOptions(
            "sampled",
            self.num_samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            chat=True,
            keep=self.keep,
            batch=self.batch,
            workers=self.workers,
        ).checked("rejection_sampling")

    @property
    def has_rejected(self) -> bool:
        """Whether failing replies are rejected answers."""
        return self.replies == "passing"

    @property
    def has_wrong_answers(self) -> bool:
        """Whether failing replies are answers."""
        return self.replies == "all"

    def plan(self, cycle: int) -> CyclePlan:
        """Unknown before the replies are judged."""
        return CyclePlan()

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """The samples of a cycle.

        Raises ``DataError`` without problems, ``SandboxMissing`` where programs cannot be run on this machine.
        """
        if cycle:
            return self._from_attempts(feedback)
        problem_set = read_problems(self.problems)
        if self.folds > 1:
            problem_set = problem_set.part(lambda fold: fold != self.fold, self.folds)
        contamination = Contamination(self.evaluation() if callable(self.evaluation) else self.evaluation)
        problems: Mapping[str, Problem] = problem_set.problems
        verdicts: Sequence[Judged] = []
        if self.model is not None and self.replies != "reference":
            problems, verdicts = functional.judged_samples(
                "functional", self._model(self.model), problem_set, _question, self.sampling, self.seed, self.events
            )
        outcomes: dict[str, list[tuple[str, str, str]]] = {name: [] for name in problems}
        for item in verdicts:
            outcomes[item.sample.task].append((item.sample.text, item.verdict.outcome, item.sample.finish))
        causes = {name: contamination.refuses(problem.prompt) for name, problem in problems.items()}
        questions = [
            Prompt(functional.chat_request(problem), problem.tests, problem.language, _reference(problem))
            for name, problem in problems.items()
            if causes[name] is None
        ]
        replies = [replies_of(outcomes[name]) for name in problems if causes[name] is None]
        refused = Counter(cause for cause in causes.values() if cause is not None)
        return self._drawn(questions, replies, {"problems": len(problems), "refused": dict(sorted(refused.items()))})

    def _from_attempts(self, feedback: Feedback) -> Drawn:
        """The samples of a later cycle, from the judged attempts in ``feedback``."""
        outcomes: dict[str, list[tuple[str, str, str]]] = {}
        questions: dict[str, Prompt] = {}
        rows = [] if feedback.table is None else feedback.table.to_pylist()
        for row in rows:
            outcomes.setdefault(row["id"], []).append((row["attempt"], row["verdict"], row.get("finish") or ""))
            questions[row["id"]] = Prompt(row["prompt"], row["tests"], row["language"], row["answer"])
        replies = [replies_of(outcomes[name]) for name in questions]
        return self._drawn(list(questions.values()), replies, {"problems": len(questions)})

    def _model(self, name: str) -> Model | generation.Endpoint:
        """The model that replies, with the weights' type of its training."""
        server = generation.endpoint(name)
        if server is not None:
            return server
        return load.load_model(name, hardware.device(), dtype=self.dtype)

    def _drawn(self, questions: Sequence[Prompt], replies: Sequence[Replies], facts: dict[str, Any]) -> Drawn:
        """The samples of all problems, and the counts."""
        rows: list[dict[str, Any]] = []
        counts: Counter[str] = Counter(solved=0, unsolved=0, answered=0, replies=0, passed=0, truncated=0)
        open_questions: list[int] = []
        for index, (question, reply_set) in enumerate(zip(questions, replies, strict=True)):
            counts.update(replies=reply_set.total, passed=reply_set.passed, truncated=reply_set.truncated)
            counts["solved" if reply_set.passing else "unsolved"] += 1
            limit = quota(reply_set, self.answers, self.weighting)
            if self.replies == "all":
                rows += self._rows(question, reply_set, reply_set.sampled[:limit])
            elif reply_set.passing:
                rows += self._rows(question, reply_set, reply_set.passing[:limit])
            else:
                open_questions.append(index)
        answers = self._answers([questions[index] for index in open_questions])
        for index, answer in zip(open_questions, answers, strict=True):
            if answer is not None:
                counts["answered"] += 1
                rows += self._rows(questions[index], replies[index], [answer])
        counts["rejected"] = sum(row["rejected"] is not None for row in rows)
        return Drawn(_table(rows), {**facts, **counts, "kept": len(rows)})

    def _rows(self, question: Prompt, replies: Replies, answers: Sequence[str]) -> list[dict[str, Any]]:
        """One sample for each answer, with the failing replies in turn; with ``replies: all`` the texts as sampled."""
        formatted: Sequence[str | None] = answers
        if self.replies != "all":
            formatted = [
                format_answer(question.prompt, text, question.language, self.answer_format) for text in answers
            ]
        distinct = dict.fromkeys(answer for answer in formatted if answer is not None)
        rows = []
        for number, answer in enumerate(distinct):
            contrast = replies.failing if self.replies == "passing" else ()
            failing = contrast[number % len(contrast)] if contrast else None
            rejected = None if failing is None else match_format(question.prompt, answer, failing, question.language)
            rows.append(
                {
                    "prompt": question.prompt,
                    "answer": answer,
                    "rejected": rejected,
                    "tests": question.tests,
                    "language": question.language,
                    "category": f"{replies.passed}/{replies.total}" if replies.total else None,
                    "source": "rejection_sampling",
                    FAILURE_RATE: replies.failure_rate,
                }
            )
        return rows

    def _answers(self, questions: Sequence[Prompt]) -> list[str | None]:
        """Answers to problems without a passing reply; one that the tests prove wrong is None."""
        reference = "reference" in (self.replies, self.unsolved)
        if not questions or (self.unsolved == "skip" and not reference):
            return [None] * len(questions)
        samples = _table(
            [{"prompt": q.prompt, "answer": "", "tests": q.tests, "language": q.language} for q in questions]
        )
        if reference or self.teacher is None:
            answers: list[str | None] = [question.reference or None for question in questions]
        else:
            answers = self.teacher.answers(samples)
        rows = [row for row, answer in enumerate(answers) if answer]
        verdicts = (
            by_tests(workers=self.workers)(samples.take(rows), [answers[row] or "" for row in rows]) if rows else []
        )
        for row, verdict in zip(rows, verdicts, strict=True):
            answers[row] = answers[row] if verdict is not False else None
        return answers


@dataclass(frozen=True)
class Prompt:
    """A problem as a training question; ``reference``: a solution, or empty."""

    prompt: str
    tests: str | None
    language: str
    reference: str = ""


def _question(problem: Problem, number: int) -> generation.Question:
    return generation.Question(problem.id, functional.chat_request(problem), number)


def _reference(problem: Problem) -> str:
    """The whole program of the reference solution, or an empty text."""
    if not problem.reference.strip():
        return ""
    program = problem.reference if problem.whole else problem.prompt + problem.reference
    return program.replace("\r\n", "\n")


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = ("prompt", "answer", "rejected", "tests", "language", "category", "source", FAILURE_RATE)
    return table.make_table({name: [row.get(name) for row in rows] for name in names})


@strict("source 'rejection_sampling'")
def rejection_sampling(
    *,
    problems: Annotated[
        str,
        Field(description="File or folder of problems with tests, or a benchmark by name, such as `mbpp-train`."),
    ],
    model: Annotated[
        str | None,
        Field(description="Model that replies: a folder, a .gguf file, or `http://HOST/v1#NAME`. Default: the base."),
    ] = None,
    num_samples: Annotated[int, Field(description="Number of replies per problem.")] = 4,
    temperature: Annotated[float, Field(description="Sampling temperature of the replies.")] = 0.8,
    max_new_tokens: Annotated[
        int,
        Field(
            description="Maximum number of tokens of a reply; one that is cut off is an answer with `replies: all` "
            "alone."
        ),
    ] = 512,
    answers: Annotated[int, Field(description="Largest number of answers of a problem.")] = 4,
    replies: Annotated[
        ReplyChoice,
        Field(
            description="Answers: the replies that pass the tests (`passing`), `all` replies, for "
            "`train.objective: distillation`, or no replies but the file's `reference` solutions."
        ),
    ] = "passing",
    weighting: Annotated[
        Weighting,
        Field(
            description="Answers of a problem: up to `answers` for each (`uniform`), or in proportion to p(1 - p) of "
            "its pass rate p (`learnability`)."
        ),
    ] = "uniform",
    unsolved: Annotated[
        Unsolved,
        Field(
            description="Problems without a passing reply: none of their samples (`skip`), the `teacher`'s answer, or "
            "the file's `reference` solution, where it passes the tests."
        ),
    ] = "skip",
    folds: Folds = 1,
    fold: Annotated[int, Field(ge=0, description="The fold that is held out, from 0, when there are several.")] = 0,
    keep: functional.OutputFolder = None,
    batch: BatchSize = None,
    teacher: Any = None,
    student: Any = None,
    answer_format: Any = "reply",
    evaluation: Any = (),
    seed: int = 0,
    workers: int = 1,
    events: Events = ignore_events,
) -> Source:
    """The student's own passing replies to problems with tests, and its failing ones as rejected answers"""
    return RejectionSampling(
        problems,
        model or (student.base if student is not None else None),
        num_samples,
        temperature,
        max_new_tokens,
        answers,
        replies,
        weighting,
        unsolved,
        folds,
        fold,
        keep,
        batch,
        answer_format,
        student.dtype if student is not None else "fp32",
        teacher,
        evaluation,
        seed,
        workers,
        events,
    )
