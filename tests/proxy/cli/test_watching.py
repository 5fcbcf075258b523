"""What a person sees of a sweep, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from proxy.cli import watching
from proxy.cli.watching import Watch, duration
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.slots import Event


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return make_jobs(parse_config({"name": "t", "models": ["gpt2-30k"], "corpora": ["animal", "color", "country"]}))


def shown(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    monkeypatch.setattr(watching, "screen", screen)
    with Watch("sweep-name") as watch:
        watch.dashboard("127.0.0.1:8265")
        watch.progress(1, 4)
        for job in jobs:
            watch.event(Event("start", job))
        watch.event(Event("steps", jobs[0], steps=(3, 40)))
        if watch._bars is not None:
            watch._bars.refresh()
        watch.event(Event("done", jobs[0], seconds=12.3))
        watch.progress(2, 4)
        watch.event(Event("retry", jobs[1], "worker died"))
        watch.event(Event("fail", jobs[2], "no such thing", 1.0))
        watch.progress(3, 4)
        watch.event(Event("elsewhere", jobs[1]))
        watch.event(Event("waiting", jobs[2], "no node has room"))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_matters_is_said_everywhere(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    text = shown(jobs, monkeypatch, terminal=terminal)
    assert "Ray dashboard: http://127.0.0.1:8265" in text
    assert "1 of 4 jobs are done already" in text
    assert "Again: gpt2-30k on color: worker died" in text
    assert f"Failed: gpt2-30k on country ({jobs[2].key}): no such thing" in text
    assert "Another driver works on gpt2-30k on color" in text
    assert "Waiting: gpt2-30k on country: no node has room" in text


def test_jobs_longer_than_half_a_minute_leave_a_time(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "screen", Console(file=io.StringIO(), force_terminal=True, width=120))
    with Watch("sweep-name") as watch:
        assert watch._bars is not None
        now = [0.0]
        monkeypatch.setattr(watch._bars, "get_time", lambda: now[0])
        for done in range(4):
            watch.progress(done, 10)
            now[0] += 40.0
        left = watch._bars.tasks[0].time_remaining
    assert left is not None
    assert 200 <= left <= 320  # 7 jobs of 40 s


def test_a_terminal_shows_bars_and_a_log_shows_lines(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(jobs, monkeypatch, terminal=True)
    assert "3/40" in terminal
    assert "1 failed" in terminal
    log = shown(jobs, monkeypatch, terminal=False)
    assert "2/4 gpt2-30k on animal: 12.3 s" in log
    assert "\x1b" not in log


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_a_time_span_is_in_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
