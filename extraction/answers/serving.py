"""A real OpenAI-compatible server on this machine: `transformers serve` for a model folder, ended when done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from estimators.base import EmergenceError, InputError

START_S = 180.0


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the model in `folder` on a free loopback port under the folder's own name.

    Yields:
        The base URL, ending in ``/v1``; the model answers there to ``folder.name``.

    Raises:
        InputError: if there is no model in the folder.
        EmergenceError: if the server does not come up within three minutes; the end of its log is in the message.
    """
    folder = folder.absolute()
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no model (no config.json); give a folder that save_pretrained wrote.")
    with tempfile.TemporaryDirectory(prefix="emergence-serve-") as scratch:
        (Path(scratch) / "hub").mkdir()  # without it the server fails on /v1/models
        port = _free_port()
        log = Path(scratch) / "log.txt"
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name]
        command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        quiet = {"HF_HOME": scratch, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
        quiet["OMP_NUM_THREADS"] = "1"  # small models: threads that wait for each other cost more than they give
        with log.open("wb") as sink:
            # In the parent folder, so that the relative path, which becomes the model's name, is the folder's name.
            server = subprocess.Popen(  # noqa: S603
                command,
                cwd=folder.parent,
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    tail = " ".join(log.read_text(errors="replace").split())[-400:]
    raise EmergenceError(f"The server of {url} did not start; the end of its log: {tail or 'empty'}")


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
