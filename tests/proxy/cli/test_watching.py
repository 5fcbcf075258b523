"""What a person sees of a sweep without a terminal."""

import time

import pytest

from proxy.cli import pulse, watching
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import make_jobs
from proxy.sweeps.slots import Event


def test_a_sweep_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulse, "SILENCE_S", 0.05)
    monkeypatch.setattr(watching.screen, "print", lambda line, **_: said.append(line))
    (job,) = make_jobs(parse_config({"name": "t", "models": ["gpt2-30k"], "corpora": ["animal"]}))
    with pulse.beating(said.append), watching.Watch("t") as watch:
        assert said == ["t: looking up models and corpora, then starting workers"]
        for event, expected in (
            (None, "starting workers"),
            (Event("start", job), "gpt2-30k on animal: loading"),
            (Event("steps", job, steps=(30, 120)), "gpt2-30k on animal: 25%"),
        ):
            if event is not None:
                watch.event(event)
            before, until = len(said), time.monotonic() + 10
            while not any(expected in line for line in said[before:]):
                assert time.monotonic() < until, said
                time.sleep(0.01)
    count = len(said)
    time.sleep(0.3)
    assert len(said) <= count + 1  # over, and quiet


def test_the_time_left_counts_from_the_first_job_and_the_shares_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    jobs = make_jobs(parse_config({"name": "t", "models": ["gpt2-30k"], "corpora": ["animal", "color", "country"]}))
    watch = watching.Watch("t")
    watch.progress(0, 3)
    now = 50.0  # Ray has started
    watch.event(Event("start", jobs[0]))
    watch.event(Event("start", jobs[1]))
    watch.event(Event("steps", jobs[1], steps=(1, 2)))
    watch.event(Event("done", jobs[0], seconds=10.0))
    watch.progress(1, 3)
    now = 60.0
    # One and a half of three jobs in 10 s: 9 jobs a minute; when the second is over half a job's share is counted.
    assert watch._rate() == pytest.approx(9)
