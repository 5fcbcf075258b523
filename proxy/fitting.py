"""Fit, validate and use a proxy: from a reference table to an estimate with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from estimators.base import InputError, Progress
from proxy.candidates import CANDIDATES
from proxy.domain import WITHHELD, Domain, contributions, widened
from proxy.folds import fold_of, rows_needed
from proxy.intervals import LEVELS, Intervals, require_rows
from proxy.links import Bounds, Link
from proxy.references import SIZE, References, listed, numeric, read_references
from proxy.regression import ProxyRegressor

Array = NDArray[np.float64]
FAMILIES_NEEDED = 9


@dataclass(frozen=True, slots=True)
class Proxy:
    """A fitted proxy with the evidence for it.

    Attributes:
        target: name of the column it estimates.
        mode: ``outputs`` (features of answers) or ``scale`` (features of smaller siblings).
        features: the columns it needs.
        level: confidence of `lower` and `upper`.
        bounds: of the target; (None, None) without.
        unit: what was left out at a time, ``family`` or ``model``.
        intervals: the fitted regressor and its left-out errors.
        domain: where the references lie.
        references: the training table.
        validation: per left-out reference: model, family, truth, estimate, lower, upper (at `level`), then lower_50,
            upper_50 ... at every level, and a column per candidate; each made without the rows left out together.
        scores: per candidate (``chosen`` first): mae, rmse, r2, spearman, and coverage at `level` for ``chosen``.
        coverage: per level: rows with an interval, share that held the truth, mean width.
        remarks: what a reader must know about the fit.
        seed: recorded; nothing in the fit is random.
    """

    target: str
    mode: str
    features: tuple[str, ...]
    level: float
    bounds: Bounds
    unit: str
    intervals: Intervals
    domain: Domain
    references: pd.DataFrame
    validation: pd.DataFrame
    scores: pd.DataFrame
    coverage: pd.DataFrame
    remarks: tuple[str, ...] = ()
    seed: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """Name of the candidate in use."""
        return self.intervals.regressor.chosen_

    def predict(self, features: pd.DataFrame) -> pd.DataFrame:
        """Estimate the target of other models.

        Args:
            features: one row per model with at least the columns of `features`; `model` and `family` are taken where
                given.

        Returns:
            model, estimate, lower, upper, level, in_domain, novelty, remarks. Outside the domain the interval is
            widened by the novelty on the link's scale, and left empty beyond three times the references' own reach.

        Raises:
            InputError: if a feature is missing (named) or not numeric, or the table is empty.
        """
        X = self._inputs(features)
        regressor = self.intervals.regressor
        levels = self._levels()
        estimate, lower, upper = self.intervals.predict(X, levels)
        at = levels.index(self.level)
        Z, _ = regressor.standardised(X)
        novelty = self.domain.novelty(Z)
        low, high = widened(Link(self.bounds), estimate, lower[:, at], upper[:, at], novelty)
        pushes = contributions(regressor, X)
        names = features["model"] if "model" in features.columns else pd.Series(features.index, index=features.index)
        return pd.DataFrame(
            {
                "model": names.astype("string").to_numpy(),
                "estimate": estimate,
                "lower": low,
                "upper": high,
                "level": self.level,
                "in_domain": novelty <= 1.0,
                "novelty": novelty,
                "remarks": [self._remark(X.iloc[i], novelty[i], pushes.iloc[i]) for i in range(len(X))],
            }
        ).astype({"model": "string", "remarks": "string"})

    def explain(self, features: pd.DataFrame) -> pd.DataFrame:
        """Return model, feature, value and contribution (on the link's scale), the strongest first for each model."""
        X = self._inputs(features)
        pushes = contributions(self.intervals.regressor, X)
        names = features["model"] if "model" in features.columns else pd.Series(features.index, index=features.index)
        tall = pushes.assign(model=names.astype("string").to_numpy()).melt(
            "model", var_name="feature", value_name="contribution"
        )
        tall.insert(2, "value", X[list(self.features)].to_numpy(dtype=np.float64).T.reshape(-1))
        order = np.lexsort((-tall["contribution"].abs().to_numpy(), pd.factorize(tall["model"])[0]))
        return tall.iloc[order].reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write the proxy into a new folder; see `proxy.saving`."""
        from proxy.saving import save_proxy

        save_proxy(self, folder)

    def _levels(self) -> list[float]:
        return sorted({*LEVELS, self.level})

    def _inputs(self, features: pd.DataFrame) -> pd.DataFrame:
        if features.empty:
            raise InputError("The table of features has no rows; give one row per model to estimate.")
        missing = [name for name in self.features if name not in features.columns]
        if missing:
            raise InputError(
                f"This proxy was trained on {len(self.features)} features, of which {len(missing)} are missing here: "
                f"{listed(missing)}; make the features with the same readers."
            )
        X = numeric(features, self.features)
        family = features["family"] if "family" in features.columns else pd.Series(pd.NA, index=features.index)
        return X.assign(family=family.astype("string"))

    def _remark(self, row: pd.Series, novelty: float, pushes: pd.Series) -> str:
        parts = []
        if novelty > WITHHELD:
            parts.append(f"{novelty:.1f} times as far out as any reference: no interval")
        elif novelty > 1:
            parts.append(f"{novelty:.1f} times as far out as any reference: interval widened as much")
        known = set(self.references["family"])
        if self.unit == "model" and (pd.isna(row["family"]) or row["family"] not in known):
            parts.append(f"interval holds for further models of {listed(sorted(known), 4)}, not of a new family")
        empty = [name for name in self.features if pd.isna(row[name])]
        if empty:
            parts.append(f"missing, taken as typical: {listed(empty, 3)}")
        strongest = pushes.abs().sort_values(ascending=False).index[:3]
        moves = [f"{name} {pushes[name]:+.2g}" for name in strongest if abs(pushes[name]) > 1e-12]
        if moves:
            parts.append(f"pushed by {', '.join(moves)}")
        return "; ".join(parts)


def fit_proxy(
    references: pd.DataFrame,
    *,
    target: str,
    groups: str | None = "family",
    mode: str = "outputs",
    level: float = 0.9,
    bounds: Bounds = (None, None),
    candidate: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Proxy:
    """Learn `target` from the features of reference models, with honest left-out errors and intervals.

    Everything that is chosen is chosen without the rows a number is reported on: references are left out by family
    where there are at least nine (else by model), the candidate is chosen among the rest by leaving families (models)
    out again, and the intervals are jackknife+ (up to ten groups) or CV+ over the same groups.

    Args:
        references: one row per reference model: `model`, `groups`, features (``small.*``, ``behaviour.*``,
            ``meta.*``), `target`, and optionally ``<target>_std_error`` in the same unit, which weighs the rows.
        target: column to estimate.
        groups: column of families; None (or a column that is absent) makes each model its own family.
        mode: ``outputs`` learns from ``small.*`` and ``behaviour.*`` (all that is known of a closed model), ``scale``
            from ``small.*`` and ``meta.*``.
        level: confidence of the intervals, between 0 and 1.
        bounds: (lower, upper) of the target, each may be None; they choose the link (identity, log or logit).
        candidate: "auto", or the name of one of `proxy.candidates.CANDIDATES` to use it unconditionally.
        seed: recorded in the proxy; the fit draws no random numbers.
        progress: told how many left-out fits are done.

    Raises:
        InputError: fewer than nine models, a target that is missing or constant, no usable feature, or a bad
            argument.
    """
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, for example 0.9; {level} came.")
    if candidate != "auto" and candidate not in CANDIDATES:
        raise InputError(f"There is no candidate {candidate!r}; choose auto or one of {', '.join(CANDIDATES)}.")
    table = read_references(references, target=target, groups=groups, mode=mode)
    link = Link(bounds)
    link.check(table.y)
    families = len(np.unique(table.families))
    require_rows(len(np.unique(table.models)), level, "models")
    unit = "family" if families >= max(FAMILIES_NEEDED, rows_needed(level)) else "model"
    remarks = list(table.remarks)
    if unit == "model":
        remarks.append(
            f"{families} {'family' if families == 1 else 'families'}: models were left out one at a time, so errors "
            f"and intervals speak of further models of these families; for a new family at least {FAMILIES_NEEDED} "
            "families are needed"
        )
    left_out = table.families if unit == "family" else table.models
    X = table.X.assign(family=table.families, model=left_out)
    size = SIZE if SIZE in table.X.columns else None
    regressor = ProxyRegressor(candidate, bounds, group_column="model", family_column="family", size_column=size)
    levels = sorted({*LEVELS, level})
    validation = _validate(regressor, X, table, left_out, levels, progress)
    intervals = Intervals.fit(regressor, X, table.y, table.weights, left_out, levels)
    validation["lower"] = validation[f"lower_{level * 100:g}"]
    validation["upper"] = validation[f"upper_{level * 100:g}"]
    coverage = _coverage(validation, levels)
    return Proxy(
        target=target,
        mode=mode,
        features=tuple(table.X.columns),
        level=level,
        bounds=bounds,
        unit=unit,
        intervals=intervals,
        domain=Domain.of(intervals.regressor, X),
        references=table.frame,
        validation=validation,
        scores=_scores(validation, coverage, level),
        coverage=coverage,
        remarks=tuple(remarks),
        seed=seed,
    )


def _validate(
    regressor: ProxyRegressor,
    X: pd.DataFrame,
    table: References,
    left_out: NDArray[np.str_],
    levels: Sequence[float],
    progress: Progress | None,
) -> pd.DataFrame:
    """Estimate every reference without its group: the chosen candidate with intervals, and each candidate alone."""
    names = [name for name in CANDIDATES if name != "log_parameters" or table.log_parameters is not None]
    columns = {name: np.full(len(X), np.nan) for name in ["estimate", *names]}
    for level in levels:
        columns[f"lower_{level * 100:g}"] = np.full(len(X), np.nan)
        columns[f"upper_{level * 100:g}"] = np.full(len(X), np.nan)
    chosen = np.empty(len(X), dtype=object)
    folds = fold_of(left_out)
    for done, fold in enumerate(np.unique(folds)):
        if progress is not None:
            progress(done, len(np.unique(folds)) + 1)
        left, kept = folds == fold, folds != fold
        intervals = Intervals.fit(regressor, X[kept], table.y[kept], table.weights[kept], left_out[kept], levels)
        estimate, lower, upper = intervals.predict(X[left], levels)
        columns["estimate"][left] = estimate
        chosen[left] = intervals.regressor.chosen_
        for at, level in enumerate(levels):
            columns[f"lower_{level * 100:g}"][left] = lower[:, at]
            columns[f"upper_{level * 100:g}"][left] = upper[:, at]
        for name in names:
            inputs = X if name != "log_parameters" else table.log_parameters
            alone = ProxyRegressor(
                name, regressor.bounds, "model", "family", SIZE if name == "log_parameters" else None
            )
            assert inputs is not None  # noqa: S101  # by the choice of names
            alone.fit(inputs[kept], table.y[kept], table.weights[kept])
            columns[name][left] = alone.predict(inputs[left])
    identity = {"model": table.models, "family": table.families, "truth": table.y, "chosen": chosen}
    return pd.DataFrame({**identity, **columns})


def _coverage(validation: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    rows = []
    for level in levels:
        lower, upper = validation[f"lower_{level * 100:g}"], validation[f"upper_{level * 100:g}"]
        known = lower.notna() & upper.notna()
        inside = (validation["truth"] >= lower) & (validation["truth"] <= upper)
        rows.append(
            {
                "level": level,
                "rows": int(known.sum()),
                "coverage": float(inside[known].mean()) if known.any() else math.nan,
                "mean_width": float((upper - lower)[known].mean()) if known.any() else math.nan,
            }
        )
    return pd.DataFrame(rows)


def _scores(validation: pd.DataFrame, coverage: pd.DataFrame, level: float) -> pd.DataFrame:
    truth = validation["truth"].to_numpy(dtype=np.float64)
    rows = []
    for name in ["estimate", *(name for name in CANDIDATES if name in validation.columns)]:
        estimate = validation[name].to_numpy(dtype=np.float64)
        error = estimate - truth
        # a left-out mean falls as the left-out truth rises: its rank correlation would only say so
        ranks = name != "mean" and np.ptp(estimate) > 0
        at_level = coverage.loc[coverage["level"] == level, "coverage"].item()
        rows.append(
            {
                "candidate": "chosen" if name == "estimate" else name,
                "mae": float(np.abs(error).mean()),
                "rmse": float(np.sqrt(np.mean(error**2))),
                "r2": float(1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2)),
                "spearman": float(pd.Series(estimate).corr(pd.Series(truth), method="spearman")) if ranks else math.nan,
                "coverage": at_level if name == "estimate" else math.nan,
            }
        )
    return pd.DataFrame(rows)
