"""How sure a mean over windows is: its variance over the sampling of windows, those of one document taken together."""

from __future__ import annotations

import numpy as np


def mean_variance(values: np.ndarray, share: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Return the variance of the weighted mean of `values` from sampling the windows.

    With clusters c of windows sampled together and C their number, C/(C-1) sum_c (sum_{i in c} p_i (v_i - mean))^2.
    Where the rows are themselves a sample with replacement of n windows, those that show one window are a cluster, at
    least: they then add the draw of the n windows.

    Args:
        values: (q,) float64.
        share: (q,) weights p_i that sum to 1.
        clusters: (q,) which cluster each row belongs to; None: each row is its own.

    Returns:
        The variance, in the square of the unit of `values`; NaN for a single cluster.

    >>> values, share = np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 0.25)
    >>> round(mean_variance(values, share), 4)  # s^2 / 4
    0.4167
    >>> round(mean_variance(values, share, clusters=np.array([0, 0, 1, 1])), 4)  # of the means 1.5 and 3.5
    1.0
    """
    residual = values - share @ values
    _, unit = np.unique(np.arange(len(values)) if clusters is None else clusters, return_inverse=True)
    sums = np.bincount(unit, weights=share * residual)
    if len(sums) < 2:
        return float("nan")
    return float((sums**2).sum() * len(sums) / (len(sums) - 1))
