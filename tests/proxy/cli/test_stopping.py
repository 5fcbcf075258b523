"""Ctrl-C and SIGTERM in a process of its own: said at once, with what is kept and the command that goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer

import pytest

from tests.handlers import JsonHandler


class Answering(JsonHandler):
    """Answers three prompts, then holds every other for a minute."""

    def post(self, body):
        with self.server.lock:
            self.server.asked += 1
            silent = self.server.asked > self.server.answers
        if silent:
            self.server.over.wait(60)
            return
        self.answer({"choices": [{"message": {"content": "said"}, "finish_reason": "stop"}]})


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    made.daemon_threads, made.lock, made.asked, made.over = True, threading.Lock(), 0, threading.Event()
    made.answers = 12  # of which the questions that find out what the server can do take some
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_collect_says_what_is_kept_and_how_to_go_on(server, tmp_path, how):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    arguments = ["collect", "m", "--prompts", "questions", "--base-url", url, "--out", "a.parquet"]
    command = [sys.executable, "-c", "from proxy.cli import main; main()", *arguments, "--concurrency", "2"]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-planted-0123456789"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while server.asked <= server.answers and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    sent = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert process.returncode == 130, said
    kept = (tmp_path / "a.log.jsonl").read_text().count('"text": ')
    assert kept >= 1
    assert f"Interrupted. {kept} of 60 answers are kept in a.log.jsonl." in said
    assert said.rstrip().endswith(f"To continue: emergence {' '.join(arguments)} --concurrency 2")
    assert "Traceback" not in said
