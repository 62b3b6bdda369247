"""TinyPy's text format of samples.

A sample is a program, a line ``# output`` and the printed lines as comments, followed by a blank line. ``prompt`` ends
with the line ``# output``, ``answer`` is the rest; both end with a newline, so a file is the samples' texts with a
blank line after each, and reading restores them byte for byte. If the first sample has no line ``# output``, the file
is code completion: all samples are answers to an empty prompt. The functions work on bytes and strings, not tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

OUTPUT_LINE = "# output\n"
"""The last line of a prompt whose answer is the output of a program."""


def asks_for_output(prompt: str) -> bool:
    """Whether the answer to ``prompt`` is the output of a program: its last line that is not blank is ``# output``."""
    text, line = prompt.rstrip(), OUTPUT_LINE.rstrip()
    return text == line or text.endswith("\n" + line)


def divide(text: str) -> tuple[str, str] | None:
    """Prompt and answer of ``text``, split after the first line ``# output``; None without such a line."""
    start = 0 if text.startswith(OUTPUT_LINE) else text.find("\n" + OUTPUT_LINE) + 1
    if not start and not text.startswith(OUTPUT_LINE):
        return None
    end = start + len(OUTPUT_LINE)
    return text[:end], text[end:]


def sample_blocks(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks of lines between blank lines: (number of the first line from 1, the lines with their line ends)."""
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
    """Bytes of the sample in a file; None if ``divide`` would not restore its prompt and answer."""
    text = prompt + answer
    is_block = text.endswith("\n") and not text.startswith("\n") and "\n\n" not in text
    same = prompt == "" and divide(text) is None if code_only else divide(text) == (prompt, answer)
    return f"{text}\n".encode() if is_block and same and text.strip() else None
