"""A proxy on disk: one folder of JSON, skops, parquet, a card and its figures; no pickle."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from estimators.base import InputError
from extraction.tables import read_table, write_table
from proxy.regression.domain import Domain
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import Proxy
from proxy.regression.references import numeric

SCHEMA = 2
PACKAGES = ("emergence-proxy", "scikit-learn", "mapie", "numpy", "pandas", "skops")
# These decide what a stored estimator means; skops checks types, not versions.
EXACT = ("scikit-learn", "mapie")
MEANS = ("coverage", "mean_width", "coverage_inside", "coverage_outside")  # empty, not 0, where nothing was counted
FILES = ("model.skops", "references.parquet", "validation.parquet")

# All that a proxy holds beyond what skops trusts by itself. Fixed here, never taken from the file that is read.
TRUSTED = [
    "mapie.estimator.regressor.EnsembleRegressor",
    "mapie.regression.regression.CrossConformalRegressor",
    "mapie.regression.regression._MapieRegressor",
    "numpy.dtype",
    "proxy.regression.candidates.Average",
    "proxy.regression.candidates.BestFeature",
    "proxy.regression.candidates.FamilyPooled",
    "proxy.regression.candidates.GaussianProcess",
    "proxy.regression.candidates.Mean",
    "proxy.regression.candidates.PartialLeastSquares",
    "proxy.regression.candidates.PrincipalComponents",
    "proxy.regression.candidates.Ridge",
    "proxy.regression.intervals.LinkResidual",
    "proxy.regression.links.Link",
    "proxy.regression.regressor.ProxyRegressor",
    "sklearn.model_selection._split.PredefinedSplit",
]


def save_proxy(proxy: Proxy, folder: Path) -> None:
    """Write `proxy` into `folder`, which must not exist yet or be empty; it appears whole or not at all.

    Raises:
        InputError: if the folder holds something or cannot be made.
    """
    from proxy.regression.card import write_card

    folder = folder.absolute()
    check_new_folder(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "proxy"
        made.mkdir()
        skops.io.dump({"conformal": proxy.intervals.conformal}, made / "model.skops", compression=zipfile.ZIP_DEFLATED)
        write_table(proxy.references, made / "references.parquet")
        write_table(proxy.validation, made / "validation.parquet")
        write_card(proxy, made)
        description = {
            "schema": SCHEMA,
            "target": proxy.target,
            "mode": proxy.mode,
            "features": list(proxy.features),
            "level": proxy.level,
            "bounds": list(proxy.bounds),
            "unit": proxy.unit,
            "groups": proxy.intervals.groups,
            "chosen": proxy.chosen,
            "scores": _records(proxy.scores),
            "coverage": _records(proxy.coverage),
            "remarks": list(proxy.remarks),
            "seed": proxy.seed,
            "references_hash": table_hash(proxy.references),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "sha256": {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in FILES},
        }
        (made / "proxy.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder a proxy could not be written to, before any work is done.

    Raises:
        InputError: if it holds something, or its parent is missing or cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something already; give a new folder for the proxy.")
    if not folder.parent.is_dir():
        raise InputError(f"The folder {folder.parent} for {folder.name} does not exist; create it first.")
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"The folder {folder.parent} cannot be written; choose another for {folder.name}.")


def load_proxy(folder: Path) -> Proxy:
    """Read a proxy that `save_proxy` wrote, checking schema, versions, and that its files belong together.

    Raises:
        InputError: if the folder holds no proxy, one of another schema or of other versions, or damaged files.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "proxy.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"No proxy in {folder}: it has no proxy.json; give a folder that `emergence fit` wrote."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'proxy.json'} could not be read as JSON: {error}.") from error
    _check_description(folder, description)
    try:
        stored = skops.io.load(folder / "model.skops", trusted=TRUSTED)
    except (UntrustedTypesFoundException, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{folder / 'model.skops'} is not a proxy of this version and was not loaded: {error}."
        ) from error
    references = read_table(folder / "references.parquet")
    if table_hash(references) != description["references_hash"]:
        raise InputError(f"{folder / 'references.parquet'} is not the table this proxy was trained on; fit it again.")
    # what groups and domain are follows from the table, whose hash was checked
    intervals = Intervals(stored["conformal"], references[description["unit"]].to_numpy(dtype=str))
    lower, upper = description["bounds"]
    return Proxy(
        target=description["target"],
        mode=description["mode"],
        features=tuple(description["features"]),
        level=description["level"],
        bounds=(lower, upper),
        unit=description["unit"],
        intervals=intervals,
        domain=Domain.of(intervals.regressor, numeric(references, description["features"])),
        references=references,
        validation=read_table(folder / "validation.parquet"),
        scores=pd.DataFrame(description["scores"]).astype({"coverage": float, "spearman": float}),
        coverage=pd.DataFrame(description["coverage"]).astype(dict.fromkeys(MEANS, float)),
        remarks=tuple(description["remarks"]),
        seed=description["seed"],
    )


def table_hash(frame: pd.DataFrame) -> str:
    """Return 16 hex digits that change with any name or value of a table, in order."""
    digest = hashlib.sha256(json.dumps([str(c) for c in frame.columns]).encode())
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values):
            digest.update(values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan).tobytes())
        else:
            digest.update(json.dumps([None if pd.isna(v) else str(v) for v in values.tolist()]).encode())
    return digest.hexdigest()[:16]


def _check_description(folder: Path, description: dict[str, Any]) -> None:
    if description.get("schema") != SCHEMA:
        raise InputError(
            f"The proxy in {folder} has schema {description.get('schema')}, this version reads {SCHEMA}; fit it again."
        )
    for name in EXACT:
        stored, here = description["versions"][name], importlib.metadata.version(name)
        if stored.split(".")[:2] != here.split(".")[:2]:
            raise InputError(
                f"The proxy in {folder} was made with {name} {stored}, but {here} is installed; install {stored} or "
                "fit it again."
            )
    for name, digest in description["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"The proxy in {folder} lacks {name}; copy the whole folder.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path} was changed after the proxy was saved; fit it again or copy the whole folder.")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records
