"""The figures of the study; each function writes one and returns its file name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

plt.rcParams.update({"figure.dpi": 110, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9, "legend.fontsize": 7})


def _save(figure: Any, images: Path, name: str) -> str:
    figure.tight_layout()
    figure.savefig(images / name, metadata={"Software": None})  # the same numbers give the same file
    plt.close(figure)
    return name


def _colors(table: pd.DataFrame) -> dict[str, Any]:
    """A colour map per family, darker with size."""
    maps = ("Blues", "Oranges", "Greens", "Purples")
    models = table[["of", "family", "parameters"]].drop_duplicates("of").sort_values("parameters")
    colors = {}
    for number, (_, group) in enumerate(models.groupby("family")):
        for place, name in enumerate(group["of"]):
            colors[name] = plt.get_cmap(maps[number % len(maps)])(0.35 + 0.65 * (place + 1) / len(group))
    return colors


def size(found: pd.DataFrame, images: Path) -> str:
    """E by parameters, one panel per corpus; twins dashed."""
    corpora = sorted(found["corpus"].unique())
    figure, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 3.6), squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for number, (family, group) in enumerate(found[found["corpus"] == corpus].groupby("family")):
            for twin, style in ((False, "o-"), (True, "s--")):
                one = group[group["twin"] == twin]
                axis.errorbar(
                    one["parameters"].astype(float),
                    one["ie_bits"].astype(float),
                    one["ie_std_error"].astype(float),
                    fmt=style,
                    color=f"C{number}",
                    alpha=0.5 if twin else 1.0,
                    label=f"{family}, random weights" if twin else family,
                )
        axis.axhline(0, color="grey", linewidth=0.6)
        axis.set(title=corpus, xscale="log", xlabel="parameters", ylabel="E of the highest block, bits")
    axes[0][0].legend()
    return _save(figure, images, "study_size.png")


def depth(found: pd.DataFrame, images: Path) -> str:
    """E(l) by relative depth, one panel per corpus; twins dashed."""
    corpora = sorted(found["corpus"].unique())
    colors = _colors(found)
    figure, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 3.6), squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for (of, twin), one in found[found["corpus"] == corpus].groupby(["of", "twin"], sort=False):
            axis.plot(
                one["layer"].astype(int) + 1,
                one["ie_bits"].astype(float),
                "--" if twin else "o-",
                color=colors[of],
                linewidth=0.8 if twin else 1.4,
                markersize=3,
                label=None if twin else of,
            )
        axis.axhline(0, color="grey", linewidth=0.6)
        axis.set(title=corpus, xlabel="block", ylabel="E(l), bits")
    axes[0][-1].legend()
    return _save(figure, images, "study_depth.png")


def position(found: pd.DataFrame, controls: pd.DataFrame, images: Path) -> str:
    """IE by token in text: trained models, and both controls."""
    colors = _colors(found)
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True)
    for (of, corpus), one in found[~found["twin"]].groupby(["of", "corpus"], sort=False):
        axes[0].errorbar(
            one["position"].astype(int),
            one["ie_bits"].astype(float),
            one["ie_std_error"].astype(float),
            color=colors[of],
            label=of if len(found["corpus"].unique()) == 1 else f"{of}, {corpus}",
        )
    for (of, twin, _), one in controls.groupby(["of", "twin", "corpus"], sort=False):
        axes[1].plot(
            one["position"].astype(int),
            one["ie_bits"].astype(float),
            "--" if twin else ":",
            color=colors[of],
            linewidth=1.0 if twin else 2.0,
            label=f"{of}, {'random weights' if twin else 'shuffled text'}",
        )
    axes[0].set(title="trained models on text", xlabel="token", ylabel="IE, bits")
    axes[1].set(title="controls: random weights (dashed), shuffled text (dotted)", xlabel="token")
    axes[0].legend()
    return _save(figure, images, "study_token.png")


def shots(found: pd.DataFrame, images: Path) -> str:
    """IE by token in lists for several numbers of windows, with the ceiling of macro information."""
    models = list(dict.fromkeys(found["of"]))
    figure, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.8), squeeze=False, sharey=True)
    for axis, of in zip(axes[0], models, strict=True):
        for number, ((corpus, count), group) in enumerate(found[found["of"] == of].groupby(["corpus", "windows"])):
            for twin, style in ((False, "o-"), (True, "--")):
                one = group[group["twin"] == twin]
                label = f"{corpus}, {count:,} windows" + (", random weights" if twin else "")
                axis.plot(
                    one["position"].astype(int),
                    one["ie_bits"].astype(float),
                    style,
                    color=f"C{number}",
                    markersize=2.5,
                    label=label,
                )
            trained = group[~group["twin"]]
            axis.plot(
                trained["position"].astype(int),
                trained["macro_ceiling_bits"].astype(float) - trained["micro_bits"].astype(float),
                ":",
                color=f"C{number}",
                linewidth=0.9,
            )
        axis.set(title=f"{of}; dotted: ceiling less micro", xlabel="token (two per shot)", ylabel="IE, bits")
    axes[0][0].legend()
    return _save(figure, images, "study_shots.png")


def spread(found: pd.DataFrame, images: Path) -> str:
    """Spread of IE over windows by shot."""
    models = list(dict.fromkeys(found["of"]))
    figure, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.6), squeeze=False, sharey=True)
    for axis, of in zip(axes[0], models, strict=True):
        for number, ((corpus, count), group) in enumerate(found[found["of"] == of].groupby(["corpus", "windows"])):
            for twin, style in ((False, "o-"), (True, "--")):
                one = group[group["twin"] == twin]
                axis.plot(
                    one["shot"].astype(int),
                    one["ie_sample_std"].astype(float),
                    style,
                    color=f"C{number}",
                    markersize=3,
                    label=f"{corpus}, {count:,} windows" + (", random weights" if twin else ""),
                )
        axis.set(title=of, xlabel="shot", ylabel="standard deviation of IE over windows, bits")
    axes[0][0].legend()
    return _save(figure, images, "study_spread.png")


def agreement(matrix: pd.DataFrame, images: Path) -> str:
    """Spearman's correlation of E over models between all observers."""
    figure, axis = plt.subplots(figsize=(0.62 * len(matrix) + 2.2, 0.55 * len(matrix) + 1.6))
    axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
    axis.set_xticks(range(len(matrix)), list(matrix), rotation=45, ha="right")
    axis.set_yticks(range(len(matrix)), list(matrix))
    axis.grid(visible=False)
    for row in range(len(matrix)):
        for column in range(len(matrix)):
            value = matrix.iloc[row, column]
            axis.text(
                column, row, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black"
            )
    axis.set_title("Spearman over models")
    return _save(figure, images, "study_agreement.png")
