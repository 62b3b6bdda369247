"""How is a teacher asked for a curriculum?

Once, and where its reply has faults once more, with the reply and its faults. What is still wrong then is told as one
error and nothing is made up in its place; the replies are in the result either way, for whoever keeps them. A request
hangs on its words and its draw alone, so a chat that keeps its replies answers a second time for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import RecipeError
from ..teacher.teacher import used_since
from .schema import Design, Terms, read_design, schema_for

__all__ = ["Asked", "Designer", "ask_design"]


MOST_TOLD = 30
"""Faults that one request names; who has made more has misread the form."""
MOST_SHOWN = 20_000
"""Characters of its own reply that a teacher is shown; one that ran wild is not paid for in full again."""
BY_NAME = ("asked", "asked_again", "unreadable", "failed", "retried")
"""Facts of a teacher that count by prompt or by cause."""
NOTHING = ("no reply could be had, or an empty one",)


class Designer(Protocol):
    """What of a ``Teacher`` is needed here."""

    @property
    def facts(self) -> dict[str, Any]: ...

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None: ...


@dataclass(frozen=True)
class Asked:
    """What came of asking. ``replies`` are raw, None where there was none; ``faults[i]`` are those of reply i, and
    ``design`` is None when the last one has some. ``used``: requests, tokens and cost, as the teacher's facts tell."""

    design: Design | None
    replies: tuple[str | None, ...]
    faults: tuple[tuple[str, ...], ...]
    used: Mapping[str, Any]

    def made(self) -> Design:
        """The design; ``RecipeError`` with every fault of the last reply when there is none."""
        if self.design is not None:
            return self.design
        left = self.faults[-1]
        raise RecipeError(
            f"the teacher's design cannot be used, and it was asked twice: {'; '.join(left[:MOST_TOLD])}",
            where="schedule.name: designed",
            faults=left,
            hint="each further start of gradatim run asks anew; in another folder, a larger teacher.max_tokens",
        )


def ask_design(teacher: Designer, facts: str, terms: Terms, *, draw: int = 0) -> Asked:
    """Ask for a design within ``terms``, and once more with the faults where it has some.

    Another ``draw`` asks anew. What the chat raises (no endpoint, no budget left) passes.
    """
    before = deepcopy(dict(teacher.facts))
    form = json.dumps(schema_for(terms), ensure_ascii=False)
    replies: list[str | None] = []
    faults: list[tuple[str, ...]] = []
    design = None
    for _ in range(2):
        if replies:
            reply = teacher.design(
                facts,
                form=form,
                reply=_sendable((replies[-1] or "(nothing)")[:MOST_SHOWN]),
                faults=_most(faults[-1]),
                draw=draw,
            )
        else:
            reply = teacher.design(facts, form=form, draw=draw)
        design, found = read_design(reply, terms) if reply is not None and reply.strip() else (None, NOTHING)
        replies.append(reply)
        faults.append(found)
        if design is not None:
            break
    return Asked(design, tuple(replies), tuple(faults), _told(used_since(before, teacher.facts)))


def _told(used: Mapping[str, Any]) -> dict[str, Any]:
    """Counts by name without those that are 0: whether a name is there hangs on what else this process had asked."""
    return {
        name: {key: count for key, count in value.items() if count} if name in BY_NAME else value
        for name, value in used.items()
    }


def _sendable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can escape and no request can carry."""
    return text.encode("utf-8", "replace").decode()


def _most(faults: Sequence[str]) -> tuple[str, ...]:
    if len(faults) <= MOST_TOLD:
        return tuple(faults)
    return (*faults[:MOST_TOLD], f"and {len(faults) - MOST_TOLD} more")
