"""Real sockets: `transformers serve` through the command line, and a loopback server that misbehaves."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pandas as pd
import pytest

from estimators.base import EmergenceError, InputError
from extraction import Limits, Sampling, Server, collect, prompts, reference_models
from extraction.answers.collecting import pace
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.serving import serve
from tests.extraction.answers.collecting.played import grouped

KEY = "sk-planted-0123456789"


@pytest.fixture(scope="module")
def served():
    with serve(reference_models.path("gpt2-30k")) as url:
        yield url


def test_the_command_line_collects_from_a_real_server(served, tmp_path, emergence, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out = tmp_path / "answers.parquet"
    asked = prompts("demo").iloc[[0, 1, 2, 140, 141]]
    asked.to_csv(tmp_path / "prompts.csv", index=False)
    command = ["collect", "gpt2-30k", "--base-url", served, "--prompts", tmp_path / "prompts.csv", "--max-tokens", 12]
    command += ["--samples", 2, "--concurrency", 1, "--out", out]
    done = emergence(*command)
    assert done.code == 0, done.err
    assert "at its chat endpoint: no logprobs; seeds obeyed; one answer per call" in done.err
    assert "Warning" not in done.err
    table = pd.read_parquet(out)
    assert table["prompt_id"].tolist() == [name for name in asked["prompt_id"] for _ in range(2)]
    assert (table["completion_tokens"] <= 12).all()
    assert table["logprobs"].isna().all()  # asked for, answered with HTTP 200, and not there
    first, second = table["text"][::2].tolist(), table["text"][1::2].tolist()
    assert all(a != b for a, b in zip(first, second, strict=True))  # sampled, each with its own seed
    again = emergence(*command)
    assert again.code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), table)
    kept = {name: path.read_bytes() for name, path in ((path.name, path) for path in tmp_path.iterdir())}
    assert not any(KEY.encode() in content for content in kept.values())
    assert KEY not in done.out + done.err


def test_equal_seeds_give_equal_answers_in_a_fresh_run(served, tmp_path):
    asked = prompts("demo").head(3)
    texts = [
        collect(
            "gpt2-30k",
            asked,
            out=tmp_path / f"{name}.csv",
            **grouped(base_url=served, max_tokens=8, seed=seed, concurrency=1),
        ).table()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert texts[0]["text"].tolist() == texts[1]["text"].tolist() != texts[2]["text"].tolist()


@pytest.mark.parametrize("endpoint", ["completions", "responses"])
def test_the_other_endpoints(served, tmp_path, endpoint):
    done = collect(
        "gpt2-30k",
        prompts("demo").head(2),
        out=tmp_path / "a.csv",
        **grouped(base_url=served, endpoint=endpoint, max_tokens=8),
    )
    table = done.table()
    assert table["error"].isna().all()
    assert done.capabilities.endpoint == endpoint
    assert (table["completion_tokens"] <= 8).all()


def test_a_model_the_server_does_not_have(served, tmp_path):
    with pytest.raises(InputError, match="does not answer for the model gpt2-31k"):
        collect("gpt2-31k", prompts("demo"), server=Server(served), out=tmp_path / "a.csv")


def test_a_prompt_longer_than_the_context_is_a_failure_with_a_reason(served, tmp_path):
    asked = pd.DataFrame({"prompt_id": ["long", "short"], "prompt": ["a dog and " * 300, "a dog"]})
    options = grouped(base_url=served, max_tokens=4, max_retries=0)
    table = collect("gpt2-30k", asked, out=tmp_path / "a.csv", **options).table()
    assert table["error"].notna().tolist() == [True, False]
    assert "HTTP 500" in table["error"][0]


LLAMA = shutil.which("llama-server"), os.environ.get("EMERGENCE_TEST_GGUF")


@pytest.mark.llama_server
@pytest.mark.skipif(None in LLAMA, reason="needs llama-server on the path and EMERGENCE_TEST_GGUF naming a model file")
def test_logprobs_of_llama_server(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [LLAMA[0], "-m", LLAMA[1], "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                if urllib.request.urlopen(f"{url}/health", timeout=2).status == 200:  # noqa: S310
                    break
            except OSError:
                time.sleep(0.2)
        asked = prompts("demo").head(3)
        done = collect(
            "m",
            asked,
            out=tmp_path / "a.parquet",
            server=Server(f"{url}/v1", endpoint="completions"),
            sampling=Sampling(max_tokens=8),
        )
    finally:
        server.terminate()
        server.wait()
    assert done.capabilities.logprobs == 5
    assert done.capabilities.seed
    entries = [json.loads(text) for text in done.table()["logprobs"].dropna()]
    assert entries
    assert all(entry["logprob"] <= 0 and len(entry["top"]) == 5 for answer in entries for entry in answer)


class Misbehaving(BaseHTTPRequestHandler):
    """Answers every prompt in the end, after one fault of the kind that the prompt names."""

    seen: ClassVar[set[str]] = set()
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        good = json.dumps(
            {"choices": [{"message": {"content": f"said {prompt} \u00e9"}, "finish_reason": "stop"}]}
        ).encode()
        first = prompt not in self.seen
        self.seen.add(prompt)
        kind = prompt.split()[0] if first else "good"
        if kind == "reset":  # in the middle of the body
            self.answer(200, good, send=10)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif kind == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "garbage":
            self.answer(200, b"\xff\xfe not json")
        elif kind == "letter":  # cut within a character of two bytes
            self.answer(200, good[: good.index(b"\\u00e9")] + "\u00e9".encode()[:1])
        elif kind in ("500", "503"):
            self.answer(int(kind), b'{"error": {"message": "oops"}}')
        elif kind == "empty":
            self.answer(200, b'{"choices": []}')
        elif kind == "filter":
            self.answer(200, b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}')
        elif kind == "quota":
            self.answer(429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}')
        elif kind == "busy":
            self.answer(429, b"{}", {"retry-after": "0.2"})
        elif kind == "late":
            threading.Event().wait(1.5)
            self.answer(200, good)
        else:
            self.answer(200, good)

    def answer(self, status, body, headers=(), send=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # connections that the handler broke on purpose


def test_faults_on_a_real_wire(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "FIRST_DELAY_S", 0.01)
    Misbehaving.seen.clear()
    server = Quiet(("127.0.0.1", 0), Misbehaving)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kinds = ["good", "reset", "close", "garbage", "letter", "busy", "late", "500", "503", "empty"]
    asked = pd.DataFrame({"prompt": [f"{kind} {number}" for number in range(5) for kind in kinds]})
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        table = collect(
            "m",
            asked,
            out=tmp_path / "a.csv",
            server=Server(url, capabilities=Capabilities("chat"), limits=Limits(timeout_s=1.0)),
        ).table()
    finally:
        server.shutdown()
        server.server_close()
    assert table["error"].isna().all()
    assert table["text"].tolist() == [f"said {prompt} \u00e9" for prompt in asked["prompt"]]


def test_what_a_server_withholds_is_an_answer_and_an_empty_account_ends_the_run(tmp_path):
    Misbehaving.seen.clear()
    server = Quiet(("127.0.0.1", 0), Misbehaving)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = pd.DataFrame({"prompt": ["good 1", "filter 1", "quota 1", *(f"good {n}" for n in range(2, 50))]})
    limits = Limits(concurrency=1)
    place = Server(f"http://127.0.0.1:{server.server_port}/v1", capabilities=Capabilities("chat"), limits=limits)
    options = {"server": place}
    try:
        with pytest.raises(EmergenceError, match=r"quota is spent.*2 of 51 answers are in"):
            collect("m", asked, out=tmp_path / "a.parquet", **options)
        assert len(Misbehaving.seen) == 3  # nothing was asked after that
        table = collect("m", asked, out=tmp_path / "a.parquet", **options).table()  # the account is filled again
    finally:
        server.shutdown()
        server.server_close()
    assert table["error"].isna().all()
    assert table["finish_reason"].tolist() == ["stop", "content_filter"] + ["stop"] * 49
    assert table["text"][1] == ""


class Slow(Misbehaving):
    """Takes a moment for every answer, and counts what it is asked."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        self.asked.append(prompt)
        time.sleep(0.1)
        choice = {"message": {"content": f"said {prompt}"}, "finish_reason": "stop"}
        self.answer(200, json.dumps({"choices": [choice]}).encode())


KILLED = """
import pandas as pd
from pathlib import Path
from extraction import Limits, Server, collect
from extraction.answers.collecting.endpoints import Capabilities
prompts = pd.DataFrame({{"prompt": [f"prompt {{n}}" for n in range(60)]}})
server = Server({url!r}, capabilities=Capabilities("chat"), limits=Limits(concurrency=3))
collect("m", prompts, out=Path({out!r}), server=server)
"""


def test_a_killed_process_loses_only_what_was_in_flight(tmp_path):
    Slow.asked.clear()
    server = Quiet(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, out = f"http://127.0.0.1:{server.server_port}/v1", tmp_path / "a.parquet"
    try:
        script = KILLED.format(url=url, out=str(out))
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(Slow.asked) < 15 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        before = len(Slow.asked)
        assert 15 <= before < 60
        asked = pd.DataFrame({"prompt": [f"prompt {n}" for n in range(60)]})
        place = Server(url, capabilities=Capabilities("chat"), limits=Limits(concurrency=3))
        done = collect("m", asked, out=out, server=place)
    finally:
        server.shutdown()
        server.server_close()
    assert done.table()["text"].tolist() == [f"said prompt {n}" for n in range(60)]
    assert len(set(Slow.asked)) == 60
    assert len(Slow.asked) <= 60 + 3  # an answer on its way when the process died is asked for again


def test_a_server_is_ended_and_a_folder_without_model_refused(tmp_path):
    with pytest.raises(InputError, match="holds no model"), serve(tmp_path):
        pass


def test_unreachable_from_the_command_line(tmp_path, emergence):
    done = emergence("collect", "m", "--base-url", "http://127.0.0.1:9/v1", "--out", tmp_path / "a.parquet")
    assert done.code == 2
    assert done.err.startswith("Error: No server answers at http://127.0.0.1:9/v1")
    assert not (tmp_path / "a.parquet").exists()
