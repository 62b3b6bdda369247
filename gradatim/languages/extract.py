"""Where in a model's reply is the program?

Thinking is taken out first (``thinking``): a draft in it is no answer. Then fenced blocks, read as CommonMark has them
(``fences``). A block counts when its fence names the language or nothing, blocks
that name it before those that name nothing. Of several, the first that defines the entry point is taken, or the
longest when none does or no entry point is given: replies mostly show the solution once and short examples beside it.
A last block that is never closed was cut off: it is ``incomplete`` unless a closed block was chosen.

Without any fence the code begins at the first line that looks like code in that language; paragraphs of prose after
it are dropped while that makes it parse. A reply that is neither is ``none``. Nothing is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .fences import Block, fenced_blocks
from .language import Extracted
from .thinking import strip_thinking

if TYPE_CHECKING:
    from .language import Language

__all__ = ["extract"]

TAIL_TRIES = 12
"""How many paragraphs after bare code are tried as prose."""


def extract(language: Language, reply: str, entry_point: str | None = None) -> Extracted:
    """The program in ``reply``; ``Extracted.state`` says how it was found."""
    reply = strip_thinking(reply.replace("\r\n", "\n"))
    blocks = fenced_blocks(reply)
    if not blocks:
        return _bare(language, reply)
    named = [block for block in blocks if block.label in (language.name, *language.aliases)]
    fitting = named or [block for block in blocks if not block.label]
    if not fitting:
        return Extracted("", "none", 0)
    closed = [block for block in fitting if block.closed]
    chosen = _chosen(language, closed or fitting, entry_point)
    cut = [block for block in fitting if not block.closed]
    # The block that was cut off is the answer when it defines what was asked for and no whole block does.
    if closed and cut and entry_point and not _defines(language, chosen, entry_point):
        chosen = cut[0] if _defines(language, cut[0], entry_point) else chosen
    return Extracted(chosen.code, "fenced" if chosen.closed else "incomplete", len(fitting))


def _joined(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _defines(language: Language, block: Block, entry_point: str) -> bool:
    return entry_point in language.defined(block.code)


def _chosen(language: Language, blocks: Sequence[Block], entry_point: str | None) -> Block:
    for block in blocks:
        if entry_point and _defines(language, block, entry_point):
            return block
    return max(blocks, key=lambda block: len(block.code.strip()))


def _bare(language: Language, reply: str) -> Extracted:
    opener = re.compile(language.openers)
    lines = reply.strip("\n").split("\n")
    start = next((index for index, line in enumerate(lines) if opener.match(line)), None)
    if start is None:
        return Extracted("", "none", 0)
    code = lines[start:]
    kept = code
    for _ in range(TAIL_TRIES):
        if language.parses(_joined(kept)) is None:
            return Extracted(_joined(kept), "bare", 1)
        blank = next((index for index in reversed(range(1, len(kept))) if not kept[index].strip()), None)
        if blank is None:
            break
        kept = kept[:blank]
    return Extracted(_joined(code), "bare", 1)
