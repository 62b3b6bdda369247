"""Which right and which wrong answers does the student see?

    edits          one small mistake: a span, what stands there instead, its kind
    python_code    the mistakes that fit into a Python source
    other_code     the same by tree-sitter, for C, C++, Go, Java, JavaScript, TypeScript
    mutate         faulty answers made from the right one
    faulty         the faulty answer of each sample: the student's own, a mutant, or the teacher's

Right answers come from the source and are verified there. What the student makes of a pair is its objective's business.
"""

from __future__ import annotations

from .edits import KINDS, Kind
from .faulty import PLACES, Delivered, Right, deliver
from .mutate import Mutant, mutants

__all__ = ["KINDS", "PLACES", "Delivered", "Kind", "Mutant", "Right", "deliver", "mutants"]
