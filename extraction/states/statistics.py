"""Putting the states of a layer on one scale: pooled statistics, z-scores and a seeded projection."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from estimators.base import InputError
from estimators.contracts.conventions import NO_OVERFLOW

FORMAT = "emergence-statistics/1"
CONSTANT = 1e-6  # a feature whose deviation is below this share of the layer's largest is constant


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the states of one model are normalised by, per point of the residual stream.

    Points are what enters block 0 (only if `entering`), then what leaves each block.

    Attributes:
        mean: (points, width) float32, pooled as `extract` says.
        std: (points, width) float32; 1 for constant features.
        scale: (points,) float32, RMS norm of the normalised, centred states, pooled alike.
        features: features after the projection; `width` where there is none.
        seed: of the projection.
        entering: whether the first point is what enters block 0.
        windows: how many windows the mean and deviation come from.

    >>> from extraction import extract, load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with extract(model, windows("animal", model.tokenizer, count=50)) as states:
    ...     states.statistics.mean.shape, states.statistics.windows
    (torch.Size([4, 16]), 50)
    """

    mean: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    features: int
    seed: int
    entering: bool
    windows: int

    def save(self, path: str | PathLike[str]) -> None:
        """Write to `path` as safetensors."""
        from safetensors.torch import save_file

        rest = {name: getattr(self, name) for name in ("features", "seed", "entering", "windows")}
        tensors = {name: getattr(self, name).contiguous() for name in ("mean", "std", "scale")}
        save_file(tensors, path, metadata={"format": FORMAT, "rest": json.dumps(rest)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: if `path` does not hold statistics.
        """
        path = Path(path)
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(
                        f"{path} holds no statistics of states ({FORMAT}); give one that was saved as such."
                    )
                tensors = {name: file.get_tensor(name) for name in ("mean", "std", "scale")}
        except (OSError, SafetensorError) as error:
            raise InputError(f"No statistics of states could be read from {path}: {error}.") from error
        return cls(**tensors, **json.loads(metadata["rest"]))


class Moments:
    """Weighted mean and sum of squared deviations of every point, merged batch by batch (Chan et al. 1983)."""

    def __init__(self, points: int, width: int) -> None:
        self.weight = torch.zeros(points, dtype=torch.float64)
        self.mean = torch.zeros(points, width, dtype=torch.float64)
        self.squares = torch.zeros(points, width, dtype=torch.float64)

    def add(self, point: int, states: Tensor, weights: Tensor) -> None:
        """Take in `states` (rows, T, width), each row `weights` (rows,) times."""
        flat = states.reshape(-1, states.shape[-1]).float()
        each = weights.repeat_interleave(states.shape[1])
        share = (each / each.sum()).to(flat.device, torch.float32)
        mean = share @ flat
        spread = (share @ (flat - mean).square_()).cpu().double()
        weight, change = float(each.sum()), mean.cpu().double() - self.mean[point]
        total = float(self.weight[point]) + weight
        self.squares[point] += weight * spread + change.square() * (float(self.weight[point]) * weight / total)
        self.mean[point] += change * (weight / total)
        self.weight[point] = total

    @property
    def variance(self) -> Tensor:
        """(points, width), float64."""
        return self.squares / self.weight[:, None]


def pool(macro: Moments, micro: Moments) -> tuple[Tensor, Tensor]:
    """Mean and variance (points, width) of the mixture in which macro and micro states have half the weight each."""
    mean = (macro.mean + micro.mean) / 2
    variance = (macro.variance + micro.variance) / 2 + ((macro.mean - micro.mean) / 2).square()
    return mean, variance


def pooled_statistics(
    macro: Moments, micro: Moments, *, features: int, seed: int, entering: bool, windows: int
) -> Statistics:
    """Statistics without their scale, which is known only once the states are normalised.

    Raises:
        InputError: if states are not finite, as float16 leaves them where it overflows.
    """
    mean, variance = pool(macro, micro)
    if not bool(torch.isfinite(variance).all()):
        raise InputError(f"States hold values that are not finite, so they cannot be normalised; {NO_OVERFLOW}.")
    std = variance.sqrt()
    std[std <= CONSTANT * std.amax(dim=1, keepdim=True)] = 1.0
    scale = torch.full((len(mean),), torch.nan)
    return Statistics(mean.float(), std.float(), scale, features, seed, entering, windows)


def with_scale(statistics: Statistics, macro: Moments, micro: Moments) -> Statistics:
    """Add the RMS norm of the centred states from the moments of the normalised ones."""
    _, variance = pool(macro, micro)
    return replace(statistics, scale=variance.sum(1).sqrt().float())


def projection(width: int, features: int, seed: int) -> Tensor:
    """A uniformly random matrix (width, features) with orthonormal columns."""
    normal = torch.randn(width, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    basis: Tensor = q * r.diagonal().sign()
    return basis.float()


class Normaliser:
    """z-scores and projects states, as one matrix product per point where there is a projection."""

    def __init__(self, statistics: Statistics) -> None:
        gain = statistics.std.reciprocal()
        shift = -statistics.mean * gain
        width = gain.shape[1]
        self._factors: list[tuple[Tensor, Tensor]] = []
        basis = projection(width, statistics.features, statistics.seed) if statistics.features < width else None
        for point in range(len(gain)):
            if basis is None:
                self._factors.append((gain[point], shift[point]))
            else:
                self._factors.append((gain[point][:, None] * basis, shift[point] @ basis))

    def __call__(self, point: int, states: Tensor) -> Tensor:
        """Return the normalised `states` (rows, T, width) as (rows, T, features), float32, on the same device."""
        gain, shift = self._factors[point]
        if gain.device != states.device:
            gain, shift = self._factors[point] = gain.to(states.device), shift.to(states.device)
        flat = states.reshape(-1, states.shape[-1]).float()
        normal: Tensor = flat * gain + shift if gain.dim() == 1 else torch.addmm(shift, flat, gain)
        return normal.reshape(*states.shape[:2], normal.shape[-1])
