"""What is another TinyPy program of the same kind, and what is nearly this one but wrong?

``kin`` keeps a program's statements and draws its literals, operators, comparisons and names anew, as the grammar
would: loops repeat as often as it says, and literals stay in 0..digits. ``slips`` are programs that differ at one
place, as a hasty reader would have it. Both work on the text and run nothing; whether a program runs, prints, or
prints something else is for the oracle to see.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from random import Random
from string import ascii_lowercase

from ..programs.grammar import COMPARISONS, OPERATORS, countings, ranges

__all__ = ["kin", "slips"]


_WORDS = frozenset(["range", "print", *keyword.kwlist])
_PIECE = re.compile(r"#[^\n]*|[A-Za-z_]\w*|\d+|[<>=!]=|//|[-+*/%<>]")
_FOR = re.compile(r"^(?P<indent>\t*)for (?P<name>\w+) in range\([^)\n]*\) :$")
_WHILE = re.compile(r"^while (?P<counter>[a-z]\w*) (?:[<>]=?|!=) (?P<bound>\w+) :$")


def kin(program: str, digits: int, random: Random) -> str | None:
    """A program with the statements of ``program``, all else drawn; None where a loop is not one of the grammar's."""
    lines = program.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("while ")]
    fixed: dict[int, str] = {}
    if heads:
        counted = _counted(lines, heads[0], digits, random) if len(heads) == 1 else None
        if counted is None:
            return None
        fixed = counted
    drawn = [fixed[number] if number in fixed else _line(line, digits, random) for number, line in enumerate(lines)]
    return _renamed("".join(f"{line}\n" for line in drawn), random)


def _line(line: str, digits: int, random: Random) -> str:
    loop = _FOR.match(line)
    if loop:
        return f"{loop['indent']}for {loop['name']} in {random.choice(ranges(digits))[0]} :"

    def fresh(piece: re.Match[str]) -> str:
        text = piece[0]
        if text.isdigit():
            return str(random.randint(0, digits))
        if text in OPERATORS:
            return random.choice(OPERATORS)
        return random.choice(COMPARISONS) if text in COMPARISONS else text

    return _PIECE.sub(fresh, line)


def _counted(lines: list[str], head: int, digits: int, random: Random) -> dict[int, str] | None:
    """The lines that make the ``while`` at line ``head`` count, drawn anew together; None where they are not plain."""
    loop = _WHILE.match(lines[head])
    if loop is None:
        return None
    counter, bound = loop["counter"], loop["bound"]
    starts = [number for number in range(head) if re.fullmatch(rf"{counter} = \d+", lines[number])]
    step = re.compile(rf"\t{counter} = {counter} [+-] \d+")
    steps = [number for number in range(head + 1, len(lines)) if step.fullmatch(lines[number])]
    bounds = [number for number in range(head) if re.fullmatch(rf"{bound} = \d+", lines[number])]
    if len(starts) != 1 or len(steps) != 1 or (not bound.isdigit() and len(bounds) != 1):
        return None
    start = random.choice([value for value, some in enumerate(countings(digits)) if some])
    sign, limit, move = random.choice(countings(digits)[start])
    fixed = {
        starts[0]: f"{counter} = {start}",
        steps[0]: f"\t{counter} = {counter} {'+' if move > 0 else '-'} {abs(move)}",
        head: f"while {counter} {sign} {limit if bound.isdigit() else bound} :",
    }
    return fixed if bound.isdigit() else {**fixed, bounds[0]: f"{bound} = {limit}"}


def _renamed(program: str, random: Random) -> str:
    """``program`` with other letters for its names; as it is where letters do not suffice."""
    names = list(dict.fromkeys(piece for piece in _PIECE.findall(program) if _is_name(piece)))
    if len(names) > len(ascii_lowercase):
        return program
    letters = dict(zip(names, random.sample(ascii_lowercase, len(names)), strict=True))
    return _PIECE.sub(lambda piece: letters.get(piece[0], piece[0]), program)


def _is_name(piece: str) -> bool:
    return piece.isidentifier() and piece not in _WORDS


def slips(program: str, random: Random) -> Iterator[str]:
    """Programs that differ from ``program`` at one place, each once, in random order: an operator or comparison taken
    for another, a literal that is off, a variable taken for another."""
    pieces = list(_PIECE.finditer(program))
    names = list(dict.fromkeys(piece[0] for piece in pieces if _is_name(piece[0])))
    changes = [(piece, other) for piece in pieces for other in _others(piece[0], names)]
    random.shuffle(changes)
    for piece, other in changes:
        yield program[: piece.start()] + other + program[piece.end() :]


def _others(piece: str, names: list[str]) -> list[str]:
    if piece.isdigit():
        return [str(value) for value in (int(piece) - 1, int(piece) + 1, int(piece) + 2) if value >= 0]
    if piece in OPERATORS:
        return [other for other in "+-*" if other != piece]
    if piece in COMPARISONS:
        return [other for other in COMPARISONS if other != piece]
    return [name for name in names if name != piece] if _is_name(piece) else []
