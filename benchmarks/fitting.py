"""How long a proxy takes to fit and validate, beside one plain ridge cross-validated on the same folds.

    python benchmarks/fitting.py [--families 25] [--each 8] [--features 60]

The references are synthetic: each feature is a multiple of an ability, which grows with size, and noise. The product
chooses among all its candidates inside the training families, leaves every family out, and calibrates intervals; the
ridge does none of that and shows what the folds alone cost.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from proxy import fit_proxy


def references(families: int, each: int, features: int) -> pd.DataFrame:
    """A reference table of `families` x `each` models with the target `bits`."""
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(families), each)
    log_size = np.tile(np.linspace(4.5, 7.0, each), families)
    ability = log_size - 5.5 + (0.2 * rng.normal(size=families))[family]
    values = np.outer(ability, rng.normal(size=features)) + 0.2 * rng.normal(size=(len(family), features))
    named = {f"behaviour.b{number}": column for number, column in enumerate(values.T)}
    return pd.DataFrame(
        {
            "model": [f"family{f}-{m}" for f in range(families) for m in range(each)],
            "family": [f"family{f}" for f in family],
            "parameters": (10**log_size).round().astype(int),
            **named,
            "bits": 2 + 0.5 * ability + 0.05 * rng.normal(size=len(family)),
        }
    )


def main() -> None:
    """Time both, in turn, and print their left-out errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=25)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--features", type=int, default=60)
    options = parser.parse_args()
    table = references(options.families, options.each, options.features)
    started, used = time.perf_counter(), time.process_time()
    proxy = fit_proxy(table, target="bits")
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    features = table.filter(like="behaviour.")
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    started = time.perf_counter()
    found = cross_val_predict(ridge, features, table["bits"], groups=table["family"], cv=LeaveOneGroupOut())
    plain = time.perf_counter() - started
    error = float((found - table["bits"]).abs().mean())
    print(f"{len(table)} references of {options.families} families, {features.shape[1]} features")
    print(
        f"fit_proxy: {seconds:.1f} s ({cpu:.1f} s of CPU), chose {proxy.chosen}; {seconds / plain:.0f} times the ridge"
    )
    print(f"ridge, families left out: {plain:.1f} s, mean absolute error {error:.3f} bits")


if __name__ == "__main__":
    main()
