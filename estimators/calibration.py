"""Every estimator on problems of known truth, and the verdict on each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from estimators.base import InputError, MIEstimate
from estimators.registry import estimate, methods
from estimators.truths import KnownTruth

DISCRETE_METHODS = ("sample-propagation", "entropy")
CONTINUOUS_METHODS = ("infonce", "nwj", "smile", "mine", "gaussian")  # and what is registered beside these
DEFAULT_METHODS = ("sample-propagation", "infonce")  # what the project uses by default

# An estimate states its error as this many standard errors (99.99 % of a normal), plus what float32 may round off.
STATED_ERRORS = 4.0
ROUNDING_BITS = 1e-3


@dataclass(frozen=True, slots=True)
class Calibration:
    """One estimator on one problem; bits throughout.

    Attributes:
        problem: name of the known truth.
        method: name of the estimator.
        truth: true information.
        estimate: estimated information.
        error: estimate - truth.
        std_error: standard error the estimate states; None where the method has none.
        seconds: wall time.
        flags: flags of the estimate, separated by commas.
        verdict: ``within`` its stated error; ``flagged`` as unreliable by itself; ``ceiling``: an upper bound that
            holds; ``bound``: a lower bound below the truth by more than its error, where it promises no more;
            ``other law``: the closed form on data that are not Gaussian; ``off``: wrong.
    """

    problem: str
    method: str
    truth: float
    estimate: float
    error: float
    std_error: float | None
    seconds: float
    flags: str
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether a default estimator is off by more than its stated error, flagged or as a bound too."""
        return self.verdict in ("off", "flagged", "bound") and self.method in DEFAULT_METHODS


def applicable(truth: KnownTruth, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the estimators that apply to `truth`, of those `wanted`.

    Raises:
        InputError: if a wanted name is unknown.
    """
    for name in wanted or ():
        if name not in methods():
            raise InputError(f"Unknown estimator {name!r}; known: {', '.join(methods())}.")
    added = (name for name in methods() if name not in (*DISCRETE_METHODS, *CONTINUOUS_METHODS))
    able: tuple[str, ...] = DISCRETE_METHODS if truth.discrete else (*CONTINUOUS_METHODS, *added)
    if not truth.trainable:
        able = ("gaussian",)
    return able if wanted is None else tuple(name for name in able if name in wanted)


def calibrate(
    truths: Iterable[KnownTruth], wanted: Sequence[str] | None = None, *, seed: int = 0
) -> Iterator[Calibration]:
    """Run every applicable estimator, with its default setting, on every problem."""
    for truth in truths:
        for method in applicable(truth, wanted):
            options: dict[str, Any] = {"resolution": truth.resolution} if method == "sample-propagation" else {}
            start = time.perf_counter()
            found = estimate(truth.x, truth.y, method, seed=seed, **options)
            assert isinstance(found, MIEstimate)  # noqa: S101 - one resolution, one estimate
            yield Calibration(
                problem=truth.name,
                method=method,
                truth=truth.bits,
                estimate=found.bits,
                error=found.bits - truth.bits,
                std_error=found.std_error,
                seconds=time.perf_counter() - start,
                flags=",".join(found.flags),
                verdict=verdict(truth, found),
            )


def verdict(truth: KnownTruth, found: MIEstimate) -> str:
    """Compare one estimate with its truth; the words are those of `Calibration`."""
    error = found.bits - truth.bits
    if found.method == "entropy":
        return "ceiling" if error >= -ROUNDING_BITS else "off"
    if abs(error) <= STATED_ERRORS * (found.std_error or 0.0) + ROUNDING_BITS:
        return "within"
    if found.method == "gaussian" and not truth.gaussian:
        return "other law"
    if "unreliable" in found.flags:
        return "flagged"
    if error < 0 and not truth.reachable:
        return "bound"
    return "off"
