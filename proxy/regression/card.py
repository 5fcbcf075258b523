"""The model card of a proxy: what it was trained on, how it did, and what it must not be used for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from estimators.contracts.cells import escaped, markdown
from estimators.contracts.secrets import printable
from proxy.regression.domain import MISSING, WITHHELD
from proxy.regression.folds import MOST_FOLDS
from proxy.regression.record import ProxyRecord
from proxy.regression.references import provenances

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_card(proxy: ProxyRecord, folder: Path) -> None:
    """Write card.md and figures/ (estimates against truth, against baselines, coverage) into `folder`."""
    from tracking.reports.rendering import png

    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for name, draw in {"parity": _parity, "baselines": _baselines, "coverage": _coverage}.items():
        (figures / f"{name}.png").write_bytes(png(draw(proxy)))
    (folder / "card.md").write_text(card(proxy), encoding="utf-8")


def card(proxy: ProxyRecord) -> str:
    """Return the card in markdown."""
    counts = {str(name): int(count) for name, count in proxy.references["family"].value_counts(sort=False).items()}
    families = (
        ", ".join(f"{escaped(printable(name))}: {counts[name]}" for name in sorted(counts))
        if len(counts) <= 12
        else "see the table"
    )
    rmse = dict(zip(proxy.scores["candidate"], proxy.scores["rmse"].astype(float), strict=True))
    rmse.pop("chosen")
    picks = proxy.validation["chosen"].value_counts()
    truth = proxy.validation["truth"].astype(float)
    outputs = proxy.mode == "outputs"
    words = sum(name.startswith("words.") for name in proxy.features)
    target = printable(proxy.target).replace("`", "'").replace("\n", " ")
    left_out = "nothing of the model itself" if proxy.unit == "model" else f"no other model of its {proxy.unit}"
    lines = [
        f"# Proxy for `{target}`",
        "",
        f"Estimates `{target}` of language models from "
        f"{'their own answers' if outputs else 'smaller models of their family and their size'} (mode `{proxy.mode}`), "
        f"with {proxy.level:.0%} intervals. Candidate in use: **{proxy.chosen}**, link: "
        f"{proxy.intervals.regressor.link_.name}.",
        "",
        f"Left out by {proxy.unit}: "
        + (proxy.verdict.sentence if proxy.verdict.useful else f"**{proxy.verdict.sentence}**"),
        "",
        "## Data",
        "",
        f"{len(proxy.references)} reference rows, {proxy.references['model'].nunique()} models, {len(counts)} families "
        f"({families}); {len(proxy.features)} features; target from {truth.min():.4g} to {truth.max():.4g}.",
        "",
        *[f"Answers: {escaped(printable(one.sentence))}.\n" for one in provenances(proxy.references)[:1]],
        *[f"- {escaped(printable(remark))}." for remark in proxy.remarks],
        "",
        "## Left-out performance",
        "",
        f"Every number is of references estimated by a fit that saw {left_out}. `chosen` "
        "repeats the choice of the candidate inside each such fit "
        f"({', '.join(f'{name}: {count}' for name, count in picks.items())}, of {len(truth)} rows); best single "
        f"candidate in hindsight: {min(rmse, key=lambda name: rmse[name])}.",
        "",
        markdown(proxy.scores, ".4g", missing=""),
        "",
        "![Estimate against truth, each model named](figures/parity.png)",
        "![Estimate and baselines beside the truth](figures/baselines.png)",
        "",
        "## Intervals",
        "",
        f"{'Jackknife+' if proxy.intervals.groups <= MOST_FOLDS else 'CV+'} over {proxy.intervals.groups} "
        f"left-out {'families' if proxy.unit == 'family' else f'{proxy.unit}s'} on the scale of the link (Barber, "
        "Candes, Ramdas & Tibshirani 2021), each with the same weight however many rows it has (Lee, Barber & Willett "
        "2023). Below: nominal level against the share of left-out references inside the interval that this proxy "
        "gives, widened or withheld as under Domain; empty where too few references remained for such an interval.",
        "",
        markdown(proxy.coverage, ".4g", missing=""),
        "",
        "![coverage](figures/coverage.png)",
        "",
        "## Domain",
        "",
        *_domain(proxy),
        "",
        "## Must not be used",
        "",
        "- for a single model as if the estimate were a measurement: quote the interval and the remarks with it;",
        "- for models whose answers were not collected with the same prompts and settings and read by the same readers;"
        if outputs
        else "- for models measured on another corpus or at another resolution than the references;",
        "- outside its domain, or for families unlike the references, as more than a guess;",
        "- to claim what happens inside a closed model: what is learned is a correlation over models that were open.",
        "",
        "## Features",
        "",
        f"In use: {', '.join(kind or 'all' for kind in proxy.intervals.regressor.kinds_)}.",
        "",
        *[f"- `{name}`" for name in proxy.features if not name.startswith("words.")],
        *([f"- {words} words and marks, `words.*`, listed in proxy.json"] if words else []),
        "",
    ]
    return "\n".join(lines)


def _domain(proxy: ProxyRecord) -> list[str]:
    leverage, distance = proxy.domain.reach()
    within = proxy.validation["in_domain"]
    directions = proxy.domain.directions.shape[1]
    return [
        "A model's novelty is its leverage (square root) or its distance to the nearest reference, as a multiple "
        f"of the farthest reference's. At most 1: inside. Up to {WITHHELD:g}: the interval is widened by that factor. "
        "Beyond: no interval is given.",
        "",
        f"- Leverage is taken along the {directions} directions that `{proxy.chosen}` looks at; the references reach "
        f"{leverage:.3g}, so an interval is withheld above {WITHHELD**2 * leverage:.3g}.",
        "- The distance is taken over all features, used or not, in standard deviations per feature: a model may look "
        f"ordinary along the directions in use and be of a kind that no reference is of. The references reach "
        f"{distance:.3g}; withheld above {WITHHELD * distance:.3g}.",
        f"- Where more than {max(MISSING, proxy.domain.lacked):.0%} of what `{proxy.chosen}` looks at is missing, no "
        "interval is given.",
        f"- Of {len(within)} left-out references {int((~within).sum())} lay outside the domain of the others.",
    ]


def _parity(proxy: ProxyRecord) -> Figure:
    """Draw the left-out estimates, with intervals at the proxy's level, or at the highest below that any has."""
    from tracking.reports.proxy_figures import parity

    table, level = _at_level(proxy)
    figure = parity(table)
    estimated = f"estimated without its {proxy.unit}" + (f" ({level} % interval)" if level else "")
    figure.axes[0].set(xlabel=f"measured {proxy.target}", ylabel=estimated)
    return figure


def _baselines(proxy: ProxyRecord) -> Figure:
    """Draw the left-out estimates beside what the baselines say."""
    from proxy.regression.verdict import BASELINES
    from tracking.reports.proxy_figures import beside_baselines

    figure = beside_baselines(_at_level(proxy)[0], BASELINES)
    figure.axes[0].set(xlabel=proxy.target)
    return figure


def _at_level(proxy: ProxyRecord) -> tuple[pd.DataFrame, str | None]:
    """Return the left-out estimates with intervals at the proxy's level, or at the highest below that any has."""
    table = proxy.validation
    for at in (proxy.level, 0.8, 0.5):
        level = f"{at * 100:g}"
        if table[f"lower_{level}"].notna().any():
            return table.assign(lower=table[f"lower_{level}"], upper=table[f"upper_{level}"]), level
    return table, None


def _coverage(proxy: ProxyRecord) -> Figure:
    from matplotlib.figure import Figure

    from tracking.reports.drawing import styled

    with styled():
        figure = Figure(figsize=(4.5, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        known = proxy.coverage[proxy.coverage["coverage"].notna()]
        axes.plot(known["level"], known["coverage"], "o-")
        axes.set(xlabel="nominal level", ylabel="share of left-out references inside", xlim=(0.4, 1), ylim=(0, 1.02))
    return figure
