"""The contracts every estimator and every other package shares; imports nothing of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class EmergenceError(Exception):
    """Base of every error this project raises on purpose; its text is one sentence for the user.

    >>> raise EmergenceError("The server has been silent for 60 s; run the same command again.")
    Traceback (most recent call last):
    ...
    estimators.base.EmergenceError: The server has been silent for 60 s; run the same command again.
    """


class InputError(EmergenceError, ValueError):
    """Invalid input; the message says what was expected, what was given and what to do.

    >>> import torch
    >>> from estimators import estimate
    >>> estimate(torch.zeros(8, 1), torch.zeros(8, 1), "ksg")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    estimators.base.InputError: Unknown estimator 'ksg'; known: sample-propagation, infonce, ...
    """


class Progress(Protocol):
    """Called with the progress of long work; the command line shows it, the library never prints.

    >>> from extraction import extract, load_model, windows
    >>> model, steps = load_model("gpt2-30k", device="cpu"), []
    >>> animals = windows("animal", model.tokenizer, count=50)
    >>> extract(model, animals, progress=lambda done, total: steps.append((done, total))).close()
    >>> steps[-1]  # 50 windows and 17 tokens run alone
    (67, 67)
    """

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` steps are finished."""


@dataclass(frozen=True, slots=True)
class MIEstimate:
    """One mutual information, with everything needed to judge it.

    Attributes:
        bits: the estimate in bits, never clipped.
        std_error: its standard error in bits; None where the method offers none.
        ceiling_bits: a provable upper bound, min(plug-in entropy, log2 of the samples); None where none is known.
        samples: rows the estimate used.
        method: name of the estimator, e.g. ``sample-propagation``.
        resolution: noise level relative to the RMS norm of the centred state; None for methods without one.
        flags: what a reader must know: ``above-ceiling``, ``saturated``, ``unreliable``, ``constant-input``,
            ``half-precision`` (computed in float32).
        pointwise_bits: (q,) contribution of each query in bits, for sample propagation its information density. Its
            (weighted) mean is `bits`, up to the sampling error of the entropy where queries are a sample.
        pointwise_variance: (q,) variance in bits squared that the noise draws leave in `pointwise_bits`; None where a
            single draw cannot tell.
        queries: (q,) row of each query in the input; None when every row is one.
        control: the same estimate of shuffled pairs, if requested; it should be 0 bits within its error.
        details: further numbers of the method, e.g. ``max``, ``last`` and ``held_out`` bound of MINE, in bits.

    >>> import torch
    >>> from estimators import sample_propagation
    >>> (found,) = sample_propagation(torch.eye(4), resolutions=[0.01])
    >>> found.method, found.samples, found.ceiling_bits, round(found.bits, 3)
    ('sample-propagation', 4, 2.0, 2.0)
    """

    bits: float
    std_error: float | None
    ceiling_bits: float | None
    samples: int
    method: str
    resolution: float | None = None
    flags: tuple[str, ...] = ()
    pointwise_bits: torch.Tensor | None = field(default=None, repr=False)
    pointwise_variance: torch.Tensor | None = field(default=None, repr=False)
    queries: torch.Tensor | None = field(default=None, repr=False)
    control: MIEstimate | None = None
    details: Mapping[str, float] = field(default_factory=dict)


class Estimator(Protocol):
    """Anything that turns paired samples into a mutual information.

    >>> from estimators import estimator
    >>> isinstance(estimator("infonce").name, str)
    True
    """

    name: str

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y) in bits from paired rows of `x` (n, dx) and `y` (n, dy).

        Returns:
            One estimate per resolution, or a single one where the method has none.

        Raises:
            InputError: if the samples cannot be used.
        """
