"""What a sweep says in few numbers: the peak of E(l) per model and corpus, and the curves through it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from estimators.contracts.conventions import DEFAULT_RESOLUTION

MEASURED = ["model", "corpus", "estimator"]  # what one job measures


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


def peaks(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Summarise each model on each corpus by the block where E(l) is highest.

    Returns:
        One row per model, corpus and estimator: family, parameters, resolution, blocks, peak_layer,
        emergence_bits, emergence_bits_std_error and flags (of all its rows, comma-separated).
    """
    columns = [
        *MEASURED,
        "family",
        "parameters",
        "resolution",
        "blocks",
        "peak_layer",
        "emergence_bits",
        "emergence_bits_std_error",
        "flags",
    ]
    table = measured(table)
    if table.empty:
        frame = pd.DataFrame(columns=columns)
    else:
        ends = at_end(at_resolution(table, resolution)).reset_index(drop=True)
        ends = ends.assign(emergence_bits=ends["ie_bits"].astype(float))
        groups = ends.groupby(MEASURED, dropna=False, sort=True)
        frame = ends.loc[groups["emergence_bits"].idxmax().to_numpy()].reset_index(drop=True)
        frame = frame.rename(columns={"layer": "peak_layer", "ie_std_error": "emergence_bits_std_error"})
        frame = frame.assign(
            blocks=groups["layer"].nunique().to_numpy(), flags=groups["flags"].agg(_joined).to_numpy(dtype=object)
        )[columns]
    return frame.astype(
        {
            "parameters": "Int64",
            "resolution": "Float64",
            "peak_layer": "Int64",
            "emergence_bits": "Float64",
            "emergence_bits_std_error": "Float64",
        }
    )


def at_peak(table: pd.DataFrame, summary: pd.DataFrame | None = None) -> pd.DataFrame:
    """Keep, for every model and corpus, the rows of the block where E(l) peaks, at every position and resolution.

    Args:
        table: emergence table.
        summary: of `peaks(table)`, if it is there already.
    """
    table = measured(table)
    where = (peaks(table) if summary is None else summary)[[*MEASURED, "peak_layer"]]
    joined = table.merge(where, on=MEASURED, how="inner")
    return joined[joined["layer"] == joined["peak_layer"]].drop(columns="peak_layer")


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that figures and summaries are made of: the last positions, and the blocks where E(l) peaks.

    `peaks`, `at_peak`, `at_end` and what is built on them give the same from these few rows as from all.
    """
    if table.empty:
        return table
    table = measured(table).reset_index(drop=True)
    last = at_end(table)
    highest = last.merge(peaks(last)[[*MEASURED, "peak_layer"]], on=MEASURED)[[*MEASURED, "peak_layer"]]
    peak = table.merge(highest.drop_duplicates(), on=MEASURED, how="left")["peak_layer"]
    return table[table.index.isin(last.index) | (table["layer"] == peak).to_numpy(dtype=bool, na_value=False)]


def flags(rows: pd.DataFrame) -> str:
    """Collect the flags of some rows, each once, in order of name."""
    return _joined(rows["flags"]) if len(rows) else ""


def _joined(cells: pd.Series) -> str:
    return ", ".join(sorted({flag for cell in cells.dropna().unique() for flag in str(cell).split(",") if flag}))


def by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the models from the smallest to the largest, each with its rows."""
    if table.empty:
        return
    sizes = table.assign(parameters=table["parameters"].astype("Float64").fillna(-1.0))
    order = sizes.groupby("model")["parameters"].max().reset_index().sort_values(["parameters", "model"])
    groups = dict(iter(table.groupby("model")))
    for model in order["model"]:
        yield str(model), groups[model]


def short(summary: pd.DataFrame) -> pd.DataFrame:
    """Keep the columns of a summary that fit a description, the largest emergence first within a corpus."""
    columns = ["model", "corpus", "parameters", "emergence_bits", "emergence_bits_std_error", "peak_layer"]
    names = {"emergence_bits": "E [bits]", "emergence_bits_std_error": "± std error", "peak_layer": "block"}
    return summary.sort_values(["corpus", "emergence_bits"], ascending=[True, False])[columns].rename(columns=names)
