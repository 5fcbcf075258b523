"""What a person reads on stderr while work goes on, without a terminal."""

from __future__ import annotations

import time

import pytest

from proxy.cli import console, pulse


def test_time_left_is_told_once_the_work_done_tells_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("gpt2 on animal") as report:
        for moment, done in ((100.0, 10), (101.0, 15), (120.0, 210)):  # loading took 100 s, which is no measure
            now = moment
            report(done, 1000)
    told = capsys.readouterr().err.splitlines()
    assert told == ["gpt2 on animal: 10 of 1000", "gpt2 on animal: 210 of 1000, about 79 s left"]  # 20 s for 200 steps


def test_work_that_takes_seconds_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pulse, "SILENCE_S", 0.1)
    said: list[str] = []
    with pulse.beating(said.append):
        with console.during("Loading gpt2"):
            time.sleep(0.5)
        with console.during("Loading gpt2-medium"):
            pass
        with console.progress("gpt2 on animal") as report:
            report(1, 10)
            time.sleep(0.5)
    assert capsys.readouterr().err == ""
    assert {line.rpartition(" (")[0] for line in said} == {"Loading gpt2", "gpt2 on animal: 1 of 10"}
    assert len(said) >= 4  # again and again
