"""An estimate as a folder: card, tables and a figure of the profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from estimators.contracts.cells import escaped, markdown
from estimators.contracts.files import replacing
from estimators.contracts.secrets import printable
from extraction.tables import write_table
from proxy.banks.estimating import Estimate
from proxy.banks.targets import DEPTHS, PEAK, target
from proxy.schemas import EMERGENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = (
    "estimator", "asked", "macro_bits", "micro_bits", "ie_bits", "ie_std_error", "shuffled_ie_bits", "accuracy",
    "windows",
)  # fmt: skip
SHOWN = ("target", "how", "estimate", "lower", "upper", "in_domain", "proxy_error", "mean_error", "size_error")
CARD, ESTIMATE, MEASURED_ROWS, PROFILE = "card.md", "estimate.csv", "measured.parquet", "profile.png"


def write_estimate(found: Estimate, folder: Path) -> list[str]:
    """Write card.md, estimate.csv, profile.png and, where something was measured, measured.parquet into `folder`.

    Each appears whole or not at all. Returns their names.
    """
    from tracking.reports.rendering import png

    folder.mkdir(parents=True, exist_ok=True)
    write_table(found.table.assign(model=found.model, corpus=found.corpus, bank=found.bank), folder / ESTIMATE)
    for name, content in ((PROFILE, png(profile_figure(found))), (CARD, card(found).encode())):
        with replacing(folder / name) as temporary:
            Path(temporary).write_bytes(content)
    if found.measured.empty:
        return [CARD, ESTIMATE, PROFILE]
    write_table(found.measured, folder / MEASURED_ROWS, EMERGENCE)
    return [CARD, ESTIMATE, MEASURED_ROWS, PROFILE]


def measured_table(found: Estimate) -> pd.DataFrame:
    """What was measured, in the columns that a reader looks for."""
    rows = found.measured
    return rows[[name for name in MEASURED if name in rows and rows[name].notna().any()]].reset_index(drop=True)


def estimates_table(found: Estimate) -> pd.DataFrame:
    """The peak and the profile, in the columns that a reader looks for."""
    names = [*SHOWN]
    if found.table["truth"].notna().any():
        names.insert(5, "truth")
    return found.table[names]


def card(found: Estimate) -> str:
    """Return the card in markdown."""
    model = escaped(printable(found.model))
    alone = found.measured.empty
    parts = [
        f"# Emergence of {model} on {escaped(printable(found.corpus))}",
        "",
        f"From what the model {'answered' if alone else 'says next'}, and from the references of the bank "
        f"`{printable(found.bank)}`. {'Nothing' if alone else 'The output'} is *measured*; E of the blocks "
        f"(`{found.estimator}`) is *estimated* by a regression over models whose weights are open, and holds for "
        "models like them.",
        "",
    ]
    if not alone:
        parts += [
            "## Measured: emergence of the output, bits",
            "",
            markdown(measured_table(found), ".3g", missing=""),
            "",
        ]
    parts += ["## Emergence of the blocks, bits", ""]
    if found.proxy is None:
        parts += ["Not estimated; what follows says why.", ""]
    else:
        parts += [
            f"Intervals hold {found.peak['level']:.0%} of the time for further models like the references. "
            "`proxy_error`, `mean_error` and `size_error` are mean absolute errors on left-out references: of this "
            "proxy, of their mean, of a line in log parameters (which an API hides). Depth 0 is the first block, 1 the "
            "last.",
            "",
            markdown(estimates_table(found), ".3g", missing=""),
            "",
            "![profile](profile.png)",
            "",
            f"Peak: {found.proxy.verdict.sentence}",
            "",
        ]
    parts += [f"- {escaped(printable(remark))}." for remark in found.remarks]
    parts += [
        f"- {row.target}: {escaped(printable(str(row.remarks)))}." for row in found.table.itertuples() if row.remarks
    ]
    parts += [
        "",
        "## Must not be used",
        "",
        "- for what was estimated as if it had been measured: quote the interval with it;",
        "- for models outside the bank as more than a guess;",
        "- to claim what happens inside a closed model: what is learned is a correlation over models that were open.",
        "",
    ]
    return "\n".join(parts)


def profile_figure(found: Estimate) -> Figure:
    """Draw E by relative depth: estimates with intervals, the measured end, the references' mean, the truth."""
    from matplotlib.figure import Figure

    from tracking.reports.drawing import styled

    table = found.table[found.table["target"] != PEAK].sort_values("depth")
    with styled():
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        axes = figure.subplots()
        if found.proxy is not None:
            references = found.proxy.references
            columns = [target(depth) for depth in DEPTHS]
            for values in references[columns].to_numpy(dtype=float):
                axes.plot(DEPTHS, values, color="0.85", linewidth=0.8, zorder=1)
            axes.plot(DEPTHS, references[columns].astype(float).mean(), "--", color="0.5", label="mean of references")
        for how, marker in (("estimated", "o"), ("measured", "s")):
            part = table[(table["how"] == how) & table["estimate"].notna()]
            if part.empty:
                continue
            value = part["estimate"].to_numpy(dtype=float)
            ends = part[["lower", "upper"]].to_numpy(dtype=float)
            reach = np.nan_to_num(np.abs(ends - value[:, None]).T)
            axes.errorbar(part["depth"], value, yerr=reach, fmt=marker, capsize=3, label=how, zorder=3)
        if table["truth"].notna().any():
            axes.plot(table["depth"], table["truth"], "k*-", label="truth, from its weights", zorder=2)
        axes.set(
            xlabel="relative depth of the block", ylabel=f"E, bits ({found.estimator})", title=printable(found.model)
        )
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure
