"""Difficulty of a sample: one float per metric, higher is harder, NaN for a sample without a score.

    complexity       metrics of the text alone, such as ``om``, the paper's, and ``size``; and ``column``
    model_based      metrics that need a model or a teacher
    python_source    the program in a sample, metrics on several processes, and folders of Python files
    score            the registry ``DIFFICULTIES``, metrics as columns, ``composite``, and the cache of scores

``DIFFICULTIES.get(name)(**options)`` builds a ``Difficulty``; ``assemble.make_difficulty`` also injects the scorer or
chat that a model or teacher needs. Bands are cut from difficulties in ``schedule``.
"""

from __future__ import annotations

from ..renamed_keys import VALUES
from .python_source import read_folder
from .score import DIFFICULTIES, score, scores_of, unscored_note

__all__ = ["DIFFICULTIES", "read_folder", "score", "scores_of", "unscored_note"]

for _name, _summary in {
    "column": "The number in a column of the data: your own label, or TinyPy's level.",
    "composite": "Length, control flow and unfamiliarity (or any metrics) weighted into one score.",
    "compression": "Incompressibility of a program: compressed size, alone or over its size.",
    "cyclomatic": "Independent paths: 1 + the decisions of the whole file, as radon counts them.",
    "halstead": "Halstead difficulty over tokens: keywords, calls and assignments count as operators.",
    "nesting": "Depth of nested blocks.",
    "om": "The paper's Overall Metric: mean of cyclomatic complexity and Halstead difficulty, as in radon.",
    "rarity": "Surprisal of a program's constructs, in bits, among those of the whole table.",
    "size": "Length in characters, tokens or lines.",
    "trace": "Steps executed when a TinyPy program runs.",
}.items():
    DIFFICULTIES.lazy(_name, f"{__name__}.{'score' if _name == 'composite' else 'complexity'}:{_name}", _summary)

for _name, _summary in {
    "attention": "Evenness of a model's attention at the answer's tokens (2405.07490); needs a model.",
    "loss": "A model's loss on the answer, in nats per token; needs a model.",
    "p_correct": "1 - the probability of the correct answer, over one or several models; needs a model.",
    "perplexity": "A model's perplexity of the answer, exp of the loss; needs a model.",
}.items():
    DIFFICULTIES.lazy(_name, f"{__name__}.model_based:{_name}", _summary)

DIFFICULTIES.lazy(
    "teacher_rating",
    f"{__name__}.model_based:teacher_rating",
    "A teacher's rating of a sample, 1 to 10; needs a teacher.",
)

for _name, _summary in {
    "load": "Users × stations × (1 + speed) of an environment of a mobile network.",
    "nearest_station": "1 - the utility of an environment where every user takes its nearest station (extra mobile).",
}.items():
    DIFFICULTIES.lazy(_name, f"gradatim.mobile.difficulty:{_name}", _summary)

for _earlier, _present in VALUES["difficulty.metric"].items():
    DIFFICULTIES.alias(_earlier, _present)
