"""Predictive information: what a state tells about the next token, by V-information (Xu et al. 2020, arXiv 2002.10689).

I_V(h -> Y) = H_V(Y) - H_V(Y | h): bits that the next token costs less to an observer who reads the state than to one
who knows only how often each token comes. The observer is an affine lens to what the model's own head reads, the head
at a fitted temperature, and a fitted share of the unigram distribution:

    q(y | h) = (1 - w) softmax(logits(A h + b) / T)_y + w u(y),        pointwise gain = log2 q(y | h) - log2 u(y).

Lens, temperature, share and unigram distribution are fitted on other text than the gain is read on, so that a lens that
has learned nothing gains nothing: documents are assigned to folds, and each is read by what the others fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from estimators.base import InputError
from estimators.contracts.conventions import NO_OVERFLOW
from estimators.contracts.variances import mean_variance
from estimators.shown import unigram_of

POWERS = (12, 10, 8, 7, 6, 5, 4, 3, 2, 1)  # of exp(logits / 6): one exponential serves all temperatures
TEMPERATURES = tuple(6 / power for power in POWERS)  # 0.5, 0.6, 0.75, 0.86, 1, 1.2, 1.5, 2, 3, 6
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.98)  # of the unigram distribution
CACHED = 2**19  # logits that a CPU raises to these powers at a time: together they stay in its cache
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
    """Weighted sums of states, of what the head reads of them, and of their products, in float64.

    All that a lens needs of its rows: sums of parts add up to those of the whole, so that one lens for each part that
    is left out costs no second look at the states, and states need never be held together.

    Args:
        width: features d of a state.
        target: features k of what the head reads.
        device: where the sums are kept.

    >>> x = torch.randn(400, 3, dtype=torch.float64)
    >>> y = x @ torch.ones(3, 2).double() + 1
    >>> parts = []
    >>> for rows in (slice(0, 200), slice(200, 300), slice(300, 400)):
    ...     parts.append(NormalEquations(3, 2))
    ...     parts[-1].add(x[rows], y[rows], torch.ones(len(x[rows])))
    >>> bool((cross_fitted(parts)[0](x) - y).abs().max() < 1e-3)
    True
    """

    def __init__(self, width: int, target: int, device: torch.device | str = "cpu") -> None:
        zeros = {"dtype": torch.float64, "device": device}
        self.n = torch.zeros((), **zeros)  # type: ignore[call-overload]
        self.x = torch.zeros(width, **zeros)  # type: ignore[call-overload]
        self.y = torch.zeros(target, **zeros)  # type: ignore[call-overload]
        self.xx = torch.zeros(width, width, **zeros)  # type: ignore[call-overload]
        self.xy = torch.zeros(width, target, **zeros)  # type: ignore[call-overload]

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows.

        Args:
            x: (n, d) states, of any floating type.
            y: (n, k) what the head reads of them.
            weights: (n,) how often each row counts.

        Raises:
            InputError: if a state is not finite, as float16 leaves it where it overflows.
        """
        x, y = check_finite(x).to(self.x), check_finite(y).to(self.x)
        weights = weights.to(self.x)
        weighted = x * weights[:, None]  # (n, d)
        self.n += weights.sum()
        self.x += weighted.sum(0)
        self.y += weights @ y
        self.xx.addmm_(x.T, weighted)
        self.xy.addmm_(weighted.T, y)

    def plus(self, other: NormalEquations) -> NormalEquations:
        """Return the sums of the rows of both."""
        both = NormalEquations(0, 0, self.x.device)
        for name in ("n", "x", "y", "xx", "xy"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both


def check_finite(states: Tensor) -> Tensor:
    """Return `states` if all of them are finite.

    Raises:
        InputError: if one is not.

    >>> check_finite(torch.ones(2))
    tensor([1., 1.])
    """
    if not bool(torch.isfinite(states).all()):
        raise InputError(f"States hold values that are not finite, so no lens can be fitted; {NO_OVERFLOW}.")
    return states


def cross_fitted(parts: Sequence[NormalEquations]) -> list[Lens]:
    """Return a ridge lens for each part, fitted on all the others; one of them chooses its penalty.

    Args:
        parts: sums of three parts or more.
    """
    lenses = []
    for number in range(len(parts)):
        held = (number + 1) % len(parts)
        inner = _total([one for place, one in enumerate(parts) if place not in (number, held)])
        penalty = chosen_penalty(inner, parts[held])
        lenses.append(ridge(inner.plus(parts[held]), penalty))
    return lenses


def _total(parts: Sequence[NormalEquations]) -> NormalEquations:
    total = parts[0]
    for one in parts[1:]:
        total = total.plus(one)
    return total


def ridge(rows: NormalEquations, penalty: float) -> Lens:
    """Return the ridge lens of rows: with Z the standardised states, B = (Z'WZ + penalty n I)^-1 Z'W(Y - mean).

    Raises:
        InputError: if there are no rows.
    """
    mean_x, mean_y, scale, gram, right = _standardised(rows)
    gram.diagonal().add_(penalty * rows.n)
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(gram))  # (d, k), of Z
    return Lens(mean_x, solved / scale[:, None], mean_y, penalty)


def chosen_penalty(rows: NormalEquations, held: NormalEquations) -> float:
    """Return the penalty at which a ridge lens of `rows` leaves the least squared error on `held`.

    One eigendecomposition Z'WZ = V diag(l) V' serves all: with R = V'Z'W(Y - mean) and g = 1 / (l + penalty n) the
    prediction is Z V diag(g) R, so the error on held rows is that of a quadratic form in g.
    """
    mean_x, mean_y, scale, gram, right = _standardised(rows)
    values, vectors = torch.linalg.eigh(gram)  # (d,), (d, d)
    rotated = vectors.T @ right  # R (d, k)
    shift = torch.outer(held.x, mean_x)
    of_held = held.xx - shift - shift.T + held.n * torch.outer(mean_x, mean_x)  # (d, d)
    cross = held.xy - torch.outer(held.x, mean_y) - torch.outer(mean_x, held.y - held.n * mean_y)  # (d, k)
    quadratic = (vectors.T @ (of_held / torch.outer(scale, scale)) @ vectors) * (rotated @ rotated.T)  # (d, d)
    linear = ((vectors.T @ (cross / scale[:, None])) * rotated).sum(1)  # (d,)

    def error(penalty: float) -> float:
        g = 1 / (values.clamp_min(0) + penalty * rows.n)
        return float(g @ quadratic @ g - 2 * g @ linear)

    return min(PENALTIES, key=error)


def _standardised(rows: NormalEquations) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return mean of x (d,), of y (k,), scale of x (d,), Z'WZ (d, d) and Z'W(Y - mean) (d, k)."""
    if not float(rows.n):
        raise InputError("A lens needs states to fit; got none.")
    mean_x, mean_y = rows.x / rows.n, rows.y / rows.n
    gram = rows.xx - rows.n * torch.outer(mean_x, mean_x)
    right = rows.xy - rows.n * torch.outer(mean_x, mean_y)
    scale = (gram.diagonal() / rows.n).clamp_min(0).sqrt() + 1e-6
    return mean_x, mean_y, scale, gram / torch.outer(scale, scale), right / scale[:, None]


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


def cross_calibrated(log_p: Tensor, log_u: Tensor, weights: Tensor, part: Tensor, parts: int) -> list[Calibration]:
    """Choose temperature and share for each part by the mean gain on the rows of all the others.

    Args:
        log_p: (temperatures, n) natural logarithm of the true token's probability at each of `TEMPERATURES`.
        log_u: (n,) that of its unigram probability.
        weights: (n,) how often each row counts.
        part: (n,) int64, the part of each row.
        parts: how many there are; each has rows.
    """
    sums = torch.zeros(parts, len(TEMPERATURES), len(SHARES), dtype=torch.float64)
    for place, share in enumerate(SHARES):
        gains = gain_bits(log_p.double(), log_u.double(), share) * weights.double()  # (temperatures, n)
        sums[:, :, place].index_add_(0, part, gains.T)
    chosen = []
    for number in range(parts):
        place = int(sums[torch.arange(parts) != number].sum(0).argmax())
        chosen.append(Calibration(TEMPERATURES[place // len(SHARES)], SHARES[place % len(SHARES)]))
    return chosen


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
        row: (m,) the row of `logits` that predicts each token.
        token: (m,) ids.
        temperatures: that the logits are divided by.
    """
    rows = len(logits) if logits.device.type != "cpu" else max(1, CACHED // logits.shape[-1])
    parts = [_at_temperatures(part.float(), temperatures) for part in torch.split(logits, rows)]
    best, totals = (torch.cat(each, dim=-1) for each in zip(*parts, strict=True))  # (n,), (temperatures, n)
    of_token = logits[row, token].float() - best[row]  # (m,)
    return torch.stack([of_token / t - total.log()[row] for t, total in zip(temperatures, totals, strict=True)])


def _at_temperatures(logits: Tensor, temperatures: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return the largest logit (n,), and at each temperature the sum of exp((logits - largest) / temperature)."""
    best = logits.amax(-1)
    shifted = logits - best[:, None]  # (n, V), at most 0
    if temperatures != TEMPERATURES:
        return best, torch.stack([torch.exp(shifted / one).sum(-1) for one in temperatures])
    base = shifted.div_(6).exp_()  # exp(x / T) is a power of exp(x / 6): a product each instead of an exponential
    power, reached, by_power = base.clone(), 1, {1: base.sum(-1)}
    for wanted in sorted(POWERS)[1:]:
        for _ in range(wanted - reached):
            power.mul_(base)
        reached = wanted
        by_power[wanted] = power.sum(-1)  # (n,)
    return best, torch.stack([by_power[one] for one in POWERS])


def unigram(tokens: np.ndarray, weights: np.ndarray, vocabulary: int) -> Tensor:
    """Return the unigram distribution: natural logarithms (V,), float64, of smoothed weighted counts.

    Args:
        tokens: (n, m) ids that were seen as next tokens.
        weights: (n,) how often each row counts.
        vocabulary: V.

    Raises:
        InputError: if all of them are the same token, which leaves nothing to predict.
    """
    return torch.from_numpy(np.log(unigram_of(tokens, vocabulary, weights)))


def clustered_error(values: np.ndarray, share: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Return the standard error of the weighted mean of `values`, over clusters where given, else over rows.

    Args:
        values: (q,) float64.
        share: (q,) weights that sum to 1.
        clusters: (q,) which cluster each row belongs to.
    """
    return math.sqrt(mean_variance(values, share, clusters))
