"""A headless chromium, told what to do over its DevTools protocol."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def browsing(folder: Path, width: int = 1200, height: int = 800) -> Iterator["Browser"]:
    """A page in a browser of its own, whose profile is in this folder."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    program = [str(CHROMIUM), *options, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        try:
            port = folder / "DevToolsActivePort"
            while not (port.exists() and port.read_text().count("\n") == 1):
                assert process.poll() is None
                time.sleep(0.05)
            number, path = port.read_text().split()
            with connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as socket:
                page = Browser(socket)
                page.resize(width, height)
                yield page
        finally:
            process.terminate()


class Browser:
    """One page; every error on its console is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._count = socket, 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            told = json.loads(self._socket.recv(timeout=30))
            if told.get("id") == self._count:
                assert "error" not in told, told
                return dict(told["result"])
            self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        what, params = told.get("method"), told.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif what == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif what == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(json.dumps(params["args"]))

    def resize(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Another window."""
        scale = 2 if phone else 1
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """A page, once its script says that it is ready."""
        self.tell("Page.navigate", url=url)
        self.until("document.body && document.body.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """The value of an expression."""
        found = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 15) -> None:
        """Wait for an expression to hold."""
        ends = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < ends, (condition, self.errors)
            time.sleep(0.05)

    def middle(self, selector: str) -> tuple[float, float]:
        """Of an element, where it is in the window."""
        script = f"""(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.run(script)
        return x, y

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse."""
        self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector: str) -> None:
        """An element, in its middle."""
        self.click_at(*self.middle(selector))

    def click_at(self, x: float, y: float) -> None:
        """A place in the window."""
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def drag(self, places: list[tuple[float, float]]) -> None:
        """A stroke with the button down."""
        self.mouse("mousePressed", *places[0], button="left", buttons=1, clickCount=1)
        for place in places[1:]:
            self.mouse("mouseMoved", *place, button="left", buttons=1)
        self.mouse("mouseReleased", *places[-1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            code = {"key": key, "code": key} | ({"windowsVirtualKeyCode": 13, "text": "\r"} if key == "Enter" else {})
            self.tell("Input.dispatchKeyEvent", type=kind, **code)

    def screenshot(self, file: Path) -> bytes:
        """What is to be seen, as PNG."""
        content = base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])
        file.write_bytes(content)
        return content
