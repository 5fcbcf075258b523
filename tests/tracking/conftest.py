"""A results folder as `emergence sweep` writes it, and a real MLflow server."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

MODELS = {"gpt2-30k": 30_000, "gpt2-280k": 280_000, "gpt2-2m": 2_000_000, "gemma-30k": 30_000, "gemma-2m": 2_000_000}
RESOLUTIONS = (0.06, 0.18, 0.5)


def make_rows(
    model: str,
    corpus: str,
    *,
    parameters: int,
    blocks: int,
    positions: int = 8,
    resolutions: tuple[float, ...] = RESOLUTIONS,
) -> pd.DataFrame:
    """Rows of the emergence table with smooth curves: larger models higher, finer noise higher."""
    layer, position, resolution = (
        grid.ravel() for grid in np.meshgrid(range(blocks), range(1, positions + 1), resolutions, indexing="ij")
    )
    micro = 2.0 + 0.1 * layer
    ie = np.log10(parameters) * np.log2(position + 1) * np.exp(-resolution) * (1 + layer) / blocks / 4
    count = len(layer)
    return pd.DataFrame(
        {
            "model": model,
            "revision": None,
            "family": model.split("-")[0],
            "parameters": parameters,
            "corpus": corpus,
            "corpus_hash": hashlib.sha256(corpus.encode()).hexdigest()[:16],
            "layer": layer,
            "position": position,
            "estimator": "sample-propagation",
            "resolution": resolution,
            "macro_bits": micro + ie,
            "micro_bits": micro,
            "ie_bits": ie,
            "ie_std_error": np.full(count, 0.05),
            "ie_sample_std": np.full(count, 1.0),
            "macro_ceiling_bits": np.full(count, 11.0),
            "micro_ceiling_bits": np.full(count, 5.0),
            "flags": "",
            "windows": 2000,
            "seed": 0,
            "seconds": 0.5,
        }
    )


class ResultsFolder:
    """Writes a results folder job by job."""

    def __init__(self, folder: Path, name: str = "demo", *, created: str = "2025-01-01T10:00:00+00:00") -> None:
        self.folder = folder
        (folder / "jobs").mkdir(parents=True)
        record = {
            "name": name,
            "config": {"name": name, "models": [{"id": model} for model in MODELS], "measurement": {"queries": 1000}},
            "versions": {"torch": "2.13.0", "emergence-proxy": "0.1.0"},
            "git_revision": "0123abcd",
            "seed": 0,
            "hardware": {"cpus": 2, "memory_gb": 8.0},
            "created": created,
            "schema": 1,
        }
        (folder / "sweep.json").write_text(json.dumps(record))

    def key(self, model: str, corpus: str, tokens: int = 8) -> str:
        return hashlib.sha256(f"{model} {corpus} {tokens}".encode()).hexdigest()[:16]

    def _write(self, model: str, corpus: str, tokens: int = 8, **more: object) -> None:
        key = self.key(model, corpus, tokens)
        record = {
            "key": key,
            "model": model,
            "revision": None,
            "family": model.split("-")[0],
            "parameters": None,
            "corpus": corpus,
            "corpus_hash": hashlib.sha256(corpus.encode()).hexdigest()[:16],
            "config": {"model": {"id": model}, "corpus": {"source": corpus, "tokens": tokens}, "seed": 0},
            "windows": 2000,
            "seconds": 12.5,
            "started": "2025-01-01T10:00:00+00:00",
            "host": "node1",
            "error_type": None,
            "error": None,
            "traceback": None,
        }
        (self.folder / "jobs" / f"{key}.json").write_text(json.dumps(record | more))

    def done(self, model: str, corpus: str, rows: pd.DataFrame, tokens: int = 8) -> None:
        rows.to_parquet(self.folder / "jobs" / f"{self.key(model, corpus, tokens)}.parquet", index=False)
        parameters = rows["parameters"].iloc[0]
        self._write(model, corpus, tokens, status="done", parameters=None if parameters is None else int(parameters))

    def windows(self, model: str, corpus: str, rows: pd.DataFrame) -> None:
        """Write the values of a job's single windows."""
        (self.folder / "windows").mkdir(exist_ok=True)
        rows.to_parquet(self.folder / "windows" / f"{self.key(model, corpus)}.parquet", index=False)

    def failed(self, model: str, corpus: str, error: str = "out of memory") -> None:
        self._write(
            model, corpus, status="failed", error_type="OutOfMemoryError", error=error, traceback="Traceback..."
        )


@pytest.fixture
def job_rows() -> Callable[..., pd.DataFrame]:
    """Make rows of the emergence table."""
    return make_rows


def make_references(rows: int = 12, noise: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size = np.linspace(4, 8, rows)
    return pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(rows)],
            "family": [("gpt2", "gemma", "llama")[i % 3] for i in range(rows)],
            "small.reader.ie_bits": size / 4 + noise * rng.normal(size=rows),
            "behaviour.length": 10 * size + rng.normal(size=rows),
            "emergence_bits": size / 3,
        }
    )


@pytest.fixture(scope="session")
def reference_table() -> Callable[..., pd.DataFrame]:
    """Make a reference table whose features tell the target."""
    return make_references


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    """Five models on two corpora; one job failed."""
    made = ResultsFolder(tmp_path / "results")
    for model, parameters in MODELS.items():
        for corpus, positions in (("animal", 10), ("python-docs", 8)):
            if (model, corpus) == ("gemma-2m", "python-docs"):
                made.failed(model, corpus)
            else:
                rows = make_rows(model, corpus, parameters=parameters, blocks=3, positions=positions)
                made.done(model, corpus, rows)
    return made


@pytest.fixture
def small(tmp_path: Path) -> ResultsFolder:
    """One model on one corpus."""
    made = ResultsFolder(tmp_path / "small", "small")
    made.done("gpt2-30k", "animal", make_rows("gpt2-30k", "animal", parameters=30_000, blocks=2, positions=4))
    return made


class Server:
    """A real `mlflow server` on a free loopback port, over sqlite."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.arguments = arguments

    def start(self) -> "Server":
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), *self.arguments]
        self.log = open(self.folder / "server.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, env=environment, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if requests.get(self.uri + "/health", timeout=2).status_code in (200, 403):
                    return self
            except requests.RequestException:
                pass
            time.sleep(0.3)
        raise RuntimeError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)
                self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, which keep apart by experiment."""
    running = Server(tmp_path_factory.mktemp("mlflow")).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def fresh_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Copy an initialised sqlite store into a folder: migrating afresh in every test costs seconds."""
    from tracking.mlflow.store import open_store

    template = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{template}", create=True)

    def copy(folder: Path) -> str:
        shutil.copyfile(template, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return copy


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time and has nothing to do with what many tests ask."""
    from tracking.mlflow import sweep_run as sweep_runs

    monkeypatch.setattr(sweep_runs, "write_sweep_files", lambda results, summary, folder: None)
