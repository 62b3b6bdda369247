"""How is a sample written as plain text?

TinyPy's text format: a program, a line ``# output``, the printed lines as comments, and a blank line after every
sample. ``prompt`` ends with the line ``# output``, ``answer`` is what follows; both end with a newline, so the
file is the samples' texts with a blank line after each, and reads back the same, byte for byte. A file whose first
sample has no ``# output`` line is code to complete: every sample is an answer to an empty prompt. Bytes only; no
tables here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["divide", "sample_blocks", "sample_lines"]

MARK = "# output\n"


def divide(text: str) -> tuple[str, str] | None:
    """``text`` as prompt and answer, divided after the first line ``# output``; None when it has no such line."""
    start = 0 if text.startswith(MARK) else text.find("\n" + MARK) + 1
    if not start and not text.startswith(MARK):
        return None
    end = start + len(MARK)
    return text[:end], text[end:]


def sample_blocks(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The runs of lines between blank ones: (number of the first line from 1, the lines with their ends)."""
    block: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        if line != b"\n":
            block.append(line if line.endswith(b"\n") else line + b"\n")
        elif block:
            yield number - len(block), b"".join(block)
            block = []
    if block:
        yield number - len(block) + 1, b"".join(block)


def sample_lines(prompt: str, answer: str, code_only: bool) -> bytes | None:
    """The sample as a file holds it; None when ``divide`` would not find the same prompt and answer there."""
    text = prompt + answer
    whole = text.endswith("\n") and not text.startswith("\n") and "\n\n" not in text
    same = prompt == "" and divide(text) is None if code_only else divide(text) == (prompt, answer)
    return f"{text}\n".encode() if whole and same and text.strip() else None
