"""What a sweep says in few numbers: the peak of E(l) per model and corpus, and the curves through it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

DEFAULT_RESOLUTION = 0.18  # equals estimators.DEFAULT_RESOLUTION, which is not imported: no torch here
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
    rows = []
    table = measured(table)
    if not table.empty:
        ends = at_end(at_resolution(table, resolution))
        for names, group in ends.groupby(MEASURED, dropna=False, sort=True):
            peak = group.iloc[int(group["ie_bits"].to_numpy(dtype=float).argmax())]
            rows.append(
                [
                    *names,
                    peak["family"],
                    peak["parameters"],
                    peak["resolution"],
                    group["layer"].nunique(),
                    peak["layer"],
                    peak["ie_bits"],
                    peak["ie_std_error"],
                    flags(group),
                ]
            )
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(
        {
            "parameters": "Int64",
            "resolution": "Float64",
            "peak_layer": "Int64",
            "emergence_bits": "Float64",
            "emergence_bits_std_error": "Float64",
        }
    )


def at_peak(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Keep, for every model and corpus, the rows of the block where E(l) peaks, at every position and resolution."""
    table = measured(table)
    where = peaks(table, resolution)[[*MEASURED, "peak_layer"]]
    joined = table.merge(where, on=MEASURED, how="inner")
    return joined[joined["layer"] == joined["peak_layer"]].drop(columns="peak_layer")


def flags(rows: pd.DataFrame) -> str:
    """Collect the flags of some rows, each once, in order of name."""
    if rows.empty:
        return ""
    return ", ".join(sorted({flag for cell in rows["flags"].dropna() for flag in str(cell).split(",") if flag}))


def by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the models from the smallest to the largest, each with its rows."""
    if table.empty:
        return
    sizes = table.assign(parameters=table["parameters"].astype("Float64").fillna(-1.0))
    order = sizes.groupby("model")["parameters"].max().reset_index().sort_values(["parameters", "model"])
    groups = dict(iter(table.groupby("model")))
    for model in order["model"]:
        yield str(model), groups[model]


def markdown(frame: pd.DataFrame, limit: int = 40) -> str:
    """Write a table in markdown; cells cannot break out of it. Long tables end with what was left out."""

    def cell(value: object) -> str:
        if value is None or value is pd.NA or value != value:
            return "–"  # noqa: RUF001
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        return "".join("\\" + c if c in "\\`*_{}[]<>()#+!|~" else " " if c in "\r\n" else c for c in text)

    lines = ["| " + " | ".join(cell(name.replace("_", " ")) for name in frame.columns) + " |"]
    lines.append("|" + " --- |" * len(frame.columns))
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.head(limit).itertuples(index=False)]
    if len(frame) > limit:
        lines.append(f"\n{len(frame) - limit} further rows: see the table among the artifacts.")
    return "\n".join(lines)
