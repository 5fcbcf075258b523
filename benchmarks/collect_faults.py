"""How long collecting takes at a server that fails in every way, some calls without any reply.

    python benchmarks/collect_faults.py [--prompts 500] [--silent 0.04] [--seed 0]

The server answers on loopback after 50 to 300 ms. Of its calls 4 % get no reply at all, 14 % HTTP 429, 500 or 503, and
7 % a body that is no answer. Every answer that it gives must be asked for once, so it counts them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from extraction import Limits, Server, collect
from extraction.answers.collecting.endpoints import Capabilities

BROKEN = (b'{"choices": [{"mess', b'{"choices": []}', b"<html><title>oops</title></html>")


class FaultyServer:
    """An OpenAI-compatible server that fails by chance, the same for the same seed and order of calls."""

    def __init__(self, silent: float = 0.04, refused: float = 0.14, broken: float = 0.07, seed: int = 0) -> None:
        self.silent, self.refused, self.broken = silent, refused, broken
        self.dice = random.Random(seed)
        self.answered: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    async def reply(self, body: bytes) -> bytes:
        """One whole HTTP reply, after its time."""
        prompt = json.loads(body)["messages"][-1]["content"]
        chance = self.dice.random()
        if chance < self.silent:
            self.calls["silent"] += 1
            await asyncio.sleep(3600)
        await asyncio.sleep(self.dice.uniform(0.05, 0.3))
        if chance < self.silent + self.refused:
            self.calls["refused"] += 1
            return _http(self.dice.choice((429, 500, 503)), b'{"error": {"message": "not now"}}')
        if chance < self.silent + self.refused + self.broken:
            self.calls["broken"] += 1
            return _http(200, self.dice.choice(BROKEN))
        self.calls["answered"] += 1
        self.answered[prompt] += 1
        choice = {"message": {"role": "assistant", "content": f"said {prompt}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return _http(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                writer.write(await self.reply(await reader.readexactly(int(length))))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def running(server: FaultyServer) -> Iterator[str]:
    """Serve in a thread of this process; yield the base URL."""
    ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        over = asyncio.Event()
        listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        ready.put((listening.sockets[0].getsockname()[1], asyncio.get_running_loop(), over))
        await over.wait()
        listening.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, over = ready.get(timeout=10)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


def main() -> None:
    """Collect, and print the time and what the server saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--silent", type=float, default=0.04)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=Limits().concurrency)
    given = parser.parse_args()
    server = FaultyServer(given.silent, seed=given.seed)
    with running(server) as url, tempfile.TemporaryDirectory() as folder:
        prompts = pd.DataFrame({"prompt": [f"prompt {number}" for number in range(given.prompts)]})
        began, used = time.perf_counter(), time.process_time()
        done = collect(
            "m",
            prompts,
            out=Path(folder) / "a.parquet",
            server=Server(url, capabilities=Capabilities("chat"), limits=Limits(concurrency=given.concurrency)),
        )
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    twice = sum(count > 1 for count in server.answered.values())
    print(
        f"{done.rows - done.missing} of {done.rows} answers in {seconds:.0f} s ({cpu:.0f} s of CPU); "
        f"the server's calls: {dict(server.calls)}"
    )
    print(f"answers given more than once: {twice}; reasons of those missing: {dict(done.reasons)}")


if __name__ == "__main__":
    main()
