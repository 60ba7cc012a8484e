"""A headless Chromium, driven by WebDriver over HTTP: what a test of a page needs, and no more.

It needs `chromium` and `chromedriver`, which Debian packages as chromium and chromium-driver.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
#: Nothing but the page is asked for: no updates, no sync, no other host.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """Use it in a `with` block. `profile`: a new folder for what the browser keeps."""

    def __init__(self, profile: Path) -> None:
        assert DRIVER is not None
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self._port = self._started()
            options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            self._session = ""
            self._session = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end()

    def open(self, url: str, *, width: int = 1000, height: int = 800, scheme: str = "light") -> None:
        """Show a page at that size, for a reader who prefers that colour scheme."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("POST", "/url", {"url": "about:blank"})
        self.errors()  # of the page before
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What `script` returns in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def press(self, css: str) -> None:
        """Click on the element."""
        self._call("POST", f"/element/{self._element(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Type into the element."""
        self._call("POST", f"/element/{self._element(css)}/value", {"text": text})

    def accept(self) -> str:
        """Say yes to what the page asks; its text."""
        asked: str = self._call("GET", "/alert/text")
        self._call("POST", "/alert/accept", {})
        return asked

    def errors(self) -> list[str]:
        """What the console has had to complain of since the last time."""
        return [each["message"] for each in self._call("POST", "/se/log", {"type": "browser"}) if each["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self._devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _element(self, css: str) -> str:
        found: dict[str, str] = self._call("POST", "/element", {"using": "css selector", "value": css})
        return next(iter(found.values()))

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _started(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise AssertionError("chromedriver did not start")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            where = f"/session/{self._session}{path}" if self._session else "/session"
            connection.request(method, where, None if body is None else json.dumps(body))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait()
        assert self._driver.stdout is not None
        self._driver.stdout.close()
