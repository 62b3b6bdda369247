"""Errors that cross processes: a study's workers raise them in the process that started them."""

from __future__ import annotations

import pickle

import pytest

from gradatim import errors
from gradatim.errors import BudgetReached, GradatimError, ProcessLost

KEYWORDS = {BudgetReached: {"tokens": 3, "money": 1.5}, ProcessLost: {"reported": True, "exit_code": 2}}
CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, GradatimError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_is_the_same_after_pickling(cls: type[GradatimError]) -> None:
    error = cls("the message", where="teacher", given="3", allowed="4", hint="5", **KEYWORDS.get(cls, {}))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert (str(copy), vars(copy)) == (str(error), vars(error))
