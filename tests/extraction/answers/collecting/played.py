"""A played server for the real client: prompts to ask, replies to give, and a run against them."""

import json
from dataclasses import fields
from pathlib import Path

import httpx2
import pandas as pd

from extraction import Limits, Sampling, Server, collect
from extraction.answers.collecting.endpoints import Capabilities

URL = "http://api.example/v1"
CHAT = Capabilities("chat", seed=True)
KEY = "sk-planted-0123456789"


def some_prompts(count: int) -> pd.DataFrame:
    return pd.DataFrame({"prompt_id": [f"p{i}" for i in range(count)], "prompt": [f"Say {i}" for i in range(count)]})


def reply(text: str, **usage: object) -> dict:
    message = {"role": "assistant", "content": text}
    counts = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} | usage
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": counts}


def good(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json=reply("said " + prompt_of(request)))


def prompt_of(request: httpx2.Request) -> str:
    return json.loads(request.content)["messages"][-1]["content"]


def grouped(http_client: httpx2.AsyncClient | None = None, **options) -> dict:
    """Arguments of `collect`, each option in the group it belongs to."""
    options["http_client"] = http_client
    for name, group in {"limits": Limits, "sampling": Sampling, "server": Server}.items():
        own = {field.name: options.pop(field.name) for field in fields(group) if field.name in options}
        options[name] = group(**own)
    return options


def ask(out: Path, handler, count: int = 3, **options):
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    options = {"base_url": URL, "capabilities": CHAT, "concurrency": 4} | options
    return collect("m", some_prompts(count), out=out, **grouped(client, **options)).table()
