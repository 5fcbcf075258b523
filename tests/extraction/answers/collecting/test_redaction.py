"""The key is searched in everything a run leaves: log, table, screen, tracebacks, the process list, MLflow's store."""

import json
import logging
import subprocess
import sys
import threading
import traceback
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import pandas as pd
import pytest

from estimators.base import EmergenceError
from extraction import Limits, Server, collect
from extraction.answers.collecting import pace
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.redaction import one_line
from tests.handlers import JsonHandler

KEY = "sk-planted-" + "0123456789abcdef" * 9
CHAT = Capabilities("chat")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(pace, "FIRST_DELAY_S", 0.001)


def pieces(text: str) -> bool:
    """Whether a part of the key that says something of it is in `text`."""
    return any(KEY[start : start + 12] in text for start in range(0, len(KEY) - 12))


def said(answers: dict | bytes, status: int = 200):
    content = answers if isinstance(answers, bytes) else json.dumps(answers).encode()
    return lambda _: httpx2.Response(status, content=content)


FILLED = "x" * 250 + f" Bearer {KEY}"  # a cut at 200 or 300 characters falls within the key
LEAKS = [
    (200, {"error": f"Bearer {KEY}"}),
    (200, {"error": {"message": FILLED}}),
    (400, {"error": {"message": FILLED}}),
    (400, {"error": {"message": FILLED[:300]}}),  # the server has cut it itself
    (500, {"detail": FILLED}),
    (429, {"error": {"message": FILLED}}),
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    (402, {"error": {"message": FILLED}}),
    (200, {"choices": [{"message": {"content": f"your key is {KEY}"}, "finish_reason": KEY}]}),
    (200, {"choices": [{"message": {"content": "fine"}}], "system_fingerprint": KEY}),
]


@pytest.mark.parametrize("able", [None, CHAT], ids=["probe", "run"])
@pytest.mark.parametrize(("status", "answer"), LEAKS)
def test_no_message_of_a_server_brings_it_out(tmp_path, capfd, caplog, status, answer, able):
    caplog.set_level(logging.DEBUG)
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(said(answer, status)))
    asked = pd.DataFrame({"prompt": ["Say it", "Again"]})
    left = ""
    try:
        table = collect(
            "m", asked, out=tmp_path / "a.csv",
            server=Server("http://api.example/v1", capabilities=able, http_client=client, limits=Limits(max_retries=1)),
        ).table()  # fmt: skip
        left += table.to_string()
    except EmergenceError as error:
        left += str(error) + "".join(traceback.format_exception(error))
    shown = capfd.readouterr()
    left += shown.out + shown.err + caplog.text
    left += "".join(path.read_text() for path in tmp_path.iterdir())
    assert not pieces(left)


def test_a_message_is_cut_after_the_key_is_out():
    assert one_line(FILLED, KEY) == FILLED.replace(KEY, "[key]")
    assert len(one_line("y" * 1000, KEY)) == 300
    assert one_line("none of it", "none") == "none of it"


class Watching(JsonHandler):
    """Looks at the process list while it is asked, and repeats the key in what it says."""

    lines: ClassVar[list[str]] = []

    def post(self, body):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.lines.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
            except OSError:
                continue
        told = self.headers["authorization"]
        text = {"choices": [{"message": {"content": f"{told} for {body['messages'][-1]['content']}"}}]}
        self.answer(text | {"choices": [{**text["choices"][0], "finish_reason": "stop"}]})


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_command_keeps_it_from_screen_folder_and_process_list(tmp_path):
    """Run in a process of its own; the folder it runs in is also where MLflow would put its store."""
    Watching.lines.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Watching)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "p.txt").write_text("One\nTwo\n")
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "collect", "m", "--prompts", "p.txt"]
    command += ["--base-url", f"http://127.0.0.1:{server.server_port}/v1", "--out", "a.parquet", "--json"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert "[key]" in done.stdout  # the server did send it
    assert any("a.parquet" in line for line in Watching.lines)  # and was looking while the command ran
    assert not pieces(done.stdout + done.stderr + "".join(Watching.lines))
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or not pieces(path.read_bytes().decode("latin-1")), path
    assert not list(tmp_path.glob("mlruns")) + list(tmp_path.glob("mlflow.db"))  # nothing is tracked, so nothing leaks
