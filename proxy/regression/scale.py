"""Scale mode for profiles: a larger open model's E(l) from its smaller siblings on the same corpus."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from estimators.base import InputError
from proxy.measurement.table import emergence_by_block
from proxy.regression.domain import Domain, estimate_models
from proxy.regression.intervals import Intervals, require_rows
from proxy.regression.references import SIZE
from proxy.regression.regressor import ProxyRegressor

Array = NDArray[np.float64]
DEPTHS = tuple(np.round(np.linspace(0.0, 1.0, 9), 3).tolist())  # 0: the first block, 1: the last
METHOD = "family_pooled"
SAME_SIZE = 0.1  # decades of parameters: nearer ones count as equally large


def profiles(table: pd.DataFrame, *, resolution: float) -> pd.DataFrame:
    """Align the E(l) profiles of models with different numbers of blocks by relative depth.

    Args:
        table: schema EMERGENCE, one corpus.
        resolution: noise level to take.

    Returns:
        model, family, meta.log_parameters and one column per relative depth in `DEPTHS` (linear between blocks), in
        bits.

    Raises:
        InputError: several corpora, unknown resolution, or a model without parameters.
    """
    by_block = emergence_by_block(table, resolution=resolution)
    corpora = sorted(by_block["corpus"].unique())
    if len(corpora) != 1:
        raise InputError(f"Profiles are compared on one corpus, but the table holds {', '.join(corpora)}; choose one.")
    rows = []
    for model, blocks in by_block.groupby("model"):
        blocks = blocks.sort_values("layer")
        parameters = blocks["parameters"].iloc[0]
        if pd.isna(parameters) or parameters <= 0:
            raise InputError(f"The number of parameters of {model} is unknown; scale mode needs it.")
        values = blocks["ie_bits"].to_numpy(dtype=np.float64)
        places = np.linspace(0.0, 1.0, len(values)) if len(values) > 1 else np.zeros(1)
        aligned = np.interp(DEPTHS, places, values)
        family = blocks["family"].iloc[0]
        rows.append(
            {
                "model": str(model),
                "family": str(model) if pd.isna(family) else str(family),
                SIZE: float(np.log10(parameters)),
                **dict(zip(DEPTHS, aligned, strict=True)),
            }
        )
    return pd.DataFrame(rows).sort_values(["family", SIZE, "model"]).reset_index(drop=True)


def predict_profile(references: pd.DataFrame, *, family: str, parameters: float, level: float = 0.9) -> pd.DataFrame:
    """Predict the profile of a model of `family` with `parameters` from the profiles of reference models.

    At each relative depth: a line in log10(parameters) whose slope all families share and whose height each family
    has of its own, both shrunken by leaving models out (`proxy.regression.candidates.FamilyPooled`); jackknife+
    intervals over models.

    Args:
        references: from `profiles`, at least nine models; those of `family` are the siblings.
        family: of the model to predict; without siblings the families' common line is used and no interval given, as
            models left out one at a time tell nothing of a new family.
        parameters: of the model to predict.
        level: confidence of the intervals, each depth by itself.

    Returns:
        depth, estimate, lower, upper (bits), level, in_domain, novelty, remarks; intervals are widened or withheld
        outside the references' sizes as `proxy.regression.domain.Domain` states.

    Raises:
        InputError: too few models for an interval at `level`.
    """
    require_rows(len(references), level, "models")
    return _predicted(references, family, parameters, level)


def _predicted(references: pd.DataFrame, family: str, parameters: float, level: float) -> pd.DataFrame:
    if not parameters > 0:
        raise InputError(f"The number of parameters must be positive; got {parameters}.")
    X = references[["model", "family", SIZE]]
    target = pd.DataFrame({"model": ["?"], "family": [family], SIZE: [float(np.log10(parameters))]})
    known = family in set(references["family"])
    remarks = "" if known else f"no sibling of {family} among the references: no interval"
    rows = []
    for depth in DEPTHS:
        y = references[depth].to_numpy(dtype=np.float64)
        intervals = Intervals.fit(_regressor(), X, y, np.ones(len(y)), X["model"].to_numpy(dtype=str))
        found = estimate_models(intervals, Domain.of(intervals.regressor, X), target, [level])
        ends = (found.lower.item(), found.upper.item()) if known else (np.nan, np.nan)
        rows.append((depth, found.estimate.item(), *ends, level, found.inside.item(), found.novelty.item(), remarks))
    names = ["depth", "estimate", "lower", "upper", "level", "in_domain", "novelty", "remarks"]
    return pd.DataFrame(rows, columns=names)


def leave_largest_out(references: pd.DataFrame, *, level: float = 0.9) -> pd.DataFrame:
    """Predict the largest model of each family from all clearly smaller models, beside the baselines.

    Models of its own size or more are left out with it, whatever their family (`SAME_SIZE`): with another family's
    largest among the references the size would not be extrapolated at all.

    Returns:
        model, family, depth, truth, estimate, lower, upper (bits; empty where the models that remain are too few for
        an interval at `level`), mean (of the others), log_parameters (one line for all families) and sibling (the
        next smaller one's own value).

    Raises:
        InputError: if no family has two sizes.
    """
    parts = []
    for family, own in references.groupby("family"):
        largest = own.sort_values(SIZE).iloc[-1]
        others = references[references[SIZE] < largest[SIZE] - SAME_SIZE].reset_index(drop=True)
        siblings = others[others["family"] == family].sort_values(SIZE)
        if siblings.empty:
            continue
        found = _predicted(others, str(family), 10 ** largest[SIZE], level)
        size = others[SIZE].to_numpy(dtype=np.float64)
        values = others[list(DEPTHS)].to_numpy(dtype=np.float64)
        slopes, heights = np.polyfit(size, values, 1)
        parts.append(
            found.assign(
                model=largest["model"],
                family=family,
                truth=largest[list(DEPTHS)].to_numpy(dtype=np.float64),
                mean=values.mean(axis=0),
                log_parameters=heights + slopes * largest[SIZE],
                sibling=siblings.iloc[-1][list(DEPTHS)].to_numpy(dtype=np.float64),
            )
        )
    if not parts:
        raise InputError("No family has two sizes, so none can be predicted from its siblings; measure more sizes.")
    names = ["model", "family", "depth", "truth", "estimate", "lower", "upper", "mean", "log_parameters", "sibling"]
    return pd.concat(parts, ignore_index=True)[names]


def _regressor() -> ProxyRegressor:
    return ProxyRegressor(METHOD, group_column="model", family_column="family")
