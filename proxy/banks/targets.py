"""The reference table of a bank: features of the output, and emergence at relative depths as targets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from estimators.base import InputError
from estimators.contracts.controls import ERRORS, FAILED
from extraction.models.names import same_model
from proxy.banks.bank import Bank
from proxy.features.output import output_features
from proxy.measurement.output import OUTPUT_LAYER
from proxy.regression.references import SIZE
from proxy.schemas import REFERENCES

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the blocks: 0 the first, 1 the last
PEAK = "emergence_peak"
ESTIMATOR = "predictive"


def target(depth: float) -> str:
    """Column of emergence at a relative depth.

    >>> target(0.25)
    'emergence_at_0.25'
    """
    return f"emergence_at_{depth:g}"


def reference_table(bank: Bank, corpus: str, *, shown: int, estimator: str = ESTIMATOR) -> pd.DataFrame:
    """Features and targets of a bank's models on one corpus.

    Args:
        bank: the references.
        corpus: name of the corpus.
        shown: tokens shown of each next-token distribution, see `proxy.features.output`.
        estimator: of the blocks.

    Returns:
        Schema REFERENCES: model, run, family, ``meta.log_parameters``, ``output.*`` with ``noise.output.*``,
        ``emergence_peak`` and ``emergence_at_<depth>`` with standard errors, in bits. Models with an emergence at
        the peak that is no chance, but is not above its controls, are left out; ``attrs["remarks"]`` names them.

    Raises:
        InputError: if the bank has no such readings on the corpus.
    """
    rows = bank.emergence[bank.emergence["corpus"] == corpus]
    if shown not in bank.shown(corpus):
        known = ", ".join(f"{k} tokens shown" if k else "samples" for k in bank.shown(corpus)) or "none"
        raise InputError(
            f"The bank {bank.name} has no references on {corpus} whose output was read by "
            f"{f'{shown} tokens shown' if shown else 'samples'}; it has {known}."
        )
    features = output_features(rows, shown=shown)
    targets = profile_targets(rows, estimator)
    if targets.empty:
        raise InputError(
            f"The bank {bank.name} has no blocks measured by {estimator} on {corpus}; it has "
            f"{', '.join(bank.estimators(corpus)) or 'none'}."
        )
    table = bank.models.merge(features, on="model").merge(targets, on="model", validate="one_to_one")
    table[SIZE] = np.log10(table["parameters"].astype("Float64"))
    failed = sorted(table.loc[table["failed"], "model"])
    remarks = []
    if failed:
        remarks.append(
            f"{len(failed)} models whose emergence is not above its controls are left out: {', '.join(failed[:4])}"
            f"{', ...' if len(failed) > 4 else ''}"
        )
    table = table[~table["failed"]].drop(columns=["failed", "revision"]).reset_index(drop=True)
    table = REFERENCES.conform(table)
    table.attrs["remarks"] = remarks
    return table


def profile_targets(rows: pd.DataFrame, estimator: str = ESTIMATOR) -> pd.DataFrame:
    """Emergence at its peak and at relative depths, linear between blocks, of each model of one corpus.

    >>> rows = pd.DataFrame({"model": "m", "layer": [0, 1], "estimator": "predictive", "ie_bits": [0.2, 0.6],
    ...                      "ie_std_error": 0.1, "flags": ""})
    >>> profile_targets(rows)[["emergence_peak", "emergence_at_0.25"]].round(3).values.tolist()
    [[0.6, 0.3]]
    """
    own = rows[(rows["layer"] > OUTPUT_LAYER) & (rows["estimator"] == estimator)]
    found = []
    for model, blocks in own.groupby("model", sort=True):
        blocks = blocks.sort_values("layer")
        values = blocks["ie_bits"].to_numpy(dtype=float)
        errors = blocks["ie_std_error"].to_numpy(dtype=float, na_value=np.nan)
        places = np.linspace(0.0, 1.0, len(values)) if len(values) > 1 else np.zeros(1)
        peak = int(np.argmax(values))
        row = {"model": str(model), PEAK: values[peak], f"{PEAK}_std_error": errors[peak]}
        for depth in DEPTHS:
            row[target(depth)] = float(np.interp(depth, places, values))
            row[f"{target(depth)}_std_error"] = float(np.interp(depth, places, errors))
        failed = FAILED in str(blocks["flags"].iloc[peak]) and values[peak] > ERRORS * errors[peak]
        found.append({**row, "failed": bool(failed)})
    return pd.DataFrame(found)


def without_model(table: pd.DataFrame, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part a reference table into the rows that a model may be estimated from, and those of its own run.

    Args:
        table: from `reference_table`.
        model: as it is called at a server; a model of the bank of that name leaves with its whole run.
    """
    same = [name for name in table["model"] if name == model or same_model(model, name)]
    runs = set(table.loc[table["model"].isin(same), "run"])
    own = table["run"].isin(runs)
    kept = table[~own].reset_index(drop=True)
    kept.attrs = dict(table.attrs)
    return kept, table[table["model"].isin(same)].reset_index(drop=True)
