"""Emergence from free answers, and profiles from smaller models: part "answers" of public_proxies.py, on the same bank.

The references are those of part "emergence", with the same splits and baselines. What is known of a model is what it
wrote in answer to the demo prompts, as `emergence estimate ANSWERS` takes it, or, in scale mode, its size alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from public_emergence import compared, described

from estimators import DEFAULT_RESOLUTION
from proxy.banks.answers import answer_references
from proxy.banks.bank import Bank, load_bank
from proxy.regression.scale import leave_largest_out, profiles


def evaluate(folder: Path) -> dict[str, pd.DataFrame]:
    """Return tables by title."""
    bank = load_bank(folder)
    return {
        "Data": described(bank),
        **compared(bank, _answers),
        "Profiles E(l) of the largest models in scale mode (RMSE in bits over relative depth)": _scale(bank),
    }


def _answers(bank: Bank, corpus: str, estimator: str) -> pd.DataFrame:
    return answer_references(bank, corpus, estimator=estimator)


def _scale(bank: Bank) -> pd.DataFrame:
    """Predict the profile of the largest model of each architecture; stages of training take no part."""
    ended = bank.emergence[~bank.emergence["model"].str.contains("@", regex=False)]
    rows = []
    for corpus in [corpus.name for corpus in bank.corpora]:
        for observer in bank.estimators(corpus):
            own = ended[(ended["corpus"] == corpus) & (ended["estimator"] == observer) & (ended["layer"] >= 0)]
            found = leave_largest_out(profiles(own, resolution=DEFAULT_RESOLUTION))
            rows.append({"E by": observer, "corpus": corpus, "models": found["model"].nunique(), **_errors(found)})
    return pd.DataFrame(rows)


def _errors(found: pd.DataFrame) -> dict[str, float]:
    def rmse(name: str) -> float:
        return float(np.sqrt(np.mean((found[name] - found["truth"]).astype(float) ** 2)))

    given = found["lower"].notna()
    inside = (found["lower"] <= found["truth"]) & (found["truth"] <= found["upper"])
    return {
        "scale mode": rmse("estimate"),
        "mean": rmse("mean"),
        "log parameters": rmse("log_parameters"),
        "next smaller sibling": rmse("sibling"),
        "intervals given": float(given.mean()),
        "90 % coverage": float(inside[given].mean()) if given.any() else float("nan"),
    }
