"""The mixture of Gaussians that a noisy observer of given states sees: how surprised it is by the right one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from estimators.checks import fits_memory, half_precision, memory_bytes

QUERY_ROWS = 512  # queries handled at a time, noise draws counted
_SCORE_VALUES = 1 << 19  # scores in one tile: three tiles of float32 stay in the cache
_BLOCK_VALUES = 1 << 22  # numbers in the rows of one tile: 16 MB of float32


def room(states: torch.Tensor, queries: int, draws: int, levels: int) -> None:
    """Refuse what memory cannot hold: the states, a float32 copy of half precision, a tile and the results."""
    half = bool(half_precision(states))
    each = states.shape[1] * (states.element_size() + 4.0 * half)
    noise = max(draws, QUERY_ROWS)  # draws of one query are handled together
    work = 8.0 * (3 * max(_SCORE_VALUES, noise) + 3 * noise * states.shape[1] + 3 * levels * (queries + noise))
    there = memory_bytes(states.device)
    fits_memory(
        each * states.shape[0] + work,
        f"{states.shape[0]} states of {states.shape[1]} features with {queries} queries of {draws} draws",
        f"give at most {max(0, int((there - work) / each))} states, or fewer queries and draws",
        states.device,
    )


def losses(
    rows: torch.Tensor,
    mean: torch.Tensor,
    p: torch.Tensor,
    chosen: torch.Tensor,
    sigmas: Sequence[float],
    draws: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -log2 p(s_i | y_i + sigma z) of every query averaged over the draws, and the variance of that average.

    Both are (resolutions, q) float64; a single draw shows no variance, so it is 0.

    With D_ij = |y_i - y_j|^2 the posterior odds of row j against the true row i are
    p_j/p_i exp(-D_ij / (2 sigma^2) - z.(y_i - y_j) / sigma): two matrix products serve every sigma. Powers of two
    give bits at once, and exp2 takes a fraction of the time of exp.
    """
    device, dtype = rows.device, rows.dtype
    log_p = p.log2()  # (n,)
    nats = 1 / math.log(2)  # turns an exponent of e into one of 2
    uniform = bool((p == p[0]).all())
    log_weight = log_p.to(dtype).to(device)
    mean_loss = torch.empty(len(sigmas), len(chosen), dtype=torch.float64)
    variance = torch.zeros_like(mean_loss)
    step = max(1, QUERY_ROWS // draws)
    for begin in range(0, len(chosen), step):
        at = chosen[begin : begin + step]  # (b,)
        query = rows[at.to(device)] - mean  # (b, k)
        noise = torch.randn(draws, len(at), rows.shape[1], generator=generator).to(dtype).to(device)  # (draws, b, k)
        own = (noise * query).sum(dim=2).reshape(-1, 1)  # (draws b, 1): z.y_i
        half_norm = (query.square().sum(dim=1) / 2).repeat(draws)[:, None]  # (draws b, 1)
        noise = noise.reshape(-1, rows.shape[1])  # (draws b, k), all queries of a draw together
        total = torch.full((len(sigmas), len(noise)), -math.inf, dtype=dtype, device=device)  # (resolutions, draws b)
        # A last block of few queries must not make one tile of all rows.
        width = max(1, min(_SCORE_VALUES // len(noise), _BLOCK_VALUES // rows.shape[1], rows.shape[0]))
        for start in range(0, rows.shape[0], width):
            block = rows[start : start + width] - mean  # (w, k)
            near = query @ block.T  # (b, w)
            half_square = half_norm + block.square().sum(dim=1) / 2  # (draws b, w): |y_i - y_j|^2 / 2, once reduced
            half_square.sub_(near.repeat(draws, 1)).clamp_(min=0)
            along = own - noise @ block.T  # (draws b, w): z.(y_i - y_j)
            inside = ((at >= start) & (at < start + width)).nonzero()[:, 0]
            if len(inside):  # the true row's own term is exactly 1, which is what keeps the ceiling
                column = (at[inside] - start).to(device).repeat(draws)
                line = (inside[None, :] + len(at) * torch.arange(draws)[:, None]).reshape(-1).to(device)
                half_square[line, column] = 0
                along[line, column] = 0
            score = torch.empty_like(along)  # (draws b, w)
            for level, sigma in enumerate(sigmas):
                torch.mul(half_square, -nats / sigma**2, out=score).sub_(along, alpha=nats / sigma)
                if not uniform:
                    score += log_weight[start : start + width]
                top = score.amax(dim=1, keepdim=True)  # (draws b, 1)
                tile = score.sub_(top).exp2_().sum(dim=1).log2_() + top[:, 0]  # (draws b,)
                torch.logaddexp2(total[level], tile, out=total[level])
        evidence = total.cpu().double().reshape(len(sigmas), draws, len(at))  # (resolutions, draws, b)
        if not uniform:
            evidence = evidence - log_p[at]
        evidence = evidence.clamp(min=0)  # so it is in exact arithmetic: the sum holds the row's own term
        mean_loss[:, begin : begin + step] = evidence.mean(dim=1)
        if draws > 1:
            variance[:, begin : begin + step] = evidence.var(dim=1) / draws
    return mean_loss, variance
