"""What does a random program of one level look like, and what does it print?

A ``Drawer`` writes one program after the other and does what each says *while* it is written: a drawn statement
is its text together with a function that does it. So nothing is parsed or executed, and the outputs are still
CPython's because the operators and numbers are (a test compares them with CPython anyway). A drawer neither
drops nor counts anything: a program that fails raises what it would raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .grammar import Level
from .loops import countings, ranges
from .shapes import COMPARE, Draw, Drawn, Thunk, compile_shape
from .slots import Slots

__all__ = ["Drawer"]


class Drawer:
    """Programs of ``level`` with literals 0..``digits``, an endless sequence fixed by ``seed``.

    Each call returns (prompt, answer): the program up to and including the line ``# output``, and the printed
    lines as comments, every line ended by a newline. Raises what the program raises (``ZeroDivisionError``); the
    next call gives the next program.
    """

    def __init__(self, level: Level, digits: int, seed: str) -> None:
        self._level = level
        self._slots = slots = Slots(digits, level.letters, seed)
        self._printed: list[Any] = []
        self._expressions = [compile_shape(shape, slots) for shape in level.expressions]
        self._prints = [compile_shape(shape, slots) for shape in level.prints]
        self._conditions = [compile_shape(shape, slots) for shape in level.conditions]
        self._blocks = [tuple(block.split()) for block in level.blocks]
        self._bodies = [tuple(body.split()) for body in level.bodies]
        self._ranges = ranges(digits)
        self._countings = countings(digits)

    def __call__(self) -> tuple[str, str]:
        slots, level = self._slots, self._level
        slots.forget()
        self._printed.clear()
        text = ""
        for _ in range(slots.between(*level.initialisations)):
            literal = slots.literal()
            text += f"{slots.words[slots.new(literal)]} = {literal}\n"
        assignments = slots.between(*level.assignments)
        for _ in range(assignments):
            expression, value = slots.choice(self._expressions)()
            text += f"{slots.words[slots.new(value())]} = {expression}\n"
        sure = False
        if self._blocks:
            block, sure = self._block(slots.choice(self._blocks))
            text += block
        if not sure:
            # With nothing computed before, the print has to compute.
            line, show = self._print(self._prints if assignments or self._blocks else self._expressions)
            text += line
            show()
        return text + "# output\n", "".join([f"# {value}\n" for value in self._printed])

    # Statements that a suite may hold, not yet done.

    def _print(self, shapes: Sequence[Draw]) -> Drawn:
        text, value = self._slots.choice(shapes)()
        printed = self._printed
        return f"print({text})\n", lambda: printed.append(value())

    def _change(self, targets: int) -> Drawn:
        """An assignment to one of the ``targets`` oldest variables; never to itself alone."""
        slots = self._slots
        values, slot = slots.values, slots.first + int(slots.random() * targets)
        text, value = slots.choice(self._expressions)()
        word = slots.words[slot]
        if text == word:
            newest = slots.end - 1
            text, value = slots.words[newest], lambda: values[newest]

        def change() -> None:
            values[slot] = value()

        return f"{word} = {text}\n", change

    def _suite(self, targets: int, step: Drawn | None = None) -> tuple[str, list[Thunk], bool]:
        """An indented suite: its text, what it does, and whether it prints. It assigns to old variables only."""
        text, acts, prints = "", [], False
        for word in self._slots.choice(self._bodies):
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

    # Blocks. Each returns its text and whether it is sure to print; what it says is done on the way.

    def _block(self, layout: Sequence[str]) -> tuple[str, bool]:
        match layout[0]:
            case "for":
                return self._for()
            case "while":
                return self._while()
            case _:
                return self._branches(layout)

    def _branches(self, layout: Sequence[str]) -> tuple[str, bool]:
        slots = self._slots
        text, taken, sure = "", False, layout[-1] == "else"
        for word in layout:
            if word == "else":
                text += "else :\n"
                holds = not taken
            else:
                condition, test = slots.choice(self._conditions)()
                text += f"{word} {condition} :\n"
                holds = not taken and test()
            suite, acts, prints = self._suite(slots.end - slots.first)
            text += suite
            sure = sure and prints
            if holds:
                taken = True
                for act in acts:
                    act()
        return text, sure

    def _for(self) -> tuple[str, bool]:
        slots = self._slots
        head, turns = slots.choice(self._ranges)
        targets, values = slots.end - slots.first, slots.values
        variable = slots.new(0)
        suite, acts, prints = self._suite(targets)
        for value in turns:
            values[variable] = value
            for act in acts:
                act()
        return f"for {slots.words[variable]} in {head} :\n{suite}", prints

    def _while(self) -> tuple[str, bool]:
        """The newest variable counts up or down to a literal, or to a variable made for it where there is room."""
        slots = self._slots
        values, words, counter, text = slots.values, slots.words, slots.end - 1, ""
        sign, bound, move = slots.choice(self._countings[values[counter]])
        targets = counter - slots.first
        if targets + 1 < self._level.initialisations[1] and slots.random() < 0.5:
            literal, bound = bound, slots.new(bound)
            text = f"{words[bound]} = {literal}\n"

        def step() -> None:
            values[counter] += move

        name = words[counter]
        line = f"{name} = {name} {'+' if move > 0 else '-'} {abs(move)}\n"
        suite, acts, prints = self._suite(targets, (line, step))
        holds = COMPARE[sign]
        while holds(values[counter], values[bound]):
            for act in acts:
                act()
        return f"{text}while {name} {sign} {words[bound]} :\n{suite}", prints
