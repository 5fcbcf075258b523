"""Predictive information: what a state tells about the next token, by V-information (Xu et al. 2020, arXiv 2002.10689).

I_V(h -> Y) = H_V(Y) - H_V(Y | h): bits that the next token costs less to an observer who reads the state than to one
who knows only how often each token comes. The observer is an affine lens to what the model's own head reads, the head
at a fitted temperature, and a fitted share of the unigram distribution:

    q(y | h) = (1 - w) softmax(logits(A h + b) / T)_y + w u(y),        pointwise gain = log2 q(y | h) - log2 u(y).

Lens, temperature and share are fitted on other documents than the gain is read on, so that a lens that has learned
nothing gains nothing: the windows are dealt into folds, each of which is read by what the others were fitted on.
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


class NormalEquations:
    """Weighted sums of states, of what the head reads of them, and of their products, from which lenses are solved.

    Sums of several parts of the text add up, so that the lens that is fitted on all parts but some costs no second look
    at the states.

    Args:
        width: features d of a state.
        target: features k of what the head reads.
        device: where the sums are kept.

    >>> x = torch.randn(400, 3, dtype=torch.float64)
    >>> y = x @ torch.ones(3, 2).double() + 1
    >>> fitting, choosing = NormalEquations(3, 2), NormalEquations(3, 2)
    >>> fitting.add(x[:300], y[:300], torch.ones(300))
    >>> choosing.add(x[300:], y[300:], torch.ones(100))
    >>> bool((ridge_lens(fitting, choosing)(x) - y).abs().max() < 1e-3)
    True
    """

    def __init__(self, width: int, target: int, device: torch.device | str = "cpu") -> None:
        zeros = {"dtype": torch.float64, "device": device}
        self.n = torch.zeros((), **zeros)  # type: ignore[call-overload]
        self.x = torch.zeros(width, **zeros)  # type: ignore[call-overload]
        self.y = torch.zeros(target, **zeros)  # type: ignore[call-overload]
        self.xx = torch.zeros(width, width, **zeros)  # type: ignore[call-overload]
        self.xy = torch.zeros(width, target, **zeros)  # type: ignore[call-overload]
        self.yy = torch.zeros((), **zeros)  # type: ignore[call-overload]

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows.

        Args:
            x: (n, d) states.
            y: (n, k) what the head reads of them.
            weights: (n,) how often each row counts.

        Raises:
            InputError: if a state is not finite, as float16 leaves it where it overflows.
        """
        x, y = x.to(self.x), y.to(self.y)
        weighted = x * weights.to(self.x)[:, None]  # (n, d)
        self.n += weights.sum().to(self.n)
        self.x += weighted.sum(0)
        self.y += (y * weights.to(self.y)[:, None]).sum(0)
        self.xx.addmm_(x.T, weighted)
        self.xy.addmm_(weighted.T, y)
        self.yy += (y.square().sum(1) * weights.to(self.y)).sum()
        if not bool(torch.isfinite(self.x).all() & torch.isfinite(self.y).all()):
            raise InputError(
                "States hold values that are not finite, so no lens can be fitted; load the model as bfloat16 or "
                "float32, which do not overflow as float16 does."
            )

    def plus(self, other: NormalEquations) -> NormalEquations:
        """Return the sums of both."""
        total = NormalEquations(len(self.x), len(self.y), self.x.device)
        for name in ("n", "x", "y", "xx", "xy", "yy"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def squared_error(self, centre: Tensor, weight: Tensor, offset: Tensor) -> float:
        """Return sum w |(x - centre) @ weight + offset - y|^2 from the sums alone."""
        shift = offset - centre @ weight  # (k,): the prediction is x @ weight + shift
        quadratic = ((weight.T @ self.xx) * weight.T).sum() + 2 * (self.x @ weight) @ shift + self.n * shift @ shift
        cross = (weight * self.xy).sum() + self.y @ shift
        return float(quadratic - 2 * cross + self.yy)


def ridge_lens(fitting: NormalEquations, choosing: NormalEquations) -> Lens:
    """Return the ridge lens of `fitting` whose penalty leaves the least squared error on `choosing`.

    With Z the standardised states, B = (Z'WZ + penalty n I)^-1 Z'W(Y - mean). One eigendecomposition serves every
    penalty.

    Raises:
        InputError: if there are no rows to fit on.
    """
    if not float(fitting.n):
        raise InputError("A lens needs states to be fitted on; none were given.")
    n, mean_x, mean_y = fitting.n, fitting.x / fitting.n, fitting.y / fitting.n  # (), (d,), (k,)
    gram = fitting.xx - n * torch.outer(mean_x, mean_x)  # (d, d)
    right = fitting.xy - n * torch.outer(mean_x, mean_y)  # (d, k)
    scale = (gram.diagonal() / n).clamp_min(0).sqrt() + 1e-6  # (d,)
    values, vectors = torch.linalg.eigh(gram / torch.outer(scale, scale))  # (d,), (d, d)
    rotated = vectors.T @ (right / scale[:, None])  # (d, k)
    best: tuple[float, float, Tensor] | None = None
    for penalty in PENALTIES:
        solved = vectors @ (rotated / (values.clamp_min(0) + penalty * n)[:, None])  # (d, k), of Z
        weight = solved / scale[:, None]
        error = choosing.squared_error(mean_x, weight, mean_y)
        if best is None or error < best[0]:
            best = error, penalty, weight
    assert best is not None  # noqa: S101  # there are penalties
    return Lens(mean_x, best[2], mean_y, best[1])


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


FOLDS = 5
DOCUMENTS_NEEDED = 20  # fewer leave too few on each side, and no error over them
WINDOWS_NEEDED = 100


@dataclass(frozen=True, eq=False)
class Folds:
    """Parts of the windows, whole documents together, each read once by what was fitted on the others.

    Attributes:
        of: (N,) fold of each window, 0 to `FOLDS` - 1.
        clusters: (N,) document of each window; None where windows are their own units.
    """

    of: np.ndarray
    clusters: np.ndarray | None

    def fitting(self, fold: int) -> np.ndarray:
        """Rows that fit the lens and the unigram distribution by which `fold` is read: three fifths of all."""
        return np.flatnonzero((self.of != fold) & (self.of != self.next(fold)))

    def choosing(self, fold: int) -> np.ndarray:
        """Rows that choose penalty, temperature and share by which `fold` is read."""
        return np.flatnonzero(self.of == self.next(fold))

    @staticmethod
    def next(fold: int) -> int:
        """The fold that chooses for `fold`."""
        return (fold + 1) % FOLDS


def split_folds(count: int, documents: np.ndarray | None, seed: int) -> Folds:
    """Deal windows into five folds, whole documents together where there are any.

    Args:
        count: N windows, in random order.
        documents: (N,) document of each; None where there are none.
        seed: of the order in which documents of one size are dealt out.

    Raises:
        InputError: if there are fewer than 100 windows, or fewer than 20 documents.

    >>> folds = split_folds(1000, None, seed=0)
    >>> len(folds.fitting(0)), len(folds.choosing(0)), int((folds.of == 0).sum())
    (600, 200, 200)
    """
    if count < WINDOWS_NEEDED:
        raise InputError(
            f"The predictive observer is fitted on some windows and read on others, at least {WINDOWS_NEEDED} in all; "
            f"got {count}. Give a longer text or ask for more windows."
        )
    if documents is None:
        return Folds(np.arange(count) % FOLDS, None)
    names, unit, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    if len(names) < DOCUMENTS_NEEDED:
        raise InputError(
            f"The predictive observer is fitted on some documents and read on others, at least {DOCUMENTS_NEEDED} in "
            f"all; these windows are of {len(names)}. Give more documents, or a longer text."
        )
    order = np.random.default_rng([seed, 4]).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first
    fold = np.zeros(len(names), np.int64)
    filled = np.zeros(FOLDS, np.int64)
    for document in order:
        fold[document] = filled.argmin()
        filled[fold[document]] += sizes[document]
    if filled.min() < count / (4 * FOLDS):
        raise InputError(
            f"One document holds {sizes.max()} of {count} windows, which leaves too few to fit on and to read apart; "
            "give more documents."
        )
    return Folds(fold[unit], unit)


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
