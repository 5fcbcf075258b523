"""Emergence itself, from what models say next: part "emergence" of public_proxies.py, on the bank that ships.

The references are the bank's: bundled models, models of further architectures, and stages of their training. Each is
estimated without its architecture, which is what `estimate` prints of left-out references; without its run alone
(`fit --groups run`); and the largest models of every architecture by a proxy that was fitted on all smaller ones.
Beside it stand the mean, a line in log parameters (which an API hides) and the best single feature. Targets are the
peak of E(l) and E half way up. Everything that is chosen is chosen among the models that are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from proxy.banks.bank import Bank, load_bank
from proxy.banks.targets import PEAK, reference_table, target
from proxy.regression.candidates import offered
from proxy.regression.proxy import REFERENCE_SIZE, fit_proxy
from proxy.regression.references import SIZE, read_references
from proxy.regression.regressor import ProxyRegressor
from proxy.regression.scale import SAME_SIZE

SHOWN = 20
NAMED = ("output_line", "size_surrogate")
References = Callable[[Bank, str, str], pd.DataFrame]  # of a bank, on a corpus, by an observer
BASELINES = {"mean": "mean", "log_parameters": "log parameters", "best_feature": "best feature"}


def evaluate(folder: Path) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    bank = load_bank(folder)
    return {"Data": described(bank), **compared(bank, _next_tokens)}


def described(bank: Bank) -> pd.DataFrame:
    """One row about a bank."""
    return pd.DataFrame(
        [
            {
                "models": len(bank.models),
                "training runs": bank.runs,
                "architectures": bank.models["family"].nunique(),
                "corpora": ", ".join(corpus.name for corpus in bank.corpora),
            }
        ]
    )


def compared(bank: Bank, references: References) -> dict[str, pd.DataFrame]:
    """Leave out the references of a bank on each of its corpora, for each observer of the blocks.

    Args:
        bank: whose.
        references: features and targets of a bank, on a corpus and by an observer.
    """
    parts = [
        (bank.folder, references, corpus.name, by) for corpus in bank.corpora for by in bank.estimators(corpus.name)
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = pd.concat(pool.map(_of_corpus, *zip(*parts, strict=True)), ignore_index=True)
    named = [name for name in NAMED if name in rows]
    means = rows.groupby("E by", sort=False)[["auto", *named, *BASELINES.values(), "coverage"]].mean(numeric_only=True)
    peak = rows["target"] == PEAK
    return {
        "Averages over corpora, splits and targets: mean absolute error in bits": means.reset_index(),
        "Peak of E(l): mean absolute error in bits of models left out": rows[peak].drop(columns="target"),
        "E half way up": rows[~peak].drop(columns="target"),
    }


def _next_tokens(bank: Bank, corpus: str, estimator: str) -> pd.DataFrame:
    return reference_table(bank, corpus, shown=SHOWN, estimator=estimator)


def _of_corpus(folder: Path, references: References, corpus: str, estimator: str) -> pd.DataFrame:
    table = references(load_bank(folder), corpus, estimator)
    largest = table[SIZE] >= table.groupby("family")[SIZE].transform("max") - SAME_SIZE
    rows = []
    for name in (PEAK, target(0.5)):
        found = {
            "one run": fit_proxy(table, target=name, groups="run").validation,
            "an architecture": fit_proxy(table, target=name).validation,
            "the largest sizes": _without(table, name, largest.to_numpy()),
        }
        for split, estimates in found.items():
            about = {"E by": estimator, "corpus": corpus, "left out together": split, "target": name}
            rows.append({**about, **_errors(estimates)})
            sys.stderr.write(f"{corpus}, {estimator}, {name}, {split}: done\n")
    return pd.DataFrame(rows)


def _without(table: pd.DataFrame, name: str, left: NDArray[np.bool_]) -> pd.DataFrame:
    """As `Proxy.validation`, for the models `left` (n,) by a proxy of the others."""
    proxy = fit_proxy(table[~left], target=name)
    away = table[left].reset_index(drop=True)
    estimated = proxy.predict(away)
    found = pd.DataFrame({"run": away["run"], "truth": away[name].astype(float)})
    found[["estimate", "lower", "upper", "in_domain"]] = estimated[["estimate", "lower", "upper", "in_domain"]]
    checked = read_references(table, target=name, groups="family", mode="outputs")
    sizes = checked.log_parameters
    assert sizes is not None  # noqa: S101  # the bank knows them
    X = checked.X.assign(family=checked.families, **{REFERENCE_SIZE: sizes[SIZE]})
    place = pd.Index(checked.models).get_indexer(away["model"])
    kept = np.setdiff1d(np.arange(len(X)), place)
    named = [name for name in NAMED if name in offered(X.columns, size=False, reference_size=True)]
    for candidate in (*named, *BASELINES):
        inputs = sizes if candidate == "log_parameters" else X
        fitted = _regressor(candidate).fit(inputs.iloc[kept], checked.y[kept], checked.weights[kept])
        found[candidate] = fitted.predict(inputs.iloc[place])
    return found


def _regressor(candidate: str) -> ProxyRegressor:
    if candidate == "log_parameters":
        return ProxyRegressor(candidate, size_column=SIZE)
    return ProxyRegressor(
        candidate, group_column="family", family_column="family", reference_size_column=REFERENCE_SIZE
    )


def _errors(found: pd.DataFrame) -> dict[str, float]:
    """Mean absolute errors, and coverage at 90 %; every run counts once, however many of its stages were left out."""
    share = 1 / found.groupby("run")["truth"].transform("size")
    lower, upper = found["lower"].astype(float), found["upper"].astype(float)
    given = lower.notna() & upper.notna()
    held = ((lower <= found["truth"]) & (found["truth"] <= upper))[given]
    known = found["estimate"].notna()
    methods = [name for name in ("estimate", *NAMED, *BASELINES) if name in found]
    errors = found[methods].astype(float).sub(found["truth"], axis=0).abs()
    weighed = errors[known].mul(share[known] / share[known].sum(), axis=0).sum()
    return {
        "models": len(found),
        **weighed.rename({"estimate": "auto", **BASELINES}).to_dict(),
        "coverage": float(np.average(held, weights=share[given])) if given.any() else float("nan"),
        "mean width": float((upper - lower)[given].mean()) if given.any() else float("nan"),
        "outside": float((~found["in_domain"].astype(bool)).mean()),
        "withheld": float((~given).mean()),
    }
