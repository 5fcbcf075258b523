"""Reading a reference table: which columns a proxy may learn from, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from estimators.base import InputError
from estimators.contracts.comparable import ABOUT, unlike
from extraction.reading import check_columns
from proxy.features.provenance import ASKED, COLUMN, Provenance, differences, read_provenance
from proxy.schemas import REFERENCES

Array = NDArray[np.float64]

# What is known of the models to be estimated decides what may be learned from.
PREFIXES = {"outputs": ("output.", "small.", "behaviour.", "words.", "accuracy."), "scale": ("small.", "meta.")}
NO_TARGETS = ("model", "family", "run", "parameters", COLUMN, ASKED)
NO_TARGET_PREFIXES = (*PREFIXES["outputs"], *PREFIXES["scale"], "noise.")
SIZE = "meta.log_parameters"
LARGEST = 1e100  # of a feature or target: sums of squares stay finite
WORDS = "words."
ANSWERS = ("small.", "behaviour.", WORDS)  # features of answers, whose provenance is recorded beside them
ACCURACY = "accuracy."  # on a benchmark: all of them shares, or all of them percentages
MOST_FAILED = 0.1  # share of references whose target may fail its controls without a remark
MODELS_FOR_WORDS = 20  # of 2,400 words fewer models only learn noise
MOST_FEATURES = 5000  # twice the words of `proxy.features.words`; a fit ends in minutes


@dataclass(frozen=True, slots=True)
class References:
    """A checked reference table, rows in order of family and model, columns in order of name.

    Attributes:
        frame: the whole table.
        X: (n, p) features of the mode, missing as NaN.
        y: (n,) targets.
        weights: (n,) mean 1, lower where the target's standard error is high.
        models: (n,) names.
        families: (n,) names; of the models themselves where none are known.
        families_known: whether the table says which models are of one family.
        runs: (n,) training run of each model: checkpoints of one run are left out together and count as one.
        log_parameters: (n, 1) sizes for the baseline, None where not all are known.
        remarks: what a reader must know.
    """

    frame: pd.DataFrame
    X: pd.DataFrame
    y: Array
    weights: Array
    models: NDArray[np.str_]
    families: NDArray[np.str_]
    families_known: bool
    runs: NDArray[np.str_]
    log_parameters: pd.DataFrame | None
    remarks: tuple[str, ...]


def read_references(references: pd.DataFrame, *, target: str, groups: str | None, mode: str) -> References:
    """Check and order a reference table.

    Raises:
        InputError: unknown mode, no or missing or constant target, no features of the mode, features that are no
            numbers.
    """
    if mode not in PREFIXES:
        raise InputError(f"A proxy's mode is one of {', '.join(PREFIXES)}; got {mode!r}.")
    check_columns(references, "The reference table")
    if references.empty:
        raise InputError("The reference table has no rows; give one row per reference model.")
    frame = REFERENCES.conform(references)
    remarks = []
    if frame["model"].isna().any():
        raise InputError("Every reference row needs a model name; some are empty.")
    if target not in frame.columns:
        candidates = [
            name
            for name in frame.columns
            if name not in NO_TARGETS and not name.startswith(NO_TARGET_PREFIXES) and not name.endswith("_std_error")
        ]
        raise InputError(
            f"There is no target column {target}; the table has {', '.join(candidates) or 'no other column'}."
        )
    families_known = groups in references.columns and bool(references[groups].notna().any())
    families = references[groups].astype("string").fillna(frame["model"]) if families_known else frame["model"]
    if groups is not None and not families_known:
        remarks.append(
            f"no column {groups}: models were left out one at a time, so errors and intervals may be those of close "
            "relatives; say which models are of one family"
        )
    frame = frame.assign(family=families.astype("string"))
    without = frame["model"][frame[target].isna()].tolist()
    if 0 < len(without) < len(frame):
        remarks.append(f"without {target}, so no references: {listed(without)}")
        frame = frame[frame[target].notna()]
    frame = frame.sort_values(["family", "model"], kind="stable").reset_index(drop=True)
    remarks += check_provenance(frame)
    names = sorted(
        c for c in frame.columns if c.startswith(PREFIXES[mode]) and c != target and not c.startswith(f"{target}_")
    )
    if "run" in frame.columns:
        frame["run"] = frame["run"].astype("string").fillna(frame["model"])
    runs = frame["run" if "run" in frame.columns else "model"]
    models = runs.nunique()
    if models < MODELS_FOR_WORDS and any(name.startswith(WORDS) for name in names):
        kept = [name for name in names if not name.startswith(WORDS)]
        if kept:  # a table of nothing but words was meant so
            names = kept
            remarks.append(f"words left out: they need at least {MODELS_FOR_WORDS} models; there are {models}")
    X = numeric(frame, names)
    _check_accuracies(X)
    y = numeric(frame, [target])[target].to_numpy()
    _check_target(frame, target, y)
    dropped = [name for name in names if X[name].nunique() < 2 and not (X[name].notna().any() and X[name].isna().any())]
    X = X.drop(columns=dropped).copy()  # in one piece: of many columns, a part is left in as many pieces
    if dropped:
        remarks.append(f"left out as constant or empty: {listed(dropped)}")
    if len(X.columns) > MOST_FEATURES:
        raise InputError(
            f"A proxy learns from at most {MOST_FEATURES:,} columns; the table has {len(X.columns):,} for {len(X)} "
            "rows, of which most would fit noise: keep those you mean."
        )
    if X.columns.empty:
        raise InputError(
            f"In mode {mode} a proxy learns from columns that start with {' or '.join(PREFIXES[mode])} and vary "
            f"between models; none of the {len(frame.columns)} columns does."
        )
    if models < frame["model"].nunique():
        remarks.append(
            f"{frame['model'].nunique()} models are of {models} training runs; a run is left out whole, and its models "
            "together weigh as much as one"
        )
    repeated = int(frame["model"].duplicated().sum())
    if repeated:
        remarks.append(f"{repeated} rows repeat a model; rows of one model were always left out together")
    remarks += _check_measurement(frame, target)
    sizes = _sizes(frame)
    if sizes is None:
        remarks.append("parameters are not known for all references: no baseline log_parameters")
    return References(
        frame=frame,
        X=X,
        y=y,
        weights=_weights(frame, target) / _rows_of_run(frame, runs),
        models=frame["model"].to_numpy(dtype=str),
        families=frame["family"].to_numpy(dtype=str),
        families_known=families_known,
        runs=runs.to_numpy(dtype=str),
        log_parameters=sizes,
        remarks=tuple(remarks),
    )


def numeric(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the columns as float64, missing as NaN.

    Raises:
        InputError: naming a column that is not numeric or not finite.
    """
    parts = {}
    for name in columns:
        try:
            values = frame[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InputError(f"Column {name} must hold numbers; it holds {frame[name].dropna().iloc[0]!r}.") from error
        if np.any(np.isinf(values)):
            raise InputError(f"Column {name} holds an infinite value; leave it empty where it could not be measured.")
        if np.any(np.abs(values) > LARGEST):
            raise InputError(
                f"Column {name} holds {values[np.nanargmax(np.abs(values))]:g}, larger than {LARGEST:g}; its squares "
                "could not be computed: correct it, or leave it empty."
            )
        parts[name] = values
    if not parts:
        return pd.DataFrame(index=frame.index)
    return pd.DataFrame(np.column_stack([*parts.values()]), columns=list(parts), index=frame.index)


def listed(names: Sequence[object], most: int = 6) -> str:
    """Return the names with commas, cut after `most`.

    >>> listed(["a", "b", "c"], 2)
    'a, b, ...'
    """
    return ", ".join([*map(str, names[:most]), *(["..."] if len(names) > most else [])])


def provenances(frame: pd.DataFrame) -> list[Provenance]:
    """Return how the answers of a table's models were made, most frequent first; empty where it is not recorded."""
    if COLUMN not in frame.columns:
        return []
    return [read_provenance(str(text)) for text in frame[COLUMN].dropna().value_counts(sort=True).index]


def output_asked(frame: pd.DataFrame) -> list[str]:
    """How what a table's models say next was asked for, each way once; empty where it is not recorded."""
    return frame[ASKED].dropna().astype(str).unique().tolist() if ASKED in frame.columns else []


def check_provenance(frame: pd.DataFrame) -> list[str]:
    """Refuse references that do not compare with one another; return what is to be said of them."""
    ways = output_asked(frame)
    if len(ways) > 1:
        apart = " and ".join(f"{frame['model'][frame[ASKED] == way].iloc[0]}: {way}" for way in ways[:2])
        raise InputError(f"What references say next was not asked for in the same way ({apart}); measure them alike.")
    said = []
    if ways:
        read = frame[[name for name in frame.columns if name.startswith("output.")]].notna().any(axis=1)
        unasked = frame["model"][frame[ASKED].isna() & read].tolist()
        said += [f"how the next tokens of {listed(unasked)} were asked for is not recorded"] if unasked else []
    known = provenances(frame)
    if not known:
        return said
    for text, models in frame.groupby(COLUMN)["model"]:
        refused, _ = differences(known, read_provenance(str(text)))
        if refused:
            raise InputError(f"References were not asked and read in the same way: {models.iloc[0]} has {refused[0]}.")
    recorded = frame.loc[frame[COLUMN].notna(), ["model", COLUMN]].astype(str).to_numpy()
    readers = [(model, read_provenance(text).readers) for model, text in recorded]
    for reader in sorted({name for _, own in readers for name in own}):
        without = [model for model, own in readers if reader not in own]
        said += [f"{reader} did not read the answers of {listed(without)}"] if without else []
    unknown = frame["model"][frame[COLUMN].isna()].tolist()
    return [*said, f"how the answers of {listed(unknown)} were made is not recorded"] if unknown else said


def of_answers(names: Sequence[str]) -> bool:
    """Return whether any of these features is of the answers of models."""
    return any(name.startswith(ANSWERS) for name in names)


def of_accuracies(names: Sequence[str]) -> bool:
    """Return whether features are accuracies alone, which are measured in one unit."""
    return all(name.startswith(ACCURACY) for name in names)


def _check_accuracies(X: pd.DataFrame) -> None:
    own = X[[name for name in X.columns if name.startswith(ACCURACY)]]
    for name in own.columns:
        if own[name].min() < 0 or own[name].max() > 100:
            raise InputError(
                f"An accuracy lies between 0 and 1, or 0 and 100; {name} goes from {own[name].min():.4g} to "
                f"{own[name].max():.4g}."
            )
    largest = own.max()
    shares, percent = largest.index[largest <= 1], largest.index[largest > 1]
    if len(shares) and len(percent):
        raise InputError(
            f"Accuracies are shares up to 1 or percentages up to 100, all of them the same; {shares[0]} reaches "
            f"{largest[shares[0]]:.3g} and {percent[0]} {largest[percent[0]]:.3g}: convert them to one unit."
        )


def _check_measurement(frame: pd.DataFrame, target: str) -> list[str]:
    """Say where a measured target failed its controls, had none, or was not measured alike for all models."""
    remarks = []
    verdict = f"{target}_verdict"
    if verdict in frame.columns:
        failed = frame["model"][frame[verdict].isin(["control failed", "not shown"])].tolist()
        if len(failed) > MOST_FAILED * len(frame):
            remarks.append(
                f"{target} is not above its controls for {len(failed)} of {len(frame)} references, so estimates may "
                f"describe what any network shows: {listed(failed)}"
            )
        if (frame[verdict] == "no controls").any():
            without = int((frame[verdict] == "no controls").sum())
            remarks.append(f"no controls were run of {target} for {without} of {len(frame)} references")
    about = frame.rename(columns={f"{target}_{name}": name for name in ABOUT})
    remarks += [f"{target} was not measured in the same way for all references: {phrase}" for phrase in unlike(about)]
    return remarks


def _check_target(frame: pd.DataFrame, target: str, y: Array) -> None:
    if np.isnan(y).all():
        raise InputError(f"None of the {len(y)} models has a value of {target}; measure it, or name another column.")
    if np.ptp(y) <= 1e-12 * np.abs(y).max() and len(y) > 1:
        raise InputError(f"All reference models have the same {target}, {y[0]:.6g}: there is nothing to learn.")


def _weights(frame: pd.DataFrame, target: str) -> Array:
    """Weigh rows by 1 / (1 + s^2 / m), m the median square: noisy rows count less, no precise one dominates."""
    name = f"{target}_std_error"
    if name not in frame.columns:
        return np.ones(len(frame))
    errors = numeric(frame, [name])[name].to_numpy()
    if np.any(errors < 0):
        row = int(np.argmax(errors < 0))
        raise InputError(
            f"A standard error is 0 or more; {name} of {frame['model'].iloc[row]} is {errors[row]:g}. Leave it empty "
            "where it is not known."
        )
    square = errors**2
    if np.all(np.isnan(square)) or np.nanmedian(square) == 0:
        return np.ones(len(frame))
    typical = float(np.nanmedian(square))
    weights = 1 / (1 + np.where(np.isnan(square), typical, square) / typical)
    return np.asarray(weights / weights.mean())


def _rows_of_run(frame: pd.DataFrame, runs: pd.Series) -> Array:
    """How many models (n,) the run of each row has, by which its weight is divided; in units of a mean weight of 1."""
    models = frame.groupby(runs)["model"].transform("nunique").to_numpy(dtype=np.float64)
    return np.asarray(models * np.mean(1 / models))


def _sizes(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return log10 of the parameters, from whichever column holds them, or None unless all are known and positive."""
    for name in (SIZE, "meta.parameters", "parameters"):
        if name in frame.columns:
            values = numeric(frame, [name])[name].to_numpy()
            if name != SIZE:
                values = np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
            if not np.any(np.isnan(values)):
                return pd.DataFrame({SIZE: values}, index=frame.index)
    return None
