"""With which words is a teacher asked?

Each prompt is a Markdown file in ``gradatim/teacher/prompts``. To change them, copy the ones to be changed into a
folder and name it (``prompts: FOLDER``); those that the folder does not have are taken from the package. Above a line
``---`` stands what the system is told, below it the user's message; without such a line all of it is the user's.

Words in braces are placeholders, such as ``{question}``. Each file has some that must be there and some that may be;
one that is missing or not known is an error, told with all others before anything is asked. Other braces are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input

__all__ = ["PLACEHOLDERS", "Prompts", "load_prompts"]

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
