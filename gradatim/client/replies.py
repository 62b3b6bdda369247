"""The body of a response, read as a reply.

``decode`` makes text of bytes, ``parse`` makes a JSON value of text, ``reply_of`` makes a ``Reply`` of a value. Each
raises ``Unreadable`` with a reason that fits into an error of one line. An unreadable body is no reply: it is neither
stored nor counted as an answer. Nothing that is read here depends on the size of integers or the depth of nesting that
a server sends.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

from .exchange import Redactor
from .messages import Cost, Reply

__all__ = ["MOST_TOKENS", "Unreadable", "decode", "error_of", "parse", "reply_of"]


DEEPEST = 100
"""Nesting of a body's values; a chat completion with all its details has less than 10."""
MOST_TOKENS = 10**9
"""Tokens that a server can have counted for one request."""
MOST_OF_A_WORD = 40
"""Characters of the word by which a server says why it stopped."""
WITHOUT_TEXT = ("length", "content_filter", "tool_calls", "function_call")
"""Reasons to stop with which a chat reply can have no content."""

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
# Python's codecs are more than charsets: zlib, punycode (which takes quadratic time), unicode_escape.
_TEXT = re.compile(
    r"ascii|utf-(8|16|32)(-sig|-[bl]e)?|iso8859-\d+|cp125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis|euc_(jp|kr)"
)


class Unreadable(Exception):
    """A body that is no completion; the text says why."""


def decode(body: bytes, content_type: str) -> str:
    """The text of a body: UTF-8, as JSON has to be, else the charset that the server names."""
    name = _CHARSET.search(content_type)
    charset = "utf-8"
    if name is not None:
        try:
            charset = codecs.lookup(name[1][:MOST_OF_A_WORD]).name
        except (LookupError, ValueError):
            charset = ""
        if not _TEXT.fullmatch(charset):
            raise Unreadable(f"the charset {name[1][:MOST_OF_A_WORD]!r} is none for text")
    for encoding in ("utf-8-sig", charset, json.detect_encoding(body)):
        try:
            return body.decode(encoding)
        except UnicodeError:
            continue
    raise Unreadable("the body is not UTF-8")


def parse(text: str) -> Any:
    """The JSON value of a body."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise Unreadable("values nested too deeply") from None
    except ValueError as error:  # also integers of more digits than Python converts
        begin = text.lstrip()[:9].lower()
        if begin.startswith(("data:", "event:", ": ")):
            raise Unreadable("an event stream, which the request did not ask for") from None
        if begin.startswith("<"):
            raise Unreadable(f"a page, no JSON: {text.strip()[:200]}") from None
        said = str(error) if "digits" in str(error) else text.strip()[:200] or "an empty body"
        raise Unreadable(f"no JSON: {said}") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Later stages copy, print and store values by recursion."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        if not below:
            return
        level = below
    raise Unreadable("values nested too deeply")


def error_of(value: Any) -> tuple[str, str, str]:
    """The message, code and parameter of an error body; empty where it has none."""
    error = value.get("error", value) if isinstance(value, Mapping) else value
    if not isinstance(error, Mapping):
        return (error if isinstance(error, str) else ""), "", ""
    message, code, parameter = (error.get(name) for name in ("message", "code", "param"))
    if message is None:
        message = error.get("detail")
    if message is not None and not isinstance(message, str):
        message = json.dumps(message)
    return message or "", str(code or ""), parameter if isinstance(parameter, str) else ""


def reply_of(value: Any, raw: str, redactor: Redactor, *, chat: bool, most: Cost, strict: bool) -> tuple[Reply, bool]:
    """The reply of a completion, and whether the server counted its tokens; ``most`` where it did not.

    ``strict`` takes a chat reply without content as missing unless the reply says why it has none.
    """
    choice = _choice(value)
    finish = choice.get("finish_reason")
    finish = redactor.text(finish)[:MOST_OF_A_WORD] if isinstance(finish, str) and finish else "stop"
    text, refusal = _message(choice, finish, strict) if chat else (_completed(choice), "")
    if refusal:
        text, finish = refusal, "refusal"
    elif not text.strip() and finish in ("stop", "length"):
        finish = "empty"
    used = _usage(value.get("usage"))
    cost = used or most
    text = redactor.text(text).encode("utf-8", "replace").decode()  # half of a surrogate pair could not be sent again
    return Reply(text, finish, cost.prompt, cost.completion, raw), used is not None


def _choice(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unreadable(f"no completion: {str(value)[:200]}")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    message, code, _ = error_of(value) if "error" in value or "detail" in value else ("", "", "")
    if message or code:
        raise Unreadable(f"an error instead of a completion: {message or code}")
    raise Unreadable(f"a completion without choices: {json.dumps(value)[:200]}")


def _message(choice: Mapping[str, Any], finish: str, strict: bool) -> tuple[str, str]:
    """Text and refusal of a chat reply. Fields for reasoning (``reasoning_content``) are not part of the answer."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise Unreadable("a choice without a message")
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    refusal = refusal if isinstance(refusal, str) else ""
    if content is None:
        explained = refusal or finish in WITHOUT_TEXT or message.get("reasoning_content") or message.get("reasoning")
        if strict and not explained:
            raise Unreadable("a reply without content")
        return "", refusal
    if not isinstance(content, str):
        raise Unreadable(f"content that is no text: {json.dumps(content)[:200]}")
    return content, refusal


def _completed(choice: Mapping[str, Any]) -> str:
    """The text of a completion of a prompt."""
    text = choice.get("text")
    if not isinstance(text, str):
        raise Unreadable("a completion without text")
    return text


def _part(part: Any) -> str:
    """The text of one part of a content; parts of reasoning, images and the like are not part of the answer."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text") else ""
    return text if isinstance(text, str) else ""


def _usage(usage: Any) -> Cost | None:
    """The tokens that a server counted; None where it does not say."""
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    whole = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 0]
    if any(count > MOST_TOKENS for count in whole):
        raise Unreadable(f"a usage of more than {MOST_TOKENS} tokens")
    return Cost(*whole) if len(whole) == 2 else None
