"""Emergence itself, from what models say next: part "emergence" of public_proxies.py, on the bank that ships.

The references are the bank's: the ten bundled models and stages of their training, of ten runs and two architectures.
Each is estimated from its output features by the product's own regressor, without its run, without its architecture,
and the largest models without all of their size; beside the mean, a line in log parameters (which an API hides) and the
best one feature. Targets are the peak of E(l) and E half way up. Everything that is chosen is chosen among
the models that are kept, by leaving runs out. Intervals are those of the product, widened or withheld outside the
domain, at 90 % where at least nine runs remain, else at 80 %.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from proxy.banks.bank import load_bank
from proxy.banks.targets import PEAK, reference_table, target
from proxy.regression.domain import Domain, estimate_models
from proxy.regression.folds import rows_needed
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import REFERENCE_SIZE
from proxy.regression.references import SIZE, read_references
from proxy.regression.regressor import ProxyRegressor

SHOWN = 20
BASELINES = {"mean": "mean", "log parameters": "log_parameters", "best feature": "best_feature"}
NAMED = {"output_line": "output_line", "size_surrogate": "size_surrogate"}


def evaluate(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    bank = load_bank() if folder is None else load_bank(folder)
    parts = [(folder, corpus.name, by) for corpus in bank.corpora for by in bank.estimators(corpus.name)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = pd.concat(pool.map(_of_corpus, *zip(*parts, strict=True)), ignore_index=True)
    means = rows.groupby("E by", sort=False)[["auto", *NAMED, *BASELINES, "coverage"]].mean(numeric_only=True)
    return {
        "Data": pd.DataFrame(
            [
                {
                    "models": len(bank.models),
                    "training runs": bank.runs,
                    "architectures": bank.models["family"].nunique(),
                    "corpora": ", ".join(corpus.name for corpus in bank.corpora),
                }
            ]
        ),
        "Averages over corpora, splits and targets: mean absolute error in bits": means.reset_index(),
        "Peak of E(l): mean absolute error in bits of models left out": rows[rows["target"] == PEAK].drop(
            columns="target"
        ),
        "E half way up": rows[rows["target"] != PEAK].drop(columns="target"),
    }


def _of_corpus(folder: Path | None, corpus: str, estimator: str) -> pd.DataFrame:
    bank = load_bank() if folder is None else load_bank(folder)
    table = reference_table(bank, corpus, shown=SHOWN, estimator=estimator)
    rows = []
    for name in (PEAK, target(0.5)):
        for split, groups in _splits(table).items():
            found = _left_out(table, name, groups)
            rows.append({"E by": estimator, "corpus": corpus, "left out together": split, "target": name, **found})
            sys.stderr.write(f"{corpus}, {estimator}, {name}, {split}: done\n")
    return pd.DataFrame(rows)


def _splits(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Parts by name, empty for models that are always kept."""
    largest = table[SIZE] >= table.groupby("family")[SIZE].transform("max") - 0.1
    return {
        "one run": table["run"],
        "an architecture": table["family"],
        "the largest size": pd.Series(np.where(largest, "largest", ""), index=table.index),
    }


def _left_out(table: pd.DataFrame, name: str, parts: pd.Series) -> dict[str, float]:
    checked = read_references(table, target=name, groups="family", mode="outputs")
    order = checked.frame["model"]
    part = pd.Series(parts.to_numpy(), index=table["model"].to_numpy())[order.to_numpy()].to_numpy(dtype=str)
    X = checked.X.assign(run=checked.runs, family=checked.families)
    sizes = checked.log_parameters
    assert sizes is not None  # noqa: S101  # the bundled models' are known
    X[REFERENCE_SIZE] = sizes[SIZE]
    names = {"auto": "auto", **NAMED, **BASELINES}
    estimates = {title: np.full(len(X), np.nan) for title in names}
    low, high = np.full((2, len(X)), np.nan)
    inside = np.zeros(len(X), bool)
    level = 0.9
    for one in np.unique(part[part != ""]):
        left = part == one
        runs = checked.runs[~left]
        if len(np.unique(runs)) < rows_needed(0.9):
            level = 0.8
    for one in np.unique(part[part != ""]):
        left, kept = part == one, part != one
        for title, candidate in names.items():
            if title == "log parameters":
                fitted = ProxyRegressor(candidate, size_column=SIZE).fit(
                    sizes[kept], checked.y[kept], checked.weights[kept]
                )
                estimates[title][left] = fitted.predict(sizes[left])
                continue
            regressor = ProxyRegressor(
                candidate, group_column="run", family_column="family", reference_size_column=REFERENCE_SIZE
            )
            if title != "auto":
                fitted = regressor.fit(X[kept], checked.y[kept], checked.weights[kept])
                estimates[title][left] = fitted.predict(X[left])
                continue
            intervals = Intervals.fit(regressor, X[kept], checked.y[kept], checked.weights[kept], checked.runs[kept])
            found = estimate_models(intervals, Domain.of(intervals.regressor, X[kept]), X[left], [level])
            estimates[title][left] = found.estimate
            low[left], high[left], inside[left] = found.lower[:, 0], found.upper[:, 0], found.inside
    known = ~np.isnan(estimates["auto"])
    given = known & ~np.isnan(low)
    hits = (low <= checked.y) & (checked.y <= high)
    # every run counts once, however many of its stages were left out
    share = pd.Series(1.0, index=range(len(X))).where(known, 0.0)
    share = share / share.groupby(checked.runs).transform("sum").replace(0, 1.0)
    error = {
        title: float(np.average(np.abs(values - checked.y)[known], weights=share[known]))
        for title, values in estimates.items()
    }
    return {
        "models": int(known.sum()),
        **error,
        "level": level,
        "coverage": float(np.average(hits[given], weights=share[given])) if given.any() else float("nan"),
        "mean width": float(np.mean((high - low)[given])) if given.any() else float("nan"),
        "outside": float(np.mean(~inside[known])),
        "withheld": float(np.mean(~given[known])),
    }
