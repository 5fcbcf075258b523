"""Information emergence: macro information less the mean micro information, on the same windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from estimators.base import InputError
from estimators.contracts.variances import mean_variance
from estimators.entropy import probabilities

Array = TypeVar("Array", np.ndarray, torch.Tensor)


@dataclass(frozen=True, slots=True)
class Emergence:
    """Information emergence of one block at one position.

    Attributes:
        ie_bits: macro_bits - micro_bits, never clipped.
        std_error: standard error of `ie_bits`, macro and micro paired on each window, from sampling the windows and
            from the noise; None for a single window.
        sample_std: standard deviation over windows of the pointwise emergence, in bits.
        macro_bits: mean pointwise macro information.
        micro_bits: mean over windows and positions of the pointwise micro information.
        pointwise_bits: (q,) float64, emergence of each window; `ie_bits` is its weighted mean.

    >>> found = emergence(torch.tensor([3.0, 5.0]), torch.tensor([[2.0], [4.0]]))
    >>> found.macro_bits, found.micro_bits, found.ie_bits, found.std_error
    (4.0, 3.0, 1.0, 0.0)
    """

    ie_bits: float
    std_error: float | None
    sample_std: float
    macro_bits: float
    micro_bits: float
    pointwise_bits: torch.Tensor = field(repr=False, compare=False)


def emergence(
    macro_pointwise: torch.Tensor,
    micro_pointwise: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    shared_variance: float = 0.0,
    clusters: np.ndarray | None = None,
) -> Emergence:
    """Information emergence from pointwise values of the same windows (arXiv 2405.12617, definition of IE).

    IE_i = macro_i - (1/t) sum_s micro_is for each window i, and IE is its weighted mean. Because macro and micro
    share the window, their errors correlate; the spread of IE_i carries that correlation into `std_error`.

    To first order mutual information moves with one more window by that window's own pointwise value (its influence
    function), so the spread of IE_i over clusters is also the sampling error of the windows.

    Args:
        macro_pointwise: (q,) information density in bits of each window's macro pair at position t.
        micro_pointwise: (q, t) information density in bits of each window's tokens 1..t run alone.
        weights: (q,) weight of each window; None: equal weights. Their unit does not matter.
        shared_variance: variance, in bits squared, of errors common to many windows: windows with the same token share
            its micro value and so its Monte-Carlo error, which their spread does not show.
        clusters: (q,) which rows were sampled together: those of one document, or of one window; None: each by itself.

    Raises:
        InputError: if shapes differ or values are not finite.

    >>> macro = torch.tensor([3.0, 5.0])  # (windows,)
    >>> micro = torch.tensor([[1.0, 3.0], [4.0, 4.0]])  # (windows, positions)
    >>> emergence(macro, micro).ie_bits  # (3 + 5) / 2 - (2 + 4) / 2
    1.0
    """
    if macro_pointwise.ndim != 1 or macro_pointwise.shape[0] == 0:
        raise InputError(f"macro_pointwise must have shape (windows,); got {tuple(macro_pointwise.shape)}.")
    windows = macro_pointwise.shape[0]
    if micro_pointwise.ndim != 2 or micro_pointwise.shape[0] != windows or micro_pointwise.shape[1] == 0:
        raise InputError(
            f"micro_pointwise must have shape (windows, positions) with {windows} windows like macro_pointwise; "
            f"got {tuple(micro_pointwise.shape)}."
        )
    macro = macro_pointwise.detach().cpu().double()
    micro, pointwise = macro_less_micro(macro, micro_pointwise.detach().cpu().double())  # (q,), (q,)
    wrong = ~(torch.isfinite(macro) & torch.isfinite(micro))
    if bool(wrong.any()):
        raise InputError(
            f"Pointwise values must be finite; {int(wrong.sum())} of {windows} windows are not, first in row "
            f"{int(wrong.nonzero()[0, 0])}."
        )
    p = probabilities(weights, windows)
    mean, _, spread = weighted_moments(pointwise, p)
    error: float | None = None
    if windows > 1:
        sampled = mean_variance(pointwise.numpy(), p.numpy(), clusters)
        error = (sampled + shared_variance) ** 0.5
    return Emergence(
        ie_bits=mean,
        std_error=error,
        sample_std=spread,
        macro_bits=float(p @ macro),
        micro_bits=float(p @ micro),
        pointwise_bits=pointwise,
    )


def macro_less_micro(macro: Array, micro: Array) -> tuple[Array, Array]:
    """Return the mean micro information over positions and the emergence: IE = macro - (1/t) sum_s micro_s.

    The definition of IE (arXiv 2405.12617), in bits, of pointwise values, of means over windows, or of any other
    number that macro and micro information have. `emergence` gives pointwise values their errors too.

    Args:
        macro: (...) at position t.
        micro: (..., t) of each position up to t.

    Returns:
        Both (...).

    >>> micro, ie = macro_less_micro(np.array([3.0, 5.0]), np.array([[1.0, 3.0], [4.0, 4.0]]))
    >>> micro.tolist(), ie.tolist()
    ([2.0, 4.0], [1.0, 1.0])
    """
    mean = micro.mean(-1)
    return mean, macro - mean


def weighted_moments(values: torch.Tensor, p: torch.Tensor) -> tuple[float, float | None, float]:
    """Return weighted mean, its standard error (None for one value) and the standard deviation of `values`.

    The standard error is that of a ratio estimator, sqrt(n/(n-1) sum p_i^2 (v_i - mean)^2): with equal weights the
    usual s/sqrt(n), and unchanged when all weights are multiplied.

    Args:
        values: (n,) float64.
        p: (n,) float64 weights that sum to 1.
    """
    mean = float(p @ values)
    squares = (values - mean) ** 2
    count = values.shape[0]
    error = float((p**2 @ squares) * count / (count - 1)) ** 0.5 if count > 1 else None
    return mean, error, float(p @ squares) ** 0.5
