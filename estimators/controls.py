"""Controls: what an estimator says where nothing is to be found."""

from __future__ import annotations

from typing import Any

import torch

from estimators.base import InputError, MIEstimate
from estimators.checks import as_rows, paired, seeded
from estimators.estimate import estimator


def shuffled_pairs(
    x: torch.Tensor, y: torch.Tensor, method: str = "infonce", *, seed: int = 0, **options: Any
) -> MIEstimate:
    """Estimate the information of pairs drawn apart, x_i with a random y_j: 0 bits within its error, or beware.

    The arguments are those of `estimate`. Sample propagation has no such control: what it measures depends on which
    states there are, not on which symbol has which; its control is a network with random weights.

    Raises:
        InputError: as `estimate`, and for methods without this control.
    """
    chosen = estimator(method, **options)
    if method in ("sample-propagation", "entropy"):
        raise InputError(
            f"{method} does not change when pairs are shuffled, so that is no control for it; compare with a "
            "network of random weights instead."
        )
    x, y = as_rows(x, "x"), as_rows(y, "y")
    paired(x, y)
    order = torch.randperm(y.shape[0], generator=seeded(seed, "shuffled pairs")).to(y.device)
    return chosen.estimate(x, y[order], seed=seed)[0]
