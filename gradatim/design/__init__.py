"""Curricula designed by a teacher, from statistics of the samples and the student's learning curves.

    schema   the JSON Schema of a design, and the parser that reports all faults of a reply
    request  the facts of a request; one request, and one more with the faults of the reply

A design gives the stages of the schedule ``designed``. Requests contain names and numbers only, never a sample, and
nothing of the test set, to which a curriculum must not be fitted. ``CurriculumDesign``
of ``assemble`` prepares the requests and stores their results.
"""

from .request import DesignOutcome, describe_samples, design_facts, request_design
from .schema import SCHEMA, Design, Terms, read_design, schema_for

__all__ = [
    "SCHEMA",
    "Design",
    "DesignOutcome",
    "Terms",
    "describe_samples",
    "design_facts",
    "read_design",
    "request_design",
    "schema_for",
]
