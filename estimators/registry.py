"""One call for every estimator, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol

import torch

from estimators.base import InputError, MIEstimate, Progress
from estimators.checks import as_rows, paired, seeded
from estimators.entropy import Entropy
from estimators.gaussian import Gaussian
from estimators.propagation import SamplePropagation
from estimators.trained import NWJ, InfoNCE, Mine, Smile


class Method(Protocol):
    """A frozen dataclass of options that estimates one problem."""

    name: ClassVar[str]

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y) in bits."""


_METHODS: dict[str, type[Method]] = {
    method.name: method for method in (SamplePropagation, InfoNCE, Smile, NWJ, Mine, Gaussian, Entropy)
}


def methods() -> tuple[str, ...]:
    """Names of all estimators.

    >>> "sample-propagation" in methods()
    True
    """
    return tuple(_METHODS)


def estimator(method: str, **options: Any) -> Method:
    """Build the estimator `method` with `options`, both checked.

    Raises:
        InputError: if the method or an option is unknown.

    >>> estimator("infonce", steps=100).name
    'infonce'
    """
    if method not in _METHODS:
        raise InputError(f"Unknown estimator {method!r}{_nearest(method, _METHODS)}; known: {', '.join(_METHODS)}.")
    kind = _METHODS[method]
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise InputError(
                f"{method} has no option {option!r}{_nearest(option, known)}; "
                f"its options: {', '.join(known) or 'none'}."
            )
    return kind(**options)


def estimate(
    x: torch.Tensor,
    y: torch.Tensor,
    method: str = "sample-propagation",
    *,
    seed: int = 0,
    control: bool = False,
    **options: Any,
) -> MIEstimate | list[MIEstimate]:
    """Estimate the mutual information I(X; Y) in bits.

    Args:
        x: (n, dx) samples; for sample-propagation the integer symbols, (n,) or (n, t), that produced y.
        y: (n, dy) samples paired with x.
        method: one of `methods()`.
        seed: seed of all randomness; the same seed gives the same bits on a CPU.
        control: also estimate shuffled pairs, see `shuffled_pairs`, in `control` of the estimate; doubles the time.
        options: options of the method, e.g. ``resolution=0.18`` or ``preset="paper"``.

    Returns:
        The estimate; a list of them where several resolutions were asked for.

    Raises:
        InputError: if the samples, the method or an option cannot be used.

    >>> tokens = torch.arange(8)
    >>> states = torch.eye(8)
    >>> round(estimate(tokens, states, resolution=0.05).bits, 3)
    3.0
    """
    chosen = estimator(method, **options)
    if control:
        _refuse_no_control(method)
    found = chosen.estimate(x, y, seed=seed)
    if control:
        found = [replace(one, control=shuffled_pairs(x, y, method, seed=seed, **options)) for one in found]
    return found[0] if len(found) == 1 else found


def estimate_many(
    problems: Sequence[tuple[torch.Tensor, torch.Tensor]],
    method: str = "infonce",
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> list[MIEstimate | list[MIEstimate]]:
    """Estimate many problems of one shape (blocks x positions) at once; trained methods train them as one batch.

    Args:
        problems: pairs (x, y) as for `estimate`.
        method: one of `methods()`.
        seed: as for `estimate`; every problem is given the same.
        progress: called with how many of the fits, or of the problems, are done.
        options: as for `estimate`.

    Returns:
        What `estimate` would return, one entry per problem.

    Raises:
        InputError: as `estimate`, and if there is no problem.

    >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    >>> same, other = estimate_many([(x, 2 * x + 0.1 * x.flip(0)), (x, x.flip(0))], method="gaussian")
    >>> same.bits > 3 > 0.1 > other.bits
    True
    """
    if not problems:
        raise InputError("estimate_many needs at least one problem (x, y); got none.")
    chosen = estimator(method, **options)
    together = getattr(chosen, "estimate_many", None)
    if together is not None:
        return list(together(problems, seed=seed, progress=progress))
    estimates: list[MIEstimate | list[MIEstimate]] = []
    for x, y in problems:
        found = chosen.estimate(x, y, seed=seed)
        estimates.append(found[0] if len(found) == 1 else found)
        if progress is not None:
            progress(len(estimates), len(problems))
    return estimates


def shuffled_pairs(
    x: torch.Tensor, y: torch.Tensor, method: str = "infonce", *, seed: int = 0, **options: Any
) -> MIEstimate:
    """Estimate the information of shuffled pairs, x_i with a random y_j; it should be 0 bits within its error.

    The arguments are those of `estimate`. Sample propagation has no such control: what it measures depends on which
    states there are, not on which symbol has which; its control is a network with random weights.

    Raises:
        InputError: as `estimate`, and for methods without this control.

    >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    >>> abs(shuffled_pairs(x, x + 0.1 * x.flip(0), method="gaussian").bits) < 0.05
    True
    """
    chosen = estimator(method, **options)
    _refuse_no_control(method)
    x, y = as_rows(x, "x"), as_rows(y, "y")
    paired(x, y)
    order = torch.randperm(y.shape[0], generator=seeded(seed, "shuffled pairs")).to(y.device)
    return chosen.estimate(x, y[order], seed=seed)[0]


def _refuse_no_control(method: str) -> None:
    if method in (SamplePropagation.name, Entropy.name):
        raise InputError(
            f"{method} does not change when pairs are shuffled, so this is not a control for it; compare with a "
            "network of random weights instead."
        )


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
