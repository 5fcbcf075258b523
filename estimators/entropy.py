"""Plug-in entropies: the ceilings that no mutual information can pass, at no cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from estimators.base import InputError, MIEstimate
from estimators.checks import as_rows, finite_rows, paired, row_blocks

# Closer than this share to its ceiling an estimate says "at least about this" and no longer tells models apart.
SATURATION = 0.01


def plug_in_entropy(weights: torch.Tensor) -> float:
    """Entropy in bits of the distribution proportional to `weights`, -sum p log2 p.

    Cover & Thomas 2006, equation 2.1; at most log2 of their number (theorem 2.6.4).

    Args:
        weights: (n,) counts or other non-negative numbers, not all zero.

    Raises:
        InputError: if `weights` is not such a vector.

    >>> plug_in_entropy(torch.tensor([1.0, 1.0, 2.0]))
    1.5
    """
    p = probabilities(weights, weights.numel(), zeros=True)
    return max(0.0, float(-torch.special.xlogy(p, p).sum()) / math.log(2))


def probabilities(weights: torch.Tensor | None, count: int, *, zeros: bool = False) -> torch.Tensor:
    """Return `weights` normalised to sum 1, (count,) float64 on the CPU; None means equal weights.

    Raises:
        InputError: if they are not `count` finite numbers, all positive (with `zeros`: non-negative).
    """
    if weights is None:
        return torch.full((count,), 1.0 / count, dtype=torch.float64)
    if weights.ndim != 1 or weights.shape[0] != count or count == 0:
        raise InputError(f"weights must be one number per row, ({count},); got {tuple(weights.shape)}.")
    p = weights.detach().cpu().double()
    wrong = ~torch.isfinite(p) | ((p < 0) if zeros else (p <= 0))
    if bool(wrong.any()) or float(p.sum()) == 0:
        row = int(wrong.nonzero()[0, 0]) if bool(wrong.any()) else 0
        raise InputError(
            f"weights must be finite and {'not negative' if zeros else 'positive'}; row {row} has {float(p[row])}, "
            "so drop that row."
        )
    return p / p.sum()


def distinct_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the distinct rows of `rows` (n, k), in the order they come.

    Rows are compared by a 64-bit hash: of 300,000 rows two different ones are taken for one with probability 2e-9.

    Returns:
        first: (u,) the first row that shows each distinct value; inverse: (n,) the distinct value of every row.
    """
    _, inverse = torch.unique(_row_hash(rows), return_inverse=True)
    count = int(inverse.max()) + 1
    order = torch.arange(rows.shape[0], device=rows.device)
    first = torch.full((count,), rows.shape[0], dtype=torch.int64, device=rows.device)
    first, by_first = first.scatter_reduce(0, inverse, order, reduce="amin").sort()
    return first, by_first.argsort()[inverse]


def _row_hash(rows: torch.Tensor) -> torch.Tensor:
    """Hash every row of `rows` (n, k) to an int64, (n,); 0.0 and -0.0 are equal."""
    generator = torch.Generator().manual_seed(0x5EED)
    salt = torch.randint(-(2**62), 2**62, (2, rows.shape[1]), generator=generator).to(rows.device)
    hashes = []
    for block in row_blocks(rows):
        if block.is_floating_point():
            words = (block + 0.0).view({2: torch.int16, 4: torch.int32, 8: torch.int64}[block.element_size()])
        else:
            words = block
        mixed = (words.long() + salt[0]) * -0x61C8864680B583EB  # multiply and shift, twice: integers wrap around
        mixed = (mixed ^ (mixed >> 32)) * (salt[1] | 1)
        hashes.append((mixed ^ (mixed >> 29)).sum(dim=1))
    return torch.cat(hashes)


def row_entropy(rows: torch.Tensor) -> float:
    """Plug-in entropy in bits of the rows of `rows` (n, k), equal rows being one symbol; at most log2 n."""
    _, inverse = distinct_rows(as_rows(rows, "rows"))
    return plug_in_entropy(torch.bincount(inverse))


def sample_ceiling(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return min(plug-in entropies of x and y) in bits; log2 n where no value repeats.

    For repeated values it bounds the information in the sample. For continuous ones it is the most that n samples can
    show (McAllester & Stratos 2020, arXiv 1811.04251), whatever the truth.
    """
    return min(row_entropy(x), row_entropy(y))


def discrete_ceiling(x: torch.Tensor, y: torch.Tensor) -> float | None:
    """Return `sample_ceiling` if x or y is discrete, every value seen twice on average; None for continuous pairs."""
    ceiling = sample_ceiling(x, y)
    return ceiling if ceiling <= math.log2(x.shape[0]) - 1 else None


def ceiling_flags(bits: float, ceiling: float | None, std_error: float | None = None) -> tuple[str, ...]:
    """Say where an estimate stands against its ceiling: ``above-ceiling``, ``saturated`` or nothing."""
    if ceiling is None:
        return ()
    if bits > ceiling + 1e-6 + 2 * (std_error or 0.0):
        return ("above-ceiling",)
    # Where the ceiling is 0, an estimate cannot be too close to it.
    return ("saturated",) if ceiling > 0 and bits >= (1 - SATURATION) * ceiling else ()


def _comparable(rows: torch.Tensor, name: str) -> None:
    """Refuse rows that cannot be compared with each other: fewer than 2, NaN, or complex.

    Raises:
        InputError: saying which.
    """
    if rows.is_floating_point():
        finite_rows(rows, name)
    elif rows.is_complex():
        raise InputError(f"{name} must be real; got {rows.dtype}, so give real and imaginary parts as features.")
    elif rows.shape[0] < 2:
        raise InputError(f"{name} needs at least 2 samples; got {rows.shape[0]}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """The ceiling itself: min(H(x), H(y)) of the observed values, at most log2 n; needs no model of the data.

    I(X; Y) = H(X) - H(X | Y) <= H(X) for discrete X (Cover & Thomas 2006, equation 2.43).
    """

    name: ClassVar[str] = "entropy"

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Return the smaller plug-in entropy of the rows of `x` (n, dx) and `y` (n, dy) as an upper bound, in bits.

        Raises:
            InputError: if `x` and `y` are not finite, real rows of one sample of at least two.
        """
        x, y = as_rows(x, "x"), as_rows(y, "y")
        paired(x, y)
        for rows, side in ((x, "x"), (y, "y")):
            _comparable(rows, side)
        bits = min(row_entropy(x), row_entropy(y))
        flags = ("constant-input",) if bits == 0 else ()
        return [MIEstimate(bits, None, bits, x.shape[0], self.name, flags=flags)]
