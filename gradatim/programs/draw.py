"""What does a random program of one level look like, and what does it print?

A ``Drawer`` writes one program after the other and works out what each prints *while* it is written: a drawn piece
is its text together with a function that computes or does what the text says, with Python's own operators on
Python's own numbers. So nothing is parsed or executed, and the result is still CPython's by construction (a test
compares it with CPython anyway).

Literals and variables live in one list of *slots*: slot i ≤ digits holds the literal i, the slots after that hold
the program's variables, oldest first. A drawer neither drops nor counts anything: a program that fails raises.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from .grammar import COMPARISONS, OPERATORS, REPETITIONS, STEPS, Level

__all__ = ["Drawer"]

Thunk = Callable[[], Any]
Drawn = tuple[str, Thunk]
Draw = Callable[[], Drawn]

_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPERATORS = tuple((f" {symbol} ", _APPLY[symbol]) for symbol in OPERATORS)
_COMPARISONS = tuple((f" {symbol} ", _COMPARE[symbol]) for symbol in COMPARISONS)
_VARIABLE = 0.6  # how often a term is a variable


class Drawer:
    """Programs of ``level`` with literals 0..``digits``, an endless sequence fixed by ``seed``.

    Each call returns (prompt, answer): the program up to and including the line ``# output``, and the printed lines
    as comments, both ending in a newline. A program that fails when it is run raises what it raises.
    """

    def __init__(self, level: Level, digits: int, seed: str) -> None:
        self._level = level
        self._random = Random(seed).random
        self._letters = list(level.letters)
        self._first = digits + 1
        self._end = self._first
        room = len(self._letters)
        self._values: list[Any] = [*range(digits + 1), *[0] * room]
        self._words: list[str] = [*map(str, range(digits + 1)), *[""] * room]
        self._printed: list[Any] = []
        self._expressions = [self._compile(shape) for shape in level.expressions]
        self._prints = [self._compile(shape) for shape in level.prints]
        self._conditions = [self._compile(shape) for shape in level.conditions]
        self._blocks = [tuple(block.split()) for block in level.blocks]
        self._bodies = [tuple(body.split()) for body in level.bodies]
        self._ranges = _ranges(digits)
        self._countings = _countings(digits)

    def __call__(self) -> tuple[str, str]:
        self._end = self._first
        self._printed.clear()
        level = self._level
        text = "".join([self._initialisation() for _ in range(self._between(*level.initialisations))])
        assignments = self._between(*level.assignments)
        for _ in range(assignments):
            text += self._assignment()
        sure = False
        if self._blocks:
            kind = self._choice(self._blocks)
            block, sure = {"if": self._branches, "for": self._for, "while": self._while}[kind[0]](kind)
            text += block
        if not sure:
            shapes = self._prints if assignments or self._blocks else self._expressions
            line, show = self._print(shapes)
            text += line
            show()
        return text + "# output\n", "".join([f"# {value}\n" for value in self._printed])

    # Choices. ``int(random() * n)`` is the fastest uniform draw there is, and the same on every platform.

    def _between(self, least: int, most: int) -> int:
        return least + int(self._random() * (most - least + 1))

    def _choice(self, options: Sequence[Any]) -> Any:
        return options[int(self._random() * len(options))]

    def _name(self) -> int:
        """The slot of a new variable, its letter drawn from those that are left."""
        slot, letters = self._end, self._letters
        used = slot - self._first
        other = used + int(self._random() * (len(letters) - used))
        letters[used], letters[other] = letters[other], letters[used]
        self._words[slot] = letters[used]
        self._end = slot + 1
        return slot

    def _variable(self) -> int:
        """The slot of a variable, the newest most likely."""
        share = self._random()
        return self._end - 1 - int(share * share * (self._end - self._first))

    def _term(self) -> int:
        """The slot of a variable or literal."""
        if self._random() < _VARIABLE:
            share = self._random()
            return self._end - 1 - int(share * share * (self._end - self._first))
        return int(self._random() * self._first)

    # Shapes become functions once per drawer, so that drawing never looks at a shape again.

    def _compile(self, shape: str) -> Draw:
        return self._node(ast.parse(shape.replace(" o ", " + "), mode="eval").body)

    def _node(self, node: ast.expr) -> Draw:
        match node:
            case ast.Name(id="v"):
                return self._bare(self._variable)
            case ast.Name(id="t"):
                return self._bare(self._term)
            case ast.Name(id="c"):
                return self._comparison()
            case ast.BinOp(left=ast.Name(id="t"), right=ast.Name(id="t")):
                return self._binary(self._term, self._term, _OPERATORS)
            case ast.BinOp(left=left, right=right):
                return self._nested(self._inner(left), self._inner(right))
            case ast.BoolOp(op=op, values=[left, right]):
                word = "or" if isinstance(op, ast.Or) else "and"
                return _either(self._node(left), self._node(right), word)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _negation(self._node(operand), "not ({})" if isinstance(operand, ast.BoolOp) else "not {}")
        raise ValueError(f"not a shape of the grammar: {ast.unparse(node)}")

    def _inner(self, node: ast.expr) -> Draw:
        draw = self._node(node)
        return _bracketed(draw) if isinstance(node, ast.BinOp) else draw

    def _bare(self, pick: Callable[[], int]) -> Draw:
        words, values = self._words, self._values

        def draw() -> Drawn:
            slot = pick()
            return words[slot], lambda: values[slot]

        return draw

    def _binary(self, pick: Callable[[], int], pick_right: Callable[[], int], signs: Sequence[Any]) -> Draw:
        words, values, random, count = self._words, self._values, self._random, len(signs)

        def draw() -> Drawn:
            left = pick()
            sign, apply = signs[int(random() * count)]
            right = pick_right()
            return words[left] + sign + words[right], lambda: apply(values[left], values[right])

        return draw

    def _comparison(self) -> Draw:
        words, values, random, first = self._words, self._values, self._random, self._first

        def draw() -> Drawn:
            left = self._variable()
            sign, holds = _COMPARISONS[int(random() * 6)]
            right = self._term()
            if right == left:  # `a < a` asks nothing
                right = int(random() * first)
            return words[left] + sign + words[right], lambda: holds(values[left], values[right])

        return draw

    def _nested(self, draw_left: Draw, draw_right: Draw) -> Draw:
        def draw() -> Drawn:
            left, left_value = draw_left()
            sign, apply = self._choice(_OPERATORS)
            right, right_value = draw_right()
            return left + sign + right, lambda: apply(left_value(), right_value())

        return draw

    # Statements.

    def _initialisation(self) -> str:
        literal = int(self._random() * self._first)
        slot = self._name()
        self._values[slot] = literal
        return f"{self._words[slot]} = {literal}\n"

    def _assignment(self) -> str:
        text, value = self._choice(self._expressions)()
        slot = self._name()
        self._values[slot] = value()
        return f"{self._words[slot]} = {text}\n"

    def _print(self, shapes: Sequence[Draw]) -> Drawn:
        text, value = shapes[int(self._random() * len(shapes))]()
        printed = self._printed
        return f"print({text})\n", lambda: printed.append(value())

    def _change(self, targets: int) -> Drawn:
        """An assignment to one of the ``targets`` oldest variables; never to itself alone."""
        slot, values = self._first + int(self._random() * targets), self._values
        text, value = self._choice(self._expressions)()
        word = self._words[slot]
        if text == word:
            newest = self._end - 1
            text, value = self._words[newest], lambda: values[newest]

        def change() -> None:
            values[slot] = value()

        return f"{word} = {text}\n", change

    def _suite(self, targets: int, step: Drawn | None = None) -> tuple[str, list[Thunk], bool]:
        """An indented suite: its text, what it does, and whether it prints."""
        text, acts, prints = "", [], False
        for word in self._choice(self._bodies):
            if word == "step" and step is not None:
                line, act = step
            elif word == "assign" and targets:
                line, act = self._change(targets)
            else:
                line, act = self._print(self._prints)
                prints = True
            text += "\t" + line
            acts.append(act)
        return text, acts, prints

    # Blocks. Each returns its text and whether it is sure to print; what it does is done on the way.

    def _branches(self, layout: Sequence[str]) -> tuple[str, bool]:
        text, taken, sure = "", False, layout[-1] == "else"
        for word in layout:
            if word == "else":
                text += "else :\n"
                holds = not taken
            else:
                condition, test = self._choice(self._conditions)()
                text += f"{word} {condition} :\n"
                holds = not taken and test()
            suite, acts, prints = self._suite(self._end - self._first)
            text += suite
            sure = sure and prints
            if holds:
                taken = True
                for act in acts:
                    act()
        return text, sure

    def _for(self, _: Sequence[str]) -> tuple[str, bool]:
        head, turns = self._choice(self._ranges)
        targets = self._end - self._first
        slot, values = self._name(), self._values
        suite, acts, prints = self._suite(targets)
        for value in turns:
            values[slot] = value
            for act in acts:
                act()
        return f"for {self._words[slot]} in {head} :\n{suite}", prints

    def _while(self, _: Sequence[str]) -> tuple[str, bool]:
        """The newest variable counts up or down to a literal, or to a variable made for it when there is room."""
        values, words, counter = self._values, self._words, self._end - 1
        sign, bound, move = self._choice(self._countings[values[counter]])
        text, targets = "", counter - self._first
        if targets + 1 < self._level.initialisations[1] and self._random() < 0.5:
            literal, bound = bound, self._name()
            values[bound] = literal
            text = f"{words[bound]} = {literal}\n"

        def step() -> None:
            values[counter] += move

        line = f"{words[counter]} = {words[counter]} {'+' if move > 0 else '-'} {abs(move)}\n"
        suite, acts, prints = self._suite(targets, (line, step))
        holds = _COMPARE[sign]
        while holds(values[counter], values[bound]):
            for act in acts:
                act()
        return f"{text}while {words[counter]} {sign} {words[bound]} :\n{suite}", prints


def _bracketed(draw: Draw) -> Draw:
    def bracketed() -> Drawn:
        text, value = draw()
        return f"({text})", value

    return bracketed


def _either(draw_left: Draw, draw_right: Draw, word: str) -> Draw:
    def draw() -> Drawn:
        left, left_holds = draw_left()
        right, right_holds = draw_right()
        text = f"{left} {word} {right}"
        if word == "or":
            return text, lambda: left_holds() or right_holds()
        return text, lambda: left_holds() and right_holds()

    return draw


def _negation(draw_inner: Draw, shape: str) -> Draw:
    def draw() -> Drawn:
        text, holds = draw_inner()
        return shape.format(text), lambda: not holds()

    return draw


@cache
def _ranges(digits: int) -> list[tuple[str, range]]:
    """Every ``range(…)`` of the grammar whose numbers lie in 0..digits, with its values; a step of 1 is not written."""
    return [
        (f"range({turns.start}, {turns.stop}{f', {step}' if step > 1 else ''})", turns)
        for step in STEPS
        for start in range(digits + 1)
        for stop in range(start + 1, min(start + step * max(REPETITIONS), digits) + 1)
        if len(turns := range(start, stop, step)) in REPETITIONS
    ]


@cache
def _countings(digits: int) -> list[list[tuple[str, int, int]]]:
    """For each start 0..digits, every (comparison, bound, signed step) that lets a ``while`` run 2 or 3 times."""
    return [
        [
            (sign, bound, move)
            for move in [direction * step for direction in (1, -1) for step in STEPS]
            for sign in (("<", "<=", "!=") if move > 0 else (">", ">=", "!="))
            for bound in range(max(0, start - 9), min(digits, start + 9) + 1)
            if _turns(start, _COMPARE[sign], bound, move) in REPETITIONS
        ]
        for start in range(digits + 1)
    ]


def _turns(start: int, holds: Callable[[int, int], bool], bound: int, move: int) -> int:
    """How often the loop runs, counted up to one more than allowed."""
    turns = 0
    while turns <= max(REPETITIONS) and holds(start, bound):
        start, turns = start + move, turns + 1
    return turns
