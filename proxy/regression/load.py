"""Reading a proxy from disk, with checks: schema, versions, and that its files belong together."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import skops.io

from estimators.base import InputError
from estimators.contracts.files import check_file
from estimators.contracts.seals import SEAL, is_whole
from extraction.tables import read_table
from proxy.regression.domain import Domain
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import Proxy
from proxy.regression.references import numeric
from proxy.regression.save import FILES, PACKAGES, SCHEMA, table_hash

LARGEST = 2**30  # bytes that a stored model may unpack to
MEANS = ("coverage", "mean_width", "coverage_inside", "coverage_outside")  # empty, not 0, where nothing was counted

# All that a proxy holds beyond what skops trusts by itself. Fixed here, never taken from the file that is read.
TRUSTED = [
    "numpy.dtype",
    "proxy.regression.candidates.Average",
    "proxy.regression.candidates.BestFeature",
    "proxy.regression.candidates.FamilyPooled",
    "proxy.regression.candidates.GaussianProcess",
    "proxy.regression.candidates.Mean",
    "proxy.regression.candidates.OutputLine",
    "proxy.regression.candidates.PartialLeastSquares",
    "proxy.regression.candidates.PrincipalComponents",
    "proxy.regression.candidates.Ridge",
    "proxy.regression.candidates.ScalingLaw",
    "proxy.regression.candidates.SizeSurrogate",
    "proxy.regression.candidates.StretchedRidge",
    "proxy.regression.links.Link",
    "proxy.regression.regressor.CommonScaler",
    "proxy.regression.regressor.GapFiller",
    "proxy.regression.regressor.NoisyScaler",
    "proxy.regression.regressor.ProxyRegressor",
]


def load_proxy(folder: str | PathLike[str]) -> Proxy:
    """Read a proxy that `save_proxy` wrote, checking schema, versions, and that its files belong together.

    Raises:
        InputError: if the folder holds no proxy, one of another schema or of other versions, or damaged files.

    >>> from proxy import fit_proxy
    >>> fit_proxy(references, target="emergence_bits", candidate="mean").save(scratch / "proxy")
    >>> load_proxy(scratch / "proxy").target
    'emergence_bits'
    """
    folder = Path(folder)
    check_file(folder)
    check_file(folder / "proxy.json")
    try:
        description = json.loads((folder / "proxy.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"No proxy in {folder}: it has no proxy.json; give a folder that `emergence fit` wrote."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{folder / 'proxy.json'} could not be read as JSON: {reason}.") from error
    _check_description(folder, description)
    try:
        return _built(folder, description)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # made by another program
        raise InputError(f"{folder} holds no proxy of this version ({error!r}); fit it again.") from error


def _built(folder: Path, description: dict[str, Any]) -> Proxy:
    for name in ("target", "mode", "unit"):
        if not isinstance(description[name], str):
            raise TypeError(f"{name} is not text")
    stored = _stored(folder / "model.skops")
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


def _stored(path: Path) -> dict[str, Any]:
    """Read what skops stored, of known types alone and of a size that fits in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise InputError(f"{path} would take {size / 2**30:.1f} GiB in memory, so it was not loaded; fit it again.")
        stored: dict[str, Any] = skops.io.load(path, trusted=TRUSTED)
    except InputError:
        raise
    except Exception as error:  # skops does not check the form of a file: one of unknown origin may fail anywhere in it
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} is not a proxy of this version and was not loaded: {reason}.") from error
    return stored


def _check_description(folder: Path, description: Any) -> None:
    if not isinstance(description, dict):
        raise InputError(f"{folder / 'proxy.json'} should hold one JSON object, found a {type(description).__name__}.")
    if description.get("schema") != SCHEMA:
        raise InputError(
            f"The proxy in {folder} has schema {description.get('schema')}, this version reads {SCHEMA}; fit it again."
        )
    if SEAL not in description:
        raise InputError(f"The proxy in {folder} was written by an earlier version, without a hash; fit it again.")
    if not is_whole(description):
        raise InputError(
            f"{folder / 'proxy.json'} was changed after the proxy was saved; fit it again or copy the whole folder."
        )
    parts = [description.get("versions"), description.get("sha256")]
    if not all(
        isinstance(part, dict) and {*names} <= {*part} for part, names in zip(parts, (PACKAGES, FILES), strict=True)
    ):
        raise InputError(f"{folder / 'proxy.json'} lacks versions or hashes of its files; fit the proxy again.")
    # It decides what a stored estimator means; skops checks types, not versions.
    stored, here = str(description["versions"]["scikit-learn"]), importlib.metadata.version("scikit-learn")
    if stored.split(".")[:2] != here.split(".")[:2]:
        raise InputError(
            f"The proxy in {folder} was made with scikit-learn {stored}, but {here} is installed; install {stored} or "
            "fit it again."
        )
    for name in FILES:
        digest = description["sha256"][name]
        path = folder / name
        if not path.is_file():
            raise InputError(f"The proxy in {folder} lacks {name}; copy the whole folder.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path} was changed after the proxy was saved; fit it again or copy the whole folder.")
