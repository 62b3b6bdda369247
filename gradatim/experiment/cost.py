"""What will the cycles of a recipe ask of the student and of the teacher?

``plan`` shows it before anything is spent. Numbers follow from the recipe: how many questions each cycle has, how many
attempts the student is asked for, how many requests of each kind the teacher gets, and with ``teacher.estimate`` the
tokens and the cost of these. It takes a course in which every question wanted can be had and every reply can be used,
so a run may ask again where that is not so; lengths of replies are taken at their most. Nobody is asked anything, no
key is needed. What a recipe's parts are is ``assemble``'s matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .recipe import Recipe

if TYPE_CHECKING:
    from ..corpus import Corpus
    from ..teacher.estimate import Lengths

__all__ = ["KINDS", "PlannedCycle", "plan_cycles", "plan_teacher", "revises"]

KINDS = ("questions", "answers", "faults", "rubric", "designs")
"""What a teacher is asked for: new questions, right answers, faulty answers, points, the stages of a schedule."""
QUICK_BYTES = 16 << 20


@dataclass(frozen=True)
class PlannedCycle:
    """One cycle: ``questions`` that are new to it, ``by_grade`` those written after questions of a grade, and
    ``samples``, all that there is to learn, the former cycles' too; None: known only with the data.

    ``feedback`` counts attempts that the student is asked for after it, ``attempts`` those before it, from which faulty
    answers are taken. ``requests`` are the teacher's, by kind; none where nobody has to be asked.
    """

    cycle: int
    questions: int | None
    samples: int | None
    by_grade: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0
    feedback: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)


def plan_cycles(recipe: Recipe, train: int | None = None) -> tuple[PlannedCycle, ...]:
    """Every cycle of a recipe that has several or a teacher; none for others.

    ``train``: how many samples the first one has to learn from, where the data was looked at.
    """
    if recipe.cycles == 1 and recipe.teacher is None:
        return ()
    options = recipe.data.options
    count = options.get("count")
    if train is None and count is not None:
        train = max(0, int(count) - recipe.data.split.validation - recipe.data.split.test)
    taught = recipe.data.source == "taught"
    new = int(options["new"] if options.get("new") is not None else count or 0) if taught else train
    found, samples, every = [], train, train
    for number in range(recipe.cycles):
        if number:
            grown = taught and (options.get("accumulate", True) or new == 0)
            every = None if every is None or new is None else every + new
            samples = every if grown else new
        questions = new if number else (None if count is None else int(count))
        draws = recipe.feedback.draws if recipe.feedback else 1
        most = recipe.feedback.questions if recipe.feedback else 500
        asked = most if samples is None else min(most, samples)
        own = recipe.delivery is not None and recipe.delivery.faulty.get("student", 0) > 0
        plain = PlannedCycle(
            cycle=number,
            questions=questions,
            samples=samples,
            by_grade=_by_grade(recipe, new or 0) if number and taught else {},
            attempts=(samples or 0) * draws if number and own else 0,
            feedback=asked * draws if number + 1 < recipe.cycles else 0,
        )
        found.append(PlannedCycle(**{**vars(plain), "requests": _requests(recipe, plain)}))
    return tuple(found)


def plan_teacher(
    recipe: Recipe, cycles: tuple[PlannedCycle, ...], corpus: Corpus | None = None
) -> dict[str, Any] | None:
    """What the teacher will be asked in all; None where there is none.

    ``name``, ``requests`` by kind, and for one that writes text also ``prompt_tokens`` (estimated),
    ``completion_tokens`` (at most), ``max_tokens`` of a reply, ``characters`` (mean lengths, ``measured`` or assumed),
    ``prices``, ``cost`` (None: the recipe names no prices) and the recipe's own limits ``budget_tokens`` and
    ``budget_money``.
    """
    if recipe.teacher is None:
        return None
    requests = {kind: sum(cycle.requests.get(kind, 0) for cycle in cycles) for kind in KINDS}
    told: dict[str, Any] = {"name": recipe.teacher.name, "requests": {k: n for k, n in requests.items() if n}}
    options = _teacher_options(recipe)
    if "max_tokens" not in options:  # it writes no text: nothing is counted in tokens, nothing paid
        return {**told, "prompt_tokens": None, "completion_tokens": None, "cost": 0.0}
    from ..teacher.estimate import estimate
    from ..teacher.prompts import load_prompts

    lengths, printed = _lengths(recipe, corpus)
    names = _prompt_names(recipe, cycles, printed)
    free = "prices" not in options  # a model in this process, or a script
    prices = (0.0, 0.0) if free else options["prices"]
    prices = None if prices is None else (float(prices[0]), float(prices[1]))
    found = estimate(
        names, load_prompts(options.get("prompts")), lengths, max_tokens=int(options["max_tokens"]), prices=prices
    )
    limits = ("model", "max_tokens", "budget_tokens", "budget_money")
    kept: dict[str, Any] = {name: options[name] for name in limits if name in options}
    return {
        **told,
        **kept,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "characters": asdict(lengths),
        "prices": None if free else prices,
        "cost": found.cost,
    }


def _by_grade(recipe: Recipe, new: int) -> dict[str, int]:
    """New questions by the grade of their parents, if there are questions of every grade."""
    if recipe.data.options.get("grade") == "random":
        return {"random": new} if new else {}
    ratio = recipe.data.options.get("ratio") or {"hard": 1.0, "easy": 1.0}
    total = sum(ratio.values())
    exact = {grade: new * share / total for grade, share in ratio.items() if share > 0}
    parts = {grade: int(share) for grade, share in exact.items()}
    for grade in sorted(exact, key=lambda grade: parts[grade] - exact[grade])[: new - sum(parts.values())]:
        parts[grade] += 1
    return {grade: number for grade, number in parts.items() if number}


def _requests(recipe: Recipe, cycle: PlannedCycle) -> dict[str, int]:
    """Requests of each kind in a cycle. The oracle's questions come with their answers."""
    if recipe.teacher is None:
        return {}
    taught, own = recipe.data.source == "taught", recipe.teacher.name == "oracle"
    given = cycle.cycle == 0 and recipe.data.options.get("seeds") is not None
    fresh = 0 if not taught or given else cycle.questions or 0
    unanswered = min(cycle.questions or 0, _unanswered(recipe)) if taught and given else fresh
    shares = {} if recipe.delivery is None else {k: v for k, v in recipe.delivery.faulty.items() if v > 0}
    if cycle.cycle == 0 and len(shares) > 1:
        shares.pop("student", None)
    share = shares.get("teacher", 0.0) / (sum(shares.values()) or 1.0)
    counts = {
        "questions": fresh,
        "answers": 0 if own and not given else unanswered,
        "faults": round(share * (cycle.samples or 0)),
        "rubric": round(_judged_by_teacher(recipe) * (cycle.attempts + cycle.feedback)),
        "designs": int(recipe.schedule.name == "designed" and (not cycle.cycle or revises(recipe))),
    }
    return {kind: number for kind, number in counts.items() if number}


def revises(recipe: Recipe) -> bool:
    """Whether a teacher that designs the schedule writes the rest anew before each later cycle."""
    return recipe.cycles > 1 and bool(recipe.schedule.options.get("revise", True))


def _judged_by_teacher(recipe: Recipe) -> float:
    """The share of attempts that the teacher gives points to, summed over the judges that ask it."""
    judges = recipe.feedback.judges if recipe.feedback else ()
    shares = {"rubric": lambda options: 1.0, "scoring": lambda options: float(options.get("share", 0.5))}
    return sum(shares[each.judge](each.options) for each in judges if each.judge in shares)


def _teacher_options(recipe: Recipe) -> dict[str, Any]:
    """The teacher's options with their defaults."""
    from ..teacher import TEACHERS

    assert recipe.teacher is not None
    factory = TEACHERS.get(recipe.teacher.name, where="teacher.name")
    parameters = inspect.signature(factory).parameters.values()
    plain = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {**plain, **recipe.teacher.options}


def _prompt_names(recipe: Recipe, cycles: tuple[PlannedCycle, ...], printed: bool) -> dict[str, int]:
    """Requests by the name of the prompt they are made with. ``printed``: questions ask what a program prints."""
    found: dict[str, int] = {}
    kind = "-output" if printed else ""
    for cycle in cycles:
        asked = dict(cycle.requests)
        grades = cycle.by_grade if asked.pop("questions", 0) and cycle.cycle else {}
        numbers = {f"answer{kind}": asked.get("answers", 0), f"fault{kind}": asked.get("faults", 0)}
        numbers |= {
            "rubric": asked.get("rubric", 0),
            "question": cycle.requests.get("questions", 0) * (not cycle.cycle),
            "design": asked.get("designs", 0),
        }
        for grade, number in grades.items():
            name = "new-output" if printed else f"new-{'middle' if grade == 'random' else grade}"
            numbers[name] = numbers.get(name, 0) + number
        for name, number in numbers.items():
            found[name] = found.get(name, 0) + number
    return {name: number for name, number in found.items() if number}


def _lengths(recipe: Recipe, corpus: Corpus | None) -> tuple[Lengths, bool]:
    """Mean lengths of what is asked about, from the samples or from small seeds, and whether outputs are asked for."""
    from ..teacher.estimate import Lengths

    table = _seeds(recipe) if corpus is None else corpus.table("train")
    if table is None:
        return Lengths(), False
    import pyarrow.compute as pc

    def mean(name: str) -> float:
        found = pc.mean(pc.utf8_length(pc.fill_null(table[name].cast("large_string"), ""))).as_py()
        return round(float(found or 0.0), 1)

    printed = bool(pc.all(pc.ends_with(table["prompt"].cast("large_string"), "# output\n")).as_py())
    made = Lengths(mean("prompt"), mean("answer"), mean("tests"), measured=True)
    # Where the seeds have no answers yet, what a model will answer is not known.
    return (made if made.answer else Lengths(made.question, Lengths().answer, made.tests, True)), printed


def _seeds(recipe: Recipe) -> Any:
    """The seed questions where the recipe names a small file of them, else None."""
    seeds = recipe.data.options.get("seeds")
    if seeds is None or not Path(str(seeds)).is_file() or Path(str(seeds)).stat().st_size > QUICK_BYTES:
        return None
    from ..table import read_table

    return read_table(str(seeds), **{name: recipe.data.options.get(name) for name in ("columns", "language")})


def _unanswered(recipe: Recipe) -> int:
    """How many of the seed questions have no answer yet."""
    table = _seeds(recipe)
    return 0 if table is None else sum(not answer for answer in table["answer"].to_pylist())
