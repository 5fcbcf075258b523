"""PostgreSQL as the store, a real one in a folder of its own."""

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tracking import track

NEEDED = ("initdb", "pg_ctl", "postgres")
LIBRARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
PATH = os.pathsep.join([*map(str, LIBRARIES), os.environ.get("PATH", "")])
OTHER = 65534  # nobody: postgres refuses to run as root


def _missing() -> str | None:
    absent = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no PostgreSQL here ({', '.join(absent)}): apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "no driver here: pip install 'psycopg[binary]'"
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_missing() is not None, reason=str(_missing())),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of drivers
]


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a free loopback port; the address of its database."""
    import tempfile

    user = {"user": OTHER, "group": OTHER, "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as root:  # not pytest's: other users cannot enter that
        if user:
            os.chown(root, OTHER, OTHER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def run(name: str, *arguments: str) -> None:
            command = [str(shutil.which(name, path=PATH)), "-D", f"{root}/data", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"PATH": PATH}, **user)
            assert done.returncode == 0, done.stderr + done.stdout

        run("initdb", "--username", "me", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -c fsync=off"
        run("pg_ctl", "-l", f"{root}/log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://me@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


def test_sweep_goes_into_postgresql_and_is_served(
    small, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    from tracking.mlflow.server import user_interface

    monkeypatch.chdir(tmp_path)  # artifacts go to mlartifacts in the working folder
    first = track(small.folder, tracking_uri=postgres)
    assert (first.new, track(small.folder, tracking_uri=postgres).new) == (2, 0)
    run = MlflowClient(postgres).get_run(next(iter(first.children.values())))
    assert run.info.status == "FINISHED"
    assert len(MlflowClient(postgres).get_metric_history(run.info.run_id, "by_layer/ie_bits")) == 2
    assert (tmp_path / "mlartifacts").is_dir()
    with user_interface(postgres, port=0) as shown:
        found = requests.get(f"{shown.uri}/api/2.0/mlflow/runs/get", params={"run_id": first.run_id}, timeout=30).json()
        assert found["run"]["info"]["run_name"] == "small"
