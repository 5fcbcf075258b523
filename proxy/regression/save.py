"""Writing a proxy to disk: one folder of JSON, skops, parquet, a card and its figures; no pickle."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io

from estimators.contracts.files import new_folder
from estimators.contracts.seals import sealed
from extraction.tables import write_table
from proxy.regression.card import write_card
from proxy.regression.record import ProxyRecord
from proxy.regression.references import provenances

SCHEMA = 5
PACKAGES = ("emergence-proxy", "scikit-learn", "numpy", "pandas", "skops")
FILES = ("model.skops", "references.parquet", "validation.parquet")


def save_proxy(proxy: ProxyRecord, folder: Path) -> None:
    """Write `proxy` into `folder`, which must not exist yet or be empty; it appears whole or not at all.

    Raises:
        InputError: if the folder holds something or cannot be made.
    """
    with new_folder(folder, "proxy") as made:
        model = {
            "regressor": proxy.intervals.regressor,
            "without": list(proxy.intervals.without),
            "folds": proxy.intervals.folds,
            "errors": proxy.intervals.errors,
        }
        skops.io.dump(model, made / "model.skops", compression=zipfile.ZIP_DEFLATED)
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
            "verdict": {"useful": proxy.verdict.useful, "sentence": proxy.verdict.sentence},
            "remarks": list(proxy.remarks),
            "references_hash": table_hash(proxy.references),
            "provenance": [one.dumps() for one in provenances(proxy.references)],
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "sha256": {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in FILES},
        }
        (made / "proxy.json").write_text(json.dumps(sealed(description), indent=1) + "\n", encoding="utf-8")


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


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records
