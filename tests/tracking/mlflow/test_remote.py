"""Results behind URLs, and a store that is down while the sweep runs."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from tracking.mlflow import sweep_run as sweep_runs


@pytest.fixture
def url(small) -> str:
    """The small sweep behind a URL."""
    return small.folder.as_uri()  # any URL goes the way of s3://


def test_results_behind_a_url_are_tracked_and_reported(
    url: str, fresh_sqlite, tmp_path: Path, emergence: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = fresh_sqlite(tmp_path)
    done = emergence("track", url, "--tracking-uri", uri, "--json")
    assert done.code == 0, done.err
    assert MlflowClient(uri).get_run(json.loads(done.out)["run_id"]).info.run_name == "small"
    monkeypatch.chdir(tmp_path)
    assert emergence("report", url).code == 0
    assert "small" in (tmp_path / "report.html").read_text()


def test_messages_name_the_url_and_not_the_copy(
    url: str, small, fresh_sqlite, tmp_path: Path, emergence: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep_runs, "write_sweep_files", full)
    done = emergence("track", url, "--tracking-uri", fresh_sqlite(tmp_path))
    assert done.code == 1
    assert f"`emergence track {url}` again" in done.err
    shutil.rmtree(small.folder / "jobs")
    assert f"No job of {url} has finished" in emergence("track", url).err
    shutil.rmtree(small.folder)
    assert f"{url} holds no sweep.json" in emergence("track", url).err
    assert "nonsense://bucket/x is not a URL that fsspec supports" in emergence("track", "nonsense://bucket/x").err


def test_server_down_is_said_before_the_sweep_which_runs_all_the_same(
    tmp_path: Path, emergence: Callable, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "{name: c, models: [gpt2-30k], corpora: [{source: animal}], tracking: {uri: 'http://127.0.0.1:9'}}"
    )
    ran = []
    failure = {"model": "m", "corpus": "c", "error_type": "E", "error": "broke", "key": "0" * 16}

    def run(*arguments: object, **more: object) -> SimpleNamespace:
        ran.append(arguments)
        return SimpleNamespace(rows=0, done=["a"], failed=[failure])

    monkeypatch.setattr(importlib.import_module("proxy.sweeps.run"), "sweep", run)
    done = emergence("sweep", config, "--results", small.folder)
    assert done.code == 1
    assert len(ran) == 1
    before, after = done.err.index("The sweep runs all the same"), done.err.index("Not tracked")
    assert before < done.err.index("1 job done") < done.err.index("Failed: m on c: E: broke") < after
    assert done.err.count("http://127.0.0.1:9 did not answer") == 2
