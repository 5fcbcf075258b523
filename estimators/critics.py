"""Critics for many problems at once: every weight has the problem as its first axis, every product is one bmm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from estimators.checks import seeded

Layers = list[tuple[torch.Tensor, torch.Tensor]]  # weights (problems, in, out) and biases (problems, 1, out)


def linear_layers(
    problems: int,
    sizes: Sequence[int],
    *,
    seed: int,
    like: torch.Tensor,
    gain: float = 1.0,
) -> Layers:
    """Draw Xavier-normal weights and zero biases for `problems` perceptrons with layers of `sizes`.

    Every problem starts from the same draw, so that an estimate does not depend on its neighbours in the batch.
    """
    generator = seeded(seed, "critic")
    layers: Layers = []
    for wide, narrow in itertools.pairwise(sizes):
        std = gain * math.sqrt(2.0 / (wide + narrow))
        weight = torch.randn(wide, narrow, generator=generator) * std
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
