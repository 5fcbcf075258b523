"""Headless Chromium for tests and for the pictures of the documentation."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Headless Chromium, told by its own protocol over a pipe: no driver, no port, no further library."""

    def __init__(self, folder: Path, shots: Path | None = None) -> None:
        self.shots = (shots or folder).absolute()
        self.shots.mkdir(parents=True, exist_ok=True)
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--hide-scrollbars", "--disable-background-networking", f"--user-data-dir={folder}/profile"]
        script = f'exec "$@" 3</dev/fd/{down_read} 4>/dev/fd/{up_write}'
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", str(CHROMIUM), *flags],
            pass_fds=(down_read, up_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down_read)
        os.close(up_write)
        self.down, self.up = os.fdopen(down_write, "wb", buffering=0), os.fdopen(up_read, "rb", buffering=0)
        self.numbers = itertools.count(1)
        self.requests: list[str] = []
        self.session: str | None = None
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.down.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> bytes:
        data = bytearray()
        while (byte := self.up.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        return bytes(data)

    def open(self, url: str, *, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        self.requests.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")  # else another fragment of the same page loads nothing
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, condition: str, timeout: float = 120) -> None:
        """Wait until a script's condition is true, and say what was seen if it never is."""
        deadline = time.monotonic() + timeout
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < deadline, f"never: {condition}\n{self.text()[:2000]}"
            time.sleep(0.2)

    def wait_for_text(self, *texts: str) -> None:
        for text in texts:
            self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def keep(self, name: str) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        (self.shots / f"{name}.png").write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.down.close()
        self.up.close()
        self.process.terminate()
        self.process.wait(30)
