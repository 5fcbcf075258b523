"""A proxy as a model of MLflow: logged with what serving needs, registered under an alias, fetched back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import EmergenceError, InputError
from estimators.contracts.secrets import masked
from tracking.mlflow.adapter import MlflowTracker
from tracking.mlflow.store import clear_errors, open_store, store_uri

# What serving needs, pinned as installed; given explicitly because MLflow's own inference takes half a minute.
REQUIREMENTS = ("emergence-proxy", "mlflow", "numpy", "pandas", "pyarrow", "scikit-learn", "skops", "torch")
DESCRIPTION = 5000  # characters that MLflow keeps of a version's


def log_model(tracker: MlflowTracker, run_id: str, folder: Path, code: Path, example: pd.DataFrame) -> str:
    """Log a saved proxy as the LoggedModel of its run and return the model's id."""
    import mlflow
    from mlflow.exceptions import MlflowException

    # The signature calls integers unable to be missing; features are measurements, so all are floats.
    whole = dict.fromkeys(example.select_dtypes("number").columns, "float64")
    example = example.head(3).astype(whole)
    example = example.astype(dict.fromkeys(example.columns.difference(list(whole)), "object"))
    with clear_errors(tracker.uri), _as_current(tracker.uri), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own use of pandas
        mlflow.start_run(run_id=run_id)
        try:
            info = mlflow.pyfunc.log_model(
                name="proxy",
                python_model=str(code),
                artifacts={"proxy": str(folder.absolute())},
                input_example=example,
                pip_requirements=requirements(),
            )
        except MlflowException:
            raise
        except (ValueError, TypeError, ImportError) as error:
            raise EmergenceError(f"The proxy in {folder} could not be served for MLflow: {error}") from error
        finally:
            mlflow.end_run()
    return str(info.model_id)


@contextmanager
def _as_current(uri: str) -> Iterator[None]:
    """Point MLflow's global settings at `uri` for the duration of the context."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")  # MLflow keeps what it is set to there as well
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def requirements() -> list[str]:
    """Return what serving a proxy needs, pinned to what is installed here."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return pinned


def model_of(client: Any, uri: str, run_id: str) -> str:
    """Return the id of the model that a run logged."""
    with clear_errors(uri):
        outputs = client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    if not models:
        raise InputError(f"The run {run_id} in {masked(uri)} holds no proxy; give the run of `emergence fit`.")
    return str(models[-1].model_id)


def unfinished_model(tracker: MlflowTracker, run_id: str) -> str | None:
    """Return the whole model of a run that was interrupted after its model had been logged."""
    with clear_errors(tracker.uri):
        outputs = tracker.client.get_run(run_id).outputs
        for model in outputs.model_outputs if outputs else []:
            if tracker.client.get_logged_model(model.model_id).status == "READY":
                return str(model.model_id)
    return None


def register_model(tracker: MlflowTracker, name: str, alias: str, model_id: str, run_id: str, description: str) -> str:
    """Register a logged model under a name, once, point the alias at it and return its version."""
    from mlflow.exceptions import MlflowException

    client = tracker.client
    with (
        clear_errors(tracker.uri),
        _as_current(tracker.uri),
    ):  # where a database looks the model up
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"models:/{model_id}"
        same = [v for v in client.search_model_versions(f"name = '{name}'") if v.run_id == run_id]
        entry = (
            same[0]
            if same
            else client.create_model_version(
                name, source, run_id=run_id, model_id=model_id, description=description[:DESCRIPTION]
            )
        )
        client.set_registered_model_alias(name, alias, entry.version)
    return str(entry.version)


def download_proxy(uri: str, tracking_uri: str | None = None) -> Path:
    """Fetch a proxy from MLflow and return the saved folder, as `emergence fit` wrote it.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/ID` or `runs:/RUN_ID`.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.

    Raises:
        InputError: if there is no such proxy.

    >>> import proxy
    >>> from tracking import track_proxy
    >>> proxy.fit_proxy(references, target="emergence_bits", candidate="best_feature").save(scratch / "kept")
    >>> served = Path(proxy.__file__).with_name("regression") / "served.py"
    >>> store = f"sqlite:///{scratch}/mlflow.db"
    >>> run = track_proxy(scratch / "kept", model_code=served, input_example=references.head(2), tracking_uri=store)
    >>> proxy.load_proxy(download_proxy(run.model_uri, store)).target
    'emergence_bits'
    """
    if not uri.startswith(("models:/", "runs:/")):
        raise InputError(f"A proxy in MLflow is models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID; got {uri}.")
    store = store_uri(tracking_uri)
    client = open_store(store)
    import mlflow

    with clear_errors(store, starting=True), _as_current(store):
        if uri.startswith("runs:/"):
            uri = f"models:/{model_of(client, store, uri.removeprefix('runs:/').split('/')[0])}"
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    found = sorted(local.glob("artifacts/*/proxy.json"))
    if not found:
        raise InputError(f"{uri} is not a proxy of this project: it holds no proxy.json.")
    return found[0].parent
