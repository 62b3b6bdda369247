"""The key is in nothing that is kept or shown, in whatever form a server repeats it."""

from __future__ import annotations

import base64
import html
import json
import time
import traceback
import urllib.parse

import pytest
from serving import SECRET, completion, fails, says, sends

from gradatim.client.exchange import Redactor
from gradatim.errors import GradatimError
from gradatim.teacher.reply_store import Cached

ODD = "k/ey+with=odd&chars_<0>.~x\"'\\%z"


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


FORMS = {
    "as it is": lambda key: key,
    "json escapes": escaped,
    "json escapes of json escapes": lambda key: escaped(key).replace("\\", "\\\\"),
    "upper case json escapes": lambda key: escaped(key).replace("\\u00", "\\U00").upper().replace("\\U", "\\u"),
    "python escapes": lambda key: "".join(f"\\x{ord(letter):02x}" for letter in key),
    "octal escapes": lambda key: "".join(f"\\{ord(letter):03o}" for letter in key),
    "javascript escapes": lambda key: "".join(f"\\u{{{ord(letter):x}}}" for letter in key),
    "a json string": lambda key: json.dumps(key)[1:-1],
    "a json string in a json string": lambda key: json.dumps(json.dumps(key))[3:-3],
    "percent": lambda key: urllib.parse.quote(key, safe=""),
    "percent of every character": lambda key: "".join(f"%{ord(letter):02X}" for letter in key),
    "percent twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "html": lambda key: html.escape(key),
    "html numbers": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "html hexadecimal numbers": lambda key: "".join(f"&#x{ord(letter):04X};" for letter in key),
    "html twice": lambda key: html.escape("".join(f"&#{ord(letter)};" for letter in key)),
    "quoted-printable": lambda key: "".join(f"={ord(letter):02X}" for letter in key),
    "markdown": lambda key: "".join(letter if letter.isalnum() else f"\\{letter}" for letter in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Bearer {key}\n".encode()).decode(),
    "base64 of a user": lambda key: base64.urlsafe_b64encode(f"u:{key}".encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex().upper(),
    "reversed": lambda key: key[::-1],
    "other case": lambda key: key.swapcase(),
    "half escaped": lambda key: key[:5] + escaped(key[5:9]) + urllib.parse.quote(key[9:], safe=""),
}

ALONE = [form for form in FORMS if not form.startswith("base64 of")]
"""The forms of nothing but the key; the others share characters with what stands beside it."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [SECRET, ODD], ids=["usual", "odd"])
def test_the_key_is_removed_in_whatever_form_it_is_repeated(form, key):
    repeated = FORMS[form](key)
    cleaned = Redactor(key).text(f"your key {repeated} is wrong")
    if form.startswith("base64 of"):
        # What stands beside the key in the same code stays.
        assert len(cleaned) < len(f"your key {repeated} is wrong") - len(key)
    else:
        assert cleaned == "your key *** is wrong"


@pytest.mark.parametrize("text", ["EMPTY = []", "sk-very-secret", "a%20b &amp; \\u002d =2D", "", "\\" * 50])
def test_other_texts_stay_as_they_are(text):
    assert Redactor(SECRET).text(text) == text


@pytest.mark.parametrize("placeholder", [None, "", "EMPTY", "none", "x"])
def test_a_placeholder_is_no_secret_and_no_answer_is_changed_by_it(placeholder):
    text = "x = EMPTY if none else 'x'"
    assert Redactor(placeholder).text(text) == text


@pytest.mark.parametrize("part", ["\\", "%", "&amp;", "&", "s", "%25", "\\u0", "&#0", "sk-very-secret-012345678"])
def test_removal_takes_a_time_linear_in_the_text(part):
    redactor = Redactor(SECRET)

    def seconds(size: int) -> float:
        text = part * (size // len(part))
        times = []
        for _ in range(3):
            start = time.process_time()
            redactor.text(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(160_000) < 64 * max(seconds(10_000), 0.0005)  # 16 is linear, 256 quadratic


@pytest.mark.parametrize("form", FORMS)
def test_the_key_is_in_no_reply_that_is_kept(form, server, chat, ask, tmp_path):
    repeated = FORMS[form](SECRET)
    twice = completion("a").replace(b'"a"', json.dumps(f"now {repeated}").encode())
    server.actions = [says(f"code with {repeated}", repeated[:4000]), sends(twice), says(None, refusal=repeated)]
    replies = Cached(chat(), tmp_path).ask(ask("a", "b", "c"))
    stored_text = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode("latin-1")
    for text in (stored_text, *(part for reply in replies for part in (reply.text, reply.finish, reply.raw))):
        if not form.startswith("base64 of"):
            assert repeated not in text
            assert json.dumps(repeated)[1:-1] not in text
        assert SECRET not in text


@pytest.mark.parametrize("form", ALONE)
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_the_key_is_in_no_error_that_is_shown(form, status, server, chat, ask):
    repeated = FORMS[form](SECRET)
    server.otherwise = fails(status, f"bad {repeated}" + "x" * 150 + repeated, code=f"c {repeated}")
    with pytest.raises(GradatimError) as error:
        chat(retries=0).ask(ask("a"))
    output = "".join(traceback.format_exception(error.value)) + repr(error.value)
    assert repeated not in output
    assert SECRET[:12] not in output


def test_a_long_error_is_not_cut_in_the_middle_of_the_key(server, chat, ask):
    server.otherwise = fails(400, "y" * 190 + SECRET)
    with pytest.raises(GradatimError) as error:
        chat(retries=0).ask(ask("a"))
    assert SECRET[:4] not in str(error.value)
