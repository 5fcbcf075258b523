"""Sample propagation: the information a noisy observer has about a discrete input, without training.

The states of a network are a function of its tokens, so the input S is discrete, Y = y_S, and
I(S; Y + sigma Z) = H(S) - E[-log2 p(S | Y + sigma Z)] needs only the mixture of Gaussians around the given states
(Goldfeld et al. 2019, arXiv 1810.05728; Goldfeld, Greenewald & Polyanskiy 2019, arXiv 1810.11589). It is exact for the
given windows up to the Monte-Carlo error over the noise, and at most H(S). It says nothing about pairs (x, y) where
y is not a function of a discrete x.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from estimators.base import InputError, MIEstimate
from estimators.checks import (
    as_rows,
    half_precision,
    real_number,
    real_rows,
    row_blocks,
    seeded,
    whole_number,
)
from estimators.contracts.conventions import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
from estimators.entropy import ceiling_flags, plug_in_entropy, probabilities
from estimators.information_emergence import weighted_moments
from estimators.mixture import losses, room
from estimators.symbols import states_of_symbols


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

    I(S; T) = H(S) - H(S | T) (Cover & Thomas 2006, equation 2.43) with T = Y + rho scale Z, the mean of the second term
    taken over draws of the noise, by Bayes' rule in the mixture of Gaussians around all states (arXiv 1810.05728).

    Time grows with queries x states x features, memory with the states of one block only.

    Args:
        states: (n, k) state of each **distinct** symbol (window, prefix or token); float16 and bfloat16 are
            computed in float32, float64 in float64.
        weights: (n,) how often each symbol occurs; None: all alike.
        resolutions: noise levels rho, relative to `scale`.
        scale: what rho is relative to, in the units of the states; None: the RMS norm of the centred states. Pass one
            number for all variables that are to be compared.
        queries: rows at which the information is evaluated, against all rows: None for every row (then `bits` is
            their exact weighted mean), an int for that many sampled from the distribution of the symbols (at least n:
            every row, with as many more draws), or an int64 tensor (q,) of rows sampled so by the caller.
        draws: noise draws per query.
        seed: seed of queries and noise.

    Returns:
        One estimate per resolution. `pointwise_bits` (q,) is the information density of each query. `bits` is
        H(S) - mean(-log2 p_i - pointwise_i): the known entropy replaces its sample mean, so `bits` is unbiased and
        never above `ceiling_bits` = H(S). `std_error` is the Monte-Carlo error for the given symbols: from the spread
        over sampled queries, or over the draws where every row is a query; with every row and a single draw the
        spread over rows bounds it.

    Raises:
        InputError: if the states or options cannot be used.

    >>> states = torch.tensor([[0.0], [1.0], [2.0], [3.0]])  # four symbols, one feature
    >>> fine, coarse = sample_propagation(states, resolutions=(0.01, 10.0))
    >>> round(fine.bits, 3), fine.ceiling_bits, coarse.bits < 0.5  # a fine observer tells all four apart: 2 bits
    (2.0, 2.0, True)
    """
    levels = _checked_resolutions(resolutions)
    whole_number(draws, "draws", at_least=1)
    if queries is not None and not isinstance(queries, torch.Tensor):
        whole_number(queries, "queries", at_least=2)  # one alone shows no error
        queries = int(queries)
    rows = as_rows(states, "states")
    count = rows.shape[0]
    if isinstance(queries, int) and queries >= count > 0:
        draws, queries = draws * math.ceil(queries / count), None
    asked = count if queries is None else queries if isinstance(queries, int) else len(queries)
    room(rows, asked, draws, len(levels))
    rows = real_rows(rows, "states", at_least=1)
    p = probabilities(weights, count)
    generator = seeded(seed, SamplePropagation.name)
    index = None if queries is None else _query_rows(queries, p, generator)
    mean, norm = _centre(rows, p)
    scale = norm if scale is None else real_number(scale, "scale", "a positive number, the RMS norm of the states")
    if not math.isfinite(norm):
        raise InputError("The squares of the states overflow their type; rescale them, or give float64.")
    if not (math.isfinite(scale) and scale >= 0) or (scale == 0 and norm > 0):
        raise InputError(f"scale must be a positive number, the RMS norm of the centred states; got {scale}.")

    chosen = torch.arange(count) if index is None else index  # (q,)
    surprise = -p.log2()  # (n,), -log2 p_i of every row
    if norm == 0:  # one distinct state: the observer learns nothing
        loss = surprise[chosen].expand(len(levels), -1)  # (resolutions, q)
        variance = torch.zeros_like(loss)
    else:
        sigmas = [level * scale for level in levels]
        loss, variance = losses(rows, mean, p, chosen, sigmas, draws, generator)  # both (resolutions, q)

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
                pointwise_variance=noise_variance if draws > 1 else None,
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
        queries: how many windows to evaluate at, sampled by their frequency; None for every one.
        draws: noise draws per query.
    """

    name: ClassVar[str] = "sample-propagation"
    resolution: float | Sequence[float] = DEFAULT_RESOLUTION
    scale: float | None = None
    queries: int | None = 2048
    draws: int = 1

    def __post_init__(self) -> None:
        """Refuse options of another type before any work."""
        _checked_resolutions(self.resolution)
        whole_number(self.draws, "draws", at_least=1)
        if self.queries is not None:
            whole_number(self.queries, "queries", at_least=2)
        if self.scale is not None:
            real_number(self.scale, "scale", "a positive number, the RMS norm of the states")

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y + noise) in bits, one estimate per resolution.

        Args:
            x: (n,) or (n, t) integer symbols, e.g. the token ids of each window; equal rows are one symbol.
            y: (n, k) the state that each symbol produced.
            seed: seed of queries and noise.

        `queries` of the result are rows of x and y: the first that shows each symbol.

        Raises:
            InputError: if x is not integer, or y is not a function of x.
        """
        states, counts, first = states_of_symbols(x, y)
        found = sample_propagation(
            states,
            counts,
            resolutions=_checked_resolutions(self.resolution),
            scale=self.scale,
            queries=self.queries,
            draws=self.draws,
            seed=seed,
        )
        if len(first) == len(y):
            return found
        first = first.cpu()
        return [replace(one, queries=first if one.queries is None else first[one.queries]) for one in found]


def _checked_resolutions(resolutions: object) -> list[float]:
    what = "positive numbers, relative to the states' RMS norm"
    several = resolutions if isinstance(resolutions, Iterable) and not isinstance(resolutions, str) else (resolutions,)
    levels = [real_number(one, "resolutions", what) for one in several]
    if not levels or min(levels) <= 0:
        raise InputError(f"resolutions must be {what}; got {levels}.")
    return levels


def _query_rows(queries: torch.Tensor | int | None, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    count = p.shape[0]
    if queries is None or (isinstance(queries, int) and queries >= count):
        return None
    if isinstance(queries, int):
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
