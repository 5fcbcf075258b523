"""An emergence table in few numbers: E(l) at its highest block for each model, corpus and estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from estimators.contracts.conventions import DEFAULT_RESOLUTION

MEASURED = ["model", "corpus", "estimator"]  # what one job measures
# Columns that a table from elsewhere may lack, and what stands in them then.
OPTIONAL: dict[str, Any] = {
    "estimator": "unknown",
    "corpus_hash": pd.NA,
    "family": "",
    "parameters": pd.NA,
    "ie_std_error": np.nan,
    "flags": "",
}
PEAKS = (
    *MEASURED,
    "corpus_hash",
    "family",
    "parameters",
    "resolution",
    "blocks",
    "peak_layer",
    "emergence_bits",
    "emergence_bits_std_error",
    "flags",
)
DTYPES: dict[str, Any] = {
    "parameters": "Int64",
    "resolution": "Float64",
    "peak_layer": "Int64",
    "emergence_bits": "Float64",
    "emergence_bits_std_error": "Float64",
}


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns of `OPTIONAL` that a table lacks."""
    return table.assign(**{name: empty for name, empty in OPTIONAL.items() if name not in table})


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that hold a finite information emergence; the others are failures or flags."""
    if table.empty:
        return table
    finite: pd.DataFrame = table[np.isfinite(table["ie_bits"].to_numpy(dtype=float, na_value=np.nan))]
    return finite


def at_resolution(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Keep, for every model, corpus and estimator, the rows at the resolution nearest to `resolution`.

    Estimators without a resolution (null) keep all their rows.
    """
    distance = (table["resolution"].astype("Float64") - resolution).abs().fillna(0.0).astype(float)
    nearest = distance.groupby([table[name] for name in MEASURED], dropna=False).transform("min")
    return table[distance <= nearest + 1e-12]


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the last position of every model and corpus: E(l) = IE(l, T), arXiv 2405.12617."""
    last = table.groupby(MEASURED, dropna=False)["position"].transform("max")
    return table[table["position"] == last]


def blocks_or_output(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of blocks; of what was read of a model's output alone (layer -1), those of the output.

    >>> rows = pd.DataFrame({"model": ["a", "a", "b"], "layer": [0, -1, -1]}).assign(corpus="c", estimator="predictive")
    >>> blocks_or_output(rows)[["model", "layer"]].values.tolist()
    [['a', 0], ['b', -1]]
    """
    block = table["layer"].astype("Int64").ge(0).fillna(value=True).astype(bool)
    any_block = block.groupby([table[name] for name in MEASURED], dropna=False).transform("any")
    return table[block | ~any_block]


def peaks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Summarise each model on each corpus by the block where E(l) is highest; the output is no block.

    Args:
        table: an emergence table; columns that it lacks are empty (`OPTIONAL`).
        resolution: that the nearest one is taken to.

    Returns:
        One row per model, corpus and estimator, sorted by them: corpus_hash, family, parameters, resolution, blocks,
        peak_layer, emergence_bits, emergence_bits_std_error and flags (of all rows read, comma-separated).

    >>> rows = pd.DataFrame({"layer": [0, 1], "ie_bits": [0.5, 2.0], "position": 8, "resolution": 0.18})
    >>> peaks(rows.assign(model="gpt2", corpus="animal"))[["peak_layer", "emergence_bits"]].values.tolist()
    [[1, 2.0]]
    """
    table = measured(complete(table))
    if table.empty:
        return pd.DataFrame(columns=list(PEAKS)).astype(DTYPES)
    ends = at_end(at_resolution(blocks_or_output(table), resolution)).reset_index(drop=True)
    ends = ends.assign(emergence_bits=ends["ie_bits"].astype(float))
    groups = ends.groupby(MEASURED, dropna=False, sort=True)
    highest = ends.loc[groups["emergence_bits"].idxmax().to_numpy()].reset_index(drop=True)
    highest = highest.rename(columns={"layer": "peak_layer", "ie_std_error": "emergence_bits_std_error"})
    blocks, marks = groups["layer"].nunique(), groups["flags"].agg(_joined)
    found = highest.assign(blocks=blocks.to_numpy(), flags=marks.to_numpy(dtype=object))
    return found[list(PEAKS)].astype(DTYPES)


def at_peak(table: pd.DataFrame, summary: pd.DataFrame | None = None) -> pd.DataFrame:
    """Keep, for every model and corpus, the rows of the block where E(l) peaks, at every position and resolution.

    Args:
        table: emergence table.
        summary: of `peaks(table)`, if it is there already.
    """
    table = measured(complete(table))
    where = (peaks(table) if summary is None else summary)[[*MEASURED, "peak_layer"]]
    joined = table.merge(where, on=MEASURED, how="inner")
    return joined[joined["layer"] == joined["peak_layer"]].drop(columns="peak_layer")


def flags(rows: pd.DataFrame) -> str:
    """Collect the flags of some rows, each once, in order of name."""
    return _joined(rows["flags"]) if len(rows) else ""


def _joined(cells: pd.Series) -> str:
    return ", ".join(sorted({flag for cell in cells.dropna().unique() for flag in str(cell).split(",") if flag}))
