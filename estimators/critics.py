"""Critics for many problems at once: every weight has the problem as its first axis, every product is one bmm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from estimators.checks import seeded

Layers = list[tuple[torch.Tensor, torch.Tensor]]  # weights (problems, in, out) and biases (problems, 1, out)

_PAIRS = 64  # canonical pairs kept at most
_SAMPLES_PER_FEATURE = 20  # canonical pairs are sought among so few principal components that each is well known


def linear_layers(
    problems: int, sizes: Sequence[int], *, seed: int, like: torch.Tensor, last_gain: float = 1.0
) -> Layers:
    """Draw Xavier-normal weights and zero biases for `problems` perceptrons with layers of `sizes`.

    Every problem starts from the same draw, so that an estimate does not depend on its neighbours in the batch.
    """
    generator = seeded(seed, "critic")
    layers: Layers = []
    for wide, narrow in itertools.pairwise(sizes):
        gain = last_gain if len(layers) == len(sizes) - 2 else 1.0
        weight = torch.randn(wide, narrow, generator=generator) * (gain * math.sqrt(2.0 / (wide + narrow)))
        weight = weight.to(like).expand(problems, -1, -1).clone().requires_grad_()
        bias = torch.zeros(problems, 1, narrow, dtype=like.dtype, device=like.device).requires_grad_()
        layers.append((weight, bias))
    return layers


def leaky_perceptron(layers: Layers, inputs: torch.Tensor, *, slope: float = 0.01) -> torch.Tensor:
    """Apply `layers` with LeakyReLU between them to `inputs` (problems, n, in); returns (problems, n, out)."""
    for weight, bias in layers[:-1]:
        inputs = torch.nn.functional.leaky_relu(torch.baddbmm(bias, inputs, weight), slope)
    weight, bias = layers[-1]
    return torch.baddbmm(bias, inputs, weight)


def _smooth_perceptron(layers: Layers, inputs: torch.Tensor) -> torch.Tensor:
    for weight, bias in layers[:-1]:
        inputs = torch.nn.functional.silu(torch.baddbmm(bias, inputs, weight))
    weight, bias = layers[-1]
    return torch.baddbmm(bias, inputs, weight)


def normal_scores(rows: torch.Tensor) -> torch.Tensor:
    """Replace every feature of `rows` (n, k) by the normal scores of its ranks; equal values share their mean rank.

    Mutual information does not change under a monotone map of a feature, and heavy tails no longer matter.
    """
    count = rows.shape[0]
    ordered, order = rows.sort(dim=0)
    place = torch.arange(count, device=rows.device)[:, None].expand_as(order)
    fresh = torch.ones_like(order, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    start = torch.where(fresh, place, 0).cummax(dim=0).values
    closing = torch.ones_like(fresh)
    closing[:-1] = fresh[1:]
    end = torch.where(closing, place, count).flip(0).cummin(dim=0).values.flip(0)
    rank = torch.empty_like(ordered).scatter_(0, order, ((start + end) / 2).to(ordered.dtype))
    scores: torch.Tensor = torch.special.ndtri((rank + 0.5) / count)
    return scores


@dataclass(frozen=True, slots=True)
class GaussianCritic:
    """The log density ratio of the Gaussian that fits the training rows: where every critic starts from.

    Attributes:
        x_pairs: (n, r) canonical variates of every x; a pair that noise explains is zero.
        y_pairs: (n, r) likewise of y.
        gain: (r,) weight of the product of a pair.
        curvature: (r,) weight of the squares of a pair.
        constant: (,) the rest of the log density ratio.
    """

    x_pairs: torch.Tensor
    y_pairs: torch.Tensor
    gain: torch.Tensor
    curvature: torch.Tensor
    constant: torch.Tensor


def gaussian_critic(x: torch.Tensor, y: torch.Tensor, train: torch.Tensor) -> GaussianCritic:
    """Fit canonical pairs on the rows `train` of `x` (n, dx) and `y` (n, dy), and apply them to every row.

    The sample correlation r of a pair is too large by a known amount: with a = dx/n and b = dy/n the squared true one t
    solves t r^2 = (t (1-a) + a)(t (1-b) + b), and below the edge where no root is real the pair is noise (Bao, Hu, Pan
    & Zhou 2019, arXiv 1407.7194).
    """
    most = max(1, train.shape[0] // _SAMPLES_PER_FEATURE)
    x_white, y_white = _whitened(x, train, most), _whitened(y, train, most)
    count = train.shape[0]
    cross = (x_white[train].T @ y_white[train] / count).cpu().double()
    left, r, right = torch.linalg.svd(cross, full_matrices=False)
    keep = min(_PAIRS, r.shape[0])
    left, r, right = left[:, :keep], r[:keep].clamp(max=1 - 1e-6), right[:keep].T
    a, b = x_white.shape[1] / count, y_white.shape[1] / count
    linear = r**2 - a * (1 - b) - b * (1 - a)
    root = linear**2 - 4 * (1 - a) * (1 - b) * a * b
    square = (linear + root.clamp(min=0).sqrt()) / (2 * (1 - a) * (1 - b))
    # The largest of many noise correlations spreads around the edge by about n^(-2/3); one alone by 2 deviations.
    noise = (math.sqrt(a * (1 - b)) + math.sqrt(b * (1 - a))) ** 2 + 3 / count
    real = (root > 0) & (linear > 0) & (r**2 > noise)
    square = torch.where(real, square, 0).clamp(0, 1 - 1e-6)
    left, right = left * real, right * real
    return GaussianCritic(
        x_pairs=x_white @ left.to(x_white),
        y_pairs=y_white @ right.to(y_white),
        gain=(square.sqrt() / (1 - square)).to(x_white),
        curvature=(square / (2 * (1 - square))).to(x_white),
        constant=(-0.5 * torch.log1p(-square).sum()).to(x_white),
    )


def _whitened(rows: torch.Tensor, train: torch.Tensor, most: int) -> torch.Tensor:
    """Centre and whiten `rows` by the moments of its rows `train`, in at most `most` principal components."""
    part = rows[train]
    mean = part.mean(dim=0)
    part = part - mean
    variance, axes = torch.linalg.eigh((part.T @ part / part.shape[0]).cpu().double())
    first = max(len(variance) - most, int((variance < 1e-6 * variance[-1]).sum()))
    maps = axes[:, first:] / variance[first:].sqrt()
    white: torch.Tensor = (rows - mean) @ maps.to(rows)
    return white


class SeparableCritic:
    """f(x, y) = a(x).b(y) + c(x) + d(y) for a batch of fits: the Gaussian critic plus perceptrons that start small.

    One forward pass over n rows scores all n^2 pairs, so every batch brings n (n - 1) pairs drawn apart.
    """

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        starts: Sequence[GaussianCritic],
        *,
        hidden: int,
        layers: int,
        embedding: int,
        seed: int,
    ) -> None:
        """Prepare the fits of `starts` on `x` (fits, n, dx) and `y` (fits, n, dy)."""
        self._x_pairs = torch.stack([start.x_pairs for start in starts])
        self._y_pairs = torch.stack([start.y_pairs for start in starts])
        self._gain = torch.stack([start.gain for start in starts])[:, None]
        self._curvature = torch.stack([start.curvature for start in starts])[:, :, None]
        self._constant = torch.stack([start.constant for start in starts])[:, None, None]
        self._x = torch.cat((x, self._x_pairs), dim=2)
        self._y = torch.cat((y, self._y_pairs), dim=2)
        fits, inner = len(starts), (hidden,) * layers
        self._x_layers = linear_layers(
            fits, (self._x.shape[2], *inner, embedding + 1), seed=seed, like=x, last_gain=0.1
        )
        self._y_layers = linear_layers(
            fits, (self._y.shape[2], *inner, embedding + 1), seed=seed + 1, like=y, last_gain=0.1
        )
        self._fit = torch.arange(fits, device=x.device)[:, None]

    def parameters(self) -> list[torch.Tensor]:
        """Every weight and bias, each with the fit as its first axis."""
        return [tensor for layer in (*self._x_layers, *self._y_layers) for tensor in layer]

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Score all pairs among `rows` (fits, m): (fits, m, m), true pairs on the diagonal."""
        at = (self._fit, rows)
        x_out, y_out = (
            _smooth_perceptron(self._x_layers, self._x[at]),
            _smooth_perceptron(self._y_layers, self._y[at]),
        )
        x_pairs, y_pairs = self._x_pairs[at], self._y_pairs[at]
        left = torch.cat((x_out[:, :, 1:], x_pairs * self._gain), dim=2)
        right = torch.cat((y_out[:, :, 1:], y_pairs), dim=2)
        x_alone = x_out[:, :, :1] - x_pairs.square() @ self._curvature + self._constant
        y_alone = y_out[:, :, :1] - y_pairs.square() @ self._curvature
        return torch.baddbmm(x_alone + y_alone.transpose(1, 2), left, right.transpose(1, 2))
