"""The study as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from paper_rules import ERRORS, SHARE, TRAINED, Claim, Study, only, peaks

from estimators import DEFAULT_RESOLUTION
from estimators.contracts.cells import markdown
from estimators.contracts.controls import summary
from estimators.contracts.conventions import SHUFFLED as SHUFFLE
from estimators.contracts.conventions import TWIN

HEAD = """# The paper's claims, tested

*This page is written by `benchmarks/paper.py`; do not edit it. The words are fixed, numbers and verdicts are computed.*

What [arXiv 2405.12617](https://arxiv.org/abs/2405.12617) says of information emergence, put to {models}.
Every claim is judged by a rule written beside it. Each model has two controls: the same network with random weights
("random weights"), and the same network on windows in which every position keeps its tokens but their order over the
windows is shuffled, so that there is no context to learn from ("shuffled"). An effect counts as seen when it passes
{errors:g} standard errors, and as shared by a control that shows at least {share:.0%} of it. Errors are those of the
windows measured; in differences both sides are taken as independent. Intervals are 5 to 95 % of what comes out when the
numbers are resampled within their errors.
Unless another is named, numbers are by sample propagation at resolution {resolution:g}, in bits;
[Reading the numbers](reading.md) says what that means.

{command}

These are small models, and an observer that tells windows apart. The same questions put to the observer that asks what
comes *next* are in [By what comes next](study-predictive.md): there both controls stay at 0.
A claim that holds here is no proof for large models, and one that fails here may hold for them:
`emergence sweep paper` measures the paper's own four models on its corpora, both controls included, and
`python benchmarks/paper.py --sweep results/paper --out paper-study` puts the same questions to them (both need the
hub, the first a GPU too).

"""

PREDICTIVE = """# The same claims by what comes next

*This page is written by `benchmarks/paper.py --tables` from the tables of `benchmarks/depth.py`; do not edit it. The
words are fixed, numbers and verdicts are computed.*

[The study](study.md) puts the paper's claims to the paper's kind of observer, which tells windows apart. Here the same
questions are put to {models} through the **predictive** observer, which asks what a state tells about the next token
([Reading the numbers](reading.md)), on {windows} windows of python-docs. Effects, errors and controls are those of the
study: an effect counts as seen beyond {errors:g} standard errors, and as shared by a control that shows {share:.0%} of
it.

E at the highest block, in bits about the next token, by size: {rows}.

{clear} models lie above both of their controls by four joint errors{failed}. The highest control is {highest}.

"""

ELSEWHERE = """## Claims tested elsewhere

**Text by language models has higher emergence than text by humans**, and **a closed model can be read off its
answers**: both need texts and targets that are not part of this repository. They are tested on published answers, with
numbers, intervals and verdicts, in [People and models](human-vs-models.md) and [Public proxies](public-proxies.md).
"""


def write_study(claims: Sequence[Claim], study: Study, setting: Mapping[str, object], path: Path) -> None:
    """Write the page: what was run, the verdicts, and a section per claim."""
    measured = study.main[~study.main["model"].str.endswith(TWIN)]
    models = measured[["model", "parameters"]].drop_duplicates()
    what = (
        f"{len(models)} models of {models['parameters'].min():,} to {models['parameters'].max():,} parameters on "
        f"{', '.join(sorted(measured['corpus'].unique()))}"
    )
    command = (
        "Run by `python benchmarks/paper.py` with "
        + ", ".join(f"{name} {value:,}" for name, value in setting.items())  # type: ignore[str-bytes-safe]
        + "."
        if setting
        else "Read from the results of a sweep."
    )
    text = HEAD.format(models=what, errors=ERRORS, share=SHARE, resolution=DEFAULT_RESOLUTION, command=command)
    text += _claims(claims, "images")
    path.write_text(text + "\n" + ELSEWHERE, encoding="utf-8")


def write_predictive_study(claims: Sequence[Claim], study: Study, path: Path) -> None:
    """Write the page of the same claims by the predictive observer, over bundled and real models."""
    found = peaks(study.main)
    trained = only(found, TRAINED).sort_values("parameters")
    controls = found[found["case"] != TRAINED]
    counts = study.main[~study.main["model"].str.endswith(TWIN)].groupby("model")["windows"].max()
    highest = controls.loc[controls["ie_bits"].idxmax()]
    verdicts = summary(
        study.main[~study.main["model"].str.endswith(TWIN) & ~study.main["corpus"].str.endswith(SHUFFLE)]
    )
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
    verdicts = pd.DataFrame({"claim": [c.title for c in claims], "here it": [c.verdict for c in claims]})
    text += markdown(verdicts, ".4g", missing="") + "\n"
    for claim in claims:
        text += f"\n## {claim.title}\n\n**{claim.verdict.capitalize()}.** {claim.remark}\n\n*Rule:* {claim.rule}\n\n"
        if claim.figure:
            text += f"![{claim.title}](" + images + f"/{claim.figure})\n\n"
        text += markdown(claim.numbers, ".2f", missing="-") + "\n"
    return text
