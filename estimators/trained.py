"""InfoNCE, NWJ, SMILE and MINE: lower bounds of I(X; Y), trained and evaluated by `estimators.training`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import ClassVar

import torch

from estimators import bounds
from estimators.base import InputError, MIEstimate, Progress
from estimators.checks import half_precision, real_number, real_pair, whole_number
from estimators.entropy import ceiling_flags, sample_ceiling
from estimators.gaussian import varying
from estimators.mine import mine_paper
from estimators.training import Bound, Outcome, Training, train_many

Problems = Sequence[tuple[torch.Tensor, torch.Tensor]]

# A held-out bound this close to its cap, ln of the samples evaluated at once, says "at least about this".
_NEAR_CAP_BITS = 1.0
# An estimate that twice the samples move by more than this share, this many bits and its error has not settled.
_MOVES, _MOVES_BITS, _MOVES_ERRORS = 0.1, 0.02, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoNCE(Training):
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748): least variance; capped at log2 of the held-out fold."""

    name: ClassVar[str] = "infonce"

    def estimate(self, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> list[MIEstimate]:
        """Estimate I(X; Y) in bits from paired rows of `x` (n, dx) and `y` (n, dy).

        Raises:
            InputError: if the samples cannot be used.
        """
        return self.estimate_many([(x, y)], seed=seed)

    def estimate_many(self, problems: Problems, *, seed: int = 0, progress: Progress | None = None) -> list[MIEstimate]:
        """Estimate every problem at once; see `estimate`.

        Raises:
            InputError: if the samples cannot be used or the problems differ in shape.
        """
        ready = _checked(problems)
        live = [i for i, (x, y) in enumerate(ready) if x.shape[1] and y.shape[1]]
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        for i in live:  # constant features were dropped, so shapes may differ now
            groups.setdefault((ready[i][0].shape[1], ready[i][1].shape[1]), []).append(i)
        objective, bound = self._bounds()
        for members in groups.values():
            found = train_many([ready[i] for i in members], objective, bound, self, seed=seed, progress=progress)
            outcomes.update(zip(members, found, strict=True))
        return [
            self._report(outcomes.get(i), sample_ceiling(x, y), x.shape[0], half_precision(x, y))
            for i, (x, y) in enumerate(problems)
        ]

    def _bounds(self) -> tuple[Bound, Bound]:
        return bounds.infonce, bounds.infonce

    def _report(self, outcome: Outcome | None, ceiling: float, samples: int, said: tuple[str, ...]) -> MIEstimate:
        if outcome is None:
            return MIEstimate(0.0, 0.0, ceiling, samples, self.name, flags=("constant-input", *said))
        in_bits = 1 / math.log(2)
        values = outcome.contributions * in_bits
        bits = float(values.mean())
        error = float(values.std()) / math.sqrt(len(values))
        details = {"gaussian": outcome.start * in_bits}
        flags = list(ceiling_flags(bits, ceiling, error))
        cap = math.log2(outcome.scored_at_once)
        if bits > cap - _NEAR_CAP_BITS and not flags:
            flags.append("saturated")
        if outcome.half_values:
            half = sum(outcome.half_values) / len(outcome.half_values) * in_bits
            details["half_samples"] = half
            # A bias that falls as 1/n is as large at n as what the second half of the samples brought.
            gain = bits - half
            if abs(gain) > max(_MOVES * abs(bits), _MOVES_BITS, _MOVES_ERRORS * error):
                flags.append("unreliable")
            error = math.hypot(error, gain)
        return MIEstimate(
            bits=bits,
            std_error=error,
            ceiling_bits=ceiling,
            samples=samples,
            method=self.name,
            flags=(*flags, *said),
            pointwise_bits=values,
            queries=outcome.rows,
            details=details,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NWJ(InfoNCE):
    """NWJ (Nguyen, Wainwright & Jordan 2010, arXiv 0809.0853): not capped by log2 n, but its variance grows as e^I.

    To hold that variance no pair is scored above 8 nats (`estimators.bounds.soft_cap`), so it reads at most 11.5 bits.
    """

    name: ClassVar[str] = "nwj"

    def _bounds(self) -> tuple[Bound, Bound]:
        return _capped(bounds.jensen_shannon), _capped(bounds.nwj)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smile(InfoNCE):
    """SMILE (Song & Ermon 2020, arXiv 1910.06222): clipped, so less variance; may pass the truth.

    Attributes:
        clip: scores are clipped to -clip ... clip nats in the normaliser.
    """

    name: ClassVar[str] = "smile"
    clip: float = 5.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        Training.__post_init__(self)  # super() does not work in a dataclass with slots
        if not real_number(self.clip, "clip") > 0:
            raise InputError(f"clip must be positive; got {self.clip}.")

    def _bounds(self) -> tuple[Bound, Bound]:
        return bounds.jensen_shannon, partial(bounds.smile, clip=self.clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine(InfoNCE):
    """MINE (Belghazi et al. 2018, arXiv 1801.04062): the Donsker-Varadhan bound, held out.

    The critic is trained on the Jensen-Shannon objective, whose optimum is the same; only `preset` trains on the bound.

    Attributes:
        preset: ``paper`` for the published setting of arXiv 2405.12617 instead (see `estimators.mine`).
        epochs: passes over the samples, 10,000 if not given; for the preset only.
        held_out: share of the samples the preset does not train on, 0.2 if not given.
    """

    name: ClassVar[str] = "mine"
    preset: str | None = None
    epochs: int | None = None
    held_out: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that do not exist or do not go together."""
        Training.__post_init__(self)  # super() does not work in a dataclass with slots
        if self.epochs is not None:
            whole_number(self.epochs, "epochs", at_least=1)
        if self.held_out is not None and not 0 < real_number(self.held_out, "held_out") < 1:
            raise InputError(f"held_out must lie between 0 and 1; got {self.held_out}.")
        if self.preset is None and not (self.epochs is None and self.held_out is None):
            raise InputError("epochs and held_out belong to preset='paper'; without it use steps and folds.")
        if self.preset not in (None, "paper"):
            raise InputError(f"mine has one preset, paper; got {self.preset!r}.")
        changed = [one.name for one in fields(Training) if getattr(self, one.name) != one.default]
        if self.preset and changed:
            raise InputError(
                f"preset='paper' fixes its own training, so {', '.join(changed)} cannot be set; "
                "it takes epochs and held_out."
            )

    def estimate_many(self, problems: Problems, *, seed: int = 0, progress: Progress | None = None) -> list[MIEstimate]:
        """Estimate every problem at once; see `InfoNCE.estimate`.

        Raises:
            InputError: if the samples cannot be used or the problems differ in shape.
        """
        if self.preset is None:
            return InfoNCE.estimate_many(self, problems, seed=seed, progress=progress)
        ready = _checked(problems, drop_constant=False)
        live = [i for i, (x, y) in enumerate(ready) if varying(x).shape[1] and varying(y).shape[1]]
        found = [
            MIEstimate(0.0, 0.0, sample_ceiling(x, y), len(x), self.name, flags=("constant-input",)) for x, y in ready
        ]
        if live:
            trained = mine_paper(
                torch.stack([ready[i][0] for i in live]),
                torch.stack([ready[i][1] for i in live]),
                epochs=10_000 if self.epochs is None else self.epochs,
                held_out=0.2 if self.held_out is None else self.held_out,
                seed=seed,
                progress=progress,
            )
            for i, one in zip(live, trained, strict=True):
                found[i] = one
        said = [half_precision(x, y) for x, y in problems]
        return [replace(one, flags=(*one.flags, *more)) for one, more in zip(found, said, strict=True)]

    def _bounds(self) -> tuple[Bound, Bound]:
        return _capped(bounds.jensen_shannon), _capped(bounds.donsker_varadhan)


def _capped(bound: Bound) -> Bound:
    return lambda scores: bound(bounds.soft_cap(scores))


def _checked(problems: Problems, *, drop_constant: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the problems as float rows on one device and of one shape, without their constant features."""
    ready = []
    for x, y in problems:
        ready.append(real_pair(x, y))
    shapes = {(tuple(x.shape), tuple(y.shape), str(x.device), str(x.dtype)) for x, y in ready}
    if len(shapes) > 1:
        raise InputError(f"Problems of one call must have one shape, device and type; got {sorted(shapes)}.")
    return [(varying(x), varying(y)) for x, y in ready] if drop_constant else ready
