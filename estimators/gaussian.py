"""Mutual information of jointly Gaussian variables, in closed form from canonical correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from estimators.base import InputError, MIEstimate
from estimators.checks import fits_memory, half_precision, memory_bytes, real_pair
from estimators.entropy import ceiling_flags, discrete_ceiling


def gaussian_information(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Mutual information of Gaussian `x` and `y` in bits, free of its bias, and its standard error.

    I = -1/2 sum ln(1 - r_i^2) over the canonical correlations r_i (Kay 1992; each pair as in Cover & Thomas 2006,
    example 8.5.1). In n samples the log-determinant of a d-dimensional covariance is short of the truth by an amount
    known exactly for Gaussian data, sum_i psi((n-i)/2) + d ln(2/(n-1)) (Misra, Singh & Demchuk 2005); it is put back.
    The standard error is that of the plug-in for Gaussian data, sqrt(sum r_i^2 / n) nats, plus the spread 1/n of the
    bias's own order.

    Args:
        x: (n, dx) samples.
        y: (n, dy) samples paired with x.

    Raises:
        InputError: if there are no more samples than features, or features depend on each other linearly.
    """
    count, dx, dy = x.shape[0], x.shape[1], y.shape[1]
    if count <= dx + dy + 1:
        raise InputError(
            f"gaussian needs more samples than features, at least {dx + dy + 2} for {dx} + {dy}; got {count}. "
            "Give more samples, or project the features to fewer dimensions."
        )
    needed = 24.0 * count * (dx + dy)  # float64 copies of both sides and their factors
    fits_memory(
        needed,
        f"The closed form for {count} samples of {dx + dy} features",
        f"project to {int((dx + dy) * memory_bytes() / needed)} features, or give fewer samples",
    )
    r = canonical_correlations(x, y)
    if float(r[0]) >= 1 - 1e-12:
        raise InputError(
            "One of x's features is a linear function of y's, so their Gaussian information is infinite; use "
            "sample-propagation, which states its resolution."
        )
    plug_in = float(-0.5 * torch.log1p(-(r**2)).sum())
    shortfall = _log_det_bias(count, dx) + _log_det_bias(count, dy) - _log_det_bias(count, dx + dy)
    error = math.sqrt(float((r**2).sum()) / count + dx * dy / (2.0 * count**2))
    return (plug_in - 0.5 * shortfall) / math.log(2), error / math.log(2)


def _log_det_bias(count: int, features: int) -> float:
    """Mean of ln det of the sample covariance of `features` standard normals (Wishart, n-1 degrees of freedom)."""
    steps = (count - torch.arange(1, features + 1, dtype=torch.float64)) / 2
    return float(torch.digamma(steps).sum() + features * math.log(2 / (count - 1)))


def canonical_correlations(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Canonical correlations of `x` (n, dx) and `y` (n, dy), (min(dx, dy),) float64, largest first.

    Raises:
        InputError: if features of one side depend on each other linearly.
    """
    roots = []
    for rows, name in ((x, "x"), (y, "y")):
        centred = rows.cpu().double() - rows.cpu().double().mean(dim=0)
        spread = centred.std(dim=0)
        basis, triangle = torch.linalg.qr(centred / spread)
        if float(triangle.diagonal().abs().min()) < 1e-7 * math.sqrt(rows.shape[0]):
            raise InputError(
                f"Features of {name} are linear functions of each other; remove the repeated ones or project them."
            )
        roots.append(basis)
    r: torch.Tensor = torch.linalg.svdvals(roots[0].T @ roots[1])
    return r.clamp(max=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Closed form for jointly Gaussian samples; for others the information in their linear relation only.

    -1/2 sum log2(1 - r_i^2) over the canonical correlations; see `gaussian_information`.
    """

    name: ClassVar[str] = "gaussian"

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y) in bits from paired rows of `x` (n, dx) and `y` (n, dy); `seed` is not needed.

        Raises:
            InputError: if the samples cannot be used.
        """
        said = half_precision(x, y)
        x, y = real_pair(x, y)
        ceiling = discrete_ceiling(x, y)
        x, y = varying(x), varying(y)
        if not (x.shape[1] and y.shape[1]):
            return [MIEstimate(0.0, 0.0, ceiling, x.shape[0], self.name, flags=("constant-input", *said))]
        bits, error = gaussian_information(x, y)
        flags = ceiling_flags(bits, ceiling, error) + said
        return [MIEstimate(bits, error, ceiling, x.shape[0], self.name, flags=flags)]


def varying(rows: torch.Tensor) -> torch.Tensor:
    """Drop the constant features of `rows` (n, k): they carry no information."""
    keep = rows.amax(dim=0) > rows.amin(dim=0)
    return rows if bool(keep.all()) else rows[:, keep]
