"""How hard is each sample? One float per sample and metric; higher is harder, NaN is "cannot be scored".

    program       which text of a sample is scored, and how many are measured on several processes
    om            the paper's metric, exactly as radon gives its two halves; cyclomatic is one of them
    halstead      the same idea over tokens: the better default
    size, nesting, rarity, compression, trace     length, depth, unfamiliar constructs, redundancy, steps executed
    composite     several of them in one figure
    given         what the data says itself
    asked         what a model finds hard: loss, perplexity, attention, the probability of the right answer
    judged        what a teacher finds hard, from 1 to 10
    remembered    what was asked once is not asked again
    score         metrics as columns of a table
    folder        a folder of Python files as a table

``DIFFICULTIES.get(name)(**options)`` makes a ``Difficulty``. A member is a factory with keyword-only options, so
one that asks a model is handed its scorer the same way. What to do with a difficulty is said in ``schedule``.
"""

from __future__ import annotations

from collections.abc import Callable

from ..registry import Registry
from ..stage import Difficulty
from .folder import read_folder
from .score import score, unscored_note

__all__ = ["DIFFICULTIES", "read_folder", "score", "unscored_note"]

DIFFICULTIES: Registry[Callable[..., Difficulty]] = Registry("difficulty", "difficulties")

_MODULES = {
    "composite": "composite",
    **dict.fromkeys(("cyclomatic", "halstead", "om"), "complexity"),
    **dict.fromkeys(("compression", "given", "nesting", "rarity", "size"), "surface"),
    "trace": "trace",
}

for _name, _summary in {
    "composite": "Length, control flow and unfamiliarity (or any metrics) weighted into one figure.",
    "compression": "How little a program can be compressed: compressed size, alone or over its size.",
    "cyclomatic": "Independent paths: 1 + the decisions of the whole file, as radon counts them.",
    "given": "The number that stands in a column of the data: your own label, or TinyPy's level.",
    "halstead": "Halstead difficulty over tokens: keywords, calls and assignments count as operators.",
    "nesting": "How deep blocks stand inside blocks.",
    "om": "The paper's Overall Metric: mean of cyclomatic complexity and Halstead difficulty, as in radon.",
    "rarity": "How unfamiliar a program's constructs are, in bits, among those of the whole table.",
    "size": "Length in characters, tokens or lines.",
    "trace": "Steps executed when a TinyPy program runs.",
}.items():
    DIFFICULTIES.lazy(_name, f"{__name__}.{_MODULES[_name]}:{_name}", _summary)

for _name, _summary in {
    "attention": "How evenly a model's attention is spread over what is before the answer (2405.07490); needs a model.",
    "loss": "How surprised a model is by the answer, in nats per token; needs a model.",
    "p_correct": "How unlikely the right answer is for one or several models; needs a model.",
    "perplexity": "How surprised a model is by the answer, exp of the loss; needs a model.",
}.items():
    DIFFICULTIES.lazy(_name, f"{__name__}.model_based:{_name}", _summary)

DIFFICULTIES.lazy(
    "judged", f"{__name__}.teacher_rating:judged", "How hard a teacher finds a sample, 1 to 10; needs a teacher."
)
