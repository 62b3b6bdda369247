"""Which programs does a student learn first? TinyPy: random small Python programs by level, with what they print.

    grammar     what a level is: data, one row each
    slots       where a program's literals and variables live while it is drawn
    shapes      expressions and conditions: text, and the value it has
    loops       the loops that may be drawn
    draw        one random program and its output
    blocks      a level's programs in numbered pieces, made by workers
    generate    many distinct ones, the same whatever the workers; the table and the counts
    interpret   what a given TinyPy program prints, safely
    values      what it computes on its way, and where in its text
    canonical   the form that renamed twins share

A sample's text is ``prompt + answer``: the program, the line ``# output``, then one ``# …`` line per printed line,
each line ended by a newline. Samples are joined by one blank line, that is by one further newline.
"""

from __future__ import annotations

from .canonical import canonical
from .generate import Facts, Generated, LevelFacts, ProgramStream, generate, stream
from .grammar import LEVELS, Level
from .interpret import commented, run_program
from .values import Values, values_of

__all__ = [
    "LEVELS",
    "Facts",
    "Generated",
    "Level",
    "LevelFacts",
    "ProgramStream",
    "Values",
    "canonical",
    "commented",
    "generate",
    "run_program",
    "stream",
    "values_of",
]
