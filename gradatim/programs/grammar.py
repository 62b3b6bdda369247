"""The TinyPy grammar: the levels as a table, random expressions, loops and variables, and the canonical form.

``LEVELS`` has one row per level and is the only definition of it; the generator turns a row into programs. A program is
a run of initialisations (``a = 4``), assignments of expressions to new variables, at most one block (a conditional or a
loop) and, unless the block is sure to print, a final ``print``.

The rows follow the levels of arXiv 2407.10194 (TinyPy): one-letter names, tabs, a blank before the colon, literals from
0, the published maximum of initialisations per level, loops of step 1–3 that run 2–3 times. Choices of this table where
the published generator leaves a point open:

* *Every* literal lies in 0..digits, the bounds of loops too, so that ``digits`` has its literal meaning.
* Division is one operator in ten: its results are long (``0.3333333333333333``) and would fill the outputs.
* No loop is empty, no operation is between two literals, and operands prefer the newest variables, so that most
  loop bodies depend on the loop.
* Level 3.1 has no operator at all, as in the published data; expressions inside loops begin with 3.2.
* Every program prints something.

Levels 0.1 to 0.3 are not published: each isolates one skill that the published ones presuppose (variable lookup, choice
of a branch, arithmetic in two steps). They serve as a warm-up, and ``all`` does not include them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from string import ascii_lowercase
from string import digits as string_digits
from typing import Any, TypeVar

from ..errors import DataError, did_you_mean

DIGITS = (9, 65535)
"""Bounds of the largest literal: 9 lets every loop of the grammar count, 65535 keeps the drawing tables small."""


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
    """One row of the grammar. Shapes of a tuple are sampled uniformly; a repeated shape counts as often as it occurs.

    ``initialisations`` and ``assignments`` are (minimum, maximum). ``expressions`` are the right sides of assignments
    and ``prints`` the arguments of ``print``: shapes where v is a variable (the newest likeliest), u one of them (all
    equally likely), t a term (variable or literal), o an operator. ``conditions`` are shapes where c is a comparison.
    ``blocks`` are ``if``, ``if elif else``, …, ``for`` or ``while``; ``bodies`` are the contents of an indented suite
    (``print``, ``assign``; ``step`` is the update of a ``while``'s counter). ``letters`` are the possible names of
    variables.
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
    Level("0.1", "assignments of numbers, and one printed: variable lookup", (2, 4), expressions=("u",)),
    Level(
        "0.2",
        "one comparison, and one of two numbers printed: choice of a branch",
        (1, 2),
        prints=("t",),
        blocks=("if else",),
    ),
    Level("0.3", "one number, and arithmetic in two steps printed", (1, 1), expressions=_BRACKETED),
)
LEVELS = {row.name: row for row in (*_BEFORE, *_ROWS)}


def characters(levels: Iterable[str | Level]) -> frozenset[str]:
    """The characters of the programs of ``levels`` and of their output: the vocabulary of a large sample of them.

    Raises ``DataError`` as ``levels_named``.
    """
    used = set(f"{ascii_lowercase}{string_digits}\n #()=")
    for level in levels_named(levels):
        assigns = not level.blocks or level.assignments[1] > 0 or any("assign" in body for body in level.bodies)
        shapes = [*(level.expressions if assigns else ()), *(level.prints if level.blocks else ())]
        if any("o" in shape for shape in shapes):
            used |= set("+-*/.")  # results may be negative, and quotients are floats
        if "for" in level.blocks:
            used |= set("\t:,")
        if any(word in block for block in level.blocks for word in ("if", "while")):
            used |= set("\t:!<>")
    return frozenset(used)


def levels_named(names: Iterable[str | Level]) -> tuple[Level, ...]:
    """The rows of ``names``, without repetition, in that order; ``all`` stands for the published, a ``Level`` for
    itself.

    Raises ``DataError`` when a name is unknown or there is none.
    """
    rows: dict[str, Level] = {}
    for name in (names,) if isinstance(names, str) else names:
        if isinstance(name, Level):
            rows[name.name] = name
        elif name == "all":
            rows.update((row.name, row) for row in _ROWS if row.name not in rows)
        elif name in LEVELS:
            rows[name] = LEVELS[name]
        else:
            allowed = [*LEVELS, "all"]
            raise DataError(
                "there is no such TinyPy level",
                given=name,
                allowed=", ".join(allowed),
                hint=did_you_mean(name, allowed),
            )
    if not rows:
        raise DataError("no TinyPy level is named", allowed=", ".join([*LEVELS, "all"]))
    return tuple(rows.values())


Thunk = Callable[[], Any]
Drawn = tuple[str, Thunk]
Draw = Callable[[], Drawn]

_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPERATORS = tuple((f" {symbol} ", _APPLY[symbol]) for symbol in OPERATORS)
_COMPARISONS = tuple((f" {symbol} ", COMPARE[symbol]) for symbol in COMPARISONS)


def compile_shape(shape: str, slots: Slots) -> Draw:
    """A function that samples ``shape`` from ``slots``; ``ValueError`` when it is not a shape of the grammar.

    ``compile_shape`` turns a shape, such as ``(t o t) o t``, into a function that samples it, once per generator. A
    sample is a pair: the text, and a function that computes its *current* value with Python's own operators,
    short-circuiting ``and`` and ``or`` as Python does. It is called as often as the text is executed: never in a
    branch not taken, once per iteration in a loop.
    """
    return _compile(ast.parse(shape.replace(" o ", " + "), mode="eval").body, slots)


def _compile(node: ast.expr, slots: Slots) -> Draw:
    match node:
        case ast.Name(id="v"):
            return _bare(slots.variable, slots)
        case ast.Name(id="u"):
            return _bare(slots.any_variable, slots)
        case ast.Name(id="t"):
            return _bare(slots.term, slots)
        case ast.Name(id="c"):
            return _comparison(slots)
        case ast.BinOp(left=ast.Name(id="t"), right=ast.Name(id="t")):
            return _operation(slots)
        case ast.BinOp(left=left, right=right):
            return _nested(_inner(left, slots), _inner(right, slots), slots)
        case ast.BoolOp(op=ast.Or(), values=[left, right]):
            return _either(_compile(left, slots), _compile(right, slots))
        case ast.BoolOp(op=ast.And(), values=[ast.Name() | ast.UnaryOp() as left, ast.Name() | ast.UnaryOp() as right]):
            return _both(_compile(left, slots), _compile(right, slots))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negation(_compile(operand, slots), bracket=isinstance(operand, ast.BoolOp))
    raise ValueError(f"not a shape of the grammar: {ast.unparse(node)}")


def _bare(pick: Callable[[], int], slots: Slots) -> Draw:
    words, values = slots.words, slots.values

    def draw() -> Drawn:
        slot = pick()
        return words[slot], lambda: values[slot]

    return draw


def _operation(slots: Slots) -> Draw:
    words, values, random, count, first = slots.words, slots.values, slots.random, len(_OPERATORS), slots.first
    variable, term = slots.variable, slots.term

    def draw() -> Drawn:
        first_slot, second_slot = term(), term()
        if first_slot < first and second_slot < first:  # `3 + 4` would not depend on the program
            second_slot = variable()
        sign, apply = _OPERATORS[int(random() * count)]
        return words[first_slot] + sign + words[second_slot], lambda: apply(values[first_slot], values[second_slot])

    return draw


def _comparison(slots: Slots) -> Draw:
    words, values, random, count = slots.words, slots.values, slots.random, len(_COMPARISONS)
    variable, term, literal = slots.variable, slots.term, slots.literal

    def draw() -> Drawn:
        first_slot, second_slot = variable(), term()
        if second_slot == first_slot:  # `a < a` is trivial
            second_slot = literal()
        sign, holds = _COMPARISONS[int(random() * count)]
        return words[first_slot] + sign + words[second_slot], lambda: holds(values[first_slot], values[second_slot])

    return draw


def _nested(draw_left: Draw, draw_right: Draw, slots: Slots) -> Draw:
    random, count = slots.random, len(_OPERATORS)

    def draw() -> Drawn:
        first_text, first_value = draw_left()
        sign, apply = _OPERATORS[int(random() * count)]
        second_text, second_value = draw_right()
        return first_text + sign + second_text, lambda: apply(first_value(), second_value())

    return draw


def _inner(node: ast.expr, slots: Slots) -> Draw:
    """An operand; one that is an operation itself is put in brackets."""
    inner = _compile(node, slots)
    if not isinstance(node, ast.BinOp):
        return inner

    def draw() -> Drawn:
        text, value = inner()
        return f"({text})", value

    return draw


def _either(draw_left: Draw, draw_right: Draw) -> Draw:
    def draw() -> Drawn:
        first_text, first_holds = draw_left()
        second_text, second_holds = draw_right()
        return f"{first_text} or {second_text}", lambda: first_holds() or second_holds()

    return draw


def _both(draw_left: Draw, draw_right: Draw) -> Draw:
    def draw() -> Drawn:
        first_text, first_holds = draw_left()
        second_text, second_holds = draw_right()
        return f"{first_text} and {second_text}", lambda: first_holds() and second_holds()

    return draw


def _negation(draw_inner: Draw, *, bracket: bool) -> Draw:
    def draw() -> Drawn:
        text, holds = draw_inner()
        return f"not ({text})" if bracket else f"not {text}", lambda: not holds()

    return draw


Option = TypeVar("Option")
_VARIABLE = 0.6  # probability that a term is a variable


class Slots:
    """The slots of one program at a time, and the source of all its randomness.

    ``first`` is the slot of the oldest variable, ``end`` one more than that of the newest. Lists are never
    replaced, so that functions may hold them. ``int(random() * n)`` is the fastest uniform sample, the same on
    every platform.

    Literals and variables share one list of *slots* (``Slots``): slot i ≤ digits holds the literal i, the slots
    after that hold the program's variables, oldest first. A term is a slot with its text in ``words`` and its value
    in ``values``, so that code that samples or computes needs no distinction. ``ranges`` and ``countings`` list the
    admissible loops once per ``digits``, so that no loop is empty or endless and none has to be rejected.
    """

    __slots__ = ("_letters", "end", "first", "random", "values", "words")

    def __init__(self, digits: int, letters: str, seed: str) -> None:
        self.random = Random(seed).random
        self._letters = list(letters)
        self.first = self.end = digits + 1
        self.values: list[Any] = [*range(digits + 1), *[0] * len(letters)]
        self.words: list[str] = [*map(str, range(digits + 1)), *[""] * len(letters)]

    def forget(self) -> None:
        """Remove all variables before the next program."""
        self.end = self.first

    def new(self, value: Any) -> int:
        """The slot of a new variable that holds ``value``, its letter sampled from the unused ones."""
        slot, letters = self.end, self._letters
        used = slot - self.first
        position = used + int(self.random() * (len(letters) - used))
        letters[used], letters[position] = letters[position], letters[used]
        self.words[slot] = letters[used]
        self.values[slot] = value
        self.end = slot + 1
        return slot

    def literal(self) -> int:
        """The slot of a literal; the slot is its value."""
        return int(self.random() * self.first)

    def variable(self) -> int:
        """The slot of a variable, the newest most likely, so that new variables are used."""
        share = self.random()
        return self.end - 1 - int(share * share * (self.end - self.first))

    def any_variable(self) -> int:
        """The slot of a variable, all equally likely."""
        return self.first + int(self.random() * (self.end - self.first))

    def term(self) -> int:
        """The slot of a variable or literal."""
        if self.random() < _VARIABLE:
            share = self.random()
            return self.end - 1 - int(share * share * (self.end - self.first))
        return int(self.random() * self.first)

    def choice(self, options: Sequence[Option]) -> Option:
        """One of ``options``, all equally likely."""
        return options[int(self.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + int(self.random() * (high - low + 1))


Counting = tuple[str, int, int]
_REACH = max(STEPS) * max(REPETITIONS)


@cache
def ranges(digits: int) -> list[tuple[str, range]]:
    """Every ``range(…)`` of the grammar as text, with its values; a step of 1 is omitted."""
    return [
        (f"range({start}, {stop}{f', {step}' if step > 1 else ''})", turns)
        for step in STEPS
        for start in range(digits + 1)
        for stop in range(start + 1, min(start + _REACH, digits) + 1)
        if len(turns := range(start, stop, step)) in REPETITIONS
    ]


@cache
def countings(digits: int) -> list[list[Counting]]:
    """For each start 0..digits, every admissible (comparison, bound, signed step) of a ``while``."""
    return [
        [
            (sign, bound, move)
            for move in [direction * step for direction in (1, -1) for step in STEPS]
            for sign in (("<", "<=", "!=") if move > 0 else (">", ">=", "!="))
            for bound in range(max(0, start - _REACH), min(digits, start + _REACH) + 1)
            if _turns(start, COMPARE[sign], bound, move) in REPETITIONS
        ]
        for start in range(digits + 1)
    ]


def _turns(start: int, holds: Callable[[int, int], bool], bound: int, move: int) -> int:
    """The number of iterations, counted up to one more than the maximum."""
    iterations = 0
    while iterations <= max(REPETITIONS) and holds(start, bound):
        start, iterations = start + move, iterations + 1
    return iterations
