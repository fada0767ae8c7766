"""A page in headless Chromium, driven over a pipe: no package, no network port.

Whatever the page logs, throws or asks the network for is kept, so that a test can say "nothing".
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Not on the list of tests/conftest.py: CI has it from docker/ci-tools.sh.
NOT_HERE = "Chromium is not installed here"
SILENT_SECONDS = 120  # a busy machine is slow, a browser that hangs is silent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def program() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. `problems` holds console errors and exceptions, `requests` every address asked."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, self.session, **parameters)

    def open(self, path: Path) -> None:
        self.problems.clear()
        self.requests.clear()
        self.browser.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.browser.wait_for("Page.loadEventFired", self.session)
        self.settle()

    def settle(self) -> None:
        """Let the page do what it has begun, and read what it had to say."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            told = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(told["exceptionDetails"])[:500])
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] != "verbose":
                self.problems.append(told["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(told["args"])[:500])
            elif event["method"] == "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
        self.browser.events.clear()

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited; AssertionError if it throws."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code)  # fmt: skip

    def press_enter(self) -> None:
        text = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **text)

    def size(self, width: int, height: int = 900, scale: float = 1) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)  # fmt: skip

    def media(self, kind: str = "", **features: str) -> None:
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=named)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        found = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(found["data"])


class Browser:
    """The process. Use `chromium()`."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self.process = process
        self.to, self.back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self.number, self.rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str, session: str) -> None:
        def there() -> bool:
            return any(e["method"] == method and e.get("sessionId") == session for e in self.events)

        while not there():
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], SILENT_SECONDS)
            assert ready, f"Chromium has said nothing for {SILENT_SECONDS} s"
            part = os.read(self.back.fileno(), 1 << 16)
            assert part, "Chromium has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser with a profile of its own that is gone afterwards."""
    name = program()
    assert name is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def descriptors() -> None:
        # The pipe of the protocol is 3 and 4, whatever numbers ours have.
        safe = os.dup(to_read), os.dup(from_write)
        os.dup2(safe[0], 3)
        os.dup2(safe[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--no-sandbox", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
        ]  # fmt: skip
        process = subprocess.Popen(
            [name, *options, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=descriptors,  # noqa: PLW1509
            close_fds=False,
            env={**os.environ, "HOME": profile},
        )
        os.close(to_read)
        os.close(from_write)
        browser = Browser(process, to_write, from_read)
        try:
            yield browser
        finally:
            with contextlib.suppress(Exception):
                browser.call("Browser.close")
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
