"""The scale a proxy is linear on: chosen by the bounds of the target, nothing else."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from estimators.base import InputError

Array = NDArray[np.float64]
Bounds = tuple[float | None, float | None]

EDGE = 0.005  # share of the range within which a value counts as lying on its bound: a link is infinite there
SHARE = re.compile(r"rate|accurac|(?:^|_)acc(?:_|$)|share|percent|pct|%|exact_match|pass@", re.IGNORECASE)
LIKE_PERCENT = 20.0  # a target from 0 on that goes beyond may be a percentage, whatever its name
EXACT = 1e-12  # the same where nothing is learned


def inferred_bounds(target: str, y: Array) -> tuple[Bounds, str | None]:
    """Return the bounds that a target's name and values (n,) tell of, and what to say about them, if anything.

    Example:
        >>> inferred_bounds("lc_win_rate", np.array([3.0, 57.5]))
        ((0.0, 100.0), 'lc_win_rate is taken for a percentage: bounds 0,100')
        >>> inferred_bounds("emergence_bits", np.array([0.4, 2.9]))
        ((None, None), None)
    """
    low, high = float(y.min()), float(y.max())
    if low < 0 or high > 100:
        return (None, None), None
    if SHARE.search(target):
        share = high <= 1
        found = f"{target} is taken for a {'share' if share else 'percentage'}: bounds {'0,1' if share else '0,100'}"
        return (0.0, 1.0 if share else 100.0), found
    if high > LIKE_PERCENT:
        return (None, None), f"{target} goes from {low:.3g} to {high:.3g}: if it is a percentage, give the bounds 0,100"
    return (None, None), None


class Link:
    """Maps the target to an unbounded scale and back: identity, log (one bound) or logit (two bounds).

    Intervals are made on that scale (jackknife+ on logit residuals kept its coverage when extrapolating where it lost
    it on the plain scale), so that none leaves the bounds.

    Args:
        bounds: (lower, upper) of the target; None where there is none.

    Raises:
        InputError: if the bounds are not two numbers in ascending order, or only an upper one is given.

    >>> Link((0.0, 1.0)).inverse(np.array([0.0])).item()
    0.5
    """

    def __init__(self, bounds: Bounds = (None, None)) -> None:
        lower, upper = bounds
        if lower is None and upper is not None:
            raise InputError(
                f"Bounds are (lower, upper), (lower, None) or (None, None), not (None, {upper}); negate the target or "
                "give a lower bound."
            )
        if lower is not None and upper is not None and not lower < upper:
            raise InputError(f"The lower bound must lie below the upper one, got {lower} and {upper}.")
        self.lower = lower
        self.upper = upper

    @property
    def name(self) -> str:
        """``identity``, ``log`` or ``logit``."""
        if self.lower is None:
            return "identity"
        return "log" if self.upper is None else "logit"

    def check(self, y: Array) -> None:
        """Refuse targets outside the bounds.

        Raises:
            InputError: with the range of the targets.
        """
        low = -np.inf if self.lower is None else self.lower
        high = np.inf if self.upper is None else self.upper
        if np.any(y < low) or np.any(y > high) or (self.name == "log" and np.any(y <= low)):
            raise InputError(
                f"The target lies between {y.min():.6g} and {y.max():.6g}, but its bounds are {low} and {high}"
                f"{' (exclusive: the scale is its logarithm)' if self.name == 'log' else ''}; correct one of them."
            )

    def forward(self, y: Array, edge: float = EDGE) -> Array:
        """Map targets (n,) to the linear scale; values within `edge` (share of the range) of a bound are moved off it.

        Learning needs a wide edge, or targets on a bound would dominate. To go there and back, as where an interval is
        stretched, take `EXACT`.
        """
        if self.lower is None:
            return y
        if self.upper is None:
            return np.asarray(np.log(np.maximum(y - self.lower, np.finfo(np.float64).tiny)))
        share = np.clip((y - self.lower) / (self.upper - self.lower), edge, 1 - edge)
        return np.asarray(np.log(share / (1 - share)))

    def snap_to_bounds(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Put ends of intervals that lie within `EDGE` of a bound onto it.

        Residuals count a target on a bound as lying `EDGE` off it: an interval that reaches so far holds the bound.
        """
        if self.lower is None or self.upper is None:
            return lower, upper
        near = EDGE * (self.upper - self.lower) * (1 + 1e-9)
        return (
            np.where(lower <= self.lower + near, self.lower, lower),
            np.where(upper >= self.upper - near, self.upper, upper),
        )

    def inverse(self, eta: Array) -> Array:
        """Map values (n,) of the linear scale back to targets."""
        if self.lower is None:
            return eta
        if self.upper is None:
            return np.asarray(self.lower + np.exp(np.minimum(eta, 700.0)))
        return np.asarray(self.lower + (self.upper - self.lower) / (1 + np.exp(-np.clip(eta, -700.0, 700.0))))

    def slope(self, eta: Array) -> Array:
        """Derivative of `inverse` at values (n,) of the linear scale."""
        if self.lower is None:
            return np.ones_like(eta)
        if self.upper is None:
            return np.asarray(np.exp(np.minimum(eta, 700.0)))
        share = 1 / (1 + np.exp(-np.clip(eta, -700.0, 700.0)))
        return np.asarray((self.upper - self.lower) * share * (1 - share))
