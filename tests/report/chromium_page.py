"""A page in Chromium without a window, driven through the pipe of the DevTools protocol (no library, no port)."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT = 120


class Page:
    """``with Page(path, profile) as page: page.value("document.title")``; ``requests`` has every address loaded."""

    def __init__(self, path: Path, profile: Path, width: int = 1200, dark: bool = False) -> None:
        self.address = path.resolve().as_uri()
        self.requests: list[str] = []
        self._numbers, self._buffer = itertools.count(1), b""
        inner_read, self._write = os.pipe()
        self._read, inner_write = os.pipe()
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--window-size={width},900",
            f"--user-data-dir={profile}", "--remote-debugging-pipe", *(["--force-dark-mode"] if dark else []),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{inner_read} 4>&{inner_write}', str(CHROMIUM), *options, "about:blank"],
            pass_fds=(inner_read, inner_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inner_read)
        os.close(inner_write)
        self._session: str | None = None

    def __enter__(self) -> Page:
        target = next(
            entry["targetId"] for entry in self.call("Target.getTargets")["targetInfos"] if entry["type"] == "page"
        )
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Network.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=self.address)
        end = time.monotonic() + TIMEOUT
        while self.value("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < end
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def value(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], TIMEOUT)[0], "the browser does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content
