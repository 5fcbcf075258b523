"""Variational bounds as pure functions of a critic's score matrix.

Every function takes scores (..., n, n) in nats, entry (i, j) being the critic at (x_i, y_j), so the diagonal holds the
true pairs and the rest shuffled pairs. It returns the contribution of every sample, (..., n) in nats: their mean is
the bound, and their spread its standard error (for the two bounds with one normaliser, through its influence function).
The best critic of all but InfoNCE is the log density ratio ln p(x, y) / p(x) p(y); that of InfoNCE is the same up to
any function of x and of y.
"""

from __future__ import annotations

import math

import torch

_LOG2_E = 1 / math.log(2)  # exp2 takes a fraction of the time of exp on a CPU


def infonce(scores: torch.Tensor) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4), mean of both directions; at most ln n."""
    count = scores.shape[-1]
    bits = scores * _LOG2_E
    row_top = bits.detach().amax(dim=-1, keepdim=True)
    top = row_top.amax(dim=-2, keepdim=True)
    terms = torch.exp2(bits - row_top)
    by_row = torch.log2(terms.sum(dim=-1)) + row_top[..., 0]
    # A column whose every term lies 2^-126 under the largest score would read zero: keep it finite.
    by_column = torch.log2((terms * torch.exp2(row_top - top)).sum(dim=-2) + 1e-37) + top[..., 0]
    true = torch.diagonal(bits, dim1=-2, dim2=-1)
    return (true - (by_row + by_column) / 2) / _LOG2_E + math.log(count)


def donsker_varadhan(scores: torch.Tensor) -> torch.Tensor:
    """Donsker-Varadhan bound of MINE, E_p[f] - ln E_q[e^f] (Belghazi et al. 2018, arXiv 1801.04062, equation 10)."""
    true, by_row, by_column, log_mean = _apart(scores)
    return true - log_mean - (by_row + by_column - 2)


def nwj(scores: torch.Tensor) -> torch.Tensor:
    """NWJ bound E_p[f] + 1 - E_q[e^f] (Nguyen, Wainwright & Jordan 2010, arXiv 0809.0853, equation 8, f shifted by 1).

    Written so that its best critic is the log density ratio itself, as for the others.
    """
    true, by_row, by_column, log_mean = _apart(scores)
    mean = torch.exp(log_mean)
    return true + 1 - (by_row + by_column - 1) * mean


def smile(scores: torch.Tensor, *, clip: float = 5.0) -> torch.Tensor:
    """SMILE: Donsker-Varadhan with e^f clipped to e^-clip ... e^clip in the normaliser.

    Song & Ermon 2020 (arXiv 1910.06222, equation 17): less variance, at the price that it may pass the truth.
    """
    true = torch.diagonal(scores, dim1=-2, dim2=-1)
    _, by_row, by_column, log_mean = _apart(scores.clamp(-clip, clip))
    return true - log_mean - (by_row + by_column - 2)


def soft_cap(scores: torch.Tensor, most: float = 8.0) -> torch.Tensor:
    """Bend scores so that none passes `most` nats; far below it they stay as they are.

    For the bounds with one normaliser: there a single pair far out, scored by extrapolation, could outweigh all others,
    and n samples cannot show more than about ln n of any pair anyway.
    """
    return most - torch.nn.functional.softplus(most - scores)


def jensen_shannon(scores: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon objective; bounds nothing, but its best critic is the log density ratio as well.

    No single pair dominates its gradient, which is why SMILE (arXiv 1910.06222, section 4.2) and the NWJ variant of
    Poole et al. (2019, arXiv 1905.06922, section 2.4) train their critics on it.
    """
    count = scores.shape[-1]
    soft = torch.nn.functional.softplus
    true = torch.diagonal(scores, dim1=-2, dim2=-1)
    apart = (soft(scores).sum(dim=-1) - soft(true)) / (count - 1)
    return -soft(-true) - apart


def _apart(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the true scores, the row and column means of e^f over pairs apart relative to their mean, and its log."""
    count = scores.shape[-1]
    true = torch.diagonal(scores, dim1=-2, dim2=-1)
    top = scores.detach().amax(dim=(-2, -1), keepdim=True)
    terms = torch.exp2((scores - top) * _LOG2_E)
    own = torch.diagonal(terms, dim1=-2, dim2=-1)
    by_row = (terms.sum(dim=-1) - own).clamp(min=0) / (count - 1)
    by_column = (terms.sum(dim=-2) - own).clamp(min=0) / (count - 1)
    mean = by_row.mean(dim=-1, keepdim=True) + 1e-37
    return true, by_row / mean, by_column / mean, torch.log(mean) + top[..., 0]
