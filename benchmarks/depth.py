"""Emergence by depth of the bundled models and of real ones, each beside its two controls, by the predictive observer.

    python benchmarks/depth.py --real ~/.cache/emergence-real --out docs        (see real_models.py for the real ones)

Measures each model, its random-weights twin and shuffled windows on the reference texts of Python, writes the figure
OUT/images/depth.png and prints a row per model: E at its highest block, controls and verdict. Tables are kept in
RESULTS, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from estimators.contracts.cells import markdown
from estimators.contracts.controls import summary, with_controls
from extraction import load_model, random_twin, reference_models, windows
from extraction.tables import read_table, write_table
from proxy import measure
from proxy.measurement.prefix import chosen_prefix
from proxy.schemas import EMERGENCE

CORPUS = "python-docs"
TWIN, SHUFFLED = "#767676", "#b8860b"


def controlled(name: str, count: int, seed: int) -> pd.DataFrame:
    """Return the emergence table of one model with its controls beside each row."""
    model = load_model(name, device="cpu")
    model = replace(model, prefix=chosen_prefix(model).ids)
    text = windows(CORPUS, model.tokenizer, count=count, seed=seed, prefix=model.prefix)
    trained, shuffled = (measure(model, chosen, seed=seed) for chosen in (text, text.shuffled(seed)))
    return with_controls(trained, twin=measure(random_twin(model, seed=seed), text, seed=seed), shuffled=shuffled)


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last position, by model and block, with `depth` from 0 to 1."""
    rows = table[table["position"] == table.groupby("model")["position"].transform("max")]
    rows = rows[rows["estimator"] == "predictive"].sort_values(["parameters", "layer"])
    return rows.assign(depth=rows["layer"] / rows.groupby("model")["layer"].transform("max"))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel for small models and one for real ones: E with its error in colour, the controls as thin lines."""
    rows = at_end(table)
    small = rows["parameters"] < 10e6
    panels = [(title, rows[kept]) for title, kept in (("bundled models", small), ("real models", ~small)) if kept.any()]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 4.8), squeeze=False, layout="constrained")
    for axis, (title, part) in zip(axes[0], panels, strict=True):
        for number, (_, group) in enumerate(part.groupby("family", sort=False)):
            shades = plt.get_cmap(("Blues", "Oranges", "Greens", "Purples")[number % 4])
            names = list(dict.fromkeys(group["model"]))
            for place, name in enumerate(names):
                one = group[group["model"] == name]
                x, bits, error = (one[column].to_numpy(float) for column in ("depth", "ie_bits", "ie_std_error"))
                color = shades(0.35 + 0.6 * (place + 1) / len(names))
                axis.errorbar(x, bits, error, color=color, fmt="o-", markersize=3.5, linewidth=1.4, label=name)
                for control, line in (("twin", TWIN), ("shuffled", SHUFFLED)):
                    label = {"twin": "random weights", "shuffled": "shuffled windows"}[control]
                    shown = label if number == place == 0 else None
                    axis.plot(x, one[f"{control}_ie_bits"].to_numpy(float), color=line, linewidth=0.9, label=shown)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=title, xlabel="depth, first block to last")
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    axes[0][0].set_ylabel("E, bits about the next token")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Measure what RESULTS lacks, draw, and print a row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder with .gguf files")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--results", type=Path, default=Path("results/depth"), help="where tables are kept")
    parser.add_argument("--windows", type=int, default=2000, help="of the bundled models")
    parser.add_argument("--real-windows", type=int, default=1000, help="of the real ones")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    found = [(name, arguments.windows) for name in reference_models.names()]
    if arguments.real is not None:
        found += [(str(path), arguments.real_windows) for path in sorted(arguments.real.glob("*.gguf"))]
    tables = []
    for name, count in found:
        path = arguments.results / f"{Path(name).stem}-{count}-{arguments.seed}.parquet"
        if not path.exists():
            write_table(controlled(name, count, arguments.seed), path, EMERGENCE)
        tables.append(read_table(path, EMERGENCE))
        print(f"{name}: done", file=sys.stderr, flush=True)
    table = pd.concat(tables, ignore_index=True)
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    draw(table, arguments.out / "images" / "depth.png")
    shown = summary(table)
    if "parameters" in table:
        sizes = table.drop_duplicates("model").set_index("model")["parameters"]
        shown = shown.assign(parameters=shown["model"].map(sizes)).sort_values("parameters", ignore_index=True)
    print(markdown(shown.replace({np.nan: None}), ".2f", missing="-"))


if __name__ == "__main__":
    main()
