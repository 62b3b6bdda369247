"""Rejected answers: a wrong answer beside the correct one of each sample, for preference losses.

``deliver`` fills the column ``rejected``. Rejected answers come from three sources: the ``student``'s failed attempts
at the same question, a ``mutation`` of the correct answer, and the ``teacher``, which writes a plausible mistake. A
seeded draw, weighted by ``shares``, chooses among the sources that have a candidate for the sample; when the chosen
source turns out to have none, the heaviest of the others follows. A candidate that is proved correct, or equals the
answer, is discarded and counted. A sample without a remaining candidate gets no rejected answer. The objective turns a
pair into a loss; ``right`` verifies answers.

Both answers of a pair have one format (``answer_format``): an attempt and the teacher's mistake are put into that of
the right answer, and a mutation keeps the form of the answer that it mutates. An attempt that was cut off at the limit
of tokens is no candidate.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import RecipeError, did_you_mean
from ..evaluation.problems import TRUNCATED
from ..lazy import pa
from ..random_streams import rejected_stream
from ..stage import Event, Events, Feedback, ignore_events
from .answer_format import match_format
from .mutations import Mutant, mutants, same_text

if TYPE_CHECKING:
    from ..teacher import Teacher


Place = Literal["student", "mutation", "teacher"]
PLACES: tuple[Place, ...] = get_args(Place)

Right: TypeAlias = "Callable[[pa.Table, Sequence[str]], list[bool | None]]"
"""Samples and one text for each: True for a correct one, False for a wrong one, None where that is undecided."""

TRIES = 4
"""Mutations of one answer that are verified before the next source follows."""
TEACHER_REQUESTS = 2
"""Requests to the teacher for a mistake in one answer; the second has another sample index."""


@dataclass(frozen=True)
class Delivered:
    """The table with ``rejected`` filled, its rows and other columns unchanged, and counts by source.

    ``facts``: samples by source (``student``, ``mutation``, ``teacher``; ``given`` had a rejected answer before,
    ``none`` has none); by source ``proved_right``, ``equal`` (the text of the correct answer), ``untold`` (undecided
    and accepted), ``no_program`` (a reply without a complete program) and ``passed_on`` (chosen, without a remaining
    candidate); ``kinds`` of the accepted mutations; ``truncated``: attempts that were cut off and are not used.
    """

    table: pa.Table
    facts: dict[str, Any]


def deliver(
    samples: pa.Table,
    feedback: Feedback,
    *,
    shares: Mapping[str, float],
    teacher: Teacher | None,
    right: Right,
    seed: int,
    events: Events = ignore_events,
) -> Delivered:
    """Add a rejected answer to each of ``samples`` that has none.

    ``shares`` weighs the sources; one that is missing there or has weight 0 is not used. Deterministic. Raises
    ``RecipeError`` for invalid shares and for a teacher's share without a teacher, and whatever ``teacher`` and
    ``right`` raise.
    """
    weights = _weights(shares, teacher)
    rows = samples.to_pylist()
    attempts, truncated = _failed(feedback) if "student" in weights else ({}, 0)
    pending = [
        _pending(number, row, weights, attempts.get(row["id"], ()), seed)
        for number, row in enumerate(rows)
        if row["rejected"] is None
    ]
    tally = _Tally(given=len(rows) - len(pending), truncated=truncated)
    rejected: list[str | None] = [row["rejected"] for row in rows]
    events(Event("start", "deliver", 0, len(pending)))
    total = len(pending)
    while pending:
        candidates = _formatted(_candidates(pending, samples, teacher, tally), tally)
        for candidate, accepted in zip(candidates, _accepted(candidates, samples, right, tally), strict=True):
            if accepted:
                rejected[candidate.sample.row] = candidate.text
                tally.add(candidate)
        pending = [sample for sample in pending if sample.sources and rejected[sample.row] is None]
        events(Event("advance", "deliver", total - len(pending), total))
    events(Event("finish", "deliver", total, total))
    column = samples.schema.get_field_index("rejected")
    filled = samples.set_column(column, samples.schema.field(column), pa.array(rejected, pa.large_string()))
    return Delivered(filled, tally.facts(rejected))


def _weights(shares: Mapping[str, float], teacher: Teacher | None) -> dict[Place, float]:
    """The weighted sources, heaviest first."""
    for name, share in shares.items():
        if name not in PLACES:
            raise RecipeError(
                "there is no such source of rejected answers",
                where="rejected_answers.sources",
                given=name,
                allowed=", ".join(PLACES),
                hint=did_you_mean(name, PLACES),
            )
        if not math.isfinite(share) or share < 0:
            raise RecipeError(
                "a share is a weight", where=f"rejected_answers.sources.{name}", given=share, allowed="0 or more"
            )
    weights = {source: float(shares[source]) for source in PLACES if shares.get(source, 0) > 0}
    if not weights:
        raise RecipeError(
            "no source has a share", where="rejected_answers.sources", given=dict(shares), allowed="one above 0"
        )
    if "teacher" in weights and teacher is None:
        raise RecipeError(
            "rejected answers of a teacher need a teacher",
            where="rejected_answers.sources.teacher",
            hint="name one, or share 0",
        )
    return dict(sorted(weights.items(), key=lambda item: -item[1]))


def _failed(feedback: Feedback) -> tuple[dict[str, list[str]], int]:
    """The student's distinct failed attempts by question, without empty ones, and the number of those cut off."""
    attempts: dict[str, dict[str, None]] = defaultdict(dict)
    truncated = 0
    if feedback.table is not None:
        names = [name for name in ("id", "attempt", "verdict", "finish") if name in feedback.table.column_names]
        for row in feedback.table.select(names).to_pylist():
            if row["verdict"] != "failed" or not (row["attempt"] or "").strip():
                continue
            if row.get("finish") in TRUNCATED:
                truncated += 1
            else:
                attempts[row["id"]][row["attempt"]] = None
    return {question: list(texts) for question, texts in attempts.items()}, truncated


def _formatted(candidates: Sequence[_Candidate], tally: _Tally) -> list[_Candidate]:
    """The candidates in the right answers' formats; those without a program are counted. Mutations have it already."""
    formatted = []
    for candidate in candidates:
        fields = candidate.sample.fields
        text: str | None = candidate.text
        if candidate.source != "mutation":
            text = match_format(fields["prompt"], fields["answer"], candidate.text, fields["language"])
        if text is None:
            tally.no_program[candidate.source] += 1
        else:
            formatted.append(replace(candidate, text=text))
    return formatted


@dataclass
class _Pending:
    """A sample without a rejected answer, and its remaining candidates."""

    row: int
    fields: Mapping[str, Any]
    sources: list[Place]
    attempts: Iterator[str]
    mutants: Iterator[Mutant]
    requests: int = 0  # to the teacher


@dataclass(frozen=True)
class _Candidate:
    """A possible rejected answer of a sample."""

    sample: _Pending
    source: Place
    text: str
    kind: str | None = None


def _pending(
    row: int, sample: Mapping[str, Any], weights: Mapping[Place, float], attempts: Sequence[str], seed: int
) -> _Pending:
    """A sample with its sources in order: one drawn at random, then the others, heaviest first."""
    generator = rejected_stream(seed, sample["id"])
    texts = list(attempts)
    generator.shuffle(texts)
    mutations = mutants(sample["prompt"], sample["answer"], sample["language"], seed=generator.getrandbits(32))
    sources = [source for source in weights if source != "student" or texts]
    if sources:
        first = generator.choices(sources, [weights[source] for source in sources])[0]
        sources = [first, *(source for source in sources if source != first)]
    return _Pending(row, sample, sources, iter(texts), islice(mutations, TRIES))


@dataclass
class _Tally:
    """Counts of one delivery; field names are keys of the facts."""

    given: int
    truncated: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    proved_right: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    untold: Counter[str] = field(default_factory=Counter)
    no_program: Counter[str] = field(default_factory=Counter)
    passed_on: Counter[str] = field(default_factory=Counter)

    def add(self, candidate: _Candidate) -> None:
        self.sources[candidate.source] += 1
        if candidate.kind is not None:
            self.kinds[candidate.kind] += 1

    def facts(self, rejected: Sequence[str | None]) -> dict[str, Any]:
        by_source = ("proved_right", "equal", "untold", "no_program", "passed_on")
        return {
            **{source: self.sources[source] for source in PLACES},
            "given": self.given,
            "none": sum(text is None for text in rejected),
            **{name: {source: getattr(self, name)[source] for source in PLACES} for name in by_source},
            "kinds": dict(sorted(self.kinds.items())),
            "truncated": self.truncated,
        }


def _candidates(
    pending: Sequence[_Pending], samples: pa.Table, teacher: Teacher | None, tally: _Tally
) -> list[_Candidate]:
    """At most one new candidate for each pending sample; requests to the teacher go out in batches."""
    candidates = [candidate for sample in pending if (candidate := _local_candidate(sample, tally)) is not None]
    queue = [sample for sample in pending if sample.sources[:1] == ["teacher"]]
    groups = [[sample for sample in queue if sample.requests == draw] for draw in range(TEACHER_REQUESTS)]
    for draw, group in enumerate(groups):
        if group and teacher is not None:
            texts = teacher.faults(samples.take([sample.row for sample in group]), draw=draw)
            candidates += [
                _Candidate(sample, "teacher", text) for sample, text in zip(group, texts, strict=True) if text
            ]
        for sample in group:
            sample.requests = draw + 1
    return sorted(candidates, key=lambda candidate: candidate.sample.row)


def _local_candidate(sample: _Pending, tally: _Tally) -> _Candidate | None:
    """The next candidate that needs no request to the teacher; exhausted sources are dropped."""
    while sample.sources:
        source = sample.sources[0]
        if source == "student" and (attempt := next(sample.attempts, None)) is not None:
            return _Candidate(sample, source, attempt)
        if source == "mutation" and (mutant := next(sample.mutants, None)) is not None:
            return _Candidate(sample, source, mutant.text, mutant.kind)
        if source == "teacher" and sample.requests < TEACHER_REQUESTS:
            return None
        tally.passed_on[source] += 1
        sample.sources.pop(0)
    return None


def _accepted(candidates: Sequence[_Candidate], samples: pa.Table, right: Right, tally: _Tally) -> list[bool]:
    """Whether each candidate is accepted: it differs from the answer and is not proved correct."""
    accepted = [not same_text(candidate.text, candidate.sample.fields["answer"]) for candidate in candidates]
    tally.equal.update(candidate.source for candidate, new in zip(candidates, accepted, strict=True) if not new)
    indices = [index for index, new in enumerate(accepted) if new]
    if indices:
        rows = samples.take([candidates[index].sample.row for index in indices])
        verdicts = right(rows, [candidates[index].text for index in indices])
        for index, verdict in zip(indices, verdicts, strict=True):
            accepted[index] = verdict is not True
            counter = {True: tally.proved_right, None: tally.untold}.get(verdict)
            if counter is not None:
                counter[candidates[index].source] += 1
    return accepted
