"""Fitted proxies in MLflow: each one run, with its model, scores, tables and figures."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import InputError
from estimators.contracts.seals import is_whole
from tracking.mlflow.adapter import MlflowTracker
from tracking.mlflow.models import log_model, model_of, register_model, unfinished_model
from tracking.mlflow.scores import describe_proxy, scores
from tracking.mlflow.store import clear_errors, open_store
from tracking.mlflow.tracker import NOTE, DataSource, Point, finite
from tracking.results import digest, flatten

CANDIDATE, CHAMPION = "candidate", "champion"
PARAMS = ("target", "mode", "level", "bounds", "unit", "groups", "chosen", "references_hash")
USEFUL = "emergence.useful"  # tag of a proxy's run: whether it did better than every baseline
FILES = ("proxy.json", "model.skops", "references.parquet", "validation.parquet")


@dataclass(frozen=True)
class TrackedProxy:
    """Where a proxy is tracked.

    Attributes:
        run_id: its run.
        model_uri: the LoggedModel, `models:/<id>`.
        version: version in the registry; None if it was not registered.

    >>> TrackedProxy("a1b2", "models:/m-c3d4", version=None).model_uri
    'models:/m-c3d4'
    """

    run_id: str
    model_uri: str
    version: str | None


def track_proxy(
    folder: str | PathLike[str],
    *,
    model_code: str | PathLike[str],
    input_example: pd.DataFrame,
    tracking_uri: str | None = None,
    experiment: str = "emergence",
    register: str | None = None,
    alias: str = CANDIDATE,
    anyway: bool = False,
) -> TrackedProxy:
    """Log a saved proxy as one LoggedModel with its scores, tables and figures, and register it if asked.

    The same proxy is logged once however often this is called; registering it again only moves the alias.

    Args:
        folder: a saved proxy: proxy.json, model.skops, references.parquet, validation.parquet.
        model_code: script that serves the folder as MLflow "model from code"; it gets it as artifact `proxy`.
        input_example: some rows of features, shown to those who want to call the model.
        tracking_uri: MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        experiment: MLflow experiment.
        register: name in the registry; None leaves it out.
        alias: alias of the version; `champion` is set by `promote` only.
        anyway: register even a proxy that did no better than its best baseline.

    Raises:
        InputError: if the folder is not a saved proxy, the store, name or alias cannot be used, or the proxy is of no
            use.

    >>> import proxy
    >>> proxy.fit_proxy(references, target="emergence_bits", candidate="best_feature").save(scratch / "tracked")
    >>> how = {"model_code": Path(proxy.__file__).with_name("regression") / "served.py"}
    >>> how |= {"input_example": references.head(2), "tracking_uri": f"sqlite:///{scratch}/mlflow.db"}
    >>> first = track_proxy(scratch / "tracked", **how)
    >>> track_proxy(scratch / "tracked", **how) == first  # the same proxy is logged once
    True
    """
    folder, model_code = Path(folder), Path(model_code)
    record, validation = _read_proxy(folder)
    if alias == CHAMPION:
        raise InputError(f"The alias {CHAMPION} is set by `emergence promote` alone; register as {CANDIDATE}.")
    if register is not None:
        _check_name(register)
        if not anyway and not useful(record):
            raise InputError(
                f"{folder} is not registered: {verdict_of(record)} Register it all the same with --anyway."
            )
    tracker = MlflowTracker(tracking_uri, experiment)
    key = digest(b"".join((folder / name).read_bytes() for name in FILES))
    known = tracker.known("proxy").get(key)
    if known is not None and known.digest:
        run_id = known.run_id
        model_id = model_of(tracker.client, tracker.uri, run_id)
    else:
        name = f"proxy of {record.get('target', 'target')}"
        run_id = known.run_id if known else tracker.start(key, name, sweep="proxy", parent=None, started=_now())
        reference = DataSource(
            "references", digest((folder / "references.parquet").read_bytes()), str(folder), "training"
        )
        kept = unfinished_model(tracker, run_id) if known else None
        model_id = kept or log_model(tracker, run_id, folder, model_code, input_example)
        _log_scores(tracker, run_id, model_id, record, validation, reference)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch)
            for path in folder.rglob("*"):
                if path.is_file() and path.suffix in (".parquet", ".json", ".md", ".png"):
                    (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy / path.relative_to(folder))
            tracker.upload(run_id, copy)
        tracker.end(run_id, digest=key, failed=False, ended=_now())
    model_uri = f"models:/{model_id}"
    number = None
    if register is not None:
        number = register_model(tracker, register, alias, model_id, run_id, describe_proxy(record, validation))
    return TrackedProxy(run_id, model_uri, number)


def useful(record: dict[str, Any]) -> bool:
    """Whether a saved proxy did better than every baseline on left-out references, by its proxy.json."""
    return (record.get("verdict") or {}).get("useful") is True


def verdict_of(record: dict[str, Any]) -> str:
    """Return the verdict that a saved proxy carries in its proxy.json."""
    return str((record.get("verdict") or {}).get("sentence") or "it has no verdict; fit it again.")


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
            f"{folder} is not a saved proxy: {', '.join(missing)} missing; give a folder `emergence fit` wrote."
        )
    try:
        record = json.loads((folder / "proxy.json").read_text(encoding="utf-8"))
        validation = pd.read_parquet(folder / "validation.parquet")
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{folder} could not be read as a saved proxy: {reason}; fit it again.") from error
    if not isinstance(record, dict) or not is_whole(record):
        raise InputError(f"{folder}/proxy.json was changed after the proxy was saved, or holds no hash; fit it again.")
    lacking = [name for name in ("target", "level", "scores", "coverage") if name not in record]
    if lacking:
        raise InputError(f"{folder}/proxy.json lacks {', '.join(lacking)}; fit the proxy again.")
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
    reference: DataSource,
) -> None:
    from mlflow.entities import Metric

    points, unfit = finite(Point(name, value) for name, value in scores(record).items())
    params = {name: record.get(name) for name in PARAMS} | {"features": len(record.get("features", []))}
    tracker.log(
        run_id,
        params=flatten(params),
        tags={
            **flatten({"versions": record.get("versions", {})}),
            "kind": "proxy",
            USEFUL: "yes" if useful(record) else "no",
            "verdict": verdict_of(record),
            "target": str(record.get("target", "")),
            "flags": "; ".join(unfit),
            NOTE: describe_proxy(record, validation),
        },
        sources=[reference],
    )
    at = _now()
    with clear_errors(tracker.uri):
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


def _now() -> int:
    import time

    return round(1000 * time.time())
