"""What did the student get wrong, seen by several judges?

After the stages of a cycle the student answers the cycle's questions, judges look at every attempt, and what they say
together becomes the *feedback* from which the next cycle is made. The road of one cycle, each step a module:

    probe       the student writes, all judges look, one table row per attempt comes out (``FEEDBACK``)
    judge       what a judge is: samples and attempts in, one ``View`` each out; ``JUDGES`` by name
    output      is the attempt, character for character, what is right?
    tests       does the program that the attempt makes pass the sample's tests, behind walls?
    static      is there code, does it parse, compile and run, and what does the linter say?
    rubric      how many of six points does the teacher give?
    scoring     a small model that learns the teacher's points and judges in its place (``scoring_model``, ``hidden``)
    form        is an attempt the rest of a program, or a reply with a program in it?
    combine     several views become one score and one verdict; scores become grades (easy, middle, hard)
    right       is a text certainly right or certainly wrong? what delivery asks before it calls a text faulty

A judge that cannot say answers ``unjudged`` with the cause, never a number; a question that no judge could say
anything about is neither easy nor hard. Nothing here writes a question or trains the student.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .judge import JUDGES, Judge, View

if TYPE_CHECKING:
    from .probe import FEEDBACK

__all__ = ["FEEDBACK", "JUDGES", "Judge", "View"]


def __getattr__(name: str) -> Any:
    """``FEEDBACK`` at first use: listing the judges must not wait for tables."""
    if name == "FEEDBACK":
        from .probe import FEEDBACK

        return FEEDBACK
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
