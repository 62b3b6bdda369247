"""The suite ``cruxeval``: prediction of a Python function's output or input.

CRUXEval (2401.03065): 800 short Python functions, each with an input and its output. *Output prediction* gives the
function and the input, and the answer is the output; *input prediction* gives the output, and the answer is any input
with that output. The model answers directly, or after reasoning (``reasoning``). The prompts follow the paper's two
forms in other words, with other examples: figures are near the published ones, not equal.

An answer is text from a model and is never evaluated in this process. It is cut out of the reply as text and runs as
the body of a function in a sandbox; only plain data returns, and the reference program never meets it. So an answer can
be any expression, as in the paper, and is correct when its value is equal; it cannot call the function, which is not
defined there.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import DataError
from ..languages.thinking import strip_thinking
from ..options import BatchSize, CpuSeconds, Unsafe, Workers, strict
from ..sandbox.limits import Verdict
from ..stage import Events, Model, Suite, SuiteResult, ignore_events
from ..table.rows import Rejected
from .functional import (
    ChatReply,
    NumSamples,
    OutputFolder,
    PassAtK,
    Protocol,
    SamplingOptions,
    Temperature,
    measure,
)
from .generation import Endpoint, Question, ServerOptions
from .problems import Problem, ProblemSet, Sample, excerpt, locate, read_rows
from .statistics import SampleLimit
from .verdicts import Candidate, fault_of

if TYPE_CHECKING:
    import pyarrow as pa


Direction = Annotated[
    Literal["output", "input"], Field(description="Predict the output for an input, or an input for an output.")
]
LONGEST = 20_000
"""Most characters of an answer; the longest of the benchmark has about 200."""

_TASKS = {
    "output": """\
Below is a Python function f and an assertion that calls it, with the right-hand side left open. Work out what the \
call returns and write the whole assertion with that value in place of the question marks, as a literal: no \
unfinished expression and no call.""",
    "input": """\
Below is a Python function f and an assertion about it, with the arguments left open. Find arguments for which the \
assertion holds and write the whole assertion with them in place of the question marks. Several may do; give one.""",
}
_AT_ONCE = " Write it between [ANSWER] and [/ANSWER], and nothing else."
_STEPS = " First think, step by step, between [THOUGHT] and [/THOUGHT]; then write it between [ANSWER] and [/ANSWER]."

_EXAMPLES = (
    (
        'def f(words, mark):\n    kept = [word for word in words if mark not in word]\n    return "-".join(kept)',
        '["plum", "fig", "pear"], "p"',
        '"fig"',
        'The call passes three words and the mark "p". "plum" and "pear" hold a "p" and are left out, "fig" does not. '
        'Joining the one word that is left adds no hyphen, so the value is "fig".',
        'The value "fig" has no hyphen, so exactly one word was kept, and it is "fig". With the mark "p" a word '
        'without that letter is kept, so ["plum", "fig", "pear"] and "p" leave "fig" alone.',
    ),
    (
        "def f(n):\n    seen = []\n    while n > 1:\n        n = n // 2\n        seen.append(n)\n    return seen",
        "9",
        "[4, 2, 1]",
        "",
        "",
    ),
)


@strict("the suite 'cruxeval'")
def cruxeval(
    *,
    problems: Annotated[str, Field(description="`cruxeval`, or a file or folder of problems.")] = "cruxeval",
    direction: Direction = "output",
    reasoning: Annotated[bool, Field(description="Let the model reason before the answer.")] = False,
    protocol: Protocol = "greedy",
    num_samples: NumSamples = 1,
    k: PassAtK = None,
    temperature: Temperature = 0.2,
    max_new_tokens: Annotated[
        int | None, Field(description="Maximum number of generated tokens. Default: 128, or 1024 with `reasoning`.")
    ] = None,
    chat: ChatReply = False,
    keep: OutputFolder = None,
    limit: SampleLimit = None,
    batch: BatchSize = None,
    workers: Workers = 1,
    seconds: CpuSeconds = None,
    unsafe: Unsafe = False,
    server: ServerOptions = None,
) -> Suite:
    """The output or an input of a Python function (CRUXEval): for pretrained models."""
    length = max_new_tokens if max_new_tokens is not None else (1024 if reasoning else 128)
    options = SamplingOptions(
        protocol, num_samples, tuple(k or [1]), temperature, length, chat, keep, limit, batch, workers, seconds,
        unsafe, server,
    )  # fmt: skip
    return Crux(problems, direction, reasoning, options.checked("cruxeval"))


@dataclass(frozen=True)
class Crux(Suite):
    """The suite ``cruxeval`` with its options; see the module docstring."""

    accepts_endpoint = True

    problems: str
    direction: Direction
    reasoning: bool
    options: SamplingOptions

    def __call__(
        self, student: Model | Endpoint, samples: pa.Table, *, seed: int, events: Events = ignore_events
    ) -> SuiteResult:
        """One result over all functions; ``samples`` is not used. Errors as of the suite ``functional``."""
        problem_set = crux_problems(self.problems, self.direction)

        def request(problem: Problem, number: int) -> Question:
            text = question(problem, self.direction, self.reasoning, chat=self.options.chat)
            return Question(problem.id, text, number, stop=("[/ANSWER]",))

        return measure("cruxeval", student, problem_set, request, self.options, seed, events, candidate=self.read)

    def read(self, problem: Problem, sample: Sample) -> Candidate | Verdict:
        """The program with the answer of a sample; a verdict for a sample without an answer."""
        return _candidate(problem, sample, self.direction, open_tag=sample.form == "completion" and not self.reasoning)


def crux_problems(source: str | Path, direction: Direction) -> ProblemSet:
    """The functions of CRUXEval's file: ``prompt`` is the function with the incomplete assertion.

    Raises ``DataError`` when the file is missing or has no such function.
    """
    problems: dict[str, Problem] = {}
    rejected: list[Rejected] = []
    for row in (row for path in locate(source) for row in read_rows(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        try:
            problem = _problem(fields, direction)
            if problem.id in problems:
                raise ValueError(f"a second function with the id {problem.id}; the first is used")
            problems[problem.id] = problem
        except ValueError as error:
            rejected.append(Rejected(number, str(error), excerpt(fields.get("id", list(fields)))))
    if not problems:
        first = rejected[0] if rejected else None
        raise DataError(
            f"no function can be used; the first row: {first.cause}" if first else "the file has no functions",
            where=str(source),
            allowed="rows with id, code, input, output",
        )
    return ProblemSet(str(source), problems, tuple(rejected))


def _problem(row: Mapping[str, Any], direction: Direction) -> Problem:
    values = []
    for name in ("id", "code", "input", "output"):
        value = row.get(name)
        # An input may be empty: a function without parameters.
        if not isinstance(value, str) or (not value.strip() and name != "input"):
            raise ValueError(f"no field {name!r}" if value is None else f"{name!r} is not text, or empty")
        values.append(value)
    task, code, arguments, result = values
    if direction == "output":
        call, test = f"assert f({arguments}) == ??", f"assert f({arguments}) == candidate()"
        reference = result
    else:
        call, reference = f"assert f(??) == {result}", arguments if arguments.strip() else "f()"
        test = f"positional, named = candidate()\n    assert f(*positional, **named) == {result}"
    tests = f"{code}\n\n\ndef check(candidate):\n    {test}\n"
    # An input may use names defined beside the function (as in sample_258), but not the function itself.
    beside = f"{code}\ndel f\n\n\n" if direction == "input" else ""
    prompt = f"{code}\n{call}"
    return Problem(task, "python", prompt, tests, entry_point="answer", setup=beside, reference=reference)


def question(problem: Problem, direction: Direction, reasoning: bool, *, chat: bool = False) -> str:
    """The prompt: the task, solved examples, the function. The completion continues inside the answer's tag.

    A chat model begins its own reply, so the last tag is left out.
    """
    sections = [_TASKS[direction] + (_STEPS if reasoning else _AT_ONCE)]
    for code, arguments, result, forward, backward in _EXAMPLES[: 1 if reasoning else 2]:
        open_call = f"assert f({arguments}) == ??" if direction == "output" else f"assert f(??) == {result}"
        thought = f"[THOUGHT]\n{forward if direction == 'output' else backward}\n[/THOUGHT]\n" if reasoning else ""
        solved = f"[ANSWER]\nassert f({arguments}) == {result}\n[/ANSWER]"
        sections.append(f"[PYTHON]\n{code}\n{open_call}\n[/PYTHON]\n{thought}{solved}")
    last = "" if chat else ("\n[THOUGHT]\n" if reasoning else "\n[ANSWER]\n")
    return "\n\n".join([*sections, f"[PYTHON]\n{problem.prompt}\n[/PYTHON]{last}"])


def answer_in(text: str, direction: Direction, *, open_tag: bool = False) -> str | None:
    """The expression (output) or the arguments (input) of a reply, as text; None without one.

    ``open_tag``: the reply starts inside the answer's tag. Parsed by ``ast``, without evaluation.
    """
    segments = re.split(r"\[ANSWER\]", text)
    if len(segments) == 1 and not open_tag:
        return None
    answer = segments[-1].split("[/ANSWER]")[0].strip()
    answer = re.sub(r"\A```\w*\n|\n?```\Z", "", answer).strip().strip("`").strip()
    if not answer or len(answer) > LONGEST:
        return None
    tree = _parsed(answer)
    if tree is None:
        # Named or starred arguments do not parse without a call.
        return answer if direction == "input" and _parsed(f"f({answer})") is not None else None
    compared = isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq)
    if direction == "output":
        return _segment(answer, tree.comparators[0]) if compared and _is_call(tree.left) else _segment(answer, tree)
    tree = tree.left if compared and isinstance(tree, ast.Compare) else tree
    if _is_call(tree):
        return _segment(answer, tree).partition("(")[2].rpartition(")")[0]
    return answer


def _parsed(text: str) -> Any:
    """The expression of ``text``, or of its assertion; None for another text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    statement = body[0] if len(body) == 1 else None
    if isinstance(statement, ast.Assert):
        return statement.test
    return statement.value if isinstance(statement, ast.Expr) else None


def _is_call(tree: Any) -> bool:
    return isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "f"


def _segment(text: str, tree: Any) -> str:
    return ast.get_source_segment(text, tree) or text


def _candidate(problem: Problem, sample: Sample, direction: Direction, *, open_tag: bool) -> Candidate | Verdict:
    """A program whose function ``answer`` returns the answer, or the arguments as (positional, named)."""
    fault = fault_of(sample)
    if fault is not None:
        return Verdict("invalid", fault)
    text = strip_thinking(sample.text) if sample.form == "reply" else sample.text
    answer = answer_in(text, direction, open_tag=open_tag)
    if answer is None:
        return Verdict("invalid", "there is no answer that is an expression")
    if direction == "output":
        return Candidate(problem.setup, f"def answer():\n    return (\n{answer}\n)\n")
    return Candidate(
        problem.setup,
        "def arguments(*positional, **named):\n    return positional, named\n\n\n"
        f"def answer():\n    return arguments(\n{answer}\n)\n",
    )
