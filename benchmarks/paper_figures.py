"""The figures of the study; each function writes one and returns its file name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from paper_rules import CASES, LARGE, RANDOM, SHUFFLED, TRAINED, blocks, only

LINES = {TRAINED: "o-", RANDOM: "s--", SHUFFLED: "x:"}
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
        "legend.fontsize": 7,
    }
)


def _save(figure: Any, images: Path, name: str) -> str:
    figure.savefig(images / name, metadata={"Software": None})  # the same numbers give the same file
    plt.close(figure)
    return name


def _legend(figure: Any, *axes: Any) -> None:
    """One legend for all panels, below them, where it covers no curve; each name once."""
    named = {}
    for axis in axes:
        for line, name in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(name, line)
    figure.legend(named.values(), named, loc="outside lower center", ncols=4)


def _label(what: str, case: str) -> str:
    return what if case == TRAINED else f"{what}, {case}"


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
    """E by parameters, one panel per corpus; random twins dashed, shuffled windows dotted."""
    corpora = sorted(found["corpus"].unique())
    figure, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 3.6), squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for number, (family, group) in enumerate(found[found["corpus"] == corpus].groupby("family")):
            for case, style in LINES.items():
                one = only(group, case)
                axis.errorbar(
                    one["parameters"].astype(float),
                    one["ie_bits"].astype(float),
                    one["ie_std_error"].astype(float),
                    fmt=style,
                    color=f"C{number}",
                    alpha=1.0 if case == TRAINED else 0.5,
                    label=_label(str(family), case),
                )
        axis.axhline(0, color="grey", linewidth=0.6)
        axis.set(title=corpus, xscale="log", xlabel="parameters", ylabel="E of the highest block, bits")
    _legend(figure, axes[0][0])
    return _save(figure, images, "study_size.png")


def depth(found: pd.DataFrame, images: Path) -> str:
    """E(l) by block, one panel per corpus; random twins dashed, shuffled windows dotted."""
    corpora = sorted(found["corpus"].unique())
    colors = _colors(found)
    figure, axes = plt.subplots(1, len(corpora), figsize=(4.2 * len(corpora), 3.6), squeeze=False)
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for (of, case), one in found[found["corpus"] == corpus].groupby(["of", "case"], sort=False):
            axis.errorbar(
                one["layer"].astype(int) + 1,
                one["ie_bits"].astype(float),
                one["ie_std_error"].astype(float) if case == TRAINED else None,
                fmt=LINES[case],
                color=colors[of],
                linewidth=1.4 if case == TRAINED else 0.8,
                markersize=3,
                label=of if case == TRAINED else None,
            )
        axis.axhline(0, color="grey", linewidth=0.6)
        blocks = sorted(found["layer"].unique() + 1)
        axis.set(
            title=corpus, xlabel="block", ylabel="E(l), bits", xticks=blocks if len(blocks) <= 12 else blocks[4::5]
        )
    _legend(figure, axes[0][-1])
    return _save(figure, images, "study_depth.png")


def position(found: pd.DataFrame, images: Path) -> str:
    """IE by token in text: trained models, and both controls."""
    colors = _colors(found)
    present = [case for case in CASES if case in set(found["case"])]
    figure, axes = plt.subplots(1, len(present), figsize=(4.2 * len(present), 3.6), sharey=True, squeeze=False)
    for axis, case in zip(axes[0], present, strict=True):
        for (of, corpus), one in only(found, case).groupby(["of", "corpus"], sort=False):
            axis.errorbar(
                one["position"].astype(int),
                one["ie_bits"].astype(float),
                one["ie_std_error"].astype(float),
                color=colors[of],
                label=of if len(found["corpus"].unique()) == 1 else f"{of}, {corpus}",
            )
        axis.set(title=case, xlabel="token", ylabel="IE, bits" if case == TRAINED else None)
    _legend(figure, axes[0][0])
    return _save(figure, images, "study_token.png")


def _by_model(found: pd.DataFrame) -> tuple[Any, list[tuple[Any, str]]]:
    """A figure with a panel per model."""
    models = list(dict.fromkeys(found["of"]))
    figure, axes = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.8), squeeze=False, sharey=True)
    return figure, list(zip(axes[0], models, strict=True))


def _by_windows(found: pd.DataFrame, of: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Colour, label and rows of each number of windows of a model; a colour means the same in all panels."""
    known = list(found.groupby(["corpus", "windows"]).groups)
    for (corpus, count), group in found[found["of"] == of].groupby(["corpus", "windows"]):
        yield f"C{known.index((corpus, count))}", f"{corpus}, {count:,} windows", group


def _cases(axis: Any, group: pd.DataFrame, x: str, y: str, color: str, label: str) -> None:
    """The curves of a model and of its controls."""
    for case, style in LINES.items():
        one = only(group, case)
        alpha = 1.0 if case == TRAINED else 0.5
        axis.plot(
            one[x].astype(int), one[y].astype(float), style, color=color, alpha=alpha, markersize=3,
            label=_label(label, case),
        )  # fmt: skip


def shots(found: pd.DataFrame, images: Path) -> str:
    """IE by token in lists for several numbers of windows, with the ceiling of macro information."""
    figure, panels = _by_model(found)
    for axis, of in panels:
        for color, label, group in _by_windows(found, of):
            _cases(axis, group, "position", "ie_bits", color, label)
            one = only(group, TRAINED)
            ceiling = one["macro_ceiling_bits"].astype(float) - one["micro_bits"].astype(float)
            axis.plot(one["position"].astype(int), ceiling, "-.", color=color, linewidth=0.9)
        axis.set(title=f"{of}; dash-dotted: ceiling less micro", xlabel="token (two per shot)", ylabel="IE, bits")
    _legend(figure, *(axis for axis, _ in panels))
    return _save(figure, images, "study_shots.png")


def levelling(found: pd.DataFrame, images: Path) -> str:
    """Rise of IE since the first shot, with its errors, and that of the ceiling."""
    figure, panels = _by_model(found)
    for axis, of in panels:
        for color, label, group in _by_windows(found, of):
            one = only(group, TRAINED)
            shot, bits, ceiling = (one[name].astype(float) for name in ("shot", "ie_bits", "macro_ceiling_bits"))
            error = one["ie_std_error"].astype(float)
            axis.errorbar(shot, bits - bits.iloc[0], error, fmt="o-", color=color, markersize=3, label=label)
            axis.plot(shot, ceiling - ceiling.iloc[0], "-.", color=color, linewidth=0.9)
        axis.axvline(7, color="grey", linewidth=0.6)
        axis.set(title=f"{of}; dash-dotted: the ceiling", xlabel="shot", ylabel="rise since the first shot, bits")
    _legend(figure, *(axis for axis, _ in panels))
    return _save(figure, images, "study_levelling.png")


def spread(found: pd.DataFrame, images: Path) -> str:
    """Spread of IE over windows by shot."""
    figure, panels = _by_model(found)
    for axis, of in panels:
        for color, label, group in _by_windows(found, of):
            _cases(axis, group, "shot", "ie_sample_std", color, label)
        axis.set(title=of, xlabel="shot", ylabel="standard deviation of IE over windows, bits")
    _legend(figure, *(axis for axis, _ in panels))
    return _save(figure, images, "study_spread.png")


def bounds(numbers: pd.DataFrame, images: Path) -> str:
    """What the paper's MINE reports, with its error over seeds, beside held-out values and the ceiling."""
    kinds = list(dict.fromkeys(numbers["pairs"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 4.4), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        some = numbers[numbers["pairs"] == kind]
        at = np.arange(len(some))
        mean = "maximum over epochs, mean of seeds"
        axis.bar(at - 0.2, some["max"], 0.38, yerr=some["error of max"], label=mean)
        axis.bar(at + 0.2, some["held_out"], 0.38, label="held out")
        axis.plot(at - 0.2, some["highest max"], "k_", label="maximum of the highest seed")
        axis.hlines(some["ceiling"], at - 0.45, at + 0.45, color="black", label="ceiling")
        names = [f"{model}, {case}" for model, case in zip(some["model"], some["case"], strict=True)]
        axis.set_xticks(at, names, rotation=60, ha="right")
        axis.set(title=f"{kind} pairs" if kind == "true" else f"pairs {kind}", ylabel="bits")
    _legend(figure, axes[0][0])
    return _save(figure, images, "study_bound.png")


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


def beside_controls(table: pd.DataFrame, images: Path) -> str:
    """E by depth with its error, a panel for small models and one for large ones; controls as thin lines."""
    rows = blocks(table)
    rows = rows.assign(depth=rows["layer"] / rows.groupby("of")["layer"].transform("max"))
    small = rows["parameters"] < LARGE
    panels = [(title, rows[kept]) for title, kept in (("bundled models", small), ("real models", ~small)) if kept.any()]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 4.8), squeeze=False)
    for axis, (title, part) in zip(axes[0], panels, strict=True):
        colors = _colors(part)
        for of, one in part.groupby("of", sort=False):
            for case, color in ((RANDOM, "#767676"), (SHUFFLED, "#b8860b"), (TRAINED, colors[of])):
                shown = only(one, case)
                error = shown["ie_std_error"].astype(float) if case == TRAINED else None
                label = of if case == TRAINED else case if of == part["of"].iloc[0] else None
                axis.errorbar(
                    shown["depth"].astype(float), shown["ie_bits"].astype(float), error, color=color, label=label,
                    linewidth=1.4 if case == TRAINED else 0.9, fmt="o-" if case == TRAINED else "-", markersize=3.5,
                )  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=title, xlabel="depth, first block to last")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    axes[0][0].set_ylabel("E, bits about the next token")
    return _save(figure, images, "depth.png")
