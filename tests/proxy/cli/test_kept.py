"""Ctrl-C and SIGTERM: said at once what is kept and the command that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from proxy.cli import stopping
from proxy.cli.stopping import kept, this_command

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def _signal_myself(sign: signal.Signals, *again: signal.Signals) -> None:
    try:
        os.kill(os.getpid(), sign)
        time.sleep(5)
    finally:
        if again:
            _signal_myself(*again)


@pytest.fixture(autouse=True)
def nothing_announced() -> None:
    """As at the start of a command."""
    stopping._announced.clear()


def test_what_a_library_makes_of_the_stop_adds_no_words(capfd: pytest.CaptureFixture[str]) -> None:
    @stopping.stoppable
    def command() -> None:
        with kept("3 of 5 are kept."):
            try:
                _signal_myself(signal.SIGINT)
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # as Ray does, which meets it first

    with pytest.raises(typer.Exit):
        command()
    assert capfd.readouterr().err == "Stopping. 3 of 5 are kept.\n"


def test_a_signal_says_what_is_kept_at_once_and_stops(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), kept(lambda: "3 of 5 are kept."):
        _signal_myself(signal.SIGINT)
    assert capfd.readouterr().err == "Stopping. 3 of 5 are kept.\n"


def test_a_second_signal_stops_the_clearing_up_without_words(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), kept("3 of 5 are kept."):
        _signal_myself(signal.SIGINT, signal.SIGINT)
    assert capfd.readouterr().err == "Stopping. 3 of 5 are kept.\n"


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with kept("outer"):
        outer = signal.getsignal(signal.SIGINT)
        with kept("inner"):
            assert signal.getsignal(signal.SIGINT) not in (before, outer)
        assert signal.getsignal(signal.SIGINT) is outer
    assert signal.getsignal(signal.SIGINT) is before


def test_where_ctrl_c_is_ignored_it_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with kept("all"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_that_goes_on_can_be_typed_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "measure", "a b", "m2", "--results", "s3://k:S3CR3T@bucket/x"])
    assert this_command(without=["m2"]) == "emergence measure 'a b' --results 's3://***@bucket/x'"


@pytest.mark.parametrize("sign", SIGNALS)
def test_measure_keeps_the_models_it_has_finished(sign: signal.Signals, tmp_path: Path) -> None:
    """The second model is interrupted as soon as the first one's end is seen."""
    driver = """
import os
from proxy.measurement import table
real, calls = table.measure, []
def measure(*given, **options):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), int(os.environ["SIGN"]))
    return real(*given, **options)
table.measure = measure
from proxy.cli import main
main()
"""
    models = ["gpt2-30k", "gpt2-2m", "gemma-2m"]
    arguments = ["measure", *models, "--corpus", "color", "--windows", "150", "--out", "a.csv"]
    done = subprocess.run(
        [sys.executable, "-c", driver, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "SIGN": str(int(sign)), "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    rest = "emergence measure gpt2-2m gemma-2m --corpus color --windows 150 --out a.csv"
    assert f"1 of 3 models are kept in a.unfinished.csv; the others: {rest}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "gpt2-30k" in (tmp_path / "a.unfinished.csv").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["a.unfinished.csv"]
