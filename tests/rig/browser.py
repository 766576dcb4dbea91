"""A browser without a window, asked over the DevTools protocol: what does a page show, and what
does it ask the world for?

The protocol goes over a pair of pipes (`--remote-debugging-pipe`: JSON, ended by a zero byte), so
no port is opened and nothing but the standard library is needed.
"""

import base64
import fcntl
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig.chromium import Chromium

_ANSWER_TIMEOUT_S = 60
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # a page of our own, and containers have no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)


@dataclass(frozen=True)
class Screen:
    """What the page is shown on."""

    width: int = 1280
    height: int = 900
    dark: bool = False
    phone: bool = False


PHONE = Screen(390, 844, phone=True)


@dataclass
class Page:
    """One page that was opened: `complaints` of its console, `requests` beyond itself."""

    browser: "Browser"
    session: str
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; an exception there is one here."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """The page as PNG, all of it or what the screen shows."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full, **(
            {"clip": {**self._size(), "x": 0, "y": 0, "scale": 1}} if full else {}
        ))  # fmt: skip
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        return self.browser.call(method, self.session, **parameters)

    def _size(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"width": size["width"], "height": size["height"]}

    def hear(self, method: str, event: dict[str, Any]) -> None:
        """Take note of what the browser tells of this page."""
        match method:
            case "Runtime.exceptionThrown":
                self.complaints.append(str(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.complaints.append(event["entry"]["text"])
            case "Network.requestWillBeSent":
                url = event["request"]["url"]
                if url != self.url and not url.startswith("data:"):
                    self.requests.append(url)


class Browser:
    """A running browser."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self._write_fd, self._read_fd = write_fd, read_fd
        self._data, self._calls = b"", 0
        self._pages: dict[str, Page] = {}

    def open(self, file: Path, screen: Screen = Screen()) -> Page:
        """Show `file` and wait until it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, file.resolve().as_uri())
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=screen.width,
            height=screen.height,
            deviceScaleFactor=2 if screen.phone else 1,
            mobile=screen.phone,
        )
        page.call("Emulation.setTouchEmulationEnabled", enabled=screen.phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=page.url)
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while page.evaluate("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < deadline, f"{file} does not finish loading"
            time.sleep(0.05)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; what is told meanwhile goes to its page."""
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._next()
            if heard.get("id") == self._calls:
                assert "error" not in heard, f"{method}: {heard['error']}"
                answer: dict[str, Any] = heard["result"]
                return answer
            if (page := self._pages.get(heard.get("sessionId", ""))) is not None:
                page.hear(heard["method"], heard["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._read_fd], [], [], _ANSWER_TIMEOUT_S)
            assert ready, "the browser does not answer"
            data = os.read(self._read_fd, 1 << 20)
            assert data, "the browser has ended"
            self._data += data
        line, _, self._data = self._data.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        return heard


@contextmanager
def browsing(program: Chromium) -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    (reads, write_fd), (read_fd, writes) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        pid = _start(program, [*_FLAGS, f"--user-data-dir={profile}"], reads, writes)
        os.close(reads)
        os.close(writes)
        try:
            yield Browser(write_fd, read_fd)
        finally:
            os.close(write_fd)
            os.close(read_fd)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _start(program: Chromium, flags: Sequence[str], reads: int, writes: int) -> int:
    """Its process group; it finds the protocol at 3 and 4, and nobody hears what else it says."""
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (reads, writes)]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    pipes = [(os.POSIX_SPAWN_DUP2, end, fd) for fd, end in enumerate(ends, 3)]
    try:
        return os.posix_spawn(
            program.path,
            [str(program.path), *flags],
            program.environment,
            file_actions=[*quiet, *pipes],
            setpgroup=0,
        )
    finally:
        for end in ends:
            os.close(end)
