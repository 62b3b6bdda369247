"""What should be asked next, and is it new?

    novelty    whether a question is new, and none that the student is examined with
    parents    which questions new ones are written after
    drawing    one cycle's questions: asked for, refused, asked for again, proved
    taught     the source: seed questions first, then new ones from what the student got wrong

Who writes the questions is the ``teacher``'s business, how the old ones went ``feedback``'s.
"""

from __future__ import annotations

from .novelty import Contamination, Known, Refusals, problem_texts, rouge_l
from .taught import RanDry, Taught

__all__ = ["Contamination", "Known", "RanDry", "Refusals", "Taught", "problem_texts", "rouge_l"]
