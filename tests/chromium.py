"""A real browser, driven over a pipe by the DevTools protocol: headless Chromium."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
"""Of every start; no name of another host is ever looked up."""


class Page:
    """One page of a browser; what it complained about is in `said`."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._numbers, self._rest, self._session = count(1), b"", ""
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and give its answer."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": params, **session}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._next()
            if heard.get("id") == number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return dict(heard["result"])
            self._listen(heard)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._receive, 1 << 16)
            assert chunk, "the browser has ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _listen(self, heard: dict[str, Any]) -> None:
        params = heard.get("params", {})
        if heard["method"] == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"].get("exception", params)))
        if heard["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def value(self, expression: str) -> Any:
        """Give the value of an expression of JavaScript, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Give the text of the first element that fits, as it shows: hidden ones have none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def open(self, url: str, *, width: int = 1200, height: int = 1000) -> None:
        """Open an address at a size of the window, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.call("Page.navigate", url=url)
        self.until(lambda: self.value("document.readyState") == "complete")

    def drop(self, selector: str, *files: Path) -> None:
        """Drop files on an element, as a hand with a mouse does."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def click(self, selector: str) -> None:
        """Press the mouse on an element, wherever that is on the page."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def _middle(self, selector: str) -> tuple[float, float]:
        place = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return place[0], place[1]

    def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        """Wait for something to hold."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"nothing for {seconds:g} s; {self.text('body')}"
            time.sleep(0.05)

    def picture(self, path: Path) -> Path:
        """Write the window's pixels as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return path


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own, and end it."""
    assert PROGRAM is not None
    (commands, send), (receive, answers) = os.pipe(), os.pipe()
    # It reads commands from descriptor 3 and writes answers to descriptor 4.
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 64) for end in (commands, answers)]
    script = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    command = [PROGRAM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", script, "chromium", *command], pass_fds=theirs, stderr=subprocess.DEVNULL
    )
    for end in (commands, answers, *theirs):
        os.close(end)
    try:
        yield Page(send, receive)
    finally:
        os.close(send)
        os.close(receive)
        process.terminate()
        process.wait(30)
