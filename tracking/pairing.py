"""The standard error of a difference of emergence: by single windows where both sides read the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from estimators.contracts.variances import mean_variance

SAME_RESOLUTION = 1e-9  # what a file may round off


def paired_error(base: pd.DataFrame, base_error: float, other: pd.DataFrame, other_error: float) -> float | None:
    """Return the standard error in bits of the difference of two means over the same windows, None for other windows.

    The spread of the differences over windows, or documents, holds what both sides have in common. Each side's own
    noise, which windows of one token share and their spread does not show, is what its `error` has above the spread of
    its windows; it is independent and adds.

    Args:
        base: a row per window that was read, in sampling order (`proxy.schemas.WINDOWS`).
        base_error: standard error of its mean.
        other: likewise.
        other_error: likewise.
    """
    if not same_windows([base, other]):
        return None
    noise = sum(own_noise(rows, error) for rows, error in ((base, base_error), (other, other_error)))
    return float(np.sqrt(_variance(difference(base, other)) + noise))


def mean_error(sides: Sequence[pd.DataFrame], errors: Sequence[float]) -> float:
    """Return the standard error in bits of the mean of several models, from sampling the windows that they share.

    Models that read the same windows share their sampling error, so their mean is no more certain than single values
    at single windows; where they read other ones, they count as moving together, which it is at most.

    Args:
        sides: of each model a row per window; or of the differences of each model.
        errors: standard error of each model.
    """
    if not same_windows(sides):
        return float(np.mean(errors))
    values = np.mean([rows["ie_bits"].to_numpy(dtype=float) for rows in sides], axis=0)
    noise = sum(own_noise(rows, error) for rows, error in zip(sides, errors, strict=True)) / len(sides) ** 2
    return float(np.sqrt(_variance(sides[0].assign(ie_bits=values)) + noise))


def same_windows(sides: Sequence[pd.DataFrame]) -> bool:
    """Whether all sides are values of the same windows in the same order, two at least."""
    first = sides[0]
    return len(first) > 1 and all(
        len(rows) == len(first) and all(np.array_equal(rows[name], first[name]) for name in ("window", "share"))
        for rows in sides
    )


def difference(base: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the differences at single windows, `other` less `base`."""
    return other.assign(ie_bits=other["ie_bits"].to_numpy(dtype=float) - base["ie_bits"].to_numpy(dtype=float))


def own_noise(rows: pd.DataFrame, error: float) -> float:
    """Return the variance that an error has beyond the sampling of its windows."""
    return max(float(error) ** 2 - _variance(rows), 0.0)


def windows_at(windows: pd.DataFrame, estimator: str, layer: int, resolution: float | None) -> pd.DataFrame:
    """Keep the windows that were read in one block at one resolution.

    Args:
        windows: of one model on one corpus (`proxy.schemas.WINDOWS`); or empty.
        estimator: the one that read them.
        layer: the block.
        resolution: the noise level; None for an estimator without one.
    """
    if windows.empty:
        return windows
    levels = windows["resolution"].astype("Float64")
    near = levels.isna() if resolution is None else ((levels - resolution).abs() <= SAME_RESOLUTION).fillna(False)
    if "estimator" in windows:  # earlier tables hold one estimator alone
        near &= windows["estimator"].fillna(estimator) == estimator
    found: pd.DataFrame = windows[(windows["layer"] == layer) & near.astype(bool)]
    return found


def _variance(rows: pd.DataFrame) -> float:
    """Return the variance of the weighted mean of some windows from sampling them, whole documents at a time."""
    together = "document" if "document" in rows and rows["document"].notna().all() else "window"
    values, share = (rows[name].to_numpy(dtype=float) for name in ("ie_bits", "share"))
    return mean_variance(values, share, rows[together].to_numpy(dtype=np.int64))
