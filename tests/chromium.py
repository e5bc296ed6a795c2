"""A headless Chromium that a test steers over a pipe: open a page, use it, ask its DOM, see what it fetched.

Chrome's own protocol (DevTools, JSON with a zero byte behind each message); no driver, no port.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-pipe",
)
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, "")}
"""Code of a key, and the text that it writes."""
_CONTROL = 2


def is_installed() -> bool:
    """Whether there is a browser to ask."""
    return shutil.which(PROGRAM) is not None


class Browser:
    """One tab; everything that it reports is kept in `events`."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies = commands, replies
        self._read, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                answer: dict[str, Any] = reply["result"]
                return answer

    def open(self, page: Path | str) -> None:
        """Load a page, from a file or an address, and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def emulate(self, *, scheme: str = "", media: str = "") -> None:
        """Prefer light or dark, on screen or in print, from now on."""
        features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def resize(self, width: int, height: int, scale: int = 1) -> None:
        """Give the page so many pixels, each made of `scale` times `scale` dots in a picture."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true; fails with it after so many seconds."""
        script = f"""new Promise((yes, no) => {{
          const end = Date.now() + {seconds * 1000};
          const look = () => {condition} ? yes() : Date.now() > end ? no("never came") : setTimeout(look, 20);
          look();
        }})"""
        reply = self.call("Runtime.evaluate", expression=script, awaitPromise=True)
        assert "exceptionDetails" not in reply, f"{condition}: {reply['exceptionDetails']}"

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element that can be seen."""
        x, y = self.ask(f"""(() => {{
          const element = document.querySelector({json.dumps(selector)});
          element.scrollIntoView({{ block: "center" }});
          const {{ left, top, width, height }} = element.getBoundingClientRect();
          const [x, y] = [left + width / 2, top + height / 2];
          return element.contains(document.elementFromPoint(x, y)) ? [x, y] : [-1, -1];
        }})()""")
        assert x >= 0, f"{selector} cannot be clicked: it is hidden, or something lies over it"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Put text where the cursor is, as a paste does."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, control: bool = False) -> None:
        """Press one of the keys that have a name: Tab, Enter, Escape."""
        code, letter = _KEYS[key]
        pressed = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": code,
            "modifiers": _CONTROL if control else 0,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", text="" if control else letter, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in a field for files, as its dialog would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(file)])

    def download(self, selector: str, folder: Path) -> Path:
        """Click what begins a download and wait until the file is there."""
        self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True
        )
        self.events.clear()
        self.click(selector)
        name = ""
        while True:
            for event in self.events:
                if event["method"] == "Browser.downloadWillBegin":
                    name = event["params"]["suggestedFilename"]
                if event["method"] == "Browser.downloadProgress" and event["params"]["state"] == "completed":
                    return folder / name
            self._next()

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def printed(self) -> bytes:
        """The page on paper, as PDF."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
        return base64.b64decode(self.call("Page.printToPDF", **paper)["data"])

    @property
    def complaints(self) -> list[str]:
        """What the page threw, and what it or the browser wrote to the console."""
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event["method"] in told]

    @property
    def fetched(self) -> list[str]:
        """Addresses that were asked for; what stands inside the page (data:) is not fetched."""
        asked = (
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        )
        return [address for address in asked if not address.startswith("data:")]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = os.read(self._replies, 1 << 20)
            assert piece, "the browser has gone"
            self._read += piece
        one, self._read = self._read.split(b"\0", 1)
        message: dict[str, Any] = json.loads(one)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile; it reads commands at its file 3 and answers at its file 4."""
    its_commands, commands = os.pipe()
    replies, its_replies = os.pipe()
    files = (
        f"exec {PROGRAM} {' '.join(_QUIET)} --user-data-dir='{profile}' 3<&{its_commands} 4>&{its_replies}"
    )
    with (profile.parent / "chromium.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", files], pass_fds=(its_commands, its_replies), stdout=log, stderr=log
        )
    os.close(its_commands)
    os.close(its_replies)
    try:
        yield Browser(commands, replies)
    finally:
        os.close(commands)  # the browser ends when nobody can command it any more
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(replies)
