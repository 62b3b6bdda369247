"""With which words is a teacher asked?

Each prompt is a Markdown file in ``gradatim/teacher/prompts``. To change them, copy the ones to be changed into a
folder and name it (``prompts: FOLDER``); those that the folder does not have are taken from the package. Above a line
``---`` stands what the system is told, below it the user's message; without such a line all of it is the user's.

Words in braces are placeholders, such as ``{question}``. Each file has some that must be there and some that may be;
one that is missing or not known is an error, told with all others before anything is asked. Other braces are text.

What does a teacher's reply say, read strictly?

Each function gives what a reply holds, or None when it does not keep to the form that the prompt asked for: a fence
that was never closed, code in another language or that does not parse, a part of the rubric that is missing or out of
range, a score before its analysis. Nothing is repaired and nothing is guessed: what cannot be read is no answer and no
score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input
from ..languages.thinking import fenced_blocks
from ..table.text import MARK
from .teacher import Grade

if TYPE_CHECKING:
    from ..languages import Language

__all__ = [
    "PLACEHOLDERS",
    "RUBRIC",
    "Prompts",
    "load_prompts",
    "read_code",
    "read_grade",
    "read_output",
    "read_program",
    "read_question",
]


PACKAGED = Path(__file__).parent / "prompts"
_NAME = re.compile(r"\{([a-z_]+)\}")
_PARTED = re.compile(r"^---[ \t]*\n", re.MULTILINE)

_NEW = (("question",), ("answer", "tests", "level", "language", "fence"))
PLACEHOLDERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "question": (("number",), ("language", "fence")),
    "answer": (("question",), ("language", "fence")),
    "answer-output": (("question",), ("language",)),
    "fault": (("question", "answer"), ("language", "fence")),
    "fault-output": (("question", "answer"), ("language",)),
    "new-easy": _NEW,
    "new-middle": _NEW,
    "new-hard": _NEW,
    "new-output": (("question",), ("grade", "level", "language", "fence")),
    "rubric": (("question", "attempt"), ("answer", "tests", "language", "fence")),
    "design": (("facts", "form"), ()),
    "design-mend": (("facts", "form", "reply", "faults"), ()),
}
"""For each prompt the placeholders that it must have and those that it may have."""


@dataclass(frozen=True)
class Prompts:
    """The text of every prompt by name."""

    texts: Mapping[str, str]

    def messages(self, name: str, values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The prompt ``name`` as messages, with ``values`` in place of the placeholders."""
        parts = _PARTED.split(self.texts[name], maxsplit=1)
        roles = ("system", "user") if len(parts) == 2 else ("user",)
        # All at once: a question may have braces of its own.
        filled = (_NAME.sub(lambda found: values.get(found[1], found[0]), part).strip() for part in parts)
        return tuple(zip(roles, filled, strict=True))


def load_prompts(folder: str | Path | None = None) -> Prompts:
    """The package's prompts, replaced by those in ``folder``. ``RecipeError`` with every fault of the files."""
    found = {name: PACKAGED / f"{name}.md" for name in PLACEHOLDERS}
    faults: list[str] = []
    if folder is not None:
        if not Path(folder).is_dir():
            raise DataError("there is no such folder of prompts", where="prompts", given=folder)
        for path in sorted(Path(folder).glob("*.md")):
            if path.stem in found:
                found[path.stem] = path
            elif path.stem.lower() != "readme":
                faults.append(f"{path}: no prompt is called that; {did_you_mean(path.stem, found) or ''}".rstrip("; "))
    texts: dict[str, str] = {}
    for name, path in found.items():
        try:
            texts[name] = read_input(path, 1 << 20).decode("utf-8")
        except (DataError, OSError, UnicodeDecodeError) as error:
            faults.append(f"{path}: cannot be read: {error}")
            continue
        faults += [f"{path}: {fault}" for fault in _faults(name, texts[name])]
    if faults:
        hint = "the packaged files show each placeholder at work"
        raise RecipeError("; ".join(faults), where="prompts", faults=faults, hint=hint)
    return Prompts(texts)


def _faults(name: str, text: str) -> list[str]:
    needed, optional = PLACEHOLDERS[name]
    used = set(_NAME.findall(text))
    missing = [f"the placeholder {{{each}}} is missing" for each in needed if each not in used]
    known = (*needed, *optional)
    strange = sorted(used.difference(known))
    allowed = ", ".join(f"{{{each}}}" for each in known)
    faults = missing + [f"there is no placeholder {{{each}}} here, only {allowed}" for each in strange]
    return faults if _PARTED.split(text, maxsplit=1)[-1].strip() else [*faults, "there is no message for the user"]


RUBRIC: Mapping[str, float] = {
    "basic functionality": 2,
    "boundary checks": 1,
    "requirement coverage": 1,
    "readability and documentation": 1,
    "coding practices": 1,
}
"""The parts of the 6-point rubric and the most that each can give (arXiv 2408.03680); half points occur."""

_SCORE = re.compile(
    r"^[ \t]*+[-*]?[ \t]*+\**+(?P<part>[a-z]++(?: ++[a-z]++)*+) *+\**+[ \t]*+:[ \t]*+\**+[ \t]*+"
    r"(?P<points>\d{1,9}+(?:\.\d{1,9}+)?)(?:[ \t]*+/[ \t]*+(?P<most>\d{1,9}+))?[ \t]*+\**+[ \t]*+$",
    re.MULTILINE | re.IGNORECASE,
)


def read_code(language: Language, text: str) -> str | None:
    """The program in a closed fence, ended by a newline, when it parses as ``language``."""
    found = language.extract(text)
    if found.state != "fenced" or not found.code.strip() or language.parses(found.code) is not None:
        return None
    return found.code.strip("\n") + "\n"


def read_program(language: Language, text: str) -> str | None:
    """A program as the prompt of a sample whose answer is what it prints: with the line ``# output`` at its end."""
    code = read_code(language, text)
    return None if code is None or f"\n{MARK}" in code else code + MARK


def read_output(text: str) -> str | None:
    """Printed lines as an answer holds them: from the only fenced block, or a reply of nothing but commented lines."""
    blocks = [block.code for block in fenced_blocks(text) if block.closed]
    lines = (blocks[0] if len(blocks) == 1 else "" if blocks else text).strip("\n").split("\n")
    commented = all(line.startswith("# ") for line in lines)
    if not commented and (not blocks or not all(line.strip() for line in lines)):
        return None
    return "".join(f"{line}\n" if commented else f"# {line}\n" for line in lines)


def read_question(text: str) -> tuple[str, str | None] | None:
    """The question between its tags, and the tests between theirs, None where there are none."""
    question = _between("question", text)
    if not question:
        return None
    tests = _between("tests", text)
    if tests is None:
        return None if "<tests>" in text else (question + "\n", None)
    code = next((block.code for block in fenced_blocks(tests) if block.closed), tests).strip("\n")
    return question + "\n", f"{code}\n" if code.strip() else None


def _between(tag: str, text: str) -> str | None:
    """What stands between ``<tag>`` and ``</tag>``; None when they are not there exactly once each."""
    if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1:
        return None
    found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found[1].strip() if found else None


def read_grade(text: str) -> Grade | None:
    """The points between ``<scores>``, each part once, with the analysis that stands before them."""
    scores, place = _between("scores", text), text.find("<scores>")
    # The analysis may stand between tags of its own, or simply first.
    analysis = re.sub(r"</?analysis>", "", text[: max(place, 0)]).strip()
    if scores is None or not analysis:
        return None
    parts: dict[str, float] = {}
    for found in _SCORE.finditer(scores):
        part, points = " ".join(found["part"].lower().split()), float(found["points"])
        most = RUBRIC.get(part)
        told = float(found["most"]) if found["most"] else most
        if most is None or told != most or part in parts or points > most or points * 2 != int(points * 2):
            return None
        parts[part] = points
    if parts.keys() != RUBRIC.keys():
        return None
    return Grade(sum(parts.values()), {part: parts[part] for part in RUBRIC}, analysis)
