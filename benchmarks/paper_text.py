"""The study as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from paper_claims import judge_all
from paper_rules import ERRORS, LARGE, LISTS, SHARE, TRAINED, Claim, Study, by_scale, of_next, only, peaks

from estimators import DEFAULT_RESOLUTION
from estimators.contracts.cells import markdown
from estimators.contracts.controls import CONTROLS, summary
from estimators.contracts.conventions import SHUFFLED as SHUFFLE
from estimators.contracts.conventions import TWIN

HEAD = """# The paper's claims, tested

*This page is written by `benchmarks/paper.py`; do not edit it. The text is fixed; numbers and verdicts are computed.*

Claims of [arXiv 2405.12617](https://arxiv.org/abs/2405.12617) about information emergence, tested on {models}.
Every claim is judged by a rule written beside it. Each model has two controls: the same network with random weights
("random weights"), and the same network on windows in which every position keeps its tokens but their order over the
windows is shuffled, so that there is no context to learn from ("shuffled"). An effect counts as seen when it passes
{errors:g} standard errors, and as shared by a control that shows at least {share:.0%} of it. Errors are those of the
windows measured; in differences both sides are taken as independent. Intervals are the 5 and 95 % quantiles over
resamples of the numbers within their errors.
Unless another estimator is named, numbers are by sample propagation at resolution {resolution:g}, in bits;
[Reading the numbers](reading.md) says what that means.

{command}

{scales}A claim that holds here is no proof for larger models, and one that fails here may hold for them:
`emergence sweep paper` measures the paper's own four models on its corpora, both controls included, and
`python benchmarks/paper.py --sweep results/paper --out paper-study` tests the same claims on them (both need the
hub, the first a GPU too). The same claims tested with the predictive observer, which asks what comes *next*, are in
[The same claims by what comes next](study-predictive.md).

"""

SCALES = """## What changes from {small} to {large} parameters

**What comes next (predictive).** E at the highest block is {next_small} in the largest bundled models and {next_large}
in the real ones. {next_learned} The highest control of a real model is {next_highest}. {next_so}

**Which window was read (sample propagation, as in the paper).** E is {main_small} in the largest bundled models and
{main_large} in the real ones. {main_learned} {main_so}

{numbers}

Levels of one observer at different numbers of windows do not compare; how each model stands to its own controls does.
The claims one by one, judged on the bundled models alone and on the real ones alone:

{verdicts}

"""

PREDICTIVE = """# The same claims by what comes next

*This page is written by `benchmarks/paper.py`; do not edit it. The text is fixed; numbers and verdicts are computed.*

[The study](study.md) tests the paper's claims with the paper's kind of observer, which tells windows apart. Here they
are tested on {models} with the **predictive** observer, which asks what a state tells about the next token
([Reading the numbers](reading.md)), on {windows} windows of python-docs and, for the largest bundled model of each
architecture, on lists of countries. Effects, errors and controls are those of the study: an effect counts as seen
beyond {errors:g} standard errors, and as shared by a control that shows {share:.0%} of it.

E at the highest block, in bits about the next token, by size: {rows}.

{clear} models lie above both of their controls by four joint errors{failed}. The highest control is {highest}.

"""

ELSEWHERE = """## Claims tested elsewhere

**Text by language models has higher emergence than text by humans**, and **a closed model can be read off its
answers**: both need texts and targets that are not part of this repository. They are tested on published answers, with
numbers, intervals and verdicts, in [People and models](human-vs-models.md) and [Public proxies](public-proxies.md).
"""


def write_study(claims: Sequence[Claim], study: Study, setting: Mapping[str, object], path: Path) -> None:
    """Write the page: what was run, what large models change, the verdicts, and a section per claim."""
    measured = study.main[~study.main["model"].str.endswith(TWIN)]
    models = measured[["model", "parameters"]].drop_duplicates()
    what = (
        f"{len(models)} models of {models['parameters'].min():,} to {models['parameters'].max():,} parameters on "
        f"{' and '.join(sorted(set(measured['corpus'].str.removesuffix(SHUFFLE))))}"
    )
    command = (
        "Run by `python benchmarks/paper.py` with "
        + ", ".join(f"{name} {value:,}" for name, value in setting.items())  # type: ignore[str-bytes-safe]
        + "."
        if setting
        else "Read from the results of a sweep."
    )
    text = HEAD.format(
        models=what,
        errors=ERRORS,
        share=SHARE,
        resolution=DEFAULT_RESOLUTION,
        command=command,
        scales=scales(study, claims),
    )
    text += _claims(claims, "images")
    path.write_text(text + "\n" + ELSEWHERE, encoding="utf-8")


def scales(study: Study, claims: Sequence[Claim]) -> str:
    """What large models change, in words and numbers; nothing where models of one scale alone were measured."""
    parts = {large: by_scale(study, large=large) for large in (False, True)}
    if any(part.main.empty or part.next.empty for part in parts.values()):
        return ""
    text = study.main[~study.main["corpus"].str.removesuffix(SHUFFLE).isin(LISTS)]
    observed = {"next": _beside(study.next), "main": _beside(text)}
    said: dict[str, str] = {}
    for name, rows in observed.items():
        small, large = rows[rows["parameters"] < LARGE], rows[rows["parameters"] >= LARGE]
        ends = small.sort_values("parameters").groupby("family").tail(1)
        learned = large["verdict"] == "learned"
        said[f"{name}_small"], said[f"{name}_large"] = _listed(ends), _listed(large)
        said[f"{name}_learned"] = (
            f"{int(learned.sum())} of {len(large)} real models and {int((small['verdict'] == 'learned').sum())} of "
            f"{len(small)} bundled ones lie above both of their controls by four joint errors."
        )
        observed[name] = pd.concat([ends, large])
        if name == "next":
            highest = large.filter(CONTROLS).max().max()
            said["next_highest"] = f"{highest:.2f} bits"
            grown = large["E"].min() > small["E"].max()
            said["next_so"] = (
                "So larger models make more of a context, and what is measured there was learned."
                if learned.all() and grown
                else "So what this observer says of the bundled models cannot be carried over as it stands."
            )
        else:
            said["main_so"] = (
                "So at either scale this observer tells how well a network keeps windows apart, not what it has "
                "learned of how tokens follow each other."
                if not learned.any()
                else "So at this resolution it tells some real models from their controls."
            )
    sizes = study.main.loc[study.main["parameters"] < LARGE, "parameters"].max()
    numbers = pd.concat(observed.values()).filter(
        ["model", "parameters", "estimator", "windows", "E", "±", *CONTROLS, "verdict"]
    )
    return SCALES.format(
        small=f"{sizes / 1e6:.0f} million",
        large=f"{study.main['parameters'].max() / 1e6:.0f} million",
        numbers=markdown(numbers, ".2f", missing="-"),
        verdicts=markdown(_by_scale(parts, claims), ".2f", missing="-"),
        **said,
    )


def _beside(table: pd.DataFrame) -> pd.DataFrame:
    """The summary of models beside their controls, with family and size."""
    about = table.drop_duplicates("model").set_index("model")
    found = summary(table)
    return found.assign(**{name: found["model"].map(about[name]) for name in ("family", "parameters")})


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row.E:.2f} ({row.model})" for row in rows.sort_values("parameters").itertuples())


def _by_scale(parts: Mapping[bool, Study], claims: Sequence[Claim]) -> pd.DataFrame:
    """The verdicts on small models alone and on large ones alone, by both observers."""
    found: dict[str, dict[str, str]] = {
        name: {} for name in (f"{scale}, {how}" for how in ("window", "next") for scale in ("bundled", "real"))
    }
    with TemporaryDirectory() as figures:
        for large, part in parts.items():
            for how, study in (("window", part), ("next", of_next(part))):
                for claim in judge_all(study, Path(figures)):
                    found[f"{'real' if large else 'bundled'}, {how}"][claim.title] = claim.verdict
    titles = [claim.title for claim in claims]
    return pd.DataFrame(
        {"claim": titles, **{name: [verdicts.get(title) for title in titles] for name, verdicts in found.items()}}
    )


def write_predictive_study(claims: Sequence[Claim], study: Study, path: Path) -> None:
    """Write the page of the same claims by the predictive observer, over bundled and real models."""
    found = peaks(study.next)
    trained = only(found, TRAINED).sort_values("parameters")
    controls = found[found["case"] != TRAINED]
    counts = study.next[~study.next["model"].str.endswith(TWIN)].groupby("model")["windows"].max()
    highest = controls.loc[controls["ie_bits"].idxmax()]
    verdicts = summary(study.next)
    clear = (verdicts["verdict"] == "learned").set_axis(verdicts["model"])
    rows = "; ".join(f"{row.of} {row.ie_bits:.2f} \u00b1 {row.ie_std_error:.2f}" for row in trained.itertuples())
    failed = ", ".join(sorted(clear.index[~clear]))
    text = PREDICTIVE.format(
        models=f"{len(trained)} models of {trained['parameters'].min():,} to {trained['parameters'].max():,} "
        "parameters",
        windows=" to ".join(f"{count:,}" for count in sorted({counts.min(), counts.max()})),
        rows=rows,
        clear=f"{int(clear.sum())} of {len(clear)}",
        failed=f" ({failed} not)" if failed else "",
        highest=f"{highest['ie_bits']:.2f} bits ({highest['of']}, {highest['case']})",
        errors=ERRORS,
        share=SHARE,
    )
    path.write_text(text + _claims(claims, "images/predictive"), encoding="utf-8")


def _claims(claims: Sequence[Claim], images: str) -> str:
    """The verdicts, then a section per claim."""
    text = "## Verdicts\n\n"
    verdicts = pd.DataFrame({"claim": [c.title for c in claims], "verdict": [c.verdict for c in claims]})
    text += markdown(verdicts, ".4g", missing="") + "\n"
    for claim in claims:
        text += f"\n## {claim.title}\n\n**{claim.verdict.capitalize()}.** {claim.remark}\n\n*Rule:* {claim.rule}\n\n"
        if claim.figure:
            text += f"![{claim.title}](" + images + f"/{claim.figure})\n\n"
        text += markdown(claim.numbers, ".2f", missing="-") + "\n"
    return text
