"""Which programs are there at each TinyPy level?

The grammar is the table ``LEVELS``, one row per level; ``draw`` turns a row into programs and nothing about a
level is said anywhere else. A program is a run of initialisations (``a = 4``), assignments of expressions to new
variables, at most one block (a conditional or a loop) and, unless the block is sure to print, a final ``print``.

The rows follow the levels of arXiv 2407.10194 (TinyPy): one-letter names, tabs, a blank before the colon,
literals from 0, the published maximum of initialisations per level, loops of step 1–3 that run 2–3 times. Where
the published generator is silent or careless, this table chooses, and says so:

* *Every* literal lies in 0..digits, the bounds of loops too, so that ``digits`` means what it says.
* Division is one operator in ten: its results are long (``0.3333333333333333``) and would fill the outputs.
* No loop is empty, no operation is between two literals, and operands prefer the newest variables, so that most
  loop bodies depend on the loop.
* Level 3.1 has no operator at all, as in the published data; expressions inside loops begin with 3.2.
* Every program prints something.

Levels 0.1 to 0.3 are not published: each asks for one thing that the published ones take for granted (what a name
stands for, which branch is taken, arithmetic in two steps). They are learnt from first, and ``all`` does not mean them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_lowercase

from ..errors import DataError, did_you_mean

__all__ = ["COMPARISONS", "LEVELS", "OPERATORS", "REPETITIONS", "STEPS", "Level", "levels_named"]

OPERATORS = "+++---***/"  # each equally likely
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
STEPS = (1, 2, 3)
REPETITIONS = (2, 3)

_SIMPLE = ("t o t",)
_BRACKETED = ("(t o t) o t", "t o (t o t)", "(t o t) o (t o t)")
_RICHER = ("t o t", "(t o t) o t", "t o (t o t)")
_CHAINED = ("c and c", "c or c", "not c", "not c and c", "c or not c", "c and c or c", "not (c or c)")


@dataclass(frozen=True)
class Level:
    """One row of the grammar. Each tuple of shapes is drawn from uniformly; a shape given twice counts twice.

    ``initialisations`` and ``assignments`` are (least, most). ``expressions`` are what assignments compute and
    ``prints`` what ``print`` shows: shapes where v is a variable (the newest likeliest), u one of
    them (each as likely), t a term (variable or literal), o an operator. ``conditions`` are shapes where c is a
    comparison. ``blocks`` are ``if``, ``if elif else``, …, ``for`` or
    ``while``; ``bodies`` say what an indented suite holds (``print``, ``assign``; ``step`` is where a ``while``
    moves its counter). ``letters`` are the names variables may have.
    """

    name: str
    summary: str
    initialisations: tuple[int, int]
    assignments: tuple[int, int] = (0, 0)
    expressions: tuple[str, ...] = _SIMPLE
    prints: tuple[str, ...] = ("v", *_SIMPLE)
    conditions: tuple[str, ...] = ("c",)
    blocks: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ("print",)
    letters: str = ascii_lowercase

    def __post_init__(self) -> None:
        """``ValueError`` for a row that would make programs without end or run out of names."""
        if "while" in self.blocks and any(body.split().count("step") != 1 for body in self.bodies):
            raise ValueError(f"level {self.name}: each body of a while needs exactly one step, not {self.bodies}")
        if unknown := {word for body in self.bodies for word in body.split()} - {"print", "assign", "step"}:
            raise ValueError(f"level {self.name}: a body holds print, assign or step, not {sorted(unknown)}")
        if self.initialisations[0] < 1:
            raise ValueError(f"level {self.name}: a program needs a variable, so at least one initialisation")
        needed = self.initialisations[1] + self.assignments[1] + 1
        if len(set(self.letters)) < max(needed, len(self.letters)):
            raise ValueError(f"level {self.name}: {needed} different letters are needed, not {self.letters!r}")


_ROWS = (
    Level("1.1", "assignments with simple arithmetic", (1, 2), (0, 1)),
    Level("1.2", "assignments with parenthesised arithmetic", (1, 3), (0, 1), _BRACKETED, prints=("v", *_BRACKETED)),
    Level(
        "2.1",
        "if, elif, else",
        (1, 2),
        blocks=("if", "if else", "if else", "if elif else"),
        bodies=("print", "print", "assign"),
    ),
    Level(
        "2.2",
        "if, elif, else with and, or, not and richer assignments",
        (1, 5),
        (0, 1),
        expressions=_RICHER,
        conditions=_CHAINED,
        blocks=("if", "if", "if", "if else", "if else", "if elif else"),
        bodies=("print", "print", "assign"),
    ),
    Level(
        "3.1",
        "for over a range",
        (1, 2),
        expressions=("v",),
        prints=("v",),
        blocks=("for",),
        bodies=("print", "print", "print print", "assign"),
    ),
    Level(
        "3.2",
        "for over a range with richer assignments",
        (1, 4),
        (0, 1),
        expressions=_RICHER,
        blocks=("for",),
        bodies=("print", "assign", "assign print"),
    ),
    Level(
        "4.1",
        "while",
        (1, 2),
        blocks=("while",),
        bodies=("print step", "print step", "step print", "assign step", "assign print step"),
    ),
)
_BEFORE = (
    Level("0.1", "assignments of numbers, and one printed: what a name stands for", (2, 4), expressions=("u",)),
    Level(
        "0.2",
        "one comparison, and one of two numbers printed: which branch is taken",
        (1, 2),
        prints=("t",),
        blocks=("if else",),
    ),
    Level("0.3", "one number, and arithmetic in two steps printed", (1, 1), expressions=_BRACKETED),
)
LEVELS = {row.name: row for row in (*_BEFORE, *_ROWS)}


def levels_named(wanted: Iterable[str | Level]) -> tuple[Level, ...]:
    """The rows of ``wanted``, each once, in that order; ``all`` stands for the published, a ``Level`` for itself.

    Raises ``DataError`` when a name is unknown or nothing is wanted.
    """
    rows: dict[str, Level] = {}
    for name in (wanted,) if isinstance(wanted, str) else wanted:
        if isinstance(name, Level):
            rows[name.name] = name
        elif name == "all":
            rows.update((row.name, row) for row in _ROWS if row.name not in rows)
        elif name in LEVELS:
            rows[name] = LEVELS[name]
        else:
            known = [*LEVELS, "all"]
            raise DataError(
                "there is no such TinyPy level",
                given=name,
                allowed=", ".join(known),
                hint=did_you_mean(name, known),
            )
    if not rows:
        raise DataError("no TinyPy level is asked for", allowed=", ".join([*LEVELS, "all"]))
    return tuple(rows.values())
