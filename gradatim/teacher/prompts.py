"""Prompt files of a language-model teacher, the parsers of its replies, and the estimate of their cost before a run.

Prompts are Markdown files in ``gradatim/teacher/prompts``. To change some, copy them into a folder and name it in the
recipe (``prompts: FOLDER``); files missing there come from the package. A line ``---`` separates the system message
above from the user message below; without it the file is the user message. Words in braces, such as ``{question}``, are
placeholders, required or optional by prompt. All missing and unknown ones are reported before the first request; other
braces are text.

The parsers are strict: they return None for a reply in another form than the prompt's (an open fence, code in another
language or with syntax errors, a rubric criterion missing or out of range, scores before the analysis). Nothing is
repaired or guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..client.messages import Budget, Cost
from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input
from ..languages.thinking import fenced_blocks
from ..table.rows import OUTPUT_LINE
from .teacher import Grade

if TYPE_CHECKING:
    from ..languages import Language


PACKAGED = Path(__file__).parent / "prompts"
_NAME = re.compile(r"\{([a-z_]+)\}")
_SEPARATOR = re.compile(r"^---[ \t]*\n", re.MULTILINE)

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
    "design-policy": (("facts", "form"), ()),
    "design-mend": (("facts", "form", "reply", "faults"), ()),
}
"""The required and the optional placeholders of each prompt."""


@dataclass(frozen=True)
class Prompts:
    """The text of every prompt by name."""

    texts: Mapping[str, str]

    def messages(self, name: str, values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The prompt ``name`` as messages, with ``values`` for the placeholders."""
        segments = _SEPARATOR.split(self.texts[name], maxsplit=1)
        roles = ("system", "user") if len(segments) == 2 else ("user",)
        # In one pass, since values may contain braces.
        contents = (_NAME.sub(lambda match: values.get(match[1], match[0]), segment).strip() for segment in segments)
        return tuple(zip(roles, contents, strict=True))


def load_prompts(folder: str | Path | None = None) -> Prompts:
    """The package's prompts, replaced by those in ``folder``. ``RecipeError`` with all faults of the files."""
    paths = {name: PACKAGED / f"{name}.md" for name in PLACEHOLDERS}
    faults: list[str] = []
    if folder is not None:
        if not Path(folder).is_dir():
            raise DataError("there is no such folder of prompts", where="prompts", given=folder)
        for path in sorted(Path(folder).glob("*.md")):
            if path.stem in paths:
                paths[path.stem] = path
            elif path.stem.lower() != "readme":
                hint = did_you_mean(path.stem, paths) or ""
                faults.append(f"{path}: there is no prompt of this name; {hint}".rstrip("; "))
    texts: dict[str, str] = {}
    for name, path in paths.items():
        try:
            texts[name] = read_input(path, 1 << 20).decode("utf-8")
        except (DataError, OSError, UnicodeDecodeError) as error:
            faults.append(f"{path}: cannot be read: {error}")
            continue
        faults += [f"{path}: {fault}" for fault in _faults(name, texts[name])]
    if faults:
        hint = f"the files of the package are examples: {PACKAGED}"
        raise RecipeError("; ".join(faults), where="prompts", faults=faults, hint=hint)
    return Prompts(texts)


def _faults(name: str, text: str) -> list[str]:
    required, optional = PLACEHOLDERS[name]
    names = set(_NAME.findall(text))
    allowed = (*required, *optional)
    faults = [f"the placeholder {{{word}}} is missing" for word in required if word not in names]
    listing = ", ".join(f"{{{word}}}" for word in allowed)
    faults += [f"no placeholder {{{word}}} exists here, only {listing}" for word in sorted(names.difference(allowed))]
    is_empty = not _SEPARATOR.split(text, maxsplit=1)[-1].strip()
    return [*faults, "there is no message for the user"] if is_empty else faults


RUBRIC: Mapping[str, float] = {
    "basic functionality": 2,
    "boundary checks": 1,
    "requirement coverage": 1,
    "readability and documentation": 1,
    "coding practices": 1,
}
"""The criteria of the 6-point rubric and their maximum points (arXiv 2408.03680); half points occur."""

_SCORE = re.compile(
    r"^[ \t]*+[-*]?[ \t]*+\**+(?P<criterion>[a-z]++(?: ++[a-z]++)*+) *+\**+[ \t]*+:[ \t]*+\**+[ \t]*+"
    r"(?P<points>\d{1,9}+(?:\.\d{1,9}+)?)(?:[ \t]*+/[ \t]*+(?P<maximum>\d{1,9}+))?[ \t]*+\**+[ \t]*+$",
    re.MULTILINE | re.IGNORECASE,
)


def read_code(language: Language, text: str) -> str | None:
    """The program in a closed fence, ended by a newline; None where it does not parse as ``language``."""
    extracted = language.extract(text)
    if extracted.state != "fenced" or not extracted.code.strip() or language.parses(extracted.code) is not None:
        return None
    return extracted.code.strip("\n") + "\n"


def read_program(language: Language, text: str) -> str | None:
    """A program as the prompt of a question about its output, with the line ``# output`` at its end."""
    code = read_code(language, text)
    return None if code is None or f"\n{OUTPUT_LINE}" in code else code + OUTPUT_LINE


def read_output(text: str) -> str | None:
    """Printed lines as an answer, from the only fenced block or from a reply of commented lines alone."""
    blocks = [block.code for block in fenced_blocks(text) if block.closed]
    lines = (blocks[0] if len(blocks) == 1 else "" if blocks else text).strip("\n").split("\n")
    commented = all(line.startswith("# ") for line in lines)
    if not commented and (not blocks or not all(line.strip() for line in lines)):
        return None
    return "".join(f"{line}\n" if commented else f"# {line}\n" for line in lines)


def read_question(text: str) -> tuple[str, str | None] | None:
    """The question between its tags, and the tests between theirs (None without tests)."""
    question = _between("question", text)
    if not question:
        return None
    tests = _between("tests", text)
    if tests is None:
        return None if "<tests>" in text else (question + "\n", None)
    code = next((block.code for block in fenced_blocks(tests) if block.closed), tests).strip("\n")
    return question + "\n", f"{code}\n" if code.strip() else None


def _between(tag: str, text: str) -> str | None:
    """The text between ``<tag>`` and ``</tag>``; None unless both occur exactly once."""
    if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1:
        return None
    match = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return match[1].strip() if match else None


def read_grade(text: str) -> Grade | None:
    """The points between ``<scores>``, one line per criterion, with the analysis before them."""
    scores, start = _between("scores", text), text.find("<scores>")
    # The analysis may be in tags or plain text.
    analysis = re.sub(r"</?analysis>", "", text[: max(start, 0)]).strip()
    if scores is None or not analysis:
        return None
    grades: dict[str, float] = {}
    for line in _SCORE.finditer(scores):
        criterion, points = " ".join(line["criterion"].lower().split()), float(line["points"])
        maximum = RUBRIC.get(criterion)
        stated = float(line["maximum"]) if line["maximum"] else maximum
        if maximum is None or stated != maximum or points > maximum or points * 2 != int(points * 2):
            return None
        if criterion in grades:
            return None
        grades[criterion] = points
    if grades.keys() != RUBRIC.keys():
        return None
    return Grade(sum(grades.values()), {criterion: grades[criterion] for criterion in RUBRIC}, analysis)


CHARACTERS = 3.5
"""Mean characters of a token in prompts that are half prose and half program."""
FRAME = 8
"""Tokens of a request's frame: the roles and the limits of the messages."""
DESIGN = 2_000.0
"""Characters of the facts of a design request, and as many of its schema: always assumed, about the length with three
bands and a few stages."""
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")


@dataclass(frozen=True)
class Lengths:
    """Mean characters of the values of prompts. ``measured``: on the recipe's samples, else assumed."""

    question: float = 400.0
    answer: float = 400.0
    tests: float = 200.0
    measured: bool = False


@dataclass(frozen=True)
class Estimate:
    """Requests, estimated ``prompt_tokens``, an upper bound of ``completion_tokens``, and the ``cost`` of both (None
    without prices)."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


def estimate(
    requests: Mapping[str, int],
    prompts: Prompts,
    lengths: Lengths,
    *,
    max_tokens: int,
    prices: tuple[float, float] | None = None,
) -> Estimate:
    """The sum over ``requests``, numbers by the name of the prompt (``prompts.PLACEHOLDERS``).

    ``prices`` are per million tokens of (prompt, completion). ``KeyError`` for an unknown prompt.

    Arithmetic on numbers of requests; no endpoint, key or model is needed. Prompt tokens are estimated from the
    text of the prompt and the mean length of its values. Completion tokens, and their cost, are upper bounds, as
    only the limit of a reply is fixed beforehand. The numbers of requests assume that every reply is usable: an
    unreadable reply costs one more request, a duplicate question up to the source's ``rounds``. ``Budget`` enforces
    limits; this estimate does not.
    """
    total = sum(requests.values())
    characters = sum(number * _characters(prompts.texts[name], lengths) for name, number in requests.items())
    prompt_tokens = round(characters / CHARACTERS) + FRAME * total
    cost = Budget(prices=prices).price(Cost(prompt_tokens, total * max_tokens)) if prices is not None else None
    return Estimate(total, prompt_tokens, total * max_tokens, cost)


def _characters(text: str, lengths: Lengths) -> float:
    """Mean characters of one filled prompt; an attempt counts like a correct answer, a short value 8 characters."""
    values = {"question": lengths.question, "answer": lengths.answer, "attempt": lengths.answer, "tests": lengths.tests}
    values |= {"facts": DESIGN, "form": DESIGN}
    names = [name[1:-1] for name in _PLACEHOLDER.findall(text)]
    return len(_PLACEHOLDER.sub("", text)) + sum(values.get(name, 8.0) for name in names)
