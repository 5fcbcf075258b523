"""Reading a proxy from disk, with checks: schema, versions, and that its files belong together."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from estimators.base import InputError
from extraction.tables import read_table
from proxy.regression.domain import Domain
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import Proxy
from proxy.regression.references import numeric
from proxy.regression.save import SCHEMA, table_hash

MEANS = ("coverage", "mean_width", "coverage_inside", "coverage_outside")  # empty, not 0, where nothing was counted

# All that a proxy holds beyond what skops trusts by itself. Fixed here, never taken from the file that is read.
TRUSTED = [
    "numpy.dtype",
    "proxy.regression.candidates.Average",
    "proxy.regression.candidates.BestFeature",
    "proxy.regression.candidates.FamilyPooled",
    "proxy.regression.candidates.GaussianProcess",
    "proxy.regression.candidates.Mean",
    "proxy.regression.candidates.PartialLeastSquares",
    "proxy.regression.candidates.PrincipalComponents",
    "proxy.regression.candidates.Ridge",
    "proxy.regression.links.Link",
    "proxy.regression.regressor.ProxyRegressor",
]


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
    intervals = Intervals(
        stored["regressor"],
        tuple(stored["without"]),
        stored["folds"],
        stored["errors"],
        references[description["unit"]].to_numpy(dtype=str),
    )
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
    )


def _check_description(folder: Path, description: dict[str, Any]) -> None:
    if description.get("schema") != SCHEMA:
        raise InputError(
            f"The proxy in {folder} has schema {description.get('schema')}, this version reads {SCHEMA}; fit it again."
        )
    # It decides what a stored estimator means; skops checks types, not versions.
    stored, here = description["versions"]["scikit-learn"], importlib.metadata.version("scikit-learn")
    if stored.split(".")[:2] != here.split(".")[:2]:
        raise InputError(
            f"The proxy in {folder} was made with scikit-learn {stored}, but {here} is installed; install {stored} or "
            "fit it again."
        )
    for name, digest in description["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"The proxy in {folder} lacks {name}; copy the whole folder.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path} was changed after the proxy was saved; fit it again or copy the whole folder.")
