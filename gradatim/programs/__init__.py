"""TinyPy: random small Python programs by level, with their output (arXiv 2407.10194).

    grammar     the levels as data, and the expressions, conditions and variables of a program
    generator   one random program and its output; many distinct ones, the same for any number of workers
    interpret   the output of a TinyPy program, and the intermediate values with their positions in the text
    scratchpad  the operations of a program one by one, as part of an answer
    equivalence forms shared by programs that differ in variable names or in unused assignments only

The text of a sample is ``prompt + answer``: the program, the line ``# output``, then one ``# …`` line per printed line,
each line ended by a newline. Samples are joined by one blank line, that is by one further newline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .equivalence import canonical, sliced
    from .generator import Facts, Generated, LevelFacts, ProgramStream, generate, stream
    from .grammar import LEVELS, Level
    from .interpret import Values, commented, run_program, values_of
    from .scratchpad import Scratchpad, has_scratchpad, longest_answer, printed_lines, scratchpad_of

__all__ = [
    "LEVELS",
    "Facts",
    "Generated",
    "Level",
    "LevelFacts",
    "ProgramStream",
    "Scratchpad",
    "Values",
    "canonical",
    "commented",
    "generate",
    "has_scratchpad",
    "longest_answer",
    "printed_lines",
    "run_program",
    "scratchpad_of",
    "sliced",
    "stream",
    "values_of",
]

__getattr__ = lazy_names(
    __name__,
    {
        "equivalence": ("canonical", "sliced"),
        "generator": ("Facts", "Generated", "LevelFacts", "ProgramStream", "generate", "stream"),
        "grammar": ("LEVELS", "Level"),
        "interpret": ("Values", "commented", "run_program", "values_of"),
        "scratchpad": ("Scratchpad", "has_scratchpad", "longest_answer", "printed_lines", "scratchpad_of"),
    },
)
