"""Removal of an API key from the texts of a server.

Servers repeat the key in errors and replies, as it is or escaped: JSON and backslash escapes, percent-encoding, HTML
entities, quoted-printable, base64, hexadecimal, reversed, in other letter case. ``Redactor`` replaces every one of
these forms, mixed ones too, and is applied to the raw body and again to what was decoded from it.
"""

from __future__ import annotations

import base64
import html.entities
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["Redactor"]

REPLACEMENT = "***"
SHORTEST = 8
"""Shorter values are placeholders such as ``EMPTY`` and ``none``, which occur in ordinary code: they are no secret."""
ANY_CASE = 16
"""From so many characters on a text that differs in letter case only is no coincidence."""
_ENTITIES: dict[str, list[str]] = {}
for _name, _character in html.entities.html5.items():
    if len(_character) == 1 and _character.isascii() and _name.endswith(";"):
        _ENTITIES.setdefault(_character, []).append(_name[:-1])


class Redactor:
    """Texts without ``secret``; with None they stay as they are."""

    def __init__(self, secret: str | None) -> None:
        usable = secret is not None and len(secret) >= SHORTEST
        self._pattern = re.compile("|".join(_forms(secret))) if secret is not None and usable else None
        # Plain substrings are searched much faster than patterns.
        self._codes = list(_base64_codes(secret.encode())) if secret is not None and usable else []

    def text(self, text: str) -> str:
        """``text`` with three asterisks in place of the secret."""
        if self._pattern is None:
            return text
        for code in self._codes:
            if code in text:
                # The characters beside it can hold some bits of the key too.
                text = re.sub(f"[A-Za-z0-9+/_-]?{re.escape(code)}[A-Za-z0-9+/_-]?={{0,2}}", REPLACEMENT, text)
        return self._pattern.sub(REPLACEMENT, text)

    def is_clean(self, value: Any) -> bool:
        """Whether no text of a decoded JSON value holds the secret. Iterative, as values may be nested deeply."""
        if self._pattern is None:
            return True
        stack = [value]
        while stack:
            part = stack.pop()
            if isinstance(part, str) and self.text(part) != part:
                return False
            if isinstance(part, dict):
                stack += [*part, *part.values()]
            elif isinstance(part, list):
                stack += part
        return True


def _forms(secret: str) -> Iterator[str]:
    """Patterns of the secret's forms."""
    any_case = len(secret) >= ANY_CASE
    for text in (secret, secret[::-1]):
        yield "".join(_character_pattern(character, any_case) for character in text)
    yield f"(?i:{secret.encode().hex()})"


def _character_pattern(character: str, any_case: bool) -> str:
    """One character as it is or escaped. Every repetition is bounded, so that a search takes linear time."""
    code = ord(character)
    names = "".join(f"|{name}" for name in _ENTITIES.get(character, ()))
    escapes = (
        rf"\\{{1,8}}u\{{?0{{0,6}}{code:x}\}}?",
        rf"\\{{1,8}}x{code:02x}",
        rf"\\{{1,8}}0?{code:03o}",
        rf"%(?:25){{0,8}}{code:02x}",
        rf"={code:02x}",
        rf"&(?:amp;){{0,8}}(?:#0{{0,8}}{code}|#x0{{0,8}}{code:x}{names});?",
    )
    literal = re.escape(character) if character.isalnum() else rf"\\{{0,8}}{re.escape(character)}"
    return f"(?:(?i:{'|'.join(escapes)})|{f'(?i:{literal})' if any_case else literal})"


def _base64_codes(secret: bytes) -> Iterator[str]:
    """The characters that base64 makes of ``secret`` alone, wherever it begins in the encoded text."""
    for offset, first in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(b"\0" * offset + secret).decode()
        code = whole[first : (offset + len(secret)) * 8 // 6]
        yield from {code, code.translate(str.maketrans("+/", "-_"))}
