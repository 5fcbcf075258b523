"""MINE (Belghazi et al. 2018, arXiv 1801.04062) in the published setting of arXiv 2405.12617.

Kept to compare with published values, not to be trusted: its value is the maximum over epochs of a bound evaluated on
the very samples it was trained on, which passes provable ceilings.
"""

from __future__ import annotations

import math

import torch

from estimators.base import InputError, MIEstimate, Progress
from estimators.checks import fits_memory, memory_bytes, seeded
from estimators.critics import leaky_perceptron, linear_layers
from estimators.entropy import ceiling_flags, row_entropy

PAPER_WIDTHS = (768, 384, 192, 96, 48, 24, 12, 6, 3, 1)
PAPER_FEATURES = 768  # the paper cuts every state to its first 768 features


def mine_paper(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    epochs: int = 10_000,
    held_out: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[MIEstimate]:
    """Train the published critic on each of many problems, all samples in one batch, one shuffle an epoch.

    Ten linear layers (in, 768, 384, 192, 96, 48, 24, 12, 6, 3, 1), LeakyReLU, Xavier-normal; Adam, 1e-4 falling
    polynomially (power 3) to 1e-8 over `epochs`. The published code clips gradients before zeroing them, so never;
    none are clipped here.

    Args:
        x: (problems, n, dx) or (n, dx) samples; only the first 768 features are used, as in the paper.
        y: (problems, n, dy) or (n, dy) paired samples, likewise.
        epochs: passes over the samples.
        held_out: share of the samples never trained on, to report the bound on them.
        seed: governs split, weights and shuffles.
        progress: called after each epoch.

    Returns:
        One estimate per problem: `bits` is the published value (maximum over epochs); `details` has ``max``, ``last``
        and ``held_out`` bound in bits, and the seconds are the caller's to take.

    Raises:
        InputError: if the problems leave nothing to train on, or could not be held in memory.
    """
    if x.ndim == 2:
        x, y = x[None], y[None]
    x, y = x[:, :, :PAPER_FEATURES], y[:, :, :PAPER_FEATURES]
    problems, count, _ = x.shape
    train = count - max(1, round(held_out * count))
    if train < 1:
        raise InputError(f"held_out={held_out} leaves none of {count} samples to train on; give more samples.")
    # Of every sample the backward pass needs what each layer takes and gives, of the true and of the shuffled pair.
    each = 2.0 * count * x.element_size() * (x.shape[2] + y.shape[2] + 2 * sum(PAPER_WIDTHS))
    fits_memory(
        each * problems,
        f"The published critic on {problems} problems of {count} samples",
        f"estimate at most {int(memory_bytes(x.device) / each)} at once, or at most "
        f"{int(count * memory_bytes(x.device) / (each * problems))} samples",
        x.device,
    )
    generator = seeded(seed, "mine")
    order = torch.randperm(count, generator=generator).to(x.device)
    x, y = x[:, order], y[:, order]
    layers = linear_layers(problems, (x.shape[2] + y.shape[2], *PAPER_WIDTHS), seed=seed, like=x)

    def bound(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shuffled = b[:, torch.randperm(b.shape[1], generator=generator).to(b.device)]
        joint = leaky_perceptron(layers, torch.cat((a, b), dim=2))[:, :, 0]
        marginal = leaky_perceptron(layers, torch.cat((a, shuffled), dim=2))[:, :, 0]
        log_mean = torch.logsumexp(marginal, dim=1) - math.log(marginal.shape[1])
        return joint.mean(dim=1) - log_mean  # arXiv 1801.04062, equation 10

    optimiser = torch.optim.Adam([tensor for layer in layers for tensor in layer], lr=1e-4)
    best = torch.full((problems,), -math.inf)
    last = best
    for epoch in range(epochs):
        rate = (1e-4 - 1e-8) * (1 - epoch / epochs) ** 3 + 1e-8
        for group in optimiser.param_groups:
            group["lr"] = rate
        value = bound(x[:, :train], y[:, :train])
        optimiser.zero_grad()
        torch.autograd.backward(-value.sum())
        optimiser.step()
        last = value.detach().cpu()
        best = torch.maximum(best, last)
        if progress is not None:
            progress(epoch + 1, epochs)
    with torch.no_grad():
        outside = bound(x[:, train:], y[:, train:]).cpu()
    return [
        _paper_estimate(x[i], y[i], best=float(best[i]), last=float(last[i]), held_out=float(outside[i]))
        for i in range(problems)
    ]


def _paper_estimate(x: torch.Tensor, y: torch.Tensor, *, best: float, last: float, held_out: float) -> MIEstimate:
    in_bits = 1 / math.log(2)
    ceiling = min(row_entropy(x), row_entropy(y))
    bits = best * in_bits
    return MIEstimate(
        bits=bits,
        std_error=None,
        ceiling_bits=ceiling,
        samples=x.shape[0],
        method="mine",
        flags=ceiling_flags(bits, ceiling),
        details={"max": bits, "last": last * in_bits, "held_out": held_out * in_bits},
    )
