"""Parsing of a response body into a reply.

``decode`` turns bytes into text, ``parse`` text into a JSON value, ``reply_of`` a value into a ``Reply``. All raise
``UnreadableBody`` with a reason that fits into an error of one line. An unreadable body is neither stored nor counted
as a reply. Sizes of integers and depths of nesting are bounded.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

from .exchange import Redactor
from .messages import Cost, Reply

__all__ = ["MAX_TOKENS", "UnreadableBody", "decode", "error_of", "parse", "reply_of"]


MAX_DEPTH = 100
"""Deepest nesting of a body's values; a chat completion with all its details has less than 10."""
MAX_TOKENS = 10**9
"""Most tokens that a server can have counted for one request."""
MAX_WORD = 40
"""Most characters of a finish reason or a charset's name."""
WITHOUT_TEXT = ("length", "content_filter", "tool_calls", "function_call")
"""Finish reasons of chat replies that may have no content."""

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
# Python's codecs include others than charsets: zlib, punycode (in quadratic time), unicode_escape.
_TEXT = re.compile(
    r"ascii|utf-(8|16|32)(-sig|-[bl]e)?|iso8859-\d+|cp125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis|euc_(jp|kr)"
)


class UnreadableBody(Exception):
    """A body that is no completion, with the reason."""


def decode(body: bytes, content_type: str) -> str:
    """The text of a body: UTF-8, the encoding of JSON, else the server's charset."""
    name = _CHARSET.search(content_type)
    charset = "utf-8"
    if name is not None:
        try:
            charset = codecs.lookup(name[1][:MAX_WORD]).name
        except (LookupError, ValueError):
            charset = ""
        if not _TEXT.fullmatch(charset):
            raise UnreadableBody(f"the charset {name[1][:MAX_WORD]!r} is none for text")
    for encoding in ("utf-8-sig", charset, json.detect_encoding(body)):
        try:
            return body.decode(encoding)
        except UnicodeError:
            continue
    raise UnreadableBody("the body is not UTF-8")


def parse(text: str) -> Any:
    """The JSON value of a body."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise UnreadableBody("values nested too deeply") from None
    except ValueError as error:  # also integers of more digits than Python converts
        start = text.lstrip()[:9].lower()
        if start.startswith(("data:", "event:", ": ")):
            raise UnreadableBody("an event stream instead of a single response") from None
        if start.startswith("<"):
            raise UnreadableBody(f"a page, no JSON: {text.strip()[:200]}") from None
        reason = str(error) if "digits" in str(error) else text.strip()[:200] or "an empty body"
        raise UnreadableBody(f"no JSON: {reason}") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Bound the nesting: values are later copied, printed and stored by recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children += item.values()
            elif isinstance(item, list):
                children += item
        if not children:
            return
        level = children
    raise UnreadableBody("values nested too deeply")


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


def reply_of(
    value: Any, raw: str, redactor: Redactor, *, chat: bool, maximum: Cost, strict: bool
) -> tuple[Reply, bool]:
    """The reply of a completion, and whether the server counted its tokens; otherwise ``maximum`` counts.

    With ``strict``, a chat reply without content is unreadable unless it contains the reason.
    """
    choice = _choice(value)
    finish = choice.get("finish_reason")
    finish = redactor.text(finish)[:MAX_WORD] if isinstance(finish, str) and finish else "stop"
    text, refusal = _message(choice, finish, strict) if chat else (_completed(choice), "")
    if refusal:
        text, finish = refusal, "refusal"
    elif not text.strip() and finish in ("stop", "length"):
        finish = "empty"
    used = _usage(value.get("usage"))
    cost = used or maximum
    text = redactor.text(text).encode("utf-8", "replace").decode()  # a lone surrogate could not be sent again
    return Reply(text, finish, cost.prompt, cost.completion, raw), used is not None


def _choice(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnreadableBody(f"no completion: {str(value)[:200]}")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    message, code, _ = error_of(value) if "error" in value or "detail" in value else ("", "", "")
    if message or code:
        raise UnreadableBody(f"an error instead of a completion: {message or code}")
    raise UnreadableBody(f"a completion without choices: {json.dumps(value)[:200]}")


def _message(choice: Mapping[str, Any], finish: str, strict: bool) -> tuple[str, str]:
    """Content and refusal of a chat reply; fields for reasoning (``reasoning_content``) are ignored."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UnreadableBody("a choice without a message")
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        content = "".join(_segment_text(segment) for segment in content)
    refusal = refusal if isinstance(refusal, str) else ""
    if content is None:
        explained = refusal or finish in WITHOUT_TEXT or message.get("reasoning_content") or message.get("reasoning")
        if strict and not explained:
            raise UnreadableBody("a reply without content")
        return "", refusal
    if not isinstance(content, str):
        raise UnreadableBody(f"content that is no text: {json.dumps(content)[:200]}")
    return content, refusal


def _completed(choice: Mapping[str, Any]) -> str:
    """The text of a prompt's completion."""
    text = choice.get("text")
    if not isinstance(text, str):
        raise UnreadableBody("a completion without text")
    return text


def _segment_text(segment: Any) -> str:
    """The text of one content segment; empty for reasoning, images and the like."""
    if isinstance(segment, str):
        return segment
    is_text = isinstance(segment, Mapping) and segment.get("type", "text") in ("text", "output_text")
    text = segment.get("text") if is_text else ""
    return text if isinstance(text, str) else ""


def _usage(usage: Any) -> Cost | None:
    """The server's token counts; None where they are missing or invalid."""
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    valid = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 0]
    if any(count > MAX_TOKENS for count in valid):
        raise UnreadableBody(f"a usage of more than {MAX_TOKENS} tokens")
    return Cost(*valid) if len(valid) == 2 else None
