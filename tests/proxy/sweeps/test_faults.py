"""The command as a person uses it, on a cluster of its own: killed, interrupted, started twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONFIG: dict[str, Any] = {
    "name": "faults",
    "models": ["gpt2-30k", "gpt2-90k", "gemma-30k", "gemma-90k"],
    "corpora": [{"source": source, "windows": 300} for source in ("animal", "color", "python-docs")],
    "measurement": {"estimator": "sample-propagation", "resolutions": [0.1, 0.2], "queries": 200},
}
JOBS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "faults.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    results = tmp_path_factory.mktemp("uninterrupted")
    driver = start(config, results)
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert "warn" not in errors.lower()
    return table(results)


def start(config: Path, results: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "sweep", str(config)]
    return subprocess.Popen(
        [*command, "--results", str(results), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(results: Path) -> list[Path]:
    return list((results / "jobs").glob("*.json"))


def wait_for_records(results: Path, count: int) -> None:
    end = time.monotonic() + 200
    while len(records(results)) < count:
        assert time.monotonic() < end, "no results in time"
        time.sleep(0.05)


def offspring(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    left = [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def assert_whole(results: Path) -> None:
    for path in results.rglob("*"):
        assert not path.name.endswith(".part")
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pd.read_parquet(path)


def table(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "emergence.parquet").drop(columns="seconds")


def test_a_killed_driver_is_resumed_to_the_same_bits(config: Path, uninterrupted: pd.DataFrame, tmp_path: Path) -> None:
    driver = start(config, tmp_path)
    wait_for_records(tmp_path, 3)
    cluster = offspring(driver)
    driver.kill()
    driver.communicate()
    kept = len(records(tmp_path))
    assert_gone(cluster, 90)  # agents of Ray look after their parent only now and then
    assert_whole(tmp_path)
    again = start(config, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"{kept} of {JOBS} jobs are done already" in errors
    assert len(re.findall(r"^\d+/12 ", errors, re.MULTILINE)) == JOBS - kept
    assert list((tmp_path / "claims").iterdir()) == []
    pd.testing.assert_frame_equal(table(tmp_path), uninterrupted, check_exact=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_quickly_and_leaves_nothing(config: Path, tmp_path: Path, how: signal.Signals) -> None:
    driver = start(config, tmp_path)
    wait_for_records(tmp_path, 2)
    cluster = offspring(driver)
    assert len(cluster) > 3
    began = time.monotonic()
    os.killpg(driver.pid, how) if how == signal.SIGINT else driver.send_signal(how)
    _, errors = driver.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert driver.returncode == 130
    assert "Traceback" not in errors
    said = r"^Stopping\. \d+ of 12 jobs are finished and kept in .*\. Continue with: emergence sweep "
    assert re.search(said, errors, re.M)
    assert_gone(cluster, 5)
    assert_whole(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []


def test_two_drivers_on_one_folder_share_the_work(config: Path, uninterrupted: pd.DataFrame, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster as Machines

    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        drivers = [start(config, tmp_path, "--address", machines.address, "--workers", "2") for _ in range(2)]
        errors = [driver.communicate(timeout=400)[1] for driver in drivers]
    finally:
        machines.shutdown()
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    done = [re.findall(r"^\d+/12 (.*): [\d.]+ s", text, re.MULTILINE) for text in errors]
    assert sorted(done[0] + done[1]) == sorted(set(done[0] + done[1]))  # no job twice
    assert len(done[0] + done[1]) == JOBS
    assert all(done)  # both had some
    assert list((tmp_path / "claims").iterdir()) == []
    assert_whole(tmp_path)
    pd.testing.assert_frame_equal(table(tmp_path), uninterrupted, check_exact=True)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "ray://127.0.0.1:10001"])
def test_an_address_that_does_not_answer_is_said_soon(config: Path, tmp_path: Path, address: str) -> None:
    began = time.monotonic()
    driver = start(config, tmp_path, "--address", address)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert address in errors
    assert errors.splitlines()[-1].startswith("Error: ")  # behind the line that says what is being looked up
    assert time.monotonic() - began < 60
