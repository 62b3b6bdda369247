"""Where do the numbers of a program live while it is drawn, and how is one picked?

Literals and variables share one list of *slots*: slot i ≤ digits holds the literal i, the slots after that hold
the program's variables, oldest first. A term is then just a slot, whose text is in ``words`` and whose value is
in ``values``, and nothing that draws or computes has to ask which of the two it is. No grammar here.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

__all__ = ["Slots"]

Option = TypeVar("Option")
_VARIABLE = 0.6  # how often a term is a variable


class Slots:
    """The slots of one program at a time, and the randomness that everything drawn for it uses.

    ``first`` is the slot of the oldest variable, ``end`` one more than that of the newest. Lists are never
    replaced, so that functions may keep them. ``int(random() * n)`` is the fastest uniform draw, the same on
    every platform.
    """

    __slots__ = ("_letters", "end", "first", "random", "values", "words")

    def __init__(self, digits: int, letters: str, seed: str) -> None:
        self.random = Random(seed).random
        self._letters = list(letters)
        self.first = self.end = digits + 1
        self.values: list[Any] = [*range(digits + 1), *[0] * len(letters)]
        self.words: list[str] = [*map(str, range(digits + 1)), *[""] * len(letters)]

    def forget(self) -> None:
        """Make room for the next program: no variables."""
        self.end = self.first

    def new(self, value: Any) -> int:
        """The slot of a new variable that holds ``value``, its letter drawn from those that are left."""
        slot, letters = self.end, self._letters
        used = slot - self.first
        other = used + int(self.random() * (len(letters) - used))
        letters[used], letters[other] = letters[other], letters[used]
        self.words[slot] = letters[used]
        self.values[slot] = value
        self.end = slot + 1
        return slot

    def literal(self) -> int:
        """The slot of a literal; the slot is its value."""
        return int(self.random() * self.first)

    def variable(self) -> int:
        """The slot of a variable, the newest most likely: what was just made is there to be used."""
        share = self.random()
        return self.end - 1 - int(share * share * (self.end - self.first))

    def any_variable(self) -> int:
        """The slot of a variable, each equally likely."""
        return self.first + int(self.random() * (self.end - self.first))

    def term(self) -> int:
        """The slot of a variable or literal."""
        if self.random() < _VARIABLE:
            share = self.random()
            return self.end - 1 - int(share * share * (self.end - self.first))
        return int(self.random() * self.first)

    def choice(self, options: Sequence[Option]) -> Option:
        """One of ``options``, each equally likely."""
        return options[int(self.random() * len(options))]

    def between(self, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``, both included."""
        return least + int(self.random() * (most - least + 1))
