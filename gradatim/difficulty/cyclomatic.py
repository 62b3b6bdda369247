"""How many independent paths does a program have?

McCabe's cyclomatic complexity of a whole file: 1 + its decisions, counted exactly as radon's
``ComplexityVisitor.total_complexity`` counts them, because the Overall Metric of arXiv 2407.10194 rests on it; the
walk and radon's habits are in ``om``. It counts branches in the text and does not know how often one is taken
(``trace`` does).
"""

from __future__ import annotations

import ast

from ..options import strict
from .om import figures
from .program import PerTree

__all__ = ["cyclomatic", "total_complexity"]


def total_complexity(tree: ast.Module) -> float:
    """1 + the decisions of the module, its functions, classes and methods."""
    return float(figures(tree)[0])


@strict("the difficulty 'cyclomatic'")
def cyclomatic() -> PerTree:
    """Independent paths: 1 + the decisions of the whole file, as radon counts them."""
    return PerTree(total_complexity)
