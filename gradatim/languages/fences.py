"""Fenced code blocks of a model's reply, read line by line as CommonMark has them.

A block opens at three or more backticks or tildes, at the start of a line or of a list item's content, with an info
string behind them. It ends only at a fence of the same character that is indented by 0-3 columns relative to its
container, has at least as many marks and nothing behind them: a fence inside a docstring is code. A block labelled
``markdown`` is a wrapper: the blocks inside it are the ones that count.

Two departures from CommonMark keep what models write: an opening fence may be indented further than its container
allows, and may follow text on its line (``Solution: ```python``) when it names a language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Block", "FenceReader", "fenced_blocks"]

_FENCE = re.compile(r"(?P<marks>`{3,}(?!`)(?=[^`\n]*$)|~{3,})(?P<info>.*)$")
_BEHIND_TEXT = re.compile(r"[ \t:](?P<marks>```)(?P<info>[A-Za-z][\w+#.-]{0,30})[ \t\r]*$")
_LIST_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?P<space>[ \t]+)(?=\S)")
_LABEL_END = re.compile(r"[:,{]")
_WRAPPERS = ("markdown", "md")
_LONGEST_INFO = 200
"""Characters of an info string that are read for its label."""


@dataclass(frozen=True)
class Block:
    """One fenced block: the ``label`` on its fence in lower case, its ``code``, and whether a fence ended it."""

    label: str
    code: str
    closed: bool


@dataclass
class _Open:
    """The block that is being read. ``indent``: the column of its fence; ``base``: the column that closing fences are
    measured from; ``cut``: columns that its lines lose, None before the first line of code."""

    marks: str
    label: str
    indent: int
    base: int
    cut: int | None = None
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Add a line of code. Code that begins left of its fence keeps its own indentation."""
        if line.strip():
            column = _indent(line)
            self.base = min(self.base, column)
            self.cut = min(self.indent, column) if self.cut is None else self.cut
        self.lines.append(_dedented(line, self.cut or 0))


class FenceReader:
    """The state of a reply's fences after the lines that were fed to it; lines come without their line ends."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._block: _Open | None = None
        self._wrappers: list[_Open] = []
        self._items: list[int] = []

    @property
    def inside(self) -> bool:
        """Whether the next line belongs to a block of code."""
        return self._block is not None

    def feed(self, line: str) -> None:
        """Read the next line."""
        if self._block is None:
            self._outside(line)
        elif _closes(self._block, line):
            self.blocks.append(_block(self._block, closed=True))
            self._block = None
        else:
            self._block.add(line)

    def finish(self) -> list[Block]:
        """All blocks, a last one that no fence closed included."""
        if self._block is not None:
            self.blocks.append(_block(self._block, closed=False))
            self._block = None
        return self.blocks

    def _outside(self, line: str) -> None:
        if not line.strip():
            return
        if self._wrappers and _closes(self._wrappers[-1], line):
            self._wrappers.pop()
            return
        start, column = self._content(line)
        found = _FENCE.match(line, start)
        if found is None and (found := _BEHIND_TEXT.search(line, max(0, len(line) - _LONGEST_INFO))):
            column = base = 0
        else:
            container = self._items[-1] if self._items else 0
            base = container if column - container < 4 else column
        if found is None:
            return
        opened = _Open(found["marks"], _label(found["info"]), column, base)
        if opened.label in _WRAPPERS:
            self._wrappers.append(opened)
        else:
            self._block = opened

    def _content(self, line: str) -> tuple[int, int]:
        """(index, column) of a line's content behind the markers of list items, which become its containers."""
        start, column = len(line) - len(line.lstrip(" \t")), _indent(line)
        while self._items and self._items[-1] > column:
            self._items.pop()
        while item := _LIST_ITEM.match(line, start):
            column += item.end() - start
            start = item.end()
            self._items.append(column if len(item["space"]) < 5 else column - len(item["space"]) + 1)
        return start, column


def fenced_blocks(text: str) -> list[Block]:
    """The fenced blocks of ``text`` in their order."""
    reader = FenceReader()
    for line in text.split("\n"):
        reader.feed(line)
    return reader.finish()


def _closes(block: _Open, line: str) -> bool:
    marks = line.strip()
    if len(marks) < len(block.marks) or marks.strip(block.marks[0]):
        return False
    indent = _indent(line)
    return indent < block.base + 4 or indent == block.indent


def _block(block: _Open, closed: bool) -> Block:
    return Block(block.label, "".join(f"{line}\n" for line in block.lines), closed)


def _indent(line: str) -> int:
    """Columns of white space before the first character; a tab reaches to the next multiple of four."""
    column = 0
    for character in line:
        if character == " ":
            column += 1
        elif character == "\t":
            column += 4 - column % 4
        else:
            break
    return column


def _dedented(line: str, indent: int) -> str:
    """``line`` without as much of its leading white space as the fence had."""
    index = column = 0
    while column < indent and line[index : index + 1] in (" ", "\t"):
        column += 1 if line[index] == " " else 4 - column % 4
        index += 1
    return " " * (column - indent) + line[index:]


def _label(info: str) -> str:
    """``c++`` of ``C++ title=…``, of ``{.c++}`` and of ``c++:file.cpp``."""
    words = info[:_LONGEST_INFO].strip().strip("{}").strip().lstrip(".").lower().split()
    return _LABEL_END.split(words[0])[0] if words else ""
