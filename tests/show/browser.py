"""Chromium through the DevTools protocol over a pipe, without further packages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed: apt-get install chromium")


class Browser:
    """One tab. ``requests``: the addresses that it requested; ``messages``: its errors and warnings."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.messages: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._reads, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        event = dict(json.loads(line))
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(str(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"):
            self.messages.append(str(event["params"]["entry"]["text"]))
        return event

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'", 300)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"still false: {expression}"
            time.sleep(0.05)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window and the colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))


def said(tab: Browser) -> list[str]:
    return list(tab.value("[...document.querySelectorAll('.tokens')].map((list) => list.getAttribute('aria-label'))"))


def ask(tab: Browser, text: str, *, typed: bool = True) -> None:
    """Type a program as a person does, or paste it at once, and wait for the page's answer."""
    tab.wait("document.body.dataset.answered !== undefined")  # the program that the page begins with
    tab.value("document.getElementById('code').select(); document.getElementById('code').focus()")
    tab.value("delete document.body.dataset.answered")
    if typed:
        tab.call("Input.insertText", text=text)
    else:
        code = "document.getElementById('code')"
        tab.value(f"{code}.value = {json.dumps(text)}; {code}.dispatchEvent(new Event('input'))")
    tab.wait("document.body.dataset.answered !== undefined")


def click(tab: Browser, element: str) -> None:
    """Click the middle of an element with the mouse."""
    tab.value(f"{element}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    box = tab.value(f"(({{ x, y, width, height }}) => [x, y, width, height])({element}.getBoundingClientRect())")
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def choose(tab: Browser, element: str, value: str) -> None:
    """Choose an option of a list by its value."""
    tab.value(f"{element}.value = {json.dumps(value)}; {element}.dispatchEvent(new Event('change'))")


def contrast(tab: Browser) -> float:
    """The smallest contrast (WCAG) of text colours on the colours behind them."""
    colours = tab.value(
        "['ink', 'muted', 'good', 'bad', 'accent'].flatMap((name) => ['paper', 'soft', 'code'].map((behind) => "
        "[name, behind].map((item) => getComputedStyle(document.body).getPropertyValue(`--${item}`).trim())))"
    )

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ratios = []
    for front, behind in colours:
        high, low = sorted((light(front), light(behind)), reverse=True)
        ratios.append((high + 0.05) / (low + 0.05))
    return min(ratios)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A headless browser with an empty profile; it may reach no network beyond this machine."""
    assert CHROMIUM is not None
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    arguments = [
        "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-extensions", f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]  # fmt: skip
    script = f'exec 3<&{from_us} 4>&{to_us}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, "chromium", CHROMIUM, *arguments],
        pass_fds=(from_us, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    tab = Browser(from_browser, to_browser)
    try:
        yield tab
    finally:
        tab._session = None
        os.write(to_browser, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_browser)
        os.close(to_browser)
