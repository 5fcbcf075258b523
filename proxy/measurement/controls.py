"""Controls as part of a number: what a random network and shuffled windows show, beside what the trained model does."""

from __future__ import annotations

import numpy as np
import pandas as pd

from estimators.contracts.peaks import at_end, at_peak, at_resolution

PLACE = ["estimator", "layer", "position", "resolution"]
ERRORS = 4.0  # joint standard errors by which emergence must lie above a control: chance does so once in 30,000 times
FAILED = "control-failed"
CONTROLS = ("twin", "shuffled")


def with_controls(
    table: pd.DataFrame, *, twin: pd.DataFrame | None = None, shuffled: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Put what the controls gave beside each row, and flag the rows whose emergence is not above both.

    Args:
        table: the trained model's emergence table on one corpus.
        twin: that of its random-weights twin on the same windows.
        shuffled: the trained model's own on shuffled windows.

    Returns:
        `table` with ``twin_ie_bits``, ``shuffled_ie_bits`` and their standard errors, and the flag ``control-failed``
        where E is not above a control that was run by four joint errors, sqrt(se(E)^2 + se(control)^2).
    """
    result = table.reset_index(drop=True)
    failed = np.zeros(len(result), bool)
    for name, control in zip(CONTROLS, (twin, shuffled), strict=True):
        if control is None:
            continue
        other = control[[*PLACE, "ie_bits", "ie_std_error"]]
        joined = result[PLACE].merge(other, on=PLACE, how="left", validate="one_to_one")
        result[f"{name}_ie_bits"] = joined["ie_bits"].astype("Float64")
        result[f"{name}_ie_std_error"] = joined["ie_std_error"].astype("Float64")
        failed |= ~_above(result, joined)
    flags = result["flags"].fillna("")
    joint = np.where(flags != "", flags + "," + FAILED, FAILED)
    return result.assign(flags=pd.Series(np.where(failed, joint, flags), index=result.index, dtype="string"))


def _above(table: pd.DataFrame, control: pd.DataFrame) -> np.ndarray:
    value, error = _floats(table, "ie_bits"), _floats(table, "ie_std_error")
    other, other_error = _floats(control, "ie_bits"), _floats(control, "ie_std_error")
    return np.asarray(value - other > ERRORS * np.hypot(error, other_error))  # unknown errors are no evidence


def _floats(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise an emergence table by the block where E(l) peaks, a row per model, corpus and estimator.

    Returns:
        model, corpus, E, its standard error, twin, shuffled (bits), verdict, block, windows, prefix. The verdict is
        ``learned`` where E is above every control that was run, ``control failed`` where not, and ``no controls`` where
        none was.
    """
    peak = at_end(at_resolution(at_peak(table))).reset_index(drop=True)
    controls = [name for name in CONTROLS if f"{name}_ie_bits" in peak]
    ran = np.zeros(len(peak), bool)
    for name in controls:
        ran |= peak[f"{name}_ie_bits"].notna().to_numpy()
    failed = peak["flags"].fillna("").str.contains(FAILED).to_numpy(dtype=bool)
    return pd.DataFrame(
        {
            "model": peak["model"],
            "corpus": peak["corpus"],
            "E": peak["ie_bits"].astype(float),
            "±": peak["ie_std_error"].astype(float),
            **{name: peak[f"{name}_ie_bits"].astype(float) for name in controls},
            "verdict": np.where(~ran, "no controls", np.where(failed, "control failed", "learned")),
            "block": peak["layer"],
            "windows": peak["windows"],
            "prefix": peak.get("prefix", ""),
        }
    )


def varying(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, object]]:
    """Part a summary into the columns that differ between its rows, and what stands above them for all.

    >>> varying(pd.DataFrame({"model": ["a", "b"], "E": [1.0, 2.0], "corpus": "animal"}))[1]
    {'corpus': 'animal'}
    """
    kept = ("model", "E", "±", "verdict", *CONTROLS)
    same = {
        str(name): frame[name].iloc[0] for name in frame if name not in kept and len(frame[name].drop_duplicates()) == 1
    }
    return frame.drop(columns=list(same)), same
