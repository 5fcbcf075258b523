"""At which resolution does emergence tell a trained network from a random one, and a large one from a small one?

    python benchmarks/resolution.py --out docs

Measures every bundled model and its random-weights twins on natural text and on the paper's lists over the curve of
resolutions, and judges each resolution by three questions: is E above zero for every trained model; is the twin below
its model by at least four standard errors; does E rise with size within each architecture (Spearman >= 0.9)? E is the
summary the proxies learn: IE at the last position, at its highest block. Writes the table and the curves, from which
`estimators.DEFAULT_RESOLUTION` was chosen; docs/resolution.md says what they show. About eight minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from estimators import DEFAULT_RESOLUTION
from extraction import load_model, random_twin, reference_models, windows
from proxy.measurement.table import Propagation, measure, peak_emergence

CORPORA = ("python-docs", "animal", "country")
RESOLUTIONS = (0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.25, 0.3, 0.35, 0.5)


def run(corpora: list[str], count: int, twins: int, seed: int) -> pd.DataFrame:
    """Peak emergence of every model and its twins: model, family, parameters, corpus, twin, resolution, bits."""
    rows = []
    for name in reference_models.names():
        trained = load_model(name)
        candidates = [(-1, trained)] + [(number, random_twin(trained, seed=seed + number)) for number in range(twins)]
        for corpus in corpora:
            chosen = windows(corpus, trained.tokenizer, count=count, seed=seed, prefix=trained.prefix)
            for twin, model in candidates:
                table = measure(
                    model,
                    chosen,
                    estimator="sample-propagation",
                    propagation=Propagation(resolutions=RESOLUTIONS),
                    seed=seed,
                )
                for rho in RESOLUTIONS:
                    peak = peak_emergence(table, resolution=rho).iloc[0]
                    rows.append(
                        {
                            "model": name,
                            "family": trained.family,
                            "parameters": trained.parameters,
                            "corpus": corpus,
                            "twin": twin,
                            "resolution": rho,
                            "bits": peak["emergence_bits"],
                            "std_error": peak["emergence_bits_std_error"],
                            "layer": peak["peak_layer"],
                        }
                    )
            print(f"{name} on {corpus}: done", flush=True)
    return pd.DataFrame(rows)


def judge(results: pd.DataFrame) -> pd.DataFrame:
    """Answer the three questions for every corpus and resolution."""
    rows = []
    for (corpus, rho), group in results.groupby(["corpus", "resolution"], sort=False):
        trained = group[group["twin"] < 0].set_index("model")
        twin = group[group["twin"] >= 0]
        # Between twins of one model the initial weights differ, which is part of the control's error.
        twin_bits = twin.groupby("model")["bits"].max()
        twin_error = twin.groupby("model")["std_error"].max()
        gap = (trained["bits"] - twin_bits) / np.hypot(trained["std_error"], twin_error)
        by_size = {
            family: rows_["bits"].corr(rows_["parameters"], method="spearman")
            for family, rows_ in trained.groupby("family")
        }
        rows.append(
            {
                "corpus": corpus,
                "resolution": rho,
                "lowest E, trained": trained["bits"].min(),
                "highest E, twin": twin_bits.max(),
                "models above zero": int((trained["bits"] > 0).sum()),
                "twins 4 errors below": int((gap >= 4).sum()),
                "smallest gap / error": gap.min(),
                **{f"Spearman with size, {family}": value for family, value in by_size.items()},
                "all three": bool((trained["bits"] > 0).all() and (gap >= 4).all() and min(by_size.values()) >= 0.9),
            }
        )
    return pd.DataFrame(rows)


def draw(results: pd.DataFrame, path: Path) -> None:
    """Curves over resolutions, one panel per corpus: trained models in full lines, twins dashed."""
    corpora = list(dict.fromkeys(results["corpus"]))
    figure, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 4), sharey=True, squeeze=False)
    names = list(dict.fromkeys(results["model"]))
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for index, name in enumerate(names):
            rows = results[(results["corpus"] == corpus) & (results["model"] == name)]
            color = plt.get_cmap("viridis" if name.startswith("gpt2") else "plasma")((index % 5) / 5)
            trained = rows[rows["twin"] < 0]
            twin = rows[rows["twin"] == 0]
            axis.errorbar(trained["resolution"], trained["bits"], trained["std_error"], color=color, label=name)
            axis.plot(twin["resolution"], twin["bits"], "--", color=color, linewidth=0.8)
        axis.axhline(0, color="grey", linewidth=0.6)
        axis.axvline(DEFAULT_RESOLUTION, color="grey", linewidth=0.6, linestyle=":")
        axis.set(title=corpus, xlabel="resolution (noise / RMS norm of the states)")
    axes[0][0].set_ylabel("E, bits, highest block")
    axes[0][-1].legend(fontsize=7)
    figure.suptitle("Trained models (full) and their random-weights twins (dashed)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, judge, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--corpus", nargs="+", default=list(CORPORA))
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--twins", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results = run(arguments.corpus, arguments.windows, arguments.twins, arguments.seed)
    judged = judge(results)
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    results.to_csv(arguments.out / "resolution.csv", index=False, float_format="%.4f")
    draw(results, arguments.out / "images" / "resolution.png")
    judged.to_csv(arguments.out / "resolution-judged.csv", index=False, float_format="%.3f")
    print(judged.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
