"""Fenced code blocks of a model's reply, as CommonMark has them, and the removal of its thinking."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
        fence = _FENCE.match(line, start)
        if fence is None and (fence := _BEHIND_TEXT.search(line, max(0, len(line) - _LONGEST_INFO))):
            column = base = 0
        else:
            container = self._items[-1] if self._items else 0
            base = container if column - container < 4 else column
        if fence is None:
            return
        block = _Open(fence["marks"], _label(fence["info"]), column, base)
        if block.label in _WRAPPERS:
            self._wrappers.append(block)
        else:
            self._block = block

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
    """The fenced blocks of ``text`` in their order.

    A block opens at three or more backticks or tildes, at the start of a line or of a list item's content, with an
    info string behind them. It ends only at a fence of the same character that is indented by 0-3 columns relative
    to its container, has at least as many marks and nothing behind them: a fence inside a docstring is code. A
    block labelled ``markdown`` is a wrapper: the blocks inside it are the ones that count.

    Two departures from CommonMark keep what models write: an opening fence may be indented further than its
    container allows, and may follow text on its line (``Solution: ```python``) when it names a language.
    """
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


_NAMES = r"(?:seed:|ant_?)?(?:think(?:ing)?|thoughts?|reasoning|reflection|begin_of_thought|longcat_think)"
_OPEN = rf"(?<!\w)<\|?{_NAMES}(?:[ \t][^<>\n]{{0,200}})?\|?>|(?-i:\[THINK\])|◁think▷"
_CLOSE = rf"<\|?/{_NAMES}[ \t]{{0,9}}\|?>|<\|end_of_thought\|>|(?-i:\[/THINK\])|◁/think▷"
_HEADER = r"(?:<\|start\|>\w{1,30}(?:[ \t][^<\n]{0,200})?)?<\|channel\|>[ \t]{0,9}"
_BODY = r"[^<\n]{0,200}(?:<\|constrain\|>[^<\n]{0,200})?<\|message\|>"
_MARKER = re.compile(
    rf"(?P<close>{_CLOSE}|{_HEADER}final\b{_BODY})|(?P<open>{_OPEN}|{_HEADER}\w{{1,30}}\b{_BODY})"
    r"|(?P<end><\|(?:end|return|call)\|>)",
    re.IGNORECASE,
)
_WORDS = ("think", "thought", "reasoning", "reflection", "<|")
_QUOTE = re.compile(r"(?<=[rbfuRBFU])(?<![^\W\d_][rbfuRBFU])'|(?<![^\W\d_])'|'(?![^\W\d_])|[\"`]")
"""A quotation mark; an apostrophe between two letters is none, unless the letter before it is a string's prefix."""
_FENCE_LINE = re.compile(r"^ {0,3}(?:`{3,}|~{3,})(?P<info>.*)$", re.MULTILINE)
_COMMENT = ("#", "//", "/*", "*")
_LAST = ("<|return|>", "<|end|>", "<|call|>")


@dataclass(frozen=True)
class _ThinkingTag:
    start: int
    end: int
    kind: str


def strip_thinking(text: str) -> str:
    """``text`` without its thinking; ``text`` itself where there is none, empty where there is nothing else.

    Recognised are the tags of ``_NAMES`` (``<think>…</think>``, ``[THINK]…[/THINK]``, ``◁think▷…◁/think▷``), a
    closing tag alone (the chat template opened the thinking), an opening tag alone (the reply was cut off inside
    it), and the channels of the harmony format, of which only ``final`` is the answer. A tag inside a fenced block
    of the answer, between quotation marks or in a code span is text of a program, not a tag.

    The time is linear in the length of the reply.
    """
    if "assistantfinal" in text and text.lstrip().startswith("analysis"):
        # The harmony format whose special tokens were left out when the reply was decoded.
        text = text.partition("assistantfinal")[2]
    folded = text.casefold()
    if not any(word in folded for word in _WORDS):  # much faster than the search for markers
        return text
    markers = list(_markers(text))
    return _Removal(text, markers).run() if markers else text


class _Removal:
    """One pass over a reply: ``kept`` holds the spans of the answer so far."""

    def __init__(self, text: str, markers: Sequence[_ThinkingTag]) -> None:
        self.text = text
        self.markers = markers
        self.kept: list[tuple[int, int]] = []
        self.reader = FenceReader()
        self.fences = [(match.start(), bool(match["info"].strip())) for match in _FENCE_LINE.finditer(text)]
        self.last_close = max((marker.start for marker in markers if marker.kind == "close"), default=-1)
        first = _content(text, 0, "\n")
        self.first_line_end = -1 if text.startswith(_COMMENT, first) else _line_end(text, first)
        self.line = _LineSpan(text, 0)

    def run(self) -> str:
        """The answer."""
        start, thinking = 0, False
        for marker in self.markers:
            if thinking:
                if marker.kind != "open":
                    thinking, start = False, marker.end
                    self.line = _LineSpan(self.text, marker.end, self.line)
                continue
            self._read(marker.start)
            if self.line.start > marker.start or (self.reader.inside and not self._ends_thinking(marker)):
                continue
            if marker.kind == "open" and not self._opens(marker):
                continue
            if marker.kind == "close":
                self.kept.clear()
                self.reader = FenceReader()
            else:
                self.kept.append((start, marker.start))
            thinking, start = marker.kind == "open", marker.end
            self.line = _LineSpan(self.text, marker.end, self.line)
        if not thinking:
            self.kept.append((start, self._end(start)))
        return "".join(self.text[first:last] for first, last in self.kept)

    def _read(self, until: int) -> None:
        """Feed the lines before ``until`` to the fences, and the line that holds it where that opens a block."""
        while self.line.end < until:
            self.reader.feed(self.text[self.line.start : self.line.end])
            self.line = _LineSpan(self.text, self.line.end + 1)
        if self.line.fence and not self.reader.inside:
            self.reader.feed(self.text[self.line.start : self.line.end])
            self.line.fence = False
            if self.reader.inside:
                self.line = _LineSpan(self.text, self.line.end + 1)

    def _opens(self, marker: _ThinkingTag) -> bool:
        """Whether an opening tag begins thinking: at the start of a line, before a closing tag, or in the reply's
        first line; elsewhere it is a word about tags."""
        return self.line.content == marker.start or marker.start < max(self.last_close, self.first_line_end)

    def _ends_thinking(self, marker: _ThinkingTag) -> bool:
        """Whether a closing tag inside a block ends thinking that left the block open: it is alone on its line, and
        the next fence does not close the block."""
        if marker.kind != "close" or self.line.content != marker.start:
            return False
        if self.text[marker.end : marker.end + 1] not in ("", "\n", "\r"):
            return False
        after = bisect.bisect_left(self.fences, (marker.end, False))
        return after == len(self.fences) or self.fences[after][1]

    def _end(self, start: int) -> int:
        """The end of the answer: before the tokens that end a message."""
        end = len(self.text)
        while end > start:
            last = next((token for token in _LAST if self.text.endswith(token, start, end)), None)
            if last is None:
                break
            end -= len(last)
        return end


class _LineSpan:
    """A line, or its remainder behind a marker. ``content``: index of its first non-blank character; ``fence``: whether
    it begins with the marks of a fence."""

    def __init__(self, text: str, start: int, same: _LineSpan | None = None) -> None:
        self.start = start
        self.end: int = same.end if same is not None and start <= same.end else _line_end(text, start)
        self.content = _content(text, start)
        self.fence = text.startswith(("```", "~~~"), self.content)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _content(text: str, start: int, blanks: str = "") -> int:
    while start < len(text) and text[start] in f" \t{blanks}":
        start += 1
    return start


def _markers(text: str) -> Iterator[_ThinkingTag]:
    """The markers of ``text`` that are not quoted on their line."""
    line_end, spans = -1, []
    for match in _MARKER.finditer(text):
        if match.start() >= line_end:
            line_end = _line_end(text, match.start())
            spans = _quoted(text, text.rfind("\n", 0, match.start()) + 1, line_end)
        before = bisect.bisect_right(spans, (match.start(), len(text))) - 1
        if before < 0 or spans[before][1] < match.start():
            yield _ThinkingTag(match.start(), match.end(), match.lastgroup or "")


def _quoted(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The spans between two equal quotation marks of one line."""
    marks = [(match.start(), match[0]) for match in _QUOTE.finditer(text, start, end)]
    last = {mark: position for position, mark in marks}
    spans = []
    opened: tuple[int, str] | None = None
    for position, mark in marks:
        if opened is None:
            if last[mark] > position:  # it is closed on this line
                opened = position, mark
        elif mark == opened[1]:
            spans.append((opened[0], position))
            opened = None
    return spans
