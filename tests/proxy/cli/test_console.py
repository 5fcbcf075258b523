"""What a person reads on stderr while work goes on, without a terminal."""

from __future__ import annotations

import importlib
import io
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

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


def test_work_that_nobody_counts_is_told_as_a_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.time, "monotonic", lambda: 100.0)
    with console.progress("gpt2 on animal", counted=False) as report:
        monkeypatch.setattr(console.time, "monotonic", lambda: 200.0)
        report(6348, 31525)
    assert capsys.readouterr().err == "gpt2 on animal: 20%\n"


def test_on_a_narrow_screen_no_number_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {f"the_name_of_{one}": [0.123, -1234.5] for one in "abcdefgh"}
    frame = pd.DataFrame({"model": ["gpt2-30k", "a-name-of-over-fourteen-characters"], "how": "estimated"} | columns)
    page = io.StringIO()
    console.show(frame, to=Console(file=page, width=80, force_terminal=True, color_system=None), spare=["how"])
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("gpt2-30k" in line and "0.123" in line for line in lines)
    assert page.getvalue().count("-1234.500") == page.getvalue().count("0.123") >= 5
    assert "how" not in page.getvalue()
    assert capsys.readouterr().err.startswith("Left out on so narrow a screen: how, ")
    file = io.StringIO()
    wide = pd.concat([frame.add_prefix(f"{i}_") for i in range(5)], axis=1)
    console.show(wide, to=Console(file=file))
    assert file.getvalue().count("-1234.500") == 40  # a file has room for all


def test_loading_libraries_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pulse, "SILENCE_S", 0.1)
    (tmp_path / "a_slow_library.py").write_text("import time; time.sleep(0.5)")
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    with pulse.beating(said.append):
        importlib.import_module("a_slow_library")
        time.sleep(0.3)
    told = [line.rpartition(" (")[0] for line in said]
    assert (told[0], told[-1]) == ("Loading libraries", "Working")


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
