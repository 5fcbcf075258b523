"""A completions server for a model in this process: real HTTP on loopback, with the logprobs of an open model.

`transformers serve` shows no logprobs; this server plays the model behind an API in demonstrations and tests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import torch

from extraction.models.load import LanguageModel

MOST_SHOWN = 20
MOST_TOKENS = 64
LARGEST = 2**20  # bytes of a request


@contextmanager
def serve_completions(model: LanguageModel) -> Iterator[str]:
    """Serve a model's completions on a free loopback port under its own name, until the block ends.

    Yields:
        The base URL, ending in ``/v1``.

    >>> from extraction import load_model
    >>> with serve_completions(load_model("gpt2-30k", device="cpu")) as url:
    ...     url.startswith("http://127.0.0.1:")
    True
    """
    handler = type("Handler", (_Handler,), {"model": model, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body leave in two writes, and a reply would wait 40 ms for the second
    model: ClassVar[LanguageModel]
    lock: ClassVar[threading.Lock]

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": self.model.name, "object": "model"}]})
        else:
            self._refuse(404, f"no {self.path} here")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if not 0 < length <= LARGEST:
            self.close_connection = True
            self._refuse(413, f"a request has 1 to {LARGEST} bytes")
            return
        raw = self.rfile.read(length)
        if self.path != "/v1/completions":
            self._refuse(404, f"no {self.path} here; this server has completions alone")
            return
        try:
            body = json.loads(raw)
            reply = self._completions(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(400, f"the request is invalid: {error}")
            return
        self._send(200, reply)

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] != self.model.name:
            raise ValueError(f"there is {self.model.name} here, no {body['model']}")
        prompt, tokenizer = str(body["prompt"]), self.model.tokenizer
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError("the prompt is empty")
        shown = int(body.get("logprobs") or 0)
        if shown > MOST_SHOWN:
            raise ValueError(f"logprobs is at most {MOST_SHOWN}")
        asked = {"max_tokens": 16, "n": 1}
        asked |= {name: int(body[name]) for name in asked if body.get(name) is not None}
        if min(asked.values()) < 1:
            raise ValueError("max_tokens and n are at least 1")
        tokens, count, seed = min(asked["max_tokens"], MOST_TOKENS), asked["n"], body.get("seed")
        temperature = float(body["temperature"]) if body.get("temperature") is not None else 1.0
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(int(seed))
        with self.lock:  # one pass at a time: threads of one small model only wait for each other
            choices = [self._choice(ids, number, tokens, temperature, shown, generator) for number in range(count)]
        used = {"prompt_tokens": len(ids), "completion_tokens": tokens * count}
        usage = {**used, "total_tokens": sum(used.values())}
        return {
            "id": "cmpl", "object": "text_completion", "created": 0, "model": self.model.name, "choices": choices,
            "usage": usage,
        }  # fmt: skip

    @torch.inference_mode()
    def _choice(
        self, ids: list[int], number: int, tokens: int, temperature: float, shown: int, generator: torch.Generator
    ) -> dict[str, Any]:
        sampled: list[int] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        for _ in range(tokens):
            sequence = torch.tensor([ids + sampled], device=self.model.device)
            output = self.model.model(input_ids=sequence, logits_to_keep=1, use_cache=False)
            logits = output.logits[0, -1, : self.model.vocabulary].double().cpu()
            log_p = torch.log_softmax(logits, -1)
            if temperature > 0:
                token = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
            else:
                token = int(log_p.argmax())
            sampled.append(token)
            values.append(float(log_p[token]))
            best, places = log_p.topk(max(shown, 1))
            tops.append({self._text([int(one)]): float(value) for one, value in zip(places, best, strict=True)})
        logprobs = {
            "tokens": [self._text([token]) for token in sampled],
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": [0] * len(sampled),
        }
        text = self._text(sampled)
        return {"text": text, "index": number, "finish_reason": "length", "logprobs": logprobs if shown else None}

    def _text(self, ids: list[int]) -> str:
        decoded: str = self.model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return decoded

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for results."""
