"""What a person reads on stderr while work goes on, without a terminal."""

from __future__ import annotations

import time

import pytest

from proxy.cli import console


def test_time_left_is_told_once_the_work_done_tells_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 100.0, 101.0, 120.0])  # loading took 100 s, which says nothing of the steps
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress("gpt2 on animal") as report:
        report(10, 1000)
        report(15, 1000)
        report(210, 1000)
    told = capsys.readouterr().err.splitlines()
    assert told == ["gpt2 on animal: 10 of 1000", "gpt2 on animal: 210 of 1000, about 79 s left"]  # 20 s for 200 steps


def test_work_that_takes_seconds_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "PATIENCE_S", 0.05)
    with console.during("Loading gpt2"):
        time.sleep(0.5)
    with console.during("Loading gpt2-medium"):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().err.splitlines() == ["Loading gpt2 ..."]
