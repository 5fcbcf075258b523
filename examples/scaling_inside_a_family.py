"""Predict the emergence profile E(l) of a family's largest model from its small siblings, beside trivial baselines.

    python examples/scaling_inside_a_family.py                       the bundled models, measured here
    python examples/scaling_inside_a_family.py --table emergence.parquet --corpus country --figure profile.png

`--table` is the emergence table of a sweep over at least ten models (`emergence sweep pythia`). The largest model of
each family is left out, predicted at nine relative depths, and its measured profile stands beside the prediction.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from estimators import DEFAULT_RESOLUTION
from extraction import load_model, reference_models, windows
from extraction.tables import read_table
from proxy import EMERGENCE, measure
from proxy.regression.scale import leave_largest_out, profiles


def main() -> None:
    """Measure or read, leave the largest out, predict it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="emergence table; default: the bundled models are measured")
    parser.add_argument("--corpus", default="animal")
    parser.add_argument("--resolution", type=float, default=DEFAULT_RESOLUTION)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="draw the profiles here (.png)")
    given = parser.parse_args()
    if given.table is not None:
        table = read_table(given.table, EMERGENCE)
        table = table[table["corpus"] == given.corpus]
    else:
        parts = []
        for name in reference_models.names():
            model = load_model(name)
            text = windows(given.corpus, model.tokenizer, count=given.windows, seed=given.seed, prefix=model.prefix)
            parts.append(measure(model, text, seed=given.seed))
            print(f"{name} is measured")
        table = pd.concat(parts)

    found = leave_largest_out(profiles(table, resolution=given.resolution))
    print(found.round(3).to_string(index=False))
    errors = found[["estimate", "mean", "log_parameters", "sibling"]].sub(found["truth"], axis=0).abs()
    print("Mean absolute error in bits, over depths and families:")
    print(errors.mean().rename(index={"estimate": "siblings, pooled over families"}).round(3).to_string())
    inside = (found["lower"] <= found["truth"]) & (found["truth"] <= found["upper"])
    print(f"Depths with the truth inside the interval: {int(inside.sum())} of {len(found)}")

    if given.figure is not None:
        figure, axes = plt.subplots(1, found["model"].nunique(), figsize=(9, 3.6), sharey=True, squeeze=False)
        for axis, (model, rows) in zip(axes[0], found.groupby("model"), strict=True):
            axis.fill_between(rows["depth"], rows["lower"], rows["upper"], alpha=0.2, label="interval")
            axis.plot(rows["depth"], rows["estimate"], "--", label="from its siblings")
            axis.plot(rows["depth"], rows["truth"], "o-", label="measured")
            axis.set(title=model, xlabel="relative depth", ylabel="E(l), bits")
        axes[0][0].legend()
        figure.tight_layout()
        figure.savefig(given.figure, dpi=120)


if __name__ == "__main__":
    main()
