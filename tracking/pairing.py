"""The standard error of a difference between two models that were read on the same windows."""

from __future__ import annotations

import numpy as np
import pandas as pd

SAME_RESOLUTION = 1e-9  # what a file may round off


def paired_error(base: pd.DataFrame, base_error: float, other: pd.DataFrame, other_error: float) -> float | None:
    """Return the standard error in bits of the difference of two means over the same windows, None for other windows.

    With d_i the difference of window i and p_i its share, the windows give n/(n-1) sum p_i^2 (d_i - mean)^2, which
    holds what both sides have in common. Each side's own noise, which windows of one token share and their spread
    does not show, is what its `error` has above the spread of its windows; it is independent and adds.

    Args:
        base: columns window, share and ie_bits, a row per window that was read, in sampling order.
        base_error: standard error of its mean.
        other: likewise.
        other_error: likewise.
    """
    if len(base) < 2 or len(base) != len(other):
        return None
    if any(not np.array_equal(base[name], other[name]) for name in ("window", "share")):
        return None
    share = base["share"].to_numpy(dtype=float)
    left, right = (side["ie_bits"].to_numpy(dtype=float) for side in (base, other))
    noise = sum(
        max(error**2 - _variance(values, share), 0.0) for values, error in ((left, base_error), (right, other_error))
    )
    return float(np.sqrt(_variance(right - left, share) + noise))


def windows_at(windows: pd.DataFrame, layer: int, resolution: float) -> pd.DataFrame:
    """Keep the windows that were read in one block at one resolution.

    Args:
        windows: of one model on one corpus: layer, resolution, window, share, ie_bits; or empty.
        layer: the block.
        resolution: the noise level.
    """
    if windows.empty:
        return windows
    near = (windows["resolution"].astype(float) - resolution).abs() <= SAME_RESOLUTION
    found: pd.DataFrame = windows[(windows["layer"] == layer) & near]
    return found


def _variance(values: np.ndarray, share: np.ndarray) -> float:
    """Return the variance of the weighted mean of `values` (n,), as `weighted_moments` of estimators has it."""
    count = len(values)
    return float(share**2 @ (values - share @ values) ** 2 * count / (count - 1))
