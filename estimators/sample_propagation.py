"""Sample propagation: the information a noisy observer has about a discrete input, without training.

The states of a network are a function of its tokens, so the input S is discrete, Y = y_S, and
I(S; Y + sigma Z) = H(S) - E[-log2 p(S | Y + sigma Z)] needs only the mixture of Gaussians around the given states
(Goldfeld et al. 2019, arXiv 1810.05728; Goldfeld, Greenewald & Polyanskiy 2019, arXiv 1810.11589). It is exact for the
given windows up to the Monte-Carlo error over the noise, and at most H(S). It says nothing about pairs (x, y) where
y is not a function of a discrete x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from estimators.base import InputError, MIEstimate
from estimators.checks import as_rows, half_precision, paired, real_rows, row_blocks, seeded
from estimators.emergence import weighted_moments
from estimators.entropy import ceiling_flags, distinct_rows, plug_in_entropy, probabilities

DEFAULT_RESOLUTIONS: tuple[float, ...] = (0.06, 0.09, 0.12, 0.18, 0.25, 0.35, 0.5)
DEFAULT_RESOLUTION: float = 0.18

_QUERY_ROWS = 512  # queries handled at a time, noise draws counted
_SCORE_VALUES = 1 << 19  # scores in one tile: three tiles of float32 stay in the cache


def sample_propagation(
    states: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    resolutions: Sequence[float] = DEFAULT_RESOLUTIONS,
    scale: float | None = None,
    queries: torch.Tensor | int | None = None,
    draws: int = 1,
    seed: int = 0,
) -> list[MIEstimate]:
    """Estimate I(S; Y + rho scale Z) in bits for a discrete input S with states Y, one estimate per resolution rho.

    Time grows with queries x states x features, memory with the states of one block only.

    Args:
        states: (n, k) state of each **distinct** symbol (window, prefix or token); float16 and bfloat16 are
            computed in float32, float64 in float64.
        weights: (n,) how often each symbol occurs; None: all alike.
        resolutions: noise levels rho, relative to `scale`.
        scale: what rho is relative to, in the units of the states; None: the RMS norm of the centred states. Pass one
            number for all variables that are to be compared.
        queries: rows at which the information is evaluated, against all rows: None for every row (then `bits` is
            their exact weighted mean), an int for that many drawn from the distribution of the symbols (at least n:
            every row, with as many more draws), or an int64 tensor (q,) of rows drawn so by the caller.
        draws: noise draws per query.
        seed: governs queries and noise.

    Returns:
        One estimate per resolution. `pointwise_bits` (q,) is the information density of each query. `bits` is
        H(S) - mean(-log2 p_i - pointwise_i): the known entropy replaces its sample mean, so `bits` is unbiased and
        never above `ceiling_bits` = H(S). `std_error` is the Monte-Carlo error for the given symbols: from the spread
        over sampled queries, or over the draws where every row is a query; with every row and a single draw the
        spread over rows bounds it.

    Raises:
        InputError: if the states or options cannot be used.
    """
    rows = real_rows(states, "states", at_least=1)
    count = rows.shape[0]
    p = probabilities(weights, count)
    levels = _checked_resolutions(resolutions)
    if draws < 1:
        raise InputError(f"draws must be at least 1; got {draws}.")
    generator = seeded(seed, SamplePropagation.name)
    if isinstance(queries, int) and queries >= count:
        draws, queries = draws * math.ceil(queries / count), None
    index = None if queries is None else _query_rows(queries, p, generator)
    mean, norm = _centre(rows, p)
    scale = norm if scale is None else float(scale)
    if not math.isfinite(norm):
        raise InputError("The squares of the states pass the range of their type; rescale them, or give float64.")
    if not (math.isfinite(scale) and scale >= 0) or (scale == 0 and norm > 0):
        raise InputError(f"scale must be a positive number, the RMS norm of the centred states; got {scale}.")

    chosen = torch.arange(count) if index is None else index
    surprise = -p.log2()  # -log2 p_i of every row
    if norm == 0:  # one distinct state: the observer learns nothing
        loss = surprise[chosen].expand(len(levels), -1)
        variance = torch.zeros_like(loss)
    else:
        sigmas = [level * scale for level in levels]
        loss, variance = _losses(rows, mean, p, chosen, sigmas, draws, generator)

    flags: tuple[str, ...] = ("constant-input",) if norm == 0 else ()
    flags += half_precision(states)
    ceiling = plug_in_entropy(p)
    over = p if index is None else torch.full((len(chosen),), 1.0 / len(chosen), dtype=torch.float64)
    estimates = []
    for level, lost, noise_variance in zip(levels, loss, variance, strict=True):
        mean_loss, error, _ = weighted_moments(lost, over)
        if index is None and draws > 1:
            error = float(p**2 @ noise_variance) ** 0.5
        bits = 0.0 if norm == 0 else ceiling - mean_loss
        estimates.append(
            MIEstimate(
                bits=bits,
                std_error=0.0 if norm == 0 else error,
                ceiling_bits=ceiling,
                samples=count,
                method=SamplePropagation.name,
                resolution=level,
                flags=flags + ceiling_flags(bits, ceiling),
                pointwise_bits=surprise[chosen] - lost,
                queries=index,
                details={"scale": scale},
            )
        )
    return estimates


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePropagation:
    """Sample propagation for `estimate`: x holds the discrete input, y its states.

    Attributes:
        resolution: one noise level or several, relative to the RMS norm of the centred states.
        scale: another reference for the noise level; see `sample_propagation`.
        queries: how many windows to evaluate at, drawn by their frequency; None for every one.
        draws: noise draws per query.
    """

    name: ClassVar[str] = "sample-propagation"
    resolution: float | Sequence[float] = DEFAULT_RESOLUTION
    scale: float | None = None
    queries: int | None = 2048
    draws: int = 1

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y + noise) in bits, one estimate per resolution.

        Args:
            x: (n,) or (n, t) integer symbols, e.g. the token ids of each window; equal rows are one symbol.
            y: (n, k) the state that each symbol produced.
            seed: governs queries and noise.

        Raises:
            InputError: if x is not integer, or y is not a function of x.
        """
        x, states = as_rows(x, "x"), as_rows(y, "y")
        paired(x, states)
        if x.is_floating_point() or x.is_complex():
            raise InputError(
                "sample-propagation needs the discrete input that produced y: integer symbols such as token ids, "
                f"(n, t); got x of {x.dtype}. For two continuous variables use infonce, smile, nwj, mine or gaussian."
            )
        y = real_rows(states, "y", at_least=1)
        first, inverse = distinct_rows(x)
        distinct = y[first]
        # Kernels may round the same input differently in another batch; more than that is another function.
        allowed = 1e-2 * float(y.abs().max())
        start = 0
        for block in row_blocks(y):
            gap = (block - distinct[inverse[start : start + block.shape[0]]]).abs().amax(dim=1)
            if float(gap.max()) > allowed:
                row = start + int(gap.argmax())
                raise InputError(
                    "sample-propagation is valid only where y is a function of x, and here it is not: rows "
                    f"{int(first[inverse[row]])} and {row} have the same x but differ by {float(gap.max()):.3g} in y. "
                    "Give the whole input as x, or use infonce, smile, nwj, mine or gaussian."
                )
            start += block.shape[0]
        levels = (self.resolution,) if isinstance(self.resolution, int | float) else tuple(self.resolution)
        counts = torch.bincount(inverse, minlength=len(first))
        return sample_propagation(
            states[first],
            counts,
            resolutions=levels,
            scale=self.scale,
            queries=self.queries,
            draws=self.draws,
            seed=seed,
        )


def _checked_resolutions(resolutions: Sequence[float]) -> list[float]:
    levels = [float(level) for level in resolutions]
    if not levels or not all(math.isfinite(level) and level > 0 for level in levels):
        raise InputError(f"resolutions must be positive numbers, relative to the states' RMS norm; got {levels}.")
    return levels


def _query_rows(queries: torch.Tensor | int | None, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    count = p.shape[0]
    if queries is None or (isinstance(queries, int) and queries >= count):
        return None
    if isinstance(queries, int):
        if queries < 2:
            raise InputError(f"queries must be at least 2, to know the error; got {queries}.")
        steps = torch.rand(queries, generator=generator, dtype=torch.float64)
        return torch.searchsorted(p.cumsum(0), steps).clamp_(max=count - 1)  # multinomial stops at 2^24 rows
    index = queries.detach().cpu()
    if index.ndim != 1 or index.dtype != torch.int64 or index.numel() == 0:
        raise InputError(f"queries must be int64 rows, (q,); got {index.dtype} of shape {tuple(index.shape)}.")
    if int(index.min()) < 0 or int(index.max()) >= count:
        raise InputError(
            f"queries must be rows 0 to {count - 1} of the states; got {int(index.min())} to {int(index.max())}."
        )
    return index


def _centre(rows: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the weighted mean state (k,) and the RMS norm of the centred states."""
    start, mean = 0, torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in row_blocks(rows):
        part = p[start : start + block.shape[0]].to(rows)
        mean += (part @ block).cpu().double()
        start += block.shape[0]
    centre = mean.to(rows.dtype).to(rows.device)
    start, square = 0, 0.0
    same = True
    for block in row_blocks(rows):
        same = same and bool((block == rows[0]).all())
        norms = (block - centre).square().sum(dim=1).cpu().double()
        square += float(p[start : start + block.shape[0]] @ norms)
        start += block.shape[0]
    return centre, 0.0 if same else math.sqrt(square)


def _losses(
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
    log_p = p.log2()
    nats = 1 / math.log(2)  # turns an exponent of e into one of 2
    uniform = bool((p == p[0]).all())
    log_weight = log_p.to(dtype).to(device)
    mean_loss = torch.empty(len(sigmas), len(chosen), dtype=torch.float64)
    variance = torch.zeros_like(mean_loss)
    step = max(1, _QUERY_ROWS // draws)
    for begin in range(0, len(chosen), step):
        at = chosen[begin : begin + step]
        query = rows[at.to(device)] - mean
        noise = torch.randn(draws, len(at), rows.shape[1], generator=generator).to(dtype).to(device)
        own = (noise * query).sum(dim=2).reshape(-1, 1)
        half_norm = (query.square().sum(dim=1) / 2).repeat(draws)[:, None]
        noise = noise.reshape(-1, rows.shape[1])
        total = torch.full((len(sigmas), len(noise)), -math.inf, dtype=dtype, device=device)
        width = max(1, min(_SCORE_VALUES // len(noise), rows.shape[0]))
        for start in range(0, rows.shape[0], width):
            block = rows[start : start + width] - mean
            near = query @ block.T
            half_square = (half_norm + block.square().sum(dim=1) / 2).sub_(near.repeat(draws, 1)).clamp_(min=0)
            along = own - noise @ block.T
            inside = ((at >= start) & (at < start + width)).nonzero()[:, 0]
            if len(inside):  # the true row's own term is exactly 1, which is what keeps the ceiling
                column = (at[inside] - start).to(device).repeat(draws)
                line = (inside[None, :] + len(at) * torch.arange(draws)[:, None]).reshape(-1).to(device)
                half_square[line, column] = 0
                along[line, column] = 0
            score = torch.empty_like(along)
            for level, sigma in enumerate(sigmas):
                torch.mul(half_square, -nats / sigma**2, out=score).sub_(along, alpha=nats / sigma)
                if not uniform:
                    score += log_weight[start : start + width]
                top = score.amax(dim=1, keepdim=True)
                tile = score.sub_(top).exp2_().sum(dim=1).log2_() + top[:, 0]
                torch.logaddexp2(total[level], tile, out=total[level])
        evidence = total.cpu().double().reshape(len(sigmas), draws, len(at))
        if not uniform:
            evidence = evidence - log_p[at]
        evidence = evidence.clamp(min=0)  # so it is in exact arithmetic: the sum holds the row's own term
        mean_loss[:, begin : begin + step] = evidence.mean(dim=1)
        if draws > 1:
            variance[:, begin : begin + step] = evidence.var(dim=1) / draws
    return mean_loss, variance
