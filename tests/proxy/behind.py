"""An open model behind a played server with faults of real ones: at the transport, or on a real socket with batches."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import numpy as np
import torch


class Behind:
    """An open model behind a server: its true probabilities, as one with `faults` would show them.

    Faults, each by name: ``chat`` (a chat alone, or ``both``), ``stream``, ``context`` (tokens that it takes),
    ``own_temperature``, ``reasoning``, ``scores`` (field by which it scores text), ``bare`` (and shows nothing beside),
    ``most`` (logprobs that it shows), ``cap`` (above which it refuses), ``renormalise``, ``scale``, ``bos`` (tokens
    that it adds), ``long`` (a sentence for one token), ``trim`` (leading spaces), ``greedy``, ``echo``, ``filter``
    (all), ``filter_some`` (one long text in so many), ``filter_shuffled`` (what
    is asked after the text), ``no_n``, ``most_n`` (answers that it takes in a call), ``few_n`` (that it gives),
    ``no_batches``.
    """

    def __init__(self, model, **faults):
        self.model, self.faults = model, faults
        self.rng = np.random.default_rng(0)
        self.long = set()
        self.asked = []  # bodies of the requests
        self.seen = set()  # bodies of all requests, those that were refused, too; one asked for again once

    def __call__(self, request):
        body = json.loads(request.content)
        chat, faults = "messages" in body, self.faults
        self.seen.add(request.content)
        if chat != bool(faults.get("chat")) and not faults.get("both"):
            return httpx2.Response(404, json={"error": {"message": "no"}})
        self.asked.append(body)
        if faults.get("stream"):
            return httpx2.Response(200, text="data: {}\n\ndata: [DONE]\n\n")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        ids = self.model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(ids) > faults.get("context", 10**6):
            return httpx2.Response(400, json={"error": {"message": "the context is too short for this"}})
        if body.get("n", 1) > (1 if faults.get("no_n") else faults.get("most_n", 99)):
            return httpx2.Response(400, json={"error": {"message": "n must be 1", "param": "n"}})
        if max(int(body.get("logprobs") or 0), int(body.get("top_logprobs") or 0)) > faults.get("cap", 99):
            name = "top_logprobs" if chat else "logprobs"
            wrong = {"message": f"{name} must be at most {faults['cap']}", "param": name}
            return httpx2.Response(400, json={"error": wrong})
        if "temperature" in body and faults.get("own_temperature"):
            wrong = {"message": "temperature cannot be set", "param": "temperature"}
            return httpx2.Response(400, json={"error": wrong})
        if chat and faults.get("reasoning"):
            thought = {"finish_reason": "length", "message": {"content": "", "reasoning_content": "Let us"}}
            return httpx2.Response(200, json={"choices": [thought] * body.get("n", 1)})
        with torch.no_grad():
            logits = self.model.model(torch.tensor([ids])).logits[0].double()
        p = torch.softmax(logits[-1], -1)
        if faults.get("scores") and body.get(faults["scores"]) is not None:
            return self.scored(ids, logits, p, body["logprobs"])
        asked = (body.get("top_logprobs") if chat else body.get("logprobs")) or 0
        shown = torch.topk(p, min(asked, faults.get("most", 20))).indices.tolist() if asked else []
        q = p / p[shown].sum() if faults.get("renormalise") else p * faults.get("scale", 1.0)
        top = [{"token": self.text(one), "logprob": min(0.0, math.log(float(q[one])))} for one in shown]
        given = min(body.get("n", 1), faults.get("few_n", 99))
        choices = [self.choice(number, prompt, p, top, chat) for number in range(given)]
        usage = {"prompt_tokens": len(ids) + faults.get("bos", 0), "completion_tokens": len(choices)}
        if faults.get("long"):
            usage["completion_tokens"] = 3
        return httpx2.Response(200, json={"choices": choices, "usage": usage | {"total_tokens": 9999}})

    def scored(self, ids, logits, p, asked):
        """Legacy logprobs of the prompt's tokens and of one more, or vLLM's `prompt_logprobs`: the text's own first."""
        ids, logs = [*ids, int(p.argmax())], torch.log_softmax(logits, -1)
        texts = [self.text(one) for one in ids]
        count = 0 if self.faults.get("bare") else min(asked, 20)
        likely = [list(dict.fromkeys([ids[i + 1], *logs[i].topk(count).indices.tolist()])) for i in range(len(logs))]
        choice = {"index": 0, "text": texts[-1], "finish_reason": "length"}
        if self.faults["scores"] == "echo":
            scores = logs[range(len(ids) - 1), ids[1:]].tolist()
            tops = [{self.text(one): float(logs[i, one]) for one in row} for i, row in enumerate(likely)]
            logprobs = {"tokens": texts, "token_logprobs": [None, *scores]}
            choice |= {
                "text": "".join(texts),
                "logprobs": logprobs | {"top_logprobs": [None, *tops] if count else None},
            }
        places = [
            {str(one): {"logprob": float(logs[i, one]), "decoded_token": self.text(one)} for one in row}
            for i, row in enumerate(likely[:-1])
        ]
        choice["prompt_logprobs"] = [None, *places]  # vLLM gives both
        if self.faults["scores"] != "echo":
            last = {"tokens": texts[-1:], "token_logprobs": [float(logs[-1, ids[-1]])], "top_logprobs": None}
            choice["logprobs"] = last
        usage = {"prompt_tokens": len(ids) - 1, "completion_tokens": 1, "total_tokens": len(ids)}
        return httpx2.Response(200, json={"choices": [choice], "usage": usage})

    def text(self, token):
        return self.model.tokenizer.decode([token]).removeprefix(" " if self.faults.get("trim") else "")

    def choice(self, number, prompt, p, top, chat):
        faults = self.faults
        greedy = faults.get("greedy")
        token = int(p.argmax()) if greedy else int(self.rng.choice(len(p), p=p.numpy() / p.numpy().sum()))
        said = self.text(token) + (" and a whole sentence." if faults.get("long") else "")
        said = (prompt if faults.get("echo") else "") + said
        some = faults.get("filter_some", 0)
        if faults.get("filter_shuffled"):  # windows of the text, two questions, and no more
            self.long |= {prompt} if len(prompt) > 12 else set()
            some = 1 if len(self.long) > 27 else 0
        held_back = faults.get("filter") or (some and len(prompt) > 12 and sum(prompt.encode()) % some == 0)
        end = "content_filter" if held_back else "length"
        entry = {"token": self.text(token), "logprob": math.log(float(p[token])), "top_logprobs": top}
        reply = {"index": number, "finish_reason": end, "logprobs": {"content": [entry]} if top else None}
        if not chat:
            return reply | {"text": said}
        return reply | {"message": {"role": "assistant", "content": said}}


class Batches:
    """The Batch API in front of a server: what is submitted is answered once `finished` is set."""

    def __init__(self, behind):
        self.behind, self.files, self.made = behind, {}, {}
        self.finished = threading.Event()
        self.hold = threading.Event()  # while it is set, a batch that was made is not told of
        self.hold_content = threading.Event()  # while it is set, the second half of a batch's answers is not sent
        self.fetched = 0  # times that answers were asked for

    def __call__(self, method, path, body):
        """Status and content of the reply."""
        place = path.removeprefix("/v1").partition("?")[0].strip("/").split("/")
        if place[0] in ("files", "batches") and self.behind.faults.get("no_batches"):
            return 404, b'{"error": {"message": "no such path"}}'
        if place == ["files"]:
            name = f"file-{len(self.files)}"
            self.files[name] = body[body.index(b'{"custom_id"') :].split(b"\r\n--")[0]
            return 200, json.dumps({"id": name, "object": "file"}).encode()
        if place == ["batches"] and method == "POST":
            made = json.loads(body)
            name = f"batch-{len(self.made)}"
            self.made[name] = {"id": name, "status": "in_progress", **made}
            _wait_while(self.hold)
            return 200, json.dumps(self.made[name]).encode()
        if place == ["batches"]:
            return 200, json.dumps({"data": [*reversed(self.made.values())], "has_more": False}).encode()
        if place[0] == "batches":
            batch = dict(self.made[place[1]])
            if self.finished.is_set():
                batch |= {"status": "completed", "output_file_id": f"out-{batch['input_file_id']}"}
            return 200, json.dumps(batch).encode()
        if place[0] == "files":
            return 200, b"\n".join(map(self._answered, self.files[place[1].removeprefix("out-")].splitlines()))
        reply = self.behind(httpx2.Request("POST", "http://x/v1", content=body))
        return reply.status_code, reply.content

    def _answered(self, line):
        call = json.loads(line)
        reply = self.behind(httpx2.Request("POST", "http://x/v1", content=json.dumps(call["body"]).encode()))
        response = {"status_code": reply.status_code, "body": reply.json()}
        return json.dumps({"custom_id": call["custom_id"], "response": response}).encode()


def _wait_while(held):
    while held.is_set():
        time.sleep(0.02)


@contextmanager
def on_a_socket(server: Batches) -> Iterator[str]:
    """Serve on loopback; yields the base URL."""
    lock = threading.Lock()  # one call at a time, so that draws do not depend on the threads

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.reply("POST", self.rfile.read(int(self.headers.get("content-length") or 0)))

        def do_GET(self):
            self.reply("GET", b"")

        def reply(self, method, body):
            if "/batches" in self.path:
                status, content = server(method, self.path, body)
            else:
                with lock:
                    status, content = server(method, self.path, body)
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                middle = len(content) // 2 if self.path.endswith("/content") else 0
                self.wfile.write(content[:middle])
                self.wfile.flush()
                if middle:
                    server.fetched += 1
                    _wait_while(server.hold_content)
                self.wfile.write(content[middle:])
            except OSError:
                self.close_connection = True  # whoever asked was killed

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/v1"
    finally:
        server.hold.clear()
        server.hold_content.clear()
        made.shutdown()
        made.server_close()
