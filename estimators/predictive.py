"""Predictive information: what a state tells about the next token, by V-information (Xu et al. 2020, arXiv 2002.10689).

I_V(h -> Y) = H_V(Y) - H_V(Y | h): bits that the next token costs less to an observer who reads the state than to one
who knows only how often each token comes. The observer is an affine lens to what the model's own head reads, the head
at a fitted temperature, and a fitted share of the unigram distribution:

    q(y | h) = (1 - w) softmax(logits(A h + b) / T)_y + w u(y),        pointwise gain = log2 q(y | h) - log2 u(y).

Lens, temperature and share are fitted on other text than the gain is read on, so that a lens that has learned nothing
gains nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from estimators.base import InputError
from estimators.shown import unigram_of

TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.98)  # of the unigram distribution
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of the lens, relative to the variance of a standardised feature


@dataclass(frozen=True, eq=False)
class Lens:
    """An affine map from states to what the head reads: y = (x - centre) @ weight + offset.

    Attributes:
        centre: (d,) float64.
        weight: (d, k) float64.
        offset: (k,) float64.
        penalty: the ridge penalty that was chosen.
    """

    centre: Tensor
    weight: Tensor
    offset: Tensor
    penalty: float

    def __call__(self, states: Tensor) -> Tensor:
        """Map `states` (n, d) to (n, k), float32."""
        return ((states.double() - self.centre) @ self.weight + self.offset).float()


class LensFit:
    """Normal equations of a ridge lens, added batch by batch, so that states need never be held together.

    Args:
        width: features d of a state.
        target: features k of what the head reads.
        device: where the sums are kept.

    >>> x = torch.randn(400, 3, dtype=torch.float64)
    >>> fit = LensFit(3, 2)
    >>> fit.add(x[:300], x[:300] @ torch.ones(3, 2).double() + 1, torch.ones(300))
    >>> fit.add(x[300:], x[300:] @ torch.ones(3, 2).double() + 1, torch.ones(100), held_out=True)
    >>> bool((fit.solve()(x) - (x @ torch.ones(3, 2).double() + 1)).abs().max() < 1e-3)
    True
    """

    def __init__(self, width: int, target: int, device: torch.device | str = "cpu") -> None:
        self._sums = [_Sums(width, target, device) for _ in range(2)]  # to fit on, to choose the penalty by

    def add(self, x: Tensor, y: Tensor, weights: Tensor, *, held_out: bool = False) -> None:
        """Add rows.

        Args:
            x: (n, d) states.
            y: (n, k) what the head reads of them.
            weights: (n,) how often each row counts.
            held_out: whether the rows choose the penalty instead of the lens.

        Raises:
            InputError: if a state is not finite, as float16 leaves it where it overflows.
        """
        x, y = x.double(), y.double()
        if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
            raise InputError(
                "States hold values that are not finite, so no lens can be fitted; load the model as bfloat16 or "
                "float32, which do not overflow as float16 does."
            )
        self._sums[int(held_out)].add(x, y, weights.to(x))

    def solve(self) -> Lens:
        """Return the ridge lens whose penalty leaves the least squared error on the held-out rows.

        With Z the standardised states, B = (Z'WZ + penalty n I)^-1 Z'W(Y - mean). One eigendecomposition serves every
        penalty.

        Raises:
            InputError: if there are no rows to fit on.
        """
        fit, held = self._sums
        if not float(fit.n):
            raise InputError("A lens needs states to be fitted on; none were given.")
        mean_x, mean_y = fit.x / fit.n, fit.y / fit.n  # (d,), (k,)
        gram = fit.xx - fit.n * torch.outer(mean_x, mean_x)  # (d, d)
        right = fit.xy - fit.n * torch.outer(mean_x, mean_y)  # (d, k)
        scale = (gram.diagonal() / fit.n).clamp_min(0).sqrt() + 1e-6  # (d,)
        values, vectors = torch.linalg.eigh(gram / torch.outer(scale, scale))  # (d,), (d, d)
        rotated = vectors.T @ (right / scale[:, None])  # (d, k)
        best: tuple[float, float, Tensor] | None = None
        for penalty in PENALTIES:
            solved = vectors @ (rotated / (values.clamp_min(0) + penalty * fit.n)[:, None])  # (d, k), of Z
            weight = solved / scale[:, None]
            error = held.squared_error(mean_x, weight, mean_y)
            if best is None or error < best[0]:
                best = error, penalty, weight
        assert best is not None  # noqa: S101  # there are penalties
        return Lens(mean_x, best[2], mean_y, best[1])


class _Sums:
    """Weighted sums of rows, of their products, and of the squares of the targets."""

    def __init__(self, width: int, target: int, device: torch.device | str) -> None:
        zeros = {"dtype": torch.float64, "device": device}
        self.n = torch.zeros((), **zeros)  # type: ignore[call-overload]
        self.x = torch.zeros(width, **zeros)  # type: ignore[call-overload]
        self.y = torch.zeros(target, **zeros)  # type: ignore[call-overload]
        self.xx = torch.zeros(width, width, **zeros)  # type: ignore[call-overload]
        self.xy = torch.zeros(width, target, **zeros)  # type: ignore[call-overload]
        self.yy = torch.zeros((), **zeros)  # type: ignore[call-overload]

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        weighted = x * weights[:, None]  # (n, d)
        self.n += weights.sum()
        self.x += weighted.sum(0)
        self.y += (y * weights[:, None]).sum(0)
        self.xx.addmm_(x.T, weighted)
        self.xy.addmm_(weighted.T, y)
        self.yy += (y.square().sum(1) * weights).sum()

    def squared_error(self, centre: Tensor, weight: Tensor, offset: Tensor) -> float:
        """Return sum w |(x - centre) @ weight + offset - y|^2 from the sums alone."""
        shift = offset - centre @ weight  # (k,): the prediction is x @ weight + shift
        quadratic = ((weight.T @ self.xx) * weight.T).sum() + 2 * (self.x @ weight) @ shift + self.n * shift @ shift
        cross = (weight * self.xy).sum() + self.y @ shift
        return float(quadratic - 2 * cross + self.yy)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How an observer speaks: softmax at `temperature`, mixed with the unigram distribution by `share`."""

    temperature: float
    share: float


def calibrate(
    log_p: Tensor, log_u: Tensor, weights: Tensor, *, temperatures: tuple[float, ...] = TEMPERATURES
) -> Calibration:
    """Choose temperature and share by the mean gain on rows that neither the lens nor the reading uses.

    Args:
        log_p: (temperatures, n) natural logarithm of the true token's probability at each temperature.
        log_u: (n,) that of its unigram probability.
        weights: (n,) how often each row counts.
        temperatures: to choose from; one where a server shows probabilities at no other.

    >>> log_u = torch.full((4,), math.log(0.1))
    >>> calibrate(log_u.expand(len(TEMPERATURES), 4) - 1.0, log_u, torch.ones(4)).share  # worse than the unigram
    0.98
    """
    weights = weights.double() / weights.double().sum()
    gains = torch.stack([gain_bits(log_p.double(), log_u.double(), share) @ weights for share in SHARES], dim=1)
    place = int(gains.argmax())  # of (temperatures, shares)
    return Calibration(temperatures[place // len(SHARES)], SHARES[place % len(SHARES)])


def gain_bits(log_p: Tensor, log_u: Tensor, share: float) -> Tensor:
    """Return log2 q - log2 u of the true token, q = (1 - share) p + share u, elementwise, in bits.

    Args:
        log_p: (..., n) natural logarithm of its probability under the head.
        log_u: (n,) that under the unigram distribution.
        share: of the unigram distribution, above 0, which bounds the loss: no gain is below log2(share).
    """
    odds = log_p - log_u + math.log1p(-share)
    return torch.logaddexp(odds, torch.full_like(odds, math.log(share))) / math.log(2)


def token_log_probabilities(logits: Tensor, row: Tensor, token: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """Return the natural logarithm of the probability of tokens at several temperatures, (temperatures, m).

    Args:
        logits: (n, V), of any floating type.
        row: (m,) which row of `logits` speaks of each token.
        token: (m,) ids.
        temperatures: that the logits are divided by.
    """
    logits = logits.float()
    of_token = logits[row, token]  # (m,)
    return torch.stack([of_token / t - torch.logsumexp(logits / t, dim=-1)[row] for t in temperatures])


def unigram(tokens: np.ndarray, weights: np.ndarray, vocabulary: int) -> Tensor:
    """Return the unigram distribution: natural logarithms (V,), float64, of smoothed weighted counts.

    Args:
        tokens: (n, m) ids that were seen as next tokens.
        weights: (n,) how often each row counts.
        vocabulary: V.

    Raises:
        InputError: if all of them are the same token, which leaves nothing to predict.
    """
    if len(np.unique(tokens)) < 2:
        raise InputError("Every next token is the same, so nothing can be told about it; give a richer corpus.")
    return torch.from_numpy(np.log(unigram_of(tokens, vocabulary, weights)))


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows of windows by what they serve, documents apart where there are enough.

    Attributes:
        fit: rows the lens is fitted on.
        calibrate: rows that choose penalty, temperature and share.
        read: rows the information is read on.
        clusters: (len(read),) document of each row read; None where windows are their own units.
    """

    fit: np.ndarray
    calibrate: np.ndarray
    read: np.ndarray
    clusters: np.ndarray | None


READ, CALIBRATE = 0.25, 0.15  # shares of the windows; the rest is fitted on
DOCUMENTS_NEEDED = 20  # fewer leave too few on each side: windows are split then
WINDOWS_NEEDED = 100


def split_windows(count: int, documents: np.ndarray | None, seed: int) -> Parts:
    """Split windows into those to fit, to calibrate and to read on, whole documents together where there are enough.

    Args:
        count: N windows, in random order.
        documents: (N,) document of each; None where there are none.
        seed: of the order in which documents are dealt out.

    Raises:
        InputError: if there are fewer than 100 windows.

    >>> parts = split_windows(1000, None, seed=0)
    >>> len(parts.fit), len(parts.calibrate), len(parts.read)
    (600, 150, 250)
    """
    if count < WINDOWS_NEEDED:
        raise InputError(
            f"The predictive observer is fitted on some windows and read on others, at least {WINDOWS_NEEDED} in all; "
            f"got {count}. Give a longer text or ask for more windows."
        )
    if documents is None or len(np.unique(documents)) < DOCUMENTS_NEEDED:
        read, calibrated = round(READ * count), round(CALIBRATE * count)
        rows = np.arange(count)
        return Parts(rows[read + calibrated :], rows[read : read + calibrated], rows[:read], None)
    names, unit, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 4]).permutation(len(names))
    part = np.zeros(len(names), np.int64)  # 0: fit
    room = {1: READ * count, 2: CALIBRATE * count}
    for document in order:
        for which in room:
            if sizes[document] <= 1.1 * room[which]:  # one that is too long is fitted on
                part[document] = which
                room[which] -= sizes[document]
                break
    fit, reading, choosing = (np.flatnonzero(part[unit] == which) for which in (0, 1, 2))
    if min(len(fit), len(reading), len(choosing)) < 0.05 * count:  # a few documents hold nearly all
        return split_windows(count, None, seed)
    return Parts(fit, choosing, reading, unit[reading])


def clustered_error(values: np.ndarray, share: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Return the standard error of the weighted mean of `values`, over clusters where given, else over rows.

    Args:
        values: (q,) float64.
        share: (q,) weights that sum to 1.
        clusters: (q,) which cluster each row belongs to.
    """
    residual = share * (values - share @ values)
    _, unit = np.unique(np.arange(len(values)) if clusters is None else clusters, return_inverse=True)
    sums = np.bincount(unit, weights=residual)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1))) if len(sums) > 1 else math.nan
