"""MLflow's own user interface on the store in use, with safe settings and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from estimators.base import EmergenceError, InputError
from tracking.mlflow.adapter import VIEW, VIEW_TAG
from tracking.mlflow.store import ARTIFACTS, clear_errors, open_store, sqlite_path, store_uri

HOST = "127.0.0.1"  # MLflow's server has no password, so it accepts connections from this machine only
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else eight more processes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True)
class UserInterface:
    """A user interface that answers.

    Attributes:
        uri: the server's address.
        page: address of the experiment's page.
        process: the server; None if it was running already.
    """

    uri: str
    page: str
    process: subprocess.Popen[bytes] | None


@contextmanager
def user_interface(
    tracking_uri: str | None = None, *, port: int = 5000, experiment: str = "emergence", timeout: float = 180
) -> Iterator[UserInterface]:
    """Serve MLflow's user interface on loopback until the context ends; a server that runs already is only looked at.

    Args:
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        port: port on loopback; 0 takes a free one.
        experiment: the experiment whose page is opened.
        timeout: seconds to wait until the server answers.

    Raises:
        InputError: if the store or the port cannot be used.
        EmergenceError: if the server does not come up.
    """
    uri = store_uri(tracking_uri)
    client = open_store(uri)
    with clear_errors(uri, starting=True):
        found = client.get_experiment_by_name(experiment)
    where = "/#/experiments"
    if found and found.lifecycle_stage == "active":  # MLflow would open a page for chat logs by itself
        view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in found.tags else ""
        where += f"/{found.experiment_id}/runs?workflowType=machine_learning{view}"
    if uri.startswith("http"):
        yield UserInterface(uri, uri + where, None)
        return
    port = _free(port)
    path = sqlite_path(uri)
    artifacts = (path.parent if path else Path.cwd()) / ARTIFACTS
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(artifacts)]
    # The address of the store may hold a password, so it goes by the environment, which `ps` does not show.
    environment = os.environ | ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": uri}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            _wait(process, f"http://{HOST}:{port}", timeout, log)
            yield UserInterface(f"http://{HOST}:{port}", f"http://{HOST}:{port}{where}", process)
        finally:
            _stop(process)


def _free(port: int) -> int:
    """Make sure that `port` can be listened on.

    Raises:
        InputError: if something else listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"Port {port} cannot be used ({error}); choose another with --port.") from error
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], uri: str, timeout: float, log: object) -> None:
    import requests

    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.RequestException):
            if requests.get(f"{uri}/health", timeout=2).ok:
                return
        time.sleep(0.2)
    log.seek(0)  # type: ignore[attr-defined]
    last = log.read().decode(errors="replace").strip().splitlines()[-1:]  # type: ignore[attr-defined]
    raise EmergenceError(f"MLflow's server did not start: {last[0] if last else 'no output'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its workers, which are its process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a worker that outlived its server
