"""Emergence itself, from what models say next: part "emergence" of public_proxies.py, on the bank that ships.

The references are the bank's: the ten bundled models and stages of their training, of ten runs and two architectures.
Each is estimated from its output features without its run, which is what `fit` and `estimate` print of left-out
references; and without its architecture, and the largest models without all of their size, which the product refuses,
as fewer than nine runs remain: there its regressor is taken, with 80 % intervals. Beside it stand the mean, a line in
log parameters (which an API hides) and the best single feature. Targets are the peak of E(l) and E half way up.
Everything that is chosen is chosen among the models that are kept, by leaving runs out.
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
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import REFERENCE_SIZE, fit_proxy
from proxy.regression.references import SIZE, read_references
from proxy.regression.regressor import ProxyRegressor
from proxy.regression.scale import SAME_SIZE

SHOWN = 20
NAMED = ("output_line", "size_surrogate")
BASELINES = {"mean": "mean", "log_parameters": "log parameters", "best_feature": "best feature"}


def evaluate(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    bank = load_bank() if folder is None else load_bank(folder)
    parts = [(folder, corpus.name, by) for corpus in bank.corpora for by in bank.estimators(corpus.name)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = pd.concat(pool.map(_of_corpus, *zip(*parts, strict=True)), ignore_index=True)
    means = rows.groupby("E by", sort=False)[["auto", *NAMED, *BASELINES.values(), "coverage"]].mean(numeric_only=True)
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
    largest = table[SIZE] >= table.groupby("family")[SIZE].transform("max") - SAME_SIZE
    rows = []
    for name in (PEAK, target(0.5)):
        found = {
            "one run": (0.9, fit_proxy(table, target=name).validation),
            "an architecture": (0.8, _without(table, name, table["family"])),
            "the largest size": (0.8, _without(table, name, largest.map({True: "largest", False: ""}))),
        }
        for split, (level, estimates) in found.items():
            about = {"E by": estimator, "corpus": corpus, "left out together": split, "target": name}
            rows.append({**about, **_errors(estimates, level)})
            sys.stderr.write(f"{corpus}, {estimator}, {name}, {split}: done\n")
    return pd.DataFrame(rows)


def _without(table: pd.DataFrame, name: str, parts: pd.Series) -> pd.DataFrame:
    """As `Proxy.validation`, for parts of the table that leave fewer runs than `fit` takes; empty: always kept."""
    checked = read_references(table, target=name, groups="family", mode="outputs")
    sizes = checked.log_parameters
    assert sizes is not None  # noqa: S101  # the bundled models' are known
    X = checked.X.assign(run=checked.runs, family=checked.families, **{REFERENCE_SIZE: sizes[SIZE]})
    part = parts.set_axis(table["model"])[checked.models].to_numpy(dtype=str)
    found = []
    for one in np.unique(part[part != ""]):
        left, kept = part == one, part != one
        rows = {"run": checked.runs[left], "truth": checked.y[left]}
        for candidate in (*NAMED, *BASELINES):
            inputs = sizes if candidate == "log_parameters" else X
            fitted = _regressor(candidate).fit(inputs[kept], checked.y[kept], checked.weights[kept])
            rows[candidate] = fitted.predict(inputs[left])
        intervals = Intervals.fit(
            _regressor("auto"), X[kept], checked.y[kept], checked.weights[kept], checked.runs[kept]
        )
        given = estimate_models(intervals, Domain.of(intervals.regressor, X[kept]), X[left], [0.8])
        rows |= {"estimate": given.estimate, "in_domain": given.inside}
        found.append(pd.DataFrame({**rows, "lower_80": given.lower[:, 0], "upper_80": given.upper[:, 0]}))
    return pd.concat(found, ignore_index=True)


def _regressor(candidate: str) -> ProxyRegressor:
    if candidate == "log_parameters":
        return ProxyRegressor(candidate, size_column=SIZE)
    return ProxyRegressor(candidate, group_column="run", family_column="family", reference_size_column=REFERENCE_SIZE)


def _errors(found: pd.DataFrame, level: float) -> dict[str, float]:
    """Mean absolute errors and coverage; every run counts once, however many of its stages were left out."""
    share = 1 / found.groupby("run")["truth"].transform("size")
    lower, upper = found[f"lower_{100 * level:g}"], found[f"upper_{100 * level:g}"]
    given = lower.notna() & upper.notna()
    held = ((lower <= found["truth"]) & (found["truth"] <= upper))[given]
    errors = found[["estimate", *NAMED, *BASELINES]].sub(found["truth"], axis=0).abs()
    return {
        "models": len(found),
        **errors.mul(share / share.sum(), axis=0).sum().rename({"estimate": "auto", **BASELINES}).to_dict(),
        "level": level,
        "coverage": float(np.average(held, weights=share[given])) if given.any() else float("nan"),
        "mean width": float((upper - lower)[given].mean()) if given.any() else float("nan"),
        "outside": float((~found["in_domain"].astype(bool)).mean()),
        "withheld": float((~given).mean()),
    }
