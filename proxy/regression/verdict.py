"""Whether a proxy is of use: its left-out errors against those of the trivial baselines, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# What costs nothing to know; the size is known of open models only, and then a column of the validation.
BASELINES = {
    "mean": "the references' mean",
    "log_parameters": "log parameters",
    "best_feature": "the best single feature",
}
REPEATS = 2_000  # of the bootstrap: the ends of a 90 % interval within a fortieth of its width
SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Left-out errors of a proxy against those of one baseline, in the unit of the target.

    Attributes:
        baseline: name of the candidate compared with.
        error: mean absolute error of the baseline.
        difference: mean absolute error of the proxy less that of the baseline; below 0 the proxy is better.
        lower: lower end of the 90 % interval of `difference`, over the groups that were left out together.
        upper: its upper end.
    """

    baseline: str
    error: float
    difference: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a proxy is worth beside the baselines.

    Attributes:
        error: its mean absolute error on left-out references.
        comparisons: one per baseline that it can differ from, the strongest baseline first.
        useful: whether it tells models apart and did better than every one of these.
        sentence: the verdict for a person.
        itself: the baseline that the proxy is; None if it is none.
    """

    error: float
    comparisons: tuple[Comparison, ...]
    useful: bool
    sentence: str
    itself: str | None = None

    @property
    def warning(self) -> str | None:
        """What to say beside every single estimate; None where the proxy is of use."""
        if self.useful:
            return None
        if self.itself == "mean":
            return "the proxy is the references' mean, whatever the model"
        return f"the proxy did no better than {BASELINES[self.comparisons[0].baseline]}"


def verdict(validation: pd.DataFrame, groups: pd.Series, chosen: str | None = None) -> Verdict:
    """Judge a proxy by its left-out estimates.

    Args:
        validation: of `ProxyRecord`: truth, estimate, and a column for each baseline that could be fitted.
        groups: what was left out together, row by row: whole groups are sampled for the interval of a difference.
        chosen: candidate in use. Where it is a baseline itself it is judged against the others, for from itself it
            cannot differ; the mean is of no use, whatever its error, for it tells no two models apart.

    >>> rows = pd.DataFrame({"truth": [1.0, 2, 3, 4], "estimate": [1.1, 2, 3, 4], "mean": [3.0, 2.7, 2.3, 2]})
    >>> verdict(rows, pd.Series(["a", "b", "c", "d"])).useful
    True
    """
    itself = chosen if chosen in BASELINES else None
    truth = validation["truth"].to_numpy(dtype=np.float64)
    own = np.abs(validation["estimate"].to_numpy(dtype=np.float64) - truth)  # (n,)
    codes, names = pd.factorize(groups)
    sizes = np.bincount(codes, minlength=len(names))  # (g,) rows of a group
    sampled = np.random.default_rng(SEED).integers(len(names), size=(REPEATS, len(names)))  # (r, g) groups sampled
    comparisons = []
    for name in (name for name in BASELINES if name in validation.columns and name != itself):
        error = np.abs(validation[name].to_numpy(dtype=np.float64) - truth)  # (n,)
        sums = np.bincount(codes, weights=own - error, minlength=len(names))  # (g,)
        repeated = sums[sampled].sum(axis=1) / sizes[sampled].sum(axis=1)  # (r,)
        lower, upper = np.quantile(repeated, [0.05, 0.95])
        comparisons.append(
            Comparison(name, float(error.mean()), float((own - error).mean()), float(lower), float(upper))
        )
    comparisons.sort(key=lambda one: one.error)
    useful = itself != "mean" and all(one.difference < 0 for one in comparisons)
    sentence = _sentence(float(own.mean()), comparisons, useful, itself)
    return Verdict(float(own.mean()), tuple(comparisons), useful, sentence, itself)


def _sentence(error: float, comparisons: list[Comparison], useful: bool, itself: str | None) -> str:
    others = "; ".join(
        f"{BASELINES[one.baseline]} {one.error:.3g} (difference {one.difference:+.3g}, 90 % interval "
        f"{one.lower:+.3g} to {one.upper:+.3g})"
        for one in comparisons
    )
    errors = f"mean absolute error {error:.3g} on left-out references{f', {others}' if others else ''}."
    if itself == "mean":
        return (
            f"The proxy is {BASELINES[itself]}, because no feature predicts better: {errors} Do not use its estimates."
        )
    best = comparisons[0]
    beaten = (
        f"did better than every {'other ' if itself else ''}baseline"
        if useful
        else f"did no better than {BASELINES[best.baseline]}"
    )
    doubt = " (the difference could be chance)" if useful and best.upper >= 0 else ""
    advice = "" if useful else " Do not use its estimates." if best.baseline == "mean" else " Prefer that."
    return f"The proxy {f'is {BASELINES[itself]}, and ' if itself else ''}{beaten}{doubt}: {errors}{advice}"
