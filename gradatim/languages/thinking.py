"""Removal of a model's thinking from its reply: only what stands outside it can be the answer.

Recognised are the tags of ``_NAMES`` (``<think>…</think>``, ``[THINK]…[/THINK]``, ``◁think▷…◁/think▷``), a closing tag
alone (the chat template opened the thinking), an opening tag alone (the reply was cut off inside it), and the channels
of the harmony format, of which only ``final`` is the answer. A tag inside a fenced block of the answer, between
quotation marks or in a code span is text of a program, not a tag.

The time is linear in the length of the reply.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .fences import FenceReader

__all__ = ["strip_thinking"]

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
class _Marker:
    start: int
    end: int
    kind: str


def strip_thinking(text: str) -> str:
    """``text`` without its thinking; ``text`` itself where there is none, empty where it is nothing else."""
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

    def __init__(self, text: str, markers: Sequence[_Marker]) -> None:
        self.text = text
        self.markers = markers
        self.kept: list[tuple[int, int]] = []
        self.reader = FenceReader()
        self.fences = [(found.start(), bool(found["info"].strip())) for found in _FENCE_LINE.finditer(text)]
        self.last_close = max((marker.start for marker in markers if marker.kind == "close"), default=-1)
        first = _content(text, 0, "\n")
        self.first_line_end = -1 if text.startswith(_COMMENT, first) else _line_end(text, first)
        self.line = _Line(text, 0)

    def run(self) -> str:
        """The answer."""
        start, thinking = 0, False
        for marker in self.markers:
            if thinking:
                if marker.kind != "open":
                    thinking, start = False, marker.end
                    self.line = _Line(self.text, marker.end, self.line)
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
            self.line = _Line(self.text, marker.end, self.line)
        if not thinking:
            self.kept.append((start, self._end(start)))
        return "".join(self.text[first:last] for first, last in self.kept)

    def _read(self, until: int) -> None:
        """Feed the lines before ``until`` to the fences, and the line that holds it where that opens a block."""
        while self.line.end < until:
            self.reader.feed(self.text[self.line.start : self.line.end])
            self.line = _Line(self.text, self.line.end + 1)
        if self.line.fence and not self.reader.inside:
            self.reader.feed(self.text[self.line.start : self.line.end])
            self.line.fence = False
            if self.reader.inside:
                self.line = _Line(self.text, self.line.end + 1)

    def _opens(self, marker: _Marker) -> bool:
        """Whether an opening tag begins thinking: at the start of a line, before a closing tag, or in the reply's
        first line; elsewhere it is a word about tags."""
        return self.line.content == marker.start or marker.start < max(self.last_close, self.first_line_end)

    def _ends_thinking(self, marker: _Marker) -> bool:
        """Whether a closing tag inside a block ends thinking that left the block open: it is alone on its line, and
        the next fence does not close the block."""
        if marker.kind != "close" or self.line.content != marker.start:
            return False
        if self.text[marker.end : marker.end + 1] not in ("", "\n", "\r"):
            return False
        after = bisect.bisect_left(self.fences, (marker.end, False))
        return after == len(self.fences) or self.fences[after][1]

    def _end(self, start: int) -> int:
        """Where the answer ends: before the tokens that end a message."""
        end = len(self.text)
        while end > start:
            last = next((token for token in _LAST if self.text.endswith(token, start, end)), None)
            if last is None:
                break
            end -= len(last)
        return end


class _Line:
    """A line, or what is left of it behind a marker. ``content``: its first character that is no blank; ``fence``:
    whether it begins with the marks of one."""

    def __init__(self, text: str, start: int, same: _Line | None = None) -> None:
        self.start = start
        self.end: int = same.end if same is not None and start <= same.end else _line_end(text, start)
        self.content = _content(text, start)
        self.fence = text.startswith(("```", "~~~"), self.content)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _content(text: str, start: int, more: str = "") -> int:
    while start < len(text) and text[start] in f" \t{more}":
        start += 1
    return start


def _markers(text: str) -> Iterator[_Marker]:
    """The markers of ``text`` that are not quoted on their line."""
    line_end, spans = -1, []
    for found in _MARKER.finditer(text):
        if found.start() >= line_end:
            line_end = _line_end(text, found.start())
            spans = _quoted(text, text.rfind("\n", 0, found.start()) + 1, line_end)
        before = bisect.bisect_right(spans, (found.start(), len(text))) - 1
        if before < 0 or spans[before][1] < found.start():
            yield _Marker(found.start(), found.end(), found.lastgroup or "")


def _quoted(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The spans between two equal quotation marks of one line."""
    marks = [(found.start(), found[0]) for found in _QUOTE.finditer(text, start, end)]
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
