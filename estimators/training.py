"""One trainer for every bound: many fits at once, evaluated on samples they never saw.

Each problem is split into folds; a critic is trained on all but one and its bound taken on that one, so every sample is
evaluated once. Training stops where the held-out bound is best (the max-test rule of Abdelaleem, Martini & Nemenman
2025, arXiv 2506.00330); the step is chosen on one half of the fold and the bound read on the other, so that choosing
does not flatter. Fits on two halves of the samples show how far the estimate still moves with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from estimators.base import EmergenceError, InputError, Progress
from estimators.checks import fits_memory, memory_bytes, real_number, seeded, whole_number
from estimators.critics import GaussianCritic, SeparableCritic, gaussian_critic, normal_scores

Bound = Callable[[torch.Tensor], torch.Tensor]  # scores (fits, n, n) -> contributions (fits, n), in nats

FEWEST_SAMPLES = 40  # five samples held out in each fold of each half
_FOLD_ROWS = 2048  # held-out samples evaluated at most per fold: the score matrix grows with their square
_EVALUATE_EVERY = 10  # steps between two looks at the held-out bound
_PATIENCE = 10  # looks without a better bound before a fit is over
# Scores held at once: on a CPU what the cache holds, on a GPU what keeps it busy.
_TOGETHER = {"cpu": 1 << 21, "cuda": 1 << 28, "mps": 1 << 26}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How critics are trained; one setting serves every problem.

    Attributes:
        steps: most optimiser steps of a fit.
        batch: samples of a step; all batch^2 pairs are scored.
        rate: first step size of Adam, falling to 0 by a cosine.
        hidden: width of the perceptrons.
        layers: their hidden layers.
        embedding: rank of what they add to the Gaussian critic.
        folds: parts of the samples, each evaluated by a critic trained on the others.
        halves: whether to train on two halves of the samples too, for error bars and reliability.
    """

    steps: int = 200
    batch: int = 256
    rate: float = 8e-3
    hidden: int = 64
    layers: int = 3
    embedding: int = 16
    folds: int = 4
    halves: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        least = {"steps": 0, "batch": 2, "hidden": 1, "layers": 0, "embedding": 1, "folds": 2}
        for name, at_least in least.items():
            whole_number(getattr(self, name), name, at_least=at_least)
        if not isinstance(self.halves, bool):
            raise InputError(f"halves must be True or False; got {self.halves!r}.")
        if not 0 < real_number(self.rate, "rate") < 1:
            raise InputError(f"rate must lie between 0 and 1; got {self.rate}.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training showed of one problem, in nats.

    Attributes:
        contributions: (m,) of the evaluated samples; their mean is the estimate.
        rows: (m,) the samples they belong to.
        half_values: estimates on the two halves of the samples; empty if not asked for.
        scored_at_once: samples per score matrix, whose logarithm caps InfoNCE.
        start: held-out bound of the Gaussian critic alone.
    """

    contributions: torch.Tensor
    rows: torch.Tensor
    half_values: tuple[float, ...]
    scored_at_once: int
    start: float


@dataclass(frozen=True, slots=True)
class _Fit:
    problem: int
    share: int  # 0: all samples; 1, 2: a half
    train: torch.Tensor
    held_out: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Evaluated:
    contributions: torch.Tensor
    start: float


def train_many(
    problems: Sequence[tuple[torch.Tensor, torch.Tensor]],
    objective: Bound,
    bound: Bound,
    training: Training,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Train critics on `objective` for every problem and evaluate them by `bound` on held-out samples.

    Args:
        problems: pairs x (n, dx) and y (n, dy), float, of one shape and on one device.
        objective: what a step increases.
        bound: what is reported and stops the training.
        training: the setting.
        seed: governs folds, weights and batches, alike for every problem.
        progress: called after each group of fits.

    Raises:
        InputError: if there are too few samples or the fits could not be held in memory.
        EmergenceError: if a bound was never finite.
    """
    count = problems[0][0].shape[0]
    if count < FEWEST_SAMPLES:
        raise InputError(f"Trained estimators need at least {FEWEST_SAMPLES} samples; got {count}.")
    fits = list(_plan(len(problems), count, training, seed))
    width, device = problems[0][0].shape[1] + problems[0][1].shape[1], problems[0][0].device
    each = 12.0 * count * width  # samples, their normal scores and a stacked copy
    fits_memory(
        each * len(problems),
        f"{len(problems)} problems of {count} samples x {width} features",
        f"estimate at most {max(1, int(memory_bytes(device) / each))} at once, or fewer samples",
        device,
    )
    scored = [(normal_scores(x), normal_scores(y)) for x, y in problems]
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, fit in enumerate(fits):
        by_shape.setdefault((len(fit.train), len(fit.held_out)), []).append(index)
    groups = []
    for (_, held), members in by_shape.items():
        together = _TOGETHER.get(device.type, _TOGETHER["cpu"])
        size = max(1, together // max(min(training.batch, held) ** 2, held**2 // 4))
        groups += [members[start : start + size] for start in range(0, len(members), size)]
    evaluated: dict[int, _Evaluated] = {}

    def run(group: list[int]) -> list[_Evaluated]:
        return _train_group([fits[i] for i in group], scored, objective, bound, training, seed)

    with _one_group_a_core(len(groups), device) as side_by_side:
        for group, results in zip(groups, side_by_side(run, groups), strict=True):
            evaluated.update(zip(group, results, strict=True))
            if progress is not None:
                progress(len(evaluated), len(fits))
    return [_collect(problem, fits, evaluated) for problem in range(len(problems))]


@contextmanager
def _one_group_a_core(groups: int, device: torch.device) -> Iterator[Callable[..., Iterable[list[_Evaluated]]]]:
    """Yield a `map` over groups: on a CPU with many groups each core trains one, which wastes no time on waiting.

    With few groups the cores share the work of each instead.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or groups < 2 * cores or cores == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(cores)


def _plan(problems: int, count: int, training: Training, seed: int) -> Iterator[_Fit]:
    """Split the samples, alike for every problem."""
    order = torch.randperm(count, generator=seeded(seed, "folds"))
    shares = [(order, training.folds)]
    if training.halves:
        shares += [(half, 2) for half in order.chunk(2)]
    for share, (rows, folds) in enumerate(shares):
        size = len(rows) // folds
        for fold in range(folds):
            inside = rows[fold * size : (fold + 1) * size]
            outside = torch.cat((rows[: fold * size], rows[(fold + 1) * size :]))
            for problem in range(problems):
                yield _Fit(problem, share, outside, inside[:_FOLD_ROWS])


def _train_group(
    fits: Sequence[_Fit],
    scored: Sequence[tuple[torch.Tensor, torch.Tensor]],
    objective: Bound,
    bound: Bound,
    training: Training,
    seed: int,
) -> list[_Evaluated]:
    """Train fits of one shape side by side; what one becomes does not depend on the others."""
    members = sorted({fit.problem for fit in fits})
    x = torch.stack([scored[problem][0] for problem in members])
    y = torch.stack([scored[problem][1] for problem in members])
    starts: list[GaussianCritic] = []
    for fit in fits:
        rows = fit.train.to(x.device)
        starts.append(gaussian_critic(scored[fit.problem][0][rows], scored[fit.problem][1][rows]))
    critic = SeparableCritic(
        x,
        y,
        torch.tensor([members.index(fit.problem) for fit in fits], device=x.device),
        starts,
        hidden=training.hidden,
        layers=training.layers,
        embedding=training.embedding,
        seed=seed,
    )
    train = torch.stack([fit.train for fit in fits]).to(x.device)
    held_out = torch.stack([fit.held_out for fit in fits]).to(x.device)
    stop = _MaxTest(bound, critic, held_out)
    stop.look()
    optimiser = torch.optim.Adam(critic.parameters(), lr=training.rate, fused=True)
    batches = _batches(train.shape[1], min(training.batch, train.shape[1]), seed)
    for step in range(training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate * 0.5 * (1 + math.cos(math.pi * step / training.steps))
        loss = -objective(critic.scores(train[:, next(batches).to(x.device)])).mean(dim=1).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        if (step + 1) % _EVALUATE_EVERY == 0 or step + 1 == training.steps:
            stop.look()
            if stop.over():
                break
    return stop.evaluated()


def _batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield positions of batches without end, each sample once per pass."""
    generator = seeded(seed, f"batches of {count}")
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].reshape(-1, size)


class _MaxTest:
    """Keeps, for each half of every fit's held-out samples, their contributions where the other half was best."""

    def __init__(self, bound: Bound, critic: SeparableCritic, held_out: torch.Tensor) -> None:
        self._bound, self._critic, self._held_out = bound, critic, held_out
        fits, rows = held_out.shape
        self._middle = rows // 2
        self._best = torch.full((fits, 2), -math.inf)
        self._last_better = torch.zeros(fits, 2)
        self._kept = torch.zeros(fits, rows)
        self._start = torch.zeros(0)
        self._looks = 0

    def look(self) -> None:
        with torch.no_grad():
            values = self._bound(self._critic.scores(self._held_out)).cpu()
        middle = self._middle
        halves = torch.stack((values[:, :middle].mean(dim=1), values[:, middle:].mean(dim=1)), dim=1)
        halves = torch.nan_to_num(halves, nan=-math.inf, posinf=-math.inf)
        if self._looks == 0:
            self._start = halves.mean(dim=1)
        running = self._looks - self._last_better.amax(dim=1) <= _PATIENCE
        better = (halves > self._best) & running[:, None]
        self._best = torch.where(better, halves, self._best)
        self._last_better = torch.where(better, float(self._looks), self._last_better)
        self._kept[:, middle:] = torch.where(better[:, :1], values[:, middle:], self._kept[:, middle:])
        self._kept[:, :middle] = torch.where(better[:, 1:], values[:, :middle], self._kept[:, :middle])
        self._looks += 1

    def over(self) -> bool:
        return bool((self._looks - 1 - self._last_better.amax(dim=1) >= _PATIENCE).all())

    def evaluated(self) -> list[_Evaluated]:
        if not bool(torch.isfinite(self._best).all()):  # nothing was kept, which would read as 0 bits without error
            raise EmergenceError(
                "The held-out bound was never finite, so there is no estimate; check the samples for extreme values, "
                "or use infonce, whose bound cannot overflow."
            )
        return [_Evaluated(kept.double(), float(start)) for kept, start in zip(self._kept, self._start, strict=True)]


def _collect(problem: int, fits: Sequence[_Fit], evaluated: dict[int, _Evaluated]) -> Outcome:
    mine = [(fit, evaluated[i]) for i, fit in enumerate(fits) if fit.problem == problem]
    whole = [(fit, found) for fit, found in mine if fit.share == 0]
    halves = []
    for share in sorted({fit.share for fit, _ in mine} - {0}):
        values = [found.contributions for fit, found in mine if fit.share == share]
        halves.append(float(torch.cat(values).mean()))
    return Outcome(
        contributions=torch.cat([found.contributions for _, found in whole]),
        rows=torch.cat([fit.held_out for fit, _ in whole]),
        half_values=tuple(halves),
        scored_at_once=min(len(fit.held_out) for fit, _ in whole),
        start=sum(found.start for _, found in whole) / len(whole),
    )
