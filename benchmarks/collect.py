"""How fast, how large and how long: collecting answers beside a bare loop, its memory, and features of 805 answers.

    python benchmarks/collect.py [--calls 3000] [--rounds 3] [--prompts 100000] [--answers DIR]

The server answers on loopback after 100 ms, from a process of its own. The bare loop is `asyncio` over the same OpenAI
client with a semaphore: no log, no retries, no budget. Both are measured in turn in this process, at 64 calls at once.
`DIR` holds AlpacaEval's answers (outputs.parquet); with it, features of one model's answers are timed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai
import pandas as pd

from extraction import Limits, Server, collect
from extraction.answers.collecting.endpoints import Capabilities
from extraction.tables import RESPONSES

CONCURRENCY = 64
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 40}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52},
}


async def serve(latency: float) -> None:
    """Answer every POST with the same completion after `latency` seconds; print the port."""
    body = json.dumps(REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = asked.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(latency)
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def bare(url: str, texts: list[str]) -> None:
    """Ask for every answer and throw it away."""
    gate = asyncio.Semaphore(CONCURRENCY)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(text: str) -> None:
            async with gate:
                message = {"role": "user", "content": text}
                await client.chat.completions.create(model="m", messages=[message], max_tokens=64, temperature=1.0)

        await asyncio.gather(*(one(text) for text in texts))


def ours(url: str, texts: list[str], folder: Path) -> None:
    """Ask for every answer and keep it."""
    prompts = pd.DataFrame({"prompt": texts})
    server = Server(url, capabilities=Capabilities("chat"), limits=Limits(concurrency=CONCURRENCY))
    out = folder / f"{time.monotonic_ns()}.parquet"
    collect("m", prompts, out=out, server=server)


def throughput(url: str, calls: int, rounds: int, folder: Path) -> None:
    """Calls per second of both, in turn, and their ratio."""
    rates: dict[str, list[float]] = {"bare": [], "collect": []}
    for number in range(rounds):
        texts = [f"round {number}, prompt {place}" for place in range(calls)]
        started = time.perf_counter()
        asyncio.run(bare(url, texts))
        middle = time.perf_counter()
        ours(url, texts, folder)
        rates["bare"].append(calls / (middle - started))
        rates["collect"].append(calls / (time.perf_counter() - middle))
    ratios = [mine / theirs for mine, theirs in zip(rates["collect"], rates["bare"], strict=True)]
    print(f"throughput at {CONCURRENCY} calls at once, {calls} calls, {rounds} rounds, calls/s:")
    print(f"  bare loop {statistics.median(rates['bare']):.0f}, collect {statistics.median(rates['collect']):.0f}")
    print(f"  ratio {statistics.median(ratios):.2f} (each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def memory(url: str, prompts: int, folder: Path) -> None:
    """Peak resident memory of the whole command, the table included, for 1,000 and for all prompts."""
    peaks = {}
    for count in (1000, prompts):
        (folder / "prompts.txt").write_text("".join(f"prompt {place}\n" for place in range(count)))
        out = folder / f"memory-{count}.parquet"
        script = "import resource; from proxy.cli import main\ntry: main()\nfinally: "
        script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", script, "collect", "m", "--base-url", url, "--out", str(out)]
        command += ["--prompts", str(folder / "prompts.txt"), "--concurrency", str(CONCURRENCY)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.split()[-1]) / 1e3
    peaks_said = ", ".join(f"{peak:.0f} for {count:,} prompts" for count, peak in peaks.items())
    print(f"peak memory of emergence collect, table included, MB: {peaks_said}")


def features_of_805(folder: Path) -> None:
    """Seconds for the features of one model's answers by one reader of two million parameters."""
    from extraction import load_model
    from proxy.features.table import compute_features

    outputs = pd.read_parquet(folder / "outputs.parquet")
    name = outputs["model"].iloc[0]
    answers = RESPONSES.conform(outputs[outputs["model"] == name].rename(columns={"output": "text"}))
    reader = load_model("gpt2-2m")
    started, used = time.perf_counter(), time.process_time()
    compute_features(answers, [reader])
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    print(f"features of {len(answers)} answers by {reader.name}: {seconds:.1f} s ({cpu:.1f} s of CPU)")


def main() -> None:
    """Run all parts and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    for part, latency in ((throughput, 0.1), (memory, 0.0)):
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(latency)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None  # noqa: S101
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        try:
            with tempfile.TemporaryDirectory() as scratch:
                if part is throughput:
                    throughput(url, given.calls, given.rounds, Path(scratch))
                else:
                    memory(url, given.prompts, Path(scratch))
        finally:
            server.terminate()
            server.wait()
    if given.answers:
        features_of_805(given.answers)


if __name__ == "__main__":
    main()
