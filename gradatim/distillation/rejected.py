"""Which faulty answer stands beside the right one of each sample?

``deliver`` fills the column ``rejected``. Faulty answers come from three *places*: the ``student``'s own failed
attempts at that very question, a ``mutation`` of the right answer, and the ``teacher`` asked for a plausible mistake.
For each sample a seeded draw, weighted by ``shares``, chooses among the places that can give one; when it turns out
that the chosen one has none, the heaviest of the others is asked. Every candidate that can be judged is: one that
proves right, or is the answer itself, is thrown away and counted. A sample for which nothing is left keeps no faulty
answer. The way from a pair to a gradient is the objective's; whether an answer is right is ``right``'s to say.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import RecipeError, did_you_mean
from ..stage import Event, Events, Feedback, ignore_events
from .mutations import Mutant, mutants, same_text

if TYPE_CHECKING:
    import pyarrow as pa

    from ..teacher import Teacher

__all__ = ["PLACES", "Delivered", "Place", "Right", "deliver"]


Place = Literal["student", "mutation", "teacher"]
PLACES: tuple[Place, ...] = get_args(Place)

Right: TypeAlias = "Callable[[pa.Table, Sequence[str]], list[bool | None]]"
"""Samples and one attempt at each: whether it is right, None where that cannot be told."""

TRIES = 4
"""Mutants of one answer that may prove right before another place is asked."""
ASKED = 2
"""Times that a teacher is asked for a mistake in one answer; the second time it draws anew."""


@dataclass(frozen=True)
class Delivered:
    """The table with ``rejected`` filled, its rows and other columns as they were, and what came from where.

    ``facts``: samples by place (``student``, ``mutation``, ``teacher``; ``given`` had one already, ``none`` has none);
    by place ``proved_right``, ``equal`` (the right answer's own text), ``untold`` (could not be judged and was taken)
    and ``passed_on`` (was chosen and had none left); ``kinds`` of the mutations taken.
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
    """A faulty answer for each of ``samples`` that has none yet.

    ``shares`` weighs the places; one that is missing there or weighs nothing is never asked. The same arguments give
    the same table. Raises ``RecipeError`` for shares that cannot be used and for a teacher's share without a teacher,
    and passes on what ``teacher`` and ``right`` raise.
    """
    import pyarrow as pa

    weights = _weights(shares, teacher)
    rows = samples.to_pylist()
    attempts = _failed(feedback) if "student" in weights else {}
    waiting = [
        _open(place, row, weights, attempts.get(row["id"], ()), seed)
        for place, row in enumerate(rows)
        if row["rejected"] is None
    ]
    tally = _Tally(given=len(rows) - len(waiting))
    rejected: list[str | None] = [row["rejected"] for row in rows]
    events(Event("start", "deliver", 0, len(waiting)))
    total = len(waiting)
    while waiting:
        offers = _offers(waiting, samples, teacher, tally)
        for each, taken in zip(offers, _judged(offers, samples, right, tally), strict=True):
            if taken:
                rejected[each.wanted.row] = each.text
                tally.take(each)
        waiting = [each for each in waiting if each.places and rejected[each.row] is None]
        events(Event("advance", "deliver", total - len(waiting), total))
    events(Event("finish", "deliver", total, total))
    column = samples.schema.get_field_index("rejected")
    filled = samples.set_column(column, samples.schema.field(column), pa.array(rejected, pa.large_string()))
    return Delivered(filled, tally.facts(rejected))


def _weights(shares: Mapping[str, float], teacher: Teacher | None) -> dict[Place, float]:
    """The places that may be asked, heaviest first."""
    for name, share in shares.items():
        if name not in PLACES:
            raise RecipeError(
                "faulty answers cannot come from there",
                where="delivery.faulty",
                given=name,
                allowed=", ".join(PLACES),
                hint=did_you_mean(name, PLACES),
            )
        if not math.isfinite(share) or share < 0:
            raise RecipeError("a share is a weight", where=f"delivery.faulty.{name}", given=share, allowed="0 or more")
    weights = {place: float(shares[place]) for place in PLACES if shares.get(place, 0) > 0}
    if not weights:
        raise RecipeError("no place has a share", where="delivery.faulty", given=dict(shares), allowed="one above 0")
    if "teacher" in weights and teacher is None:
        raise RecipeError(
            "there is no teacher to be asked for mistakes", where="delivery.faulty.teacher", hint="name one, or share 0"
        )
    return dict(sorted(weights.items(), key=lambda item: -item[1]))


def _failed(feedback: Feedback) -> dict[str, list[str]]:
    """The student's distinct failed attempts by question; an empty one teaches nothing."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    if feedback.table is not None:
        for row in feedback.table.select(["id", "attempt", "verdict"]).to_pylist():
            if row["verdict"] == "failed" and (row["attempt"] or "").strip():
                found[row["id"]][row["attempt"]] = None
    return {question: list(attempts) for question, attempts in found.items()}


@dataclass
class _Wanted:
    """A sample that has no faulty answer yet, and where the next candidates come from."""

    row: int
    sample: Mapping[str, Any]
    places: list[Place]
    attempts: Iterator[str]
    mutants: Iterator[Mutant]
    asked: int = 0  # times the teacher was


@dataclass(frozen=True)
class _Offer:
    """A candidate for a sample."""

    wanted: _Wanted
    place: Place
    text: str
    kind: str | None = None


def _open(
    row: int, sample: Mapping[str, Any], weights: Mapping[Place, float], attempts: Sequence[str], seed: int
) -> _Wanted:
    """A sample with its places in the order they are asked: one drawn, then the others, heaviest first."""
    digest = hashlib.blake2b(f"{seed}/{sample['id']}".encode(), digest_size=8).digest()
    generator = random.Random(int.from_bytes(digest, "little"))
    own = list(attempts)
    generator.shuffle(own)
    changed = mutants(sample["prompt"], sample["answer"], sample["language"], seed=generator.getrandbits(32))
    places = [place for place in weights if place != "student" or own]
    if places:
        drawn = generator.choices(places, [weights[place] for place in places])[0]
        places = [drawn, *(place for place in places if place != drawn)]
    return _Wanted(row, sample, places, iter(own), islice(changed, TRIES))


@dataclass
class _Tally:
    """What is counted on the way."""

    given: int
    places: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    proved_right: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    untold: Counter[str] = field(default_factory=Counter)
    passed_on: Counter[str] = field(default_factory=Counter)

    def take(self, offer: _Offer) -> None:
        self.places[offer.place] += 1
        if offer.kind is not None:
            self.kinds[offer.kind] += 1

    def facts(self, rejected: Sequence[str | None]) -> dict[str, Any]:
        by_place = ("proved_right", "equal", "untold", "passed_on")
        return {
            **{place: self.places[place] for place in PLACES},
            "given": self.given,
            "none": sum(text is None for text in rejected),
            **{name: {place: getattr(self, name)[place] for place in PLACES} for name in by_place},
            "kinds": dict(sorted(self.kinds.items())),
        }


def _offers(waiting: Sequence[_Wanted], samples: pa.Table, teacher: Teacher | None, tally: _Tally) -> list[_Offer]:
    """At most one new candidate for each sample that waits; the teacher is asked about many at once."""
    offers = [offer for each in waiting if (offer := _own(each, tally)) is not None]
    asking = [each for each in waiting if each.places[:1] == ["teacher"]]
    for draw, group in enumerate([[each for each in asking if each.asked == draw] for draw in range(ASKED)]):
        if group and teacher is not None:
            texts = teacher.faults(samples.take([each.row for each in group]), draw=draw)
            offers += [_Offer(each, "teacher", text) for each, text in zip(group, texts, strict=True) if text]
        for each in group:
            each.asked = draw + 1
    return sorted(offers, key=lambda offer: offer.wanted.row)


def _own(wanted: _Wanted, tally: _Tally) -> _Offer | None:
    """The next candidate that nobody has to be asked for; places that have none left are passed over."""
    while wanted.places:
        place = wanted.places[0]
        if place == "student" and (attempt := next(wanted.attempts, None)) is not None:
            return _Offer(wanted, place, attempt)
        if place == "mutation" and (mutant := next(wanted.mutants, None)) is not None:
            return _Offer(wanted, place, mutant.text, mutant.kind)
        if place == "teacher" and wanted.asked < ASKED:
            return None
        tally.passed_on[place] += 1
        wanted.places.pop(0)
    return None


def _judged(offers: Sequence[_Offer], samples: pa.Table, right: Right, tally: _Tally) -> list[bool]:
    """Whether each candidate is taken: it is neither the answer itself nor proved right."""
    taken = [not same_text(offer.text, offer.wanted.sample["answer"]) for offer in offers]
    tally.equal.update(offer.place for offer, other in zip(offers, taken, strict=True) if not other)
    places = [place for place, other in enumerate(taken) if other]
    if places:
        rows = samples.take([offers[place].wanted.row for place in places])
        verdicts = right(rows, [offers[place].text for place in places])
        for place, verdict in zip(places, verdicts, strict=True):
            taken[place] = verdict is not True
            counted = {True: tally.proved_right, None: tally.untold}.get(verdict)
            if counted is not None:
                counted[offers[place].place] += 1
    return taken
