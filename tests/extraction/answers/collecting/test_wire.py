"""A real server on loopback that drips, floods and packs: one reply has one deadline and one size; and odd URLs."""

import gzip
import json
import threading
import time
import tracemalloc
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pandas as pd
import pytest

from estimators.base import InputError
from extraction import Limits, Server, collect
from extraction.answers.collecting.api import api_key, check_base_url
from extraction.answers.collecting.endpoints import Capabilities
from tests.extraction.answers.collecting.played import KEY, reply

pytestmark = pytest.mark.usefixtures("quick")

GOOD = json.dumps(reply("said")).encode()
DRIPS, DRIP_S = 600, 0.05


class Odd(BaseHTTPRequestHandler):
    """Answers well at the paths it knows, and oddly where the prompt says so."""

    protocol_version = "HTTP/1.1"
    paths: ClassVar[list[str]] = []
    dripped: ClassVar[int] = 0
    root: ClassVar[str] = "/v1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.paths.append(self.path)
        if not self.path.startswith(f"{self.root}/chat/completions"):
            self.send(404, b"<html><title>404 Not Found</title></html>")
            return
        kind = body["messages"][-1]["content"].split()[0]
        getattr(self, f"play_{kind}", lambda: self.send(200, GOOD))()

    def send(self, status, content, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def play_drip(self):
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        for _ in range(DRIPS):  # each read is quick, the reply is not
            self.wfile.write(b" ")
            self.wfile.flush()
            Odd.dripped += 1
            time.sleep(DRIP_S)

    def play_flood(self, status=200):
        self.send_response(status)
        self.send_header("content-length", str(200_000_000))
        self.end_headers()
        self.wfile.write(b'{"choices": [{"message": {"content": "')
        for _ in range(200):
            self.wfile.write(b"x" * 1_000_000)

    def play_refusing(self):
        self.play_flood(400)

    def play_bomb(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        packed = b"".join(packer.compress(b" " * 1_000_000) for _ in range(300)) + packer.flush()
        self.send(200, packed, content_encoding="gzip")

    def play_packed(self):
        self.send(200, gzip.compress(GOOD), content_encoding="gzip")

    def play_deflated(self):
        self.send(200, zlib.compress(GOOD), content_encoding="deflate")

    def play_raw(self):
        packer = zlib.compressobj(wbits=-15)
        self.send(200, packer.compress(GOOD) + packer.flush(), content_encoding="deflate")

    def play_identity(self):
        self.send(200, GOOD, content_encoding="identity")

    def play_brotli(self):
        self.send(200, b"\x1b\x00", content_encoding="br")

    def play_twice(self):
        self.send(200, gzip.compress(gzip.compress(GOOD)), content_encoding="gzip, gzip")

    def play_lie(self):
        self.send(200, GOOD, content_encoding="gzip")

    def log_message(self, *_):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # connections that the client broke off


@pytest.fixture
def server():
    Odd.paths.clear()
    Odd.dripped = 0
    Odd.root = "/v1"
    made = Quiet(("127.0.0.1", 0), Odd)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def ask(url, out, *kinds, **limits):
    place = Server(url, capabilities=Capabilities("chat"), limits=Limits(**{"max_retries": 0} | limits))
    asked = pd.DataFrame({"prompt": [f"{kind} {number}" for number, kind in enumerate(kinds)]})
    return collect("m", asked, out=out, server=place).table()


def test_a_dripping_reply_ends_at_the_time_limit(server, tmp_path):
    ask(f"{server}/v1", tmp_path / "first.csv", "good")  # imports and first connection belong to no time limit
    began = time.monotonic()
    table = ask(f"{server}/v1", tmp_path / "a.csv", "drip", timeout_s=3.0)
    took_s = time.monotonic() - began
    assert table["error"].tolist() == ["no whole reply within 3 s"]
    # A limit for each read alone would wait for all 600 bytes, which takes 30 s and more however slow the machine is.
    assert Odd.dripped > 1
    assert took_s < DRIPS * DRIP_S / 2


@pytest.mark.parametrize("kind", ["flood", "bomb", "refusing"])
def test_a_reply_has_a_size_limit_before_and_after_it_is_unpacked(server, tmp_path, kind):
    tracemalloc.start()
    try:
        table = ask(f"{server}/v1", tmp_path / "a.csv", kind, "good")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer than 2,256,000 bytes" in table["error"][0]  # 2 MB and 4 kB for each of 64 tokens
    assert table["text"][1] == "said"
    # A few MB are kept of a reply and unpacked at a time, beside the server's own pieces of 1 MB; 200 MB were sent.
    assert peak < 40e6
    assert (tmp_path / "a.log.jsonl").stat().st_size < 10_000


def test_packed_replies_are_read(server, tmp_path):
    table = ask(f"{server}/v1", tmp_path / "a.csv", "packed", "deflated", "raw", "identity", "good")
    assert table["text"].tolist() == ["said"] * 5


def test_replies_packed_otherwise_are_faults_with_a_reason(server, tmp_path):
    table = ask(f"{server}/v1", tmp_path / "a.csv", "brotli", "twice", "lie")
    assert "packed as br, which was not requested" in table["error"][0]
    assert "packed as gzip, gzip" in table["error"][1]
    assert "not in the encoding that it names" in table["error"][2]


@pytest.mark.parametrize(
    ("base", "root", "path"),
    [
        ("/v1", "/v1", "/v1/chat/completions"),
        ("/v1/", "/v1", "/v1/chat/completions"),
        ("", "/v1", "/v1/chat/completions"),
        ("/", "/v1", "/v1/chat/completions"),
        ("/v1", "", "/chat/completions"),
        ("/openai/v1/?api-version=preview", "/openai/v1", "/openai/v1/chat/completions?api-version=preview"),
        ("/openai?api-version=preview&x=1", "/openai/v1", "/openai/v1/chat/completions?api-version=preview&x=1"),
        ("/v1/chat/completions", "/v1", "/v1/chat/completions"),
        ("/v1?empty=", "/v1", "/v1/chat/completions?empty="),
    ],
)
def test_urls_with_and_without_v1_slash_and_query(server, tmp_path, base, root, path):
    Odd.root = root
    asked = pd.DataFrame({"prompt": ["good 1", "good 2"]})
    for _ in range(2):  # the second time from what the log says
        done = collect("m", asked, out=tmp_path / "a.csv", server=Server(server + base, endpoint="chat"))
        assert done.table()["text"].tolist() == ["said"] * 2
    assert Odd.paths[-1] == path
    calls = len(Odd.paths)
    asked = pd.DataFrame({"prompt": ["good 3"]})
    collect("m", asked, out=tmp_path / "a.csv", server=Server(server + base, endpoint="chat"))
    assert Odd.paths[calls:] == [path]


def test_a_wrong_path_is_told_with_the_page_s_title_and_no_query_value(server, tmp_path, emergence):
    (tmp_path / "p.txt").write_text("One\n")
    url = f"{server}/nowhere?subscription-key=SECRET-0123456789"
    done = emergence("collect", "m", "--base-url", url, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "a.csv")
    assert done.code == 2
    assert "HTTP 404: 404 Not Found" in done.err
    assert f"{server}/nowhere?subscription-key=***" in done.err
    assert "SECRET" not in done.err + "".join(path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host/v1",
        "http://",
        "http://[::1/v1",
        "http://host:99999/v1",
        "http://h\x1b[2J/v1",
        "http://a b/v1",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InputError, match="A base URL looks like"):
        check_base_url(url)


@pytest.mark.parametrize("url", ["", " "])
def test_an_empty_url_is_not_taken_for_openai_s(url, tmp_path, emergence, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(InputError, match="The base URL is empty"):
        check_base_url(url)
    done = emergence("collect", "m", "--base-url", url, "--prompts", "demo", "--out", tmp_path / "a.csv", "--dry-run")
    assert done.code == 2
    assert "The base URL is empty" in done.err


@pytest.mark.parametrize("key", [f"{KEY}\u201d", "\u201cabc", "sk with space", "sk-\x07bell"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch, key, tmp_path, emergence):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY holds a space or a character that no key has") as caught:
        api_key("http://127.0.0.1:9/v1", "OPENAI_API_KEY")
    assert key not in str(caught.value)
    done = emergence("collect", "m", "--base-url", "http://127.0.0.1:9/v1", "--out", tmp_path / "a.csv")
    assert done.code == 2
    assert "no key has" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["gopher", "socks5", "htp"])
def test_a_proxy_that_cannot_be_used_is_one_sentence_without_its_password(tmp_path, emergence, monkeypatch, scheme):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"{scheme}://me:SeCrEtPw9876@127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    (tmp_path / "p.txt").write_text("One\n")
    place = ("--base-url", "https://api.example.invalid/v1")
    done = emergence("collect", "m", *place, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "a.csv")
    assert done.code == 2
    assert "The proxy that HTTPS_PROXY" in done.err
    assert "SeCrEt" not in done.err
