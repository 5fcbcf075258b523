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
        x_mean: (dx,) mean of x.
        x_map: (dx, r) takes a centred x to its canonical variates; a pair that noise explains is zero.
        y_mean: (dy,) likewise of y.
        y_map: (dy, r) likewise of y.
        gain: (r,) weight of the product of a pair.
        curvature: (r,) weight of the squares of a pair.
        constant: (,) the rest of the log density ratio.
    """

    x_mean: torch.Tensor
    x_map: torch.Tensor
    y_mean: torch.Tensor
    y_map: torch.Tensor
    gain: torch.Tensor
    curvature: torch.Tensor
    constant: torch.Tensor


def gaussian_critic(x: torch.Tensor, y: torch.Tensor) -> GaussianCritic:
    """Fit canonical pairs to the training samples `x` (n, dx) and `y` (n, dy).

    The sample correlation r of a pair is too large by a known amount: with a = dx/n and b = dy/n the squared true one t
    solves t r^2 = (t (1-a) + a)(t (1-b) + b), and below the edge where no root is real the pair is noise (Bao, Hu, Pan
    & Zhou 2019, arXiv 1407.7194).
    """
    count = x.shape[0]
    most = max(1, count // _SAMPLES_PER_FEATURE)
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x_white, y_white = _whitening(x - x_mean, most), _whitening(y - y_mean, most)
    cross = x_white.T @ ((x - x_mean).T @ (y - y_mean) / count).cpu().double() @ y_white
    left, r, right = torch.linalg.svd(cross, full_matrices=False)
    keep = min(_PAIRS, r.shape[0])
    left, r, right = left[:, :keep], r[:keep].clamp(max=1 - 1e-6), right[:keep].T
    a, b = x_white.shape[1] / count, y_white.shape[1] / count
    linear = r**2 - a * (1 - b) - b * (1 - a)
    root = linear**2 - 4 * (1 - a) * (1 - b) * a * b
    square = (linear + root.clamp(min=0).sqrt()) / (2 * (1 - a) * (1 - b))
    # Noise alone reaches the edge; two deviations of a single correlation leave room for its spread.
    noise = (math.sqrt(a * (1 - b)) + math.sqrt(b * (1 - a))) ** 2 + 3 / count
    real = (root > 0) & (linear > 0) & (r**2 > noise)
    square = torch.where(real, square, 0).clamp(0, 1 - 1e-6)
    return GaussianCritic(
        x_mean=x_mean,
        x_map=(x_white @ left * real).to(x),
        y_mean=y_mean,
        y_map=(y_white @ right * real).to(y),
        gain=(square.sqrt() / (1 - square)).to(x),
        curvature=(square / (2 * (1 - square))).to(x),
        constant=(-0.5 * torch.log1p(-square).sum()).to(x),
    )


def _whitening(centred: torch.Tensor, most: int) -> torch.Tensor:
    """Return the map (k, c) that whitens `centred` (n, k) in its c <= `most` largest principal components."""
    variance, axes = torch.linalg.eigh((centred.T @ centred / centred.shape[0]).cpu().double())
    first = max(len(variance) - most, int((variance < 1e-6 * variance[-1]).sum()))
    whitening: torch.Tensor = axes[:, first:] / variance[first:].sqrt()
    return whitening


class SeparableCritic:
    """f(x, y) = a(x).b(y) + c(x) + d(y) for a batch of fits: the Gaussian critic plus perceptrons that start small.

    One forward pass over n rows scores all n^2 pairs, so every batch brings n (n - 1) shuffled pairs.
    """

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        problem: torch.Tensor,
        starts: Sequence[GaussianCritic],
        *,
        hidden: int,
        layers: int,
        embedding: int,
        seed: int,
    ) -> None:
        """Prepare the fits of `starts` on `x` (problems, n, dx) and `y` (problems, n, dy).

        `problem` (fits,) says which problem each fit belongs to.
        """
        self._x, self._y = x, y
        self._problem = problem[:, None]
        self._x_mean = torch.stack([start.x_mean for start in starts])[:, None]
        self._y_mean = torch.stack([start.y_mean for start in starts])[:, None]
        self._x_map = torch.stack([start.x_map for start in starts])
        self._y_map = torch.stack([start.y_map for start in starts])
        self._gain = torch.stack([start.gain for start in starts])[:, None]
        self._curvature = torch.stack([start.curvature for start in starts])[:, :, None]
        self._constant = torch.stack([start.constant for start in starts])[:, None, None]
        inner, pairs = (hidden,) * layers, self._x_map.shape[2]
        self._x_layers, self._y_layers = (
            linear_layers(
                len(starts),
                (side.shape[2] + pairs, *inner, embedding + 1),
                seed=seed + offset,
                like=x,
                last_gain=0.1,
            )
            for offset, side in enumerate((x, y))
        )

    def parameters(self) -> list[torch.Tensor]:
        """Every weight and bias, each with the fit as its first axis."""
        return [tensor for layer in (*self._x_layers, *self._y_layers) for tensor in layer]

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Score all pairs among `rows` (fits, m): (fits, m, m), true pairs on the diagonal."""
        x, y = self._x[self._problem, rows], self._y[self._problem, rows]
        x_pairs = torch.bmm(x - self._x_mean, self._x_map)
        y_pairs = torch.bmm(y - self._y_mean, self._y_map)
        x_out = _smooth_perceptron(self._x_layers, torch.cat((x, x_pairs), dim=2))
        y_out = _smooth_perceptron(self._y_layers, torch.cat((y, y_pairs), dim=2))
        left = torch.cat((x_out[:, :, 1:], x_pairs * self._gain), dim=2)
        right = torch.cat((y_out[:, :, 1:], y_pairs), dim=2)
        x_alone = x_out[:, :, :1] - x_pairs.square() @ self._curvature + self._constant
        y_alone = y_out[:, :, :1] - y_pairs.square() @ self._curvature
        return torch.baddbmm(x_alone + y_alone.transpose(1, 2), left, right.transpose(1, 2))
