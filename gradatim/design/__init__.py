"""Which stages would a teacher choose, who has seen the samples and how the student does?

    facts    what the teacher reads: the samples in numbers, the budget, its choices, the learning curves so far
    form     what it writes: JSON by a published schema
    reading  what it wrote, with every fault told at once
    ask      one question, one more with the faults; then a design, or an error that holds them

The design becomes the rows of the schedule ``designed``. Only names and numbers leave the machine, never a sample, and
nothing of the test set: who designs with it in view would fit the curriculum to it. What is asked for in which cycle,
and where the answer is kept, is the matter of ``assemble`` and ``cycle``.
"""

from .prompt import describe_samples, tell
from .request import Asked, ask_design
from .schema import SCHEMA, Design, Terms, read_design, schema_for

__all__ = ["SCHEMA", "Asked", "Design", "Terms", "ask_design", "describe_samples", "read_design", "schema_for", "tell"]
