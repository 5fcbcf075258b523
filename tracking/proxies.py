"""Fitted proxies in MLflow: one LoggedModel each, registered under an alias, fetched back by name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import EmergenceError, InputError
from tracking.figures import parity
from tracking.mlflow_tracker import MlflowTracker
from tracking.proxy_scores import describe_proxy, scores
from tracking.rendering import png
from tracking.results import digest, flatten
from tracking.store import masked, open_store, store_uri, worded
from tracking.tracker import NOTE, Corpus, Point, finite

CANDIDATE, CHAMPION = "candidate", "champion"
# What serving needs, pinned as installed; given explicitly because MLflow's own inference takes half a minute.
REQUIREMENTS = ("emergence-proxy", "mapie", "mlflow", "numpy", "pandas", "pyarrow", "scikit-learn", "skops", "torch")
DESCRIPTION = 5000  # characters that MLflow keeps of a version's
PARAMS = ("target", "mode", "level", "bounds", "unit", "groups", "chosen", "seed", "references_hash")
FILES = ("proxy.json", "model.skops", "references.parquet", "validation.parquet")


@dataclass(frozen=True)
class TrackedProxy:
    """Where a proxy is tracked.

    Attributes:
        run_id: its run.
        model_uri: the LoggedModel, `models:/<id>`.
        version: version in the registry; None if it was not registered.
    """

    run_id: str
    model_uri: str
    version: str | None


def track_proxy(
    folder: Path,
    *,
    model_code: Path,
    input_example: pd.DataFrame,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    register: str | None = None,
    alias: str = CANDIDATE,
    parent_run_id: str | None = None,
) -> TrackedProxy:
    """Log a saved proxy as one LoggedModel with its scores, tables and figures, and register it if asked.

    The same proxy is logged once however often this is called; registering it anew only moves the alias.

    Args:
        folder: a saved proxy: proxy.json, model.skops, references.parquet, validation.parquet.
        model_code: script that serves the folder as MLflow "model from code"; it gets it as artifact `proxy`.
        input_example: some rows of features, shown to those who want to call the model.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        register: name in the registry; None leaves it out.
        alias: alias the version gets; `champion` is given by `promote` alone.
        parent_run_id: run of the sweep the proxy was fitted on.

    Raises:
        InputError: if the folder is no saved proxy, or the store, name or alias cannot be used.
    """
    record, validation = _read_proxy(folder)
    if alias == CHAMPION:
        raise InputError(f"The alias {CHAMPION} is given by `emergence promote` alone; register as {CANDIDATE}.")
    if register is not None:
        _check_name(register)
    tracker = MlflowTracker(tracking_uri, experiment)
    key = digest(b"".join((folder / name).read_bytes() for name in FILES))
    known = tracker.known("proxy").get(key)
    if known is not None and known.digest:
        run_id = known.run_id
        model_id = _model_of(tracker.client, tracker.uri, run_id)
    else:
        name = f"proxy of {record.get('target', 'target')}"
        run_id = (
            known.run_id if known else tracker.start(key, name, sweep="proxy", parent=parent_run_id, started=_now())
        )
        reference = Corpus("references", digest((folder / "references.parquet").read_bytes()), str(folder), "training")
        kept = _unfinished_model(tracker, run_id) if known else None
        model_id = kept or _log_model(tracker, run_id, folder, model_code, input_example)
        _log_scores(tracker, run_id, model_id, record, validation, reference)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch)
            for path in folder.rglob("*"):
                if path.is_file() and path.suffix in (".parquet", ".json", ".md", ".png"):
                    (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy / path.relative_to(folder))
            (copy / "figures").mkdir(exist_ok=True)
            (copy / "figures" / "parity.png").write_bytes(png(parity(validation)))
            tracker.upload(run_id, copy)
        tracker.end(run_id, digest=key, failed=False, ended=_now())
    model_uri = f"models:/{model_id}"
    number = None
    if register is not None:
        number = _register(tracker, register, alias, model_id, run_id, describe_proxy(record, validation))
    return TrackedProxy(run_id, model_uri, number)


def check_registration(name: str, tracking_uri: str | None = None) -> None:
    """See that a proxy could be registered as `name`, before any work is done for it.

    Raises:
        InputError: if the name or the store cannot be used.
    """
    _check_name(name)
    open_store(tracking_uri, create=True)


def _check_name(name: str) -> None:
    if not name.strip() or any(character in name for character in "/:.%\"'"):
        raise InputError(f"A registered model's name has no '/', ':', '.', '%' or quotes; {name!r} has, or is empty.")


def _read_proxy(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is no saved proxy: {', '.join(missing)} missing; give a folder `emergence fit` wrote."
        )
    try:
        record = json.loads((folder / "proxy.json").read_text(encoding="utf-8"))
        validation = pd.read_parquet(folder / "validation.parquet")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} could not be read as a saved proxy: {error}; fit it again.") from error
    wanted = {"model", "truth", "estimate", "lower", "upper"} - set(validation.columns)
    if wanted:
        raise InputError(f"{folder}/validation.parquet lacks {', '.join(sorted(wanted))}; fit the proxy again.")
    return record, validation


def _log_scores(
    tracker: MlflowTracker,
    run_id: str,
    model_id: str,
    record: dict[str, Any],
    validation: pd.DataFrame,
    reference: Corpus,
) -> None:
    from mlflow.entities import Metric

    points, unfit = finite(Point(name, value) for name, value in scores(validation).items())
    params = {name: record.get(name) for name in PARAMS} | {"features": len(record.get("features", []))}
    tracker.log(
        run_id,
        params=flatten(params),
        tags={
            **flatten({"versions": record.get("versions", {})}),
            "kind": "proxy",
            "target": str(record.get("target", "")),
            "flags": "; ".join(unfit),
            NOTE: describe_proxy(record, validation),
        },
        corpora=[reference],
    )
    at = _now()
    with worded(tracker.uri):
        tracker.client.log_batch(
            run_id,
            metrics=[
                Metric(
                    p.key,
                    p.value,
                    at,
                    0,
                    model_id=model_id,
                    dataset_name=reference.name,
                    dataset_digest=reference.digest,
                )
                for p in points
            ],
        )


def _log_model(tracker: MlflowTracker, run_id: str, folder: Path, code: Path, example: pd.DataFrame) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    # The signature calls integers unable to be missing; features are measurements, so all are floats.
    whole = dict.fromkeys(example.select_dtypes("number").columns, "float64")
    example = example.head(3).astype(whole)
    example = example.astype(dict.fromkeys(example.columns.difference(list(whole)), "object"))
    with worded(tracker.uri), _as_current(tracker.uri), warnings.catch_warnings():
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
    """Let MLflow's fluent calls speak to `uri`, then to what they spoke to before."""
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


def _model_of(client: Any, uri: str, run_id: str) -> str:
    with worded(uri):
        outputs = client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    if not models:
        raise InputError(f"The run {run_id} in {masked(uri)} holds no proxy; give the run of `emergence fit`.")
    return str(models[-1].model_id)


def _unfinished_model(tracker: MlflowTracker, run_id: str) -> str | None:
    """Return the whole model of a run that was interrupted after its model had been logged."""
    with worded(tracker.uri):
        outputs = tracker.client.get_run(run_id).outputs
        for model in outputs.model_outputs if outputs else []:
            if tracker.client.get_logged_model(model.model_id).status == "READY":
                return str(model.model_id)
    return None


def _register(tracker: MlflowTracker, name: str, alias: str, model_id: str, run_id: str, description: str) -> str:
    from mlflow.exceptions import MlflowException

    client = tracker.client
    with worded(tracker.uri), _as_current(tracker.uri):  # a database's registry looks the model up in the current one
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
    """
    if not uri.startswith(("models:/", "runs:/")):
        raise InputError(f"A proxy in MLflow is models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID; got {uri}.")
    store = store_uri(tracking_uri)
    client = open_store(store)
    import mlflow

    with worded(store, starting=True), _as_current(store):
        if uri.startswith("runs:/"):
            uri = f"models:/{_model_of(client, store, uri.removeprefix('runs:/').split('/')[0])}"
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    found = sorted(local.glob("artifacts/*/proxy.json"))
    if not found:
        raise InputError(f"{uri} is no proxy of this project: it holds no proxy.json.")
    return found[0].parent


def _now() -> int:
    import time

    return round(1000 * time.time())
