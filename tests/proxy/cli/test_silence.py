"""The main commands on work that takes a minute: never silent for over five seconds, and Ctrl-C is answered at once."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

SILENT = 5.0  # seconds, at most
DRIVER = """
import importlib, os, sys, time
module, name = os.environ["SLOW"].split(":")
setattr(importlib.import_module(module), name, lambda *_, **__: time.sleep(60))
from proxy.cli import main
main()
"""
CASES = {  # arguments, and the function that takes a minute instead of doing its work
    "load": (["measure", "gpt2-30k", "--corpus", "animal"], "extraction:load_model"),
    "measure": (["measure", "gpt2-30k", "--corpus", "animal", "--windows", "120"], "proxy.measurement.table:measure"),
    "sweep": (["sweep", "demo"], "proxy.sweeps.run:sweep"),
    "collect": (["collect", "m", "--out", "a.parquet"], "extraction.answers.collecting.run:collect"),
    "features": (["features", "table.parquet"], "extraction.answers.responses:read_responses"),
    "fit": (["fit", "table.parquet", "--target", "y", "--out", "p"], "proxy.regression.proxy:fit_proxy"),
    "estimate": (["estimate", "proxy", "table.parquet"], "proxy.regression.load:load_proxy"),
    "report": (["report", "results"], "tracking.reports.page:report"),
    "track": (["track", "results"], "tracking:track"),
}


def words(process: subprocess.Popen[bytes], until: float) -> Iterator[tuple[float, bytes]]:
    """What a process writes, each time with how long nothing had come, until it ends or a moment is past."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        last = time.monotonic()
        while time.monotonic() < until:
            ready = selector.select(timeout=0.1)
            text = os.read(process.stdout.fileno(), 65536) if ready else b""
            if ready and not text:
                return
            if text:
                yield time.monotonic() - last, text
                last = time.monotonic()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES)
def test_no_command_is_silent_and_a_stop_is_answered_at_once(case: str, tmp_path: Path) -> None:
    arguments, slow = CASES[case]
    pd.DataFrame({"model": ["a"], "y": [1.0], "layer": [0], "ie_bits": [1.0]}).to_parquet(tmp_path / "table.parquet")
    (tmp_path / "results").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "SLOW": slow, "PYTHONPATH": str(Path(__file__).parents[3]), "OPENAI_API_KEY": "sk-1"},
    )  # fmt: skip
    try:
        gaps, heard = [], b""
        for gap, text in words(process, time.monotonic() + 60):
            gaps.append(gap)
            heard += text
            if heard.count(b" s so far)") >= 2:  # said twice that it goes on
                break
        assert process.poll() is None, heard
        assert heard.count(b" s so far)") >= 2, heard
        # The first word may wait for Python to import; after it, a busy machine may be a second late.
        assert max(gaps[1:]) < SILENT + 1, (gaps, heard)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        gap, text = next(words(process, sent + 10))
        assert gap < 1, text
        assert text.startswith(b"Stopping"), text
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
