"""What do runs of several cycles add: who teaches, who judges, and where do faulty answers come from?

A recipe's ``teacher``, ``delivery`` and ``feedback`` become objects here. One teacher serves all of a run; what it
receives over a network is kept by itself, outside the run. Judges are made when a cycle ends, since some need a sandbox
or a teacher, and checked before, by their names and options.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..corpus import key_of
from ..delivery import Right, deliver
from ..errors import RecipeError
from ..feedback import JUDGES
from ..options import option_names
from ..recipe import FeedbackSection, Recipe
from ..stage import Events, Feedback, ignore_events
from ..teacher import TEACHERS, Teacher

if TYPE_CHECKING:
    import pyarrow as pa

    from ..feedback import Probed

__all__ = ["Delivery", "check_teaching", "delivery", "examined_with", "judged", "questions", "right", "teacher"]


def teacher(recipe: Recipe, events: Events = ignore_events) -> Teacher | None:
    """The recipe's teacher, or None when it names none."""
    if recipe.teacher is None:
        return None
    factory = TEACHERS.get(recipe.teacher.name, where="teacher.name")
    # An account is what a budget is counted against: one for each run, however often it is started.
    account = key_of(recipe.model_dump(mode="json", exclude={"title", "workers", "threads"}))
    own = {"seed": recipe.data.seed, "events": events, "account": account}
    known = option_names(factory)
    given = {**{name: own[name] for name in own if name in known}, **recipe.teacher.options}
    parameters = inspect.signature(factory).parameters
    missing = [name for name in known if name not in given and parameters[name].default is inspect.Parameter.empty]
    if missing:
        raise RecipeError(f"the teacher {recipe.teacher.name!r} needs {', '.join(missing)}", where="teacher")
    made: Teacher = factory(**given)
    return made


@dataclass(frozen=True)
class Delivery:
    """Lays a faulty answer, or the student's own attempt, beside each right one; see ``corpus.Deliver``."""

    recipe: Recipe

    @property
    def asks(self) -> bool:
        """Whether the student's own attempts are wanted: as faulty answers, or to learn a teacher's view of them."""
        return self._shares.get("student", 0) > 0 or _learns_attempts(self.recipe)

    def __call__(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """See ``delivery.deliver``. A place that nothing can come from in this cycle has no share in it."""
        if _learns_attempts(self.recipe) and attempts.table is not None:
            samples = _with_attempts(samples, attempts.table)
        shares = self._shares
        if attempts.table is None:  # before the first cycle nobody has tried anything
            shares["student"] = 0.0
        if not sum(shares.values()):
            return samples, {"none": samples.num_rows}
        asked = teacher(self.recipe, events) if shares.get("teacher") else None
        done = deliver(
            samples,
            attempts,
            shares=shares,
            teacher=asked,
            right=right(self.recipe, events),
            seed=self.recipe.data.seed + cycle,
            events=events,
        )
        return done.table, done.facts if asked is None else {**done.facts, "teacher": dict(asked.facts)}

    @property
    def _shares(self) -> dict[str, float]:
        section = self.recipe.delivery
        return {} if section is None else {str(place): share for place, share in section.faulty.items()}


def delivery(recipe: Recipe) -> Delivery | None:
    """What lays other answers beside the right ones, or None where the recipe wants none."""
    return Delivery(recipe) if recipe.delivery is not None or _learns_attempts(recipe) else None


def _learns_attempts(recipe: Recipe) -> bool:
    return recipe.cycles > 1 and recipe.train.objective == "teacher_kl" and recipe.train.kl.on != "teacher"


def _with_attempts(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """The samples with a column ``attempt``: the student's first, null where it was not asked."""
    import pyarrow as pa

    first: dict[str, str] = {}
    for name, attempt in zip(attempts["id"].to_pylist(), attempts["attempt"].to_pylist(), strict=True):
        first.setdefault(name, attempt)
    written = [first.get(name) or None for name in samples["id"].to_pylist()]
    return samples.append_column("attempt", pa.array(written, pa.large_string()))


def right(recipe: Recipe, events: Events = ignore_events) -> Right:
    """How an answer proves right: by its text, and where the recipe says so by its sample's tests."""
    from ..feedback.right import by_output, by_tests, first_told

    prove = recipe.delivery.prove if recipe.delivery is not None else "output"
    if prove == "tests":
        return first_told(by_output(), by_tests(workers=recipe.workers, events=events))
    return by_output() if prove == "output" else lambda samples, texts: [None] * len(texts)


def questions(recipe: Recipe, samples: pa.Table, cycle: int) -> pa.Table:
    """The samples that a cycle's feedback asks about: a part of what was learnt, drawn by the data's seed."""
    import numpy as np

    chance = np.random.default_rng([recipe.data.seed, cycle, 1 << 22])
    return samples.take(np.sort(chance.permutation(samples.num_rows)[: _feedback(recipe).questions]))


def judged(recipe: Recipe, student: Any, samples: pa.Table, seed: int, events: Events) -> Probed:
    """The student's attempts at ``samples`` under every judge, and the counts; see ``feedback.probe``."""
    from ..feedback.combine import Thresholds
    from ..feedback.probe import probe

    section = _feedback(recipe)
    grader = teacher(recipe, events)
    judges = {
        each.judge: (JUDGES.get(each.judge, where="feedback.judges")(grader, **each.options), each.weight)
        for each in section.judges
    }
    found = probe(
        student,
        samples,
        judges,
        draws=section.draws,
        temperature=section.temperature,
        new_tokens=section.new_tokens,
        thresholds=Thresholds(section.easy, section.hard),
        chat=section.chat,
        stop=section.stop,
        seed=seed,
        events=events,
    )
    return found if grader is None else replace(found, facts={**found.facts, "teacher": dict(grader.facts)})


def check_teaching(recipe: Recipe) -> None:
    """Raises for a recipe whose cycles cannot be: unknown judges, no teacher where one is needed."""
    section = _feedback(recipe)
    names = [each.judge for each in section.judges]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError("a judge is named twice", where="feedback.judges", given=", ".join(twice))
    for each in section.judges:
        _options_fit(each.judge, each.options)
    if recipe.data.source == "taught" and recipe.teacher is None:
        raise RecipeError("the source 'taught' needs a teacher", where="teacher", hint="teacher: {name: oracle}")
    if recipe.cycles > 1 and recipe.data.source == "file":
        raise RecipeError(
            "a file has the same samples in every cycle",
            where="cycles",
            given=recipe.cycles,
            hint="data.source: taught with seeds: PATH, and new: 0 for the same questions again",
        )
    if recipe.delivery is not None and recipe.delivery.faulty.get("teacher") and recipe.teacher is None:
        raise RecipeError("faulty answers of a teacher need one", where="delivery.faulty", hint="name a teacher")
    if recipe.train.objective in ("contrast", "correct_and_fault") and recipe.delivery is None:
        gives = recipe.data.source == "file" or "seeds" in recipe.data.options
        if not gives:
            raise RecipeError(
                "this objective learns from faulty answers, and nothing gives any",
                where="train.objective",
                given=recipe.train.objective,
                hint="delivery: {faulty: {mutation: 1}}",
            )


def examined_with(recipe: Recipe) -> list[str]:
    """The texts of the problems that the recipe's suites examine the student with: nothing taught may hold them."""
    from ..evaluate.problems import read_problems
    from ..update import problem_texts

    texts: list[str] = []
    for section in recipe.evaluate.suites:
        path = section.options.get("problems")
        if path is not None:
            texts += problem_texts(read_problems(path).problems.values())
    return texts


def _feedback(recipe: Recipe) -> FeedbackSection:
    return recipe.feedback or FeedbackSection()


def _options_fit(name: str, options: dict[str, Any]) -> None:
    """Whether the judge ``name`` has these options; it is not made, which may need a sandbox."""
    known = option_names(JUDGES.get(name, where="feedback.judges"))
    strangers = [option for option in options if option not in known]
    if strangers:
        raise RecipeError(
            f"the judge {name!r} has no option {strangers[0]!r}",
            where="feedback.judges",
            allowed=", ".join(known) or "no options",
        )
