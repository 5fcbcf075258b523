"""How long it takes to log a large sweep to a local MLflow server, beside the time the sweep itself took.

    python -m benchmarks.tracking_load                  100 models x 48 blocks x 8 positions x 5 resolutions, one driver
    python -m benchmarks.tracking_load --drivers 4      four drivers at once, a quarter of the models each
    python -m benchmarks.tracking_load --drivers 4 --direct --models 20       the same into one fresh sqlite file

Prints seconds, seconds per model, the CPU seconds of driver and server (which work at the same time), and the share of
the time that measuring these models would take at the given seconds per job. Repeating the replay is timed as well, and
a curve of every run is read back and compared with the table. Exits with 1 when it took longer than --limit seconds or
a larger share than 5 %, and when anything is lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from estimators.contracts.conventions import DEFAULT_RESOLUTION
from tracking.mlflow.server import UserInterface, user_interface
from tracking.mlflow.store import open_store

SHARE = 0.05  # of a sweep's time
RESOLUTIONS = (0.06, 0.12, 0.18, 0.25, 0.5)


def make_results(folder: Path, name: str, models: range, blocks: int, positions: int, seconds: float) -> None:
    """Write a results folder with smooth made-up curves; what is timed does not depend on the values."""
    (folder / "jobs").mkdir(parents=True)
    layer, position, resolution = (
        grid.ravel() for grid in np.meshgrid(range(blocks), range(1, positions + 1), RESOLUTIONS, indexing="ij")
    )
    keys = []
    for index in models:
        model, parameters = f"model-{index:03d}", int(1e6 * 1.05**index)
        key = hashlib.sha256(model.encode()).hexdigest()[:16]
        keys.append(key)
        ie = np.log10(parameters) * np.log2(position + 1) * np.exp(-resolution) * (1 + layer) / blocks
        rows = pd.DataFrame(
            {
                "model": model,
                "revision": None,
                "family": f"family-{index % 6}",
                "parameters": parameters,
                "corpus": "python-docs",
                "corpus_hash": "0123456789abcdef",
                "layer": layer,
                "position": position,
                "estimator": "sample-propagation",
                "resolution": resolution,
                "macro_bits": ie + 2,
                "micro_bits": 2.0,
                "ie_bits": ie,
                "ie_std_error": 0.05,
                "ie_sample_std": 1.0,
                "macro_ceiling_bits": 40.0,
                "micro_ceiling_bits": 5.0,
                "flags": "",
                "windows": 2000,
                "seed": 0,
                "seconds": 0.1,
            }
        )
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / "jobs" / f"{key}.parquet")
        record = {
            "key": key,
            "status": "done",
            "model": model,
            "family": f"family-{index % 6}",
            "parameters": parameters,
            "corpus": "python-docs",
            "corpus_hash": "0123456789abcdef",
            "config": {"model": {"id": model}, "seed": 0},
            "windows": 2000,
            "seconds": seconds,
            "started": "2025-01-01T00:00:00+00:00",
            "host": "node1",
        }
        (folder / "jobs" / f"{key}.json").write_text(json.dumps(record))
    config = {"name": name, "models": [{"id": f"model-{index:03d}"} for index in models]}
    header = {"name": name, "config": config, "jobs": keys, "seed": 0, "schema": 1}
    (folder / "sweep.json").write_text(json.dumps(header))


def replay(folders: list[Path], uri: str) -> tuple[float, float]:
    """Track all folders at once, one process each; return wall seconds and the longest driver's own CPU seconds."""
    code = (
        "import sys, time, pathlib, tracking; started = time.perf_counter(); "
        "tracking.track(pathlib.Path(sys.argv[1]), tracking_uri=sys.argv[2]); "
        "print(time.perf_counter() - started, time.process_time())"
    )
    drivers = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), uri], stdout=subprocess.PIPE, text=True)
        for folder in folders
    ]
    said = [driver.communicate()[0] for driver in drivers]
    if any(driver.returncode for driver in drivers):
        raise SystemExit("a driver failed; see above")
    numbers = [tuple(map(float, line.split())) for line in said]
    return max(wall for wall, _ in numbers), max(cpu for _, cpu in numbers)


def server_seconds(shown: UserInterface | None) -> float:
    """Return the CPU seconds that the server and its workers have used."""
    if shown is None or shown.process is None:
        return 0.0
    server = psutil.Process(shown.process.pid)
    times = [process.cpu_times() for process in [server, *server.children(recursive=True)]]
    return sum(time.user + time.system for time in times)


def count_runs(uri: str) -> int:
    """Count the finished runs of the experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("emergence")
    return len(client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", max_results=5000))


def lost_curves(uri: str, folders: list[Path]) -> int:
    """Count the runs whose E(l) in MLflow is not that of the table: each value once, none missing."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("emergence").experiment_id
    runs = {run.data.tags["emergence.key"]: run for run in client.search_runs([experiment], max_results=5000)}
    lost = 0
    for path in (path for folder in folders for path in (folder / "jobs").glob("*.parquet")):
        rows = pd.read_parquet(path)
        rows = rows[(rows["position"] == rows["position"].max()) & (rows["resolution"] == DEFAULT_RESOLUTION)]
        run = runs.get(path.stem)
        history = client.get_metric_history(run.info.run_id, "by_layer/ie_bits") if run is not None else []
        found = sorted((point.step, point.value) for point in history)
        lost += found != sorted(zip(rows["layer"], rows["ie_bits"], strict=True))
    return lost


def main() -> None:
    """Make the sweep, start a server, time the replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--positions", type=int, default=8)
    parser.add_argument("--drivers", type=int, default=1)
    parser.add_argument("--direct", action="store_true", help="into one fresh sqlite file, without a server")
    parser.add_argument("--seconds", type=float, default=60.0, help="what measuring one model is taken to last")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that logging may take")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        folders = []
        for driver in range(chosen.drivers):
            folders.append(root / f"sweep-{driver}")
            models = range(driver, chosen.models, chosen.drivers)
            make_results(folders[-1], f"sweep-{driver}", models, chosen.blocks, chosen.positions, chosen.seconds)
        store = f"sqlite:///{root}/mlflow.db"
        if not chosen.direct:
            open_store(store, create=True)
        shown = None if chosen.direct else stack.enter_context(user_interface(store, port=0))
        uri = store if shown is None else shown.uri
        before = server_seconds(shown)
        wall, cpu = replay(folders, uri)
        served = server_seconds(shown) - before
        runs, wanted = count_runs(uri), chosen.models + chosen.drivers
        lost = lost_curves(uri, folders)
        again, _ = replay(folders, uri)
        rows = chosen.models * chosen.blocks * chosen.positions * len(RESOLUTIONS)
        print(
            f"{chosen.models} models x {chosen.blocks} blocks x {chosen.positions} positions x {len(RESOLUTIONS)} "
            f"resolutions ({rows:,} rows), {chosen.drivers} driver(s), {'sqlite file' if chosen.direct else 'server'}"
        )
        print(f"logged in {wall:.1f} s, {wall / chosen.models:.2f} s per model")
        print(f"CPU: driver {cpu:.1f} s, server {served:.1f} s")
        print(f"runs there: {runs} of {wanted}; repeating the replay: {again:.1f} s")
        share = wall / (chosen.models * chosen.seconds)
        print(f"share of a sweep of {chosen.seconds:g} s per model: {share:.2%}")
        print(f"curves that differ from the table: {lost} of {chosen.models}")
        if runs != wanted or lost:
            raise SystemExit("runs or values are missing")
        if wall > chosen.limit or share > SHARE:
            raise SystemExit(f"too slow: the limits are {chosen.limit:g} s and {SHARE:.0%} of the sweep's time")


if __name__ == "__main__":
    main()
