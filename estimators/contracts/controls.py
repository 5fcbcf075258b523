"""Controls as part of a number: what a random network and shuffled windows show, beside what the trained model does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from estimators.contracts.conventions import DEFAULT_RESOLUTION, SHUFFLED, TWIN
from estimators.contracts.peaks import at_end, at_peak, at_resolution, complete, peaks

PLACE = ["estimator", "layer", "position", "resolution"]
ERRORS = 4.0  # joint standard errors by which emergence must lie above a control: chance does so once in 30,000 times
NEAR_ZERO = 0.005  # bits: a control below it is about 0, however small its error; 0.00 where two decimals are shown
FAILED = "control-failed"
CONTROLS = ("twin", "shuffled")
# J and J2 measure how far what is said differs from context to context, and shuffled contexts differ as much as text:
# what stands beside them under "shuffled" is shown, and is no evidence for or against a model.
OF_SPREAD = r"output-\d.*"
VERDICTS = ("learned", "not shown", "control failed", "no controls")


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
        where E is not above a control that was run by four joint errors, sqrt(se(E)^2 + se(control)^2). The shuffled
        windows decide nothing about output-K, see `decides`.
    """
    result = table.reset_index(drop=True)
    failed = np.zeros(len(result), bool)
    for name, control in zip(CONTROLS, (twin, shuffled), strict=True):
        if control is None:
            continue
        other = control[[*PLACE, "ie_bits", "ie_std_error"]]
        joined = result[PLACE].merge(other, on=PLACE, how="left", validate="many_to_one")
        result[f"{name}_ie_bits"] = joined["ie_bits"].astype("Float64")
        result[f"{name}_ie_std_error"] = joined["ie_std_error"].astype("Float64")
        failed |= ~_above(result, joined) & decides(result, name)
    flags = result["flags"].fillna("").astype(str)
    joint = np.where(flags != "", flags + "," + FAILED, FAILED)
    failed &= ~flags.str.contains(FAILED).to_numpy(dtype=bool)  # flagged once
    return result.assign(flags=pd.Series(np.where(failed, joint, flags), index=result.index, dtype="string"))


def controls_as_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Turn controls that were measured as models and corpora of their own into columns of the models they belong to.

    A model's random-weights twin has rows as ``MODEL~random``, its shuffled windows as ``CORPUS, shuffled``: both leave
    the table and stand beside the trained model's rows, as `with_controls` puts them. Controls whose trained model is
    not in the table stay as they are, so that nothing measured is lost.

    >>> rows = pd.DataFrame({"model": ["a", "a~random"], "ie_bits": [2.0, 0.1], "ie_std_error": 0.1})
    >>> rows = rows.assign(corpus="animal", layer=0, position=8, resolution=0.18)
    >>> controls_as_columns(rows)[["model", "ie_bits", "twin_ie_bits"]].values.tolist()
    [['a', 2.0, 0.1]]
    """
    table = complete(table).reset_index(drop=True)
    model, corpus = table["model"].astype(str), table["corpus"].astype(str)
    twin, shuffled = model.map(is_twin).astype(bool), corpus.map(is_shuffled).astype(bool)
    if not (twin | shuffled).any():
        return table
    own = pd.MultiIndex.from_arrays([model.map(_without(TWIN)), corpus.map(_without(SHUFFLED))])
    parts = []
    for (name, text), rows in table[~twin & ~shuffled].groupby(["model", "corpus"], sort=False):
        same = np.asarray(own == (name, text))
        of_twin, of_shuffled = (
            table[same & mask].drop_duplicates(PLACE) for mask in (twin & ~shuffled, shuffled & ~twin)
        )
        parts.append(
            with_controls(
                rows,
                twin=of_twin if len(of_twin) else None,
                shuffled=of_shuffled if len(of_shuffled) else None,
            )
        )
    trained = own.isin(own[~twin & ~shuffled])
    return pd.concat([*parts, table[(twin | shuffled) & ~trained]], ignore_index=True)


def is_twin(model: str) -> bool:
    """Whether a model is the random-weights twin of another; what tells jobs of one name apart may follow the mark."""
    return model.endswith(TWIN) or f"{TWIN} " in model


def is_shuffled(corpus: str) -> bool:
    """Whether a corpus is another one with its tokens shuffled; what tells jobs of one name apart may follow."""
    return corpus.endswith(SHUFFLED) or f"{SHUFFLED} " in corpus


def _without(mark: str) -> Callable[[str], str]:
    return lambda name: name.replace(mark, "", 1)


def decides(table: pd.DataFrame, control: str) -> np.ndarray:
    """Whether a control shows if a number was learned from text, for each row.

    Shuffled windows cannot for output-K: J asks whether different contexts lead to different predictions, which they do
    in any trained model, be the contexts text or not. Its control is the random-weights twin alone.

    >>> decides(pd.DataFrame({"estimator": ["output-20", "predictive-20"]}), "shuffled").tolist()
    [False, True]
    """
    spread = table["estimator"].astype(str).str.fullmatch(OF_SPREAD).to_numpy(dtype=bool)
    return ~spread if control == "shuffled" else np.ones(len(table), bool)


def _above(table: pd.DataFrame, control: pd.DataFrame) -> np.ndarray:
    value, error = _floats(table, "ie_bits"), _floats(table, "ie_std_error")
    other, other_error = _floats(control, "ie_bits"), _floats(control, "ie_std_error")
    return np.asarray(value - other > ERRORS * np.hypot(error, other_error))  # unknown errors are no evidence


def joint_error(table: pd.DataFrame, control: str) -> np.ndarray:
    """Return the joint standard error of emergence and a control beside it, for each row."""
    return np.asarray(np.hypot(_floats(table, "ie_std_error"), _floats(table, f"{control}_ie_std_error")))


def _floats(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def verdicts(table: pd.DataFrame) -> np.ndarray:
    """Return one word or two per row for what its controls say.

    It is ``learned`` where E is above every control that was run by four joint errors. Where not, it is ``control
    failed`` if that control lies above 0 by four of its errors and by 0.005 bits, so that the observer sees what was
    not learned, else ``not shown``: more windows might. It is ``no controls`` where none was run that `decides`.

    >>> rows = pd.DataFrame({"estimator": ["output-20", "predictive-20"], "ie_bits": 2.0, "ie_std_error": 0.1})
    >>> verdicts(rows.assign(shuffled_ie_bits=0.0, shuffled_ie_std_error=0.1, flags="")).tolist()
    ['no controls', 'learned']
    """
    ran, failed = np.zeros(len(table), bool), np.zeros(len(table), bool)
    for name in (name for name in CONTROLS if f"{name}_ie_bits" in table):
        value, error = _floats(table, f"{name}_ie_bits"), _floats(table, f"{name}_ie_std_error")
        counts = decides(table, name) & ~np.isnan(value)
        ran |= counts
        not_above = _floats(table, "ie_bits") - value <= ERRORS * joint_error(table, name)
        failed |= counts & (value > np.maximum(ERRORS * error, NEAR_ZERO)) & not_above
    below = table["flags"].fillna("").str.contains(FAILED).to_numpy(dtype=bool)
    return np.select([~ran, failed, below], ["no controls", "control failed", "not shown"], "learned")


def summary(table: pd.DataFrame, resolution: float = DEFAULT_RESOLUTION) -> pd.DataFrame:
    """Summarise an emergence table by the block where E(l) peaks, a row per model, corpus and estimator.

    Controls that were measured as models and corpora of their own are columns here (`controls_as_columns`).

    Returns:
        model, corpus, E, its standard error, twin, shuffled (bits), verdict (see `verdicts`), block, windows, prefix,
        estimator; path, empty for models that lie in no folder or file of their own.
    """
    table = controls_as_columns(table)
    peak = at_end(at_resolution(at_peak(table, peaks(table, resolution)), resolution)).reset_index(drop=True)
    controls = [name for name in CONTROLS if f"{name}_ie_bits" in peak]
    nothing = pd.Series(pd.NA, index=peak.index)
    return pd.DataFrame(
        {
            "model": peak["model"],
            "corpus": peak["corpus"],
            "E": peak["ie_bits"].astype(float),
            "±": peak["ie_std_error"].astype(float),
            **{name: peak[f"{name}_ie_bits"].astype(float) for name in controls},
            "verdict": verdicts(peak),
            "block": peak["layer"],
            "windows": peak.get("windows", nothing),
            "prefix": peak.get("prefix", nothing).fillna(""),
            "estimator": peak["estimator"],
            "path": peak.get("path", nothing),
        }
    )


def varying(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, object]]:
    """Part a summary into the columns that differ between its rows, and what stands above them for all.

    Columns that hold nothing, such as a control that was not run, leave it.

    >>> varying(pd.DataFrame({"model": ["a", "b"], "E": [1.0, 2.0], "twin": None, "corpus": "animal"}))[1]
    {'corpus': 'animal'}
    """
    frame = frame[[name for name in frame if frame[name].notna().any()]]
    kept = ("model", "E", "±", "verdict", *CONTROLS)
    same = {
        str(name): frame[name].iloc[0] for name in frame if name not in kept and len(frame[name].drop_duplicates()) == 1
    }
    return frame.drop(columns=list(same)), same
