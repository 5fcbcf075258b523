"""Opening an MLflow store: which one, whether it answers, and keeping MLflow quiet."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from estimators.base import EmergenceError, InputError
from estimators.contracts.files import locked
from estimators.contracts.secrets import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"  # beside a store that is opened without a server
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# What pip calls the drivers that need no compiler.
WHEELS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
# A server that is slow or gone must not hold up its driver for MLflow's own four minutes.
TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
TIMEOUT = 15  # seconds for the first reply
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def store_uri(uri: str | None = None) -> str:
    """Return the tracking URI in use: the one given, else MLFLOW_TRACKING_URI, else sqlite in the working folder.

    Raises:
        InputError: if it is of a kind that is not supported.
    """
    uri = (uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI).strip().rstrip("/")
    scheme = uri.split("://")[0].split("+")[0] if "://" in uri else ""
    if scheme in DATABASES:
        path = sqlite_path(uri)
        return uri if path is None else f"sqlite:///{path}"
    if scheme in ("http", "https") or uri.startswith("databricks"):
        return uri
    raise InputError(
        f"A tracking URI is sqlite:///FILE, postgresql://... or http(s)://HOST:PORT; {masked(uri)} is none of them."
    )


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a sqlite store, None for any other."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def check_store(uri: str | None = None) -> None:
    """Make sure, in seconds and without writing, that a store answers or could be made.

    Raises:
        InputError: if it does not.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None:
        if not path.parent.is_dir():
            raise InputError(f"The folder {path.parent} of the tracking store does not exist; create it first.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"The tracking store {path} cannot be written; choose another with --tracking-uri.")
    elif uri.startswith("http"):
        _check_server(uri)
    elif not uri.startswith("databricks"):
        _check_database(uri)


def request_timeout() -> float:
    """Return after how many seconds without an answer MLflow gives a request up, or tries it again."""
    return float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUTS["MLFLOW_HTTP_REQUEST_TIMEOUT"]))


def open_store(uri: str | None = None, *, create: bool = False) -> MlflowClient:
    """Open an MLflow store, having checked that it answers.

    A fresh sqlite file is initialised by one process at a time (several at once break MLflow's migrations).

    Args:
        uri: see `store_uri`.
        create: make a sqlite file that is not there yet.

    Raises:
        InputError: if the store is not there, or cannot be reached or written.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    check_store(uri)
    if path is not None and not path.exists() and not create:
        raise InputError(
            f"Nothing is tracked at {path} yet; log a sweep first (emergence track RESULTS), or name another store "
            "with --tracking-uri."
        )
    quieten()
    from mlflow import MlflowClient

    with clear_errors(uri, starting=True), locked(path.parent) if path else nullcontext():
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def quieten() -> None:
    """Keep MLflow's migrations, progress bars and telemetry off the screen; set the time it waits.

    What the environment sets already is left as it is.
    """
    for name, value in {**TIMEOUTS, **QUIET}.items():
        os.environ.setdefault(name, value)
    # Warnings that MLflow causes itself, of no use to a user: by its use of SQLAlchemy, and its type hints on import.
    warnings.filterwarnings("ignore", message=".*noload.* loader strategy", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*type hint is inferred as AnyType", category=UserWarning)
    import mlflow  # noqa: F401  (its import sets its loggers' levels)

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # urllib3 announces each retry; the last failure is explained by us.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _check_server(uri: str) -> None:
    import requests

    start = "start one with `emergence ui`, or leave out --tracking-uri to use sqlite in this folder"
    try:
        answer = requests.get(f"{uri}/health", timeout=TIMEOUT)
    except requests.RequestException as error:
        reason = "took too long to answer" if isinstance(error, requests.Timeout) else "did not answer"
        raise InputError(f"The tracking server at {masked(uri)} {reason}; {start}.") from error
    if answer.status_code != 200:
        raise InputError(
            f"{masked(uri)} answers, but not as an MLflow server (HTTP {answer.status_code} for /health); {start}."
        )


def _check_database(uri: str) -> None:
    """Check that a database answers: MLflow would try for two minutes, with a message each time."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
    except (ArgumentError, ValueError) as error:  # an unknown driver, a port that is no number
        raise InputError(
            f"{masked(uri)} is not the URL of a database, such as postgresql://host:5432/name: {masked(str(error))}."
        ) from None
    except ImportError as error:
        driver = str(error.name)
        raise InputError(
            f"{masked(uri)} needs the database driver {driver}; pip install '{WHEELS.get(driver, driver)}'."
        ) from error
    if url.host is None:  # a socket on this machine
        return
    port = url.port or PORTS[url.get_backend_name()]
    try:
        socket.create_connection((url.host, port), timeout=TIMEOUT).close()
    except OSError as error:
        raise InputError(
            f"The database {masked(uri)} did not answer at {url.host}:{port}; start it, or choose another store with "
            "--tracking-uri."
        ) from error


@contextmanager
def clear_errors(uri: str, *, starting: bool = False) -> Iterator[None]:
    """Turn what MLflow, its transport and the disk raise into one clear sentence.

    Raises:
        InputError: if `starting`: the store cannot be used at all.
        EmergenceError: if it failed later.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    kind = InputError if starting else EmergenceError
    where = masked(uri)
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        text = " ".join(str(error).split())
        host = where.split("://")[-1].split("@")[-1].split("/")[0]
        if any(sign in text for sign in ("No space left", "disk is full", "disk I/O error")):
            raise kind(f"The disk of the tracking store {where} is full; free some space and try again.") from error
        if "Invalid Host header" in text:
            raise kind(
                f"The tracking server at {where} rejects the Host header {host}; start it with "
                f"`mlflow server --allowed-hosts {host}`, or call it by a name it allows."
            ) from error
        if isinstance(error, requests.RequestException) or any(
            sign in text for sign in ("Max retries exceeded", "Connection", "timed out", "Read timeout")
        ):
            raise kind(f"The tracking server at {where} stopped answering; start it and try again.") from error
        reason = re.split(r" \[SQL:| \(Background on", text)[0][:300].rstrip(".")
        raise kind(f"The tracking store {where} refused: {masked(reason)}.") from error
