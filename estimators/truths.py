"""Problems whose mutual information is known: what estimators are calibrated and tested on."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from estimators.base import InputError
from estimators.checks import seeded
from estimators.contracts.files import check_file
from estimators.entropy import plug_in_entropy

LARGEST_PROBLEM = 2**30  # bytes that the arrays of a file may unpack to


@dataclass(frozen=True, slots=True)
class KnownTruth:
    """One problem and its answer.

    Attributes:
        name: what it is.
        x: (n,) integer symbols, or (n, dx) samples.
        y: (n, dy) states of the symbols, or samples.
        bits: the true mutual information, for sample-propagation at `resolution`.
        discrete: whether x are symbols and y their states.
        resolution: noise level of the truth, relative to the RMS norm; for discrete problems.
        gaussian: whether the pairs are jointly Gaussian, so that the closed form is exact.
        trainable: whether so many samples show the dependence to an estimator that must find it first.
        reachable: whether every estimator of its kind should hit the truth; elsewhere trained ones are bounds.
    """

    name: str
    x: torch.Tensor = field(repr=False)
    y: torch.Tensor = field(repr=False)
    bits: float = 0.0
    discrete: bool = False
    resolution: float | None = None
    gaussian: bool = False
    trainable: bool = True
    reachable: bool = True


def built_in_truths(seed: int = 0) -> Iterator[KnownTruth]:
    """Yield every problem that needs no file, one at a time: the largest takes 300 MB."""
    yield from discrete_truths(seed)
    yield from gaussian_channels(seed)
    yield from continuous_truths(seed)


def discrete_truths(seed: int = 0) -> Iterator[KnownTruth]:
    """Discrete channels: their noise is so small that the truth is an entropy, or small enough to integrate."""
    generator = seeded(seed, "discrete truths")
    for symbols in (2, 16, 256, 4_096, 100_000):
        for law in ("uniform", "zipf"):
            rank = torch.arange(1, symbols + 1, dtype=torch.float64)
            # Zipf's law in whole numbers, the rarest symbol once: the truth is the entropy of these very counts.
            counts = torch.ones(symbols).long() if law == "uniform" else (symbols / rank).round().long()
            codes = _spread_codes(symbols, generator)
            x = torch.arange(symbols).repeat_interleave(counts)
            # At distance sqrt(2) of the norm two codes are distinguished with an error below exp(-1/(4 rho^2)).
            yield KnownTruth(
                f"{law}, {symbols} symbols",
                x,
                codes[x],
                plug_in_entropy(counts),
                discrete=True,
                resolution=0.05,
            )
            together = min(4, symbols)
            group = torch.arange(symbols) // together
            groups = torch.zeros(int(group[-1]) + 1).index_add_(0, group, counts.float())
            yield KnownTruth(
                f"{law}, {symbols} symbols, {'two' if together == 2 else 'four'} to a state",
                x,
                codes[group][x],
                plug_in_entropy(groups),
                discrete=True,
                resolution=0.05,
            )
    for switches in (1, 4, 10):
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * switches).reshape(-1, switches)
        for noise in (0.5, 1.5):
            yield KnownTruth(
                f"{switches} binary channels, noise {noise}",
                torch.arange(2**switches),
                corners,
                switches * binary_channel_bits(noise),
                discrete=True,
                resolution=noise / math.sqrt(switches),
            )


def gaussian_channels(seed: int = 0, *, samples: int = 10_000, bits: float = 2.0) -> Iterator[KnownTruth]:
    """Gaussian inputs of 1 to 1,000 features through Gaussian noise: features/2 log2(1 + 1/noise^2).

    First as states that sample propagation adds the noise to, then as pairs of input and output for the others.
    """
    generator = seeded(seed, "gaussian channels")
    for features in (1, 10, 100, 1_000):
        states = torch.randn(samples, features, generator=generator)
        norm = math.sqrt(float((states - states.mean(dim=0)).square().sum()) / samples)
        noise = 1 / math.sqrt(2 ** (2 * bits / features) - 1)
        yield KnownTruth(
            f"gaussian channel, {features} features",
            torch.arange(samples),
            states,
            bits,
            discrete=True,
            resolution=noise / norm,
        )
        yield KnownTruth(
            f"gaussian channel, {features} features, input and output",
            states,
            states + noise * torch.randn(samples, features, generator=generator),
            bits,
            gaussian=True,
            # At 100 features a correlation of 0.17 is lost among those that noise shows in this many samples.
            trainable=features < 100,
        )


def continuous_truths(seed: int = 0, *, samples: int = 5_000) -> Iterator[KnownTruth]:
    """Pairs of continuous variables: independent, Gaussian of given correlation, and Student."""
    generator = seeded(seed, "continuous truths")

    def normal(features: int) -> torch.Tensor:
        return torch.randn(samples, features, generator=generator)

    for features in (1, 10, 50):
        yield KnownTruth(f"independent, {features} features", normal(features), normal(features), 0.0, gaussian=True)
    for features, correlation in ((1, 0.3), (1, 0.9), (5, 0.6), (20, 0.5)):
        x = normal(features)
        y = correlation * x + math.sqrt(1 - correlation**2) * normal(features)
        bits = -0.5 * features * math.log2(1 - correlation**2)
        yield KnownTruth(f"gaussian, {features} features, correlation {correlation}", x, y, bits, gaussian=True)
    for features, freedom in ((1, 1), (2, 2), (3, 5)):
        # A chi-square of `freedom` degrees of freedom, shared by x and y, makes them dependent though uncorrelated.
        spread = torch.randn(samples, freedom, generator=generator).square().sum(dim=1, keepdim=True)
        scale = (freedom / spread).sqrt()
        yield KnownTruth(
            f"student, {features} features, {freedom} degrees of freedom",
            normal(features) * scale,
            normal(features) * scale,
            student_bits(features, features, freedom),
            reachable=False,
        )


def folder_truths(folder: Path) -> Iterator[KnownTruth]:
    """Read problems from a folder of .npz files, each with x (n, dx), y (n, dy) and mutual_information_bits.

    Raises:
        InputError: if the folder has none, or a file lacks an array.
    """
    check_file(folder)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise InputError(f"{folder} holds no .npz files with known truths; give a folder that does.")
    for file in files:
        check_file(file)
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > LARGEST_PROBLEM:
                raise ValueError(f"they would take {size / 2**30:.1f} GiB in memory")
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
                bits = float(arrays["mutual_information_bits"])
        except Exception as error:  # numpy and zipfile raise what they happen to meet in a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"{file} must hold arrays x, y and mutual_information_bits; reading them failed: {reason}."
            ) from error
        yield KnownTruth(file.stem, x, y, bits, reachable=False)


def binary_channel_bits(noise: float) -> float:
    """Information in bits of a fair +-1 seen through Gaussian `noise`, by quadrature."""
    z = np.linspace(-12.0, 12.0, 100_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    loss = np.logaddexp(0.0, -2 * (1 + noise * z) / noise**2) / math.log(2)
    return 1.0 - float((density * loss).sum() * (z[1] - z[0]))


def student_bits(dx: int, dy: int, freedom: float) -> float:
    """Information in bits of the parts of a standard multivariate Student variable.

    Difference of entropies, each h(d) = ln Gamma terms + (nu+d)/2 [psi((nu+d)/2) - psi(nu/2)] (Kotz & Nadarajah
    2004, section 1.9; the case of Czyz et al. 2023, arXiv 2306.11078).
    """

    def part(features: int) -> float:
        half = torch.tensor((freedom + features) / 2, dtype=torch.float64)
        return float(half * torch.digamma(half) - torch.lgamma(half))

    return (part(dx) + part(dy) - part(dx + dy) - part(0)) / math.log(2)


def _spread_codes(symbols: int, generator: torch.Generator) -> torch.Tensor:
    """Give each symbol a state of its own, far from all others: random signs, (symbols, features)."""
    features = 64 if symbols > 16 else 32
    return torch.randint(0, 2, (symbols, features), generator=generator) * 2.0 - 1.0
