"""Shared by all tests: no hub, no telemetry, and the command line as a function."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "200"  # tables and errors unwrapped, whatever the terminal

import pytest

# A shell starts what it puts behind `&` with SIGINT ignored, and commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, and what it wrote where."""

    code: int
    out: str
    err: str


@pytest.fixture
def emergence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `emergence ARGS...` in this process, through the same entry point as the installed command."""

    def run(*args: object) -> Outcome:
        from proxy.cli import main

        monkeypatch.setattr("sys.argv", ["emergence", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
