"""`emergence ui`: the real server on the store in use, on loopback alone, gone when it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import requests

from tracking import track

EMERGENCE = str(Path(sys.executable).parent / "emergence")


def test_ui_serves_the_store_on_loopback_and_ends_cleanly(small, fresh_sqlite, tmp_path: Path) -> None:
    uri = fresh_sqlite(tmp_path)
    tracked = track(small.folder, tracking_uri=uri)
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    command = [EMERGENCE, "ui", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    try:
        assert process.stderr is not None
        page = next(found[1] for line in process.stderr if (found := re.search(r"Your runs: (\S+)", line)))
        server, _, fragment = page.partition("/#")
        runs = r"/experiments/\d+/runs\?workflowType=machine_learning&viewStateShareKey=emergence"
        assert re.fullmatch(runs, fragment)
        assert "<title>MLflow</title>" in requests.get(server, timeout=30).text
        found = requests.get(f"{server}/api/2.0/mlflow/runs/get", params={"run_id": tracked.run_id}, timeout=30)
        assert found.json()["run"]["info"]["run_name"] == "small"
        artifact = requests.get(
            f"{server}/get-artifact", params={"run_id": tracked.run_id, "path": "sweep.json"}, timeout=30
        )
        assert artifact.json()["name"] == "small"
        family = psutil.Process(process.pid).children(recursive=True)
        assert 1 <= len(family) <= 4, family  # the server, its worker, its helpers; not eight job runners more
        listening = [c.laddr.ip for child in family for c in child.net_connections() if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        # The address of a store may hold a password: it goes by the environment, which others cannot read.
        assert not [child for child in family if uri in " ".join(child.cmdline())]
        assert family[0].environ()["MLFLOW_BACKEND_STORE_URI"] == uri
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_port_in_use_is_said(fresh_sqlite, tmp_path: Path, emergence) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = emergence("ui", "--tracking-uri", fresh_sqlite(tmp_path), "--port", port)
    assert done.code == 2
    assert f"Port {port} cannot be used" in done.err


def test_store_that_is_not_there_is_not_made(tmp_path: Path, emergence) -> None:
    for command in (("ui",), ("promote", "name"), ("compare", "0" * 32, "1" * 32)):
        done = emergence(*command, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
        assert done.code == 2
        assert f"Nothing is tracked at {tmp_path}/mlflow.db yet" in done.err
    assert not list(tmp_path.iterdir())


def test_running_server_is_only_looked_at(server, emergence) -> None:
    done = emergence("ui", "--tracking-uri", server.uri, "--experiment", "no such experiment")
    assert done.code == 0
    assert f"Your runs: {server.uri}/#/experiments" in done.err
    assert requests.get(f"{server.uri}/health", timeout=30).ok
