"""The study as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from paper_rules import ERRORS, SHARE, Claim, Study

from estimators import DEFAULT_RESOLUTION
from estimators.contracts.cells import markdown
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

These are small models. A claim that holds here is no proof for large ones, and one that fails here may hold for them:
`emergence sweep paper` measures the paper's own four models on its corpora, both controls included, and
`python benchmarks/paper.py --sweep results/paper --out paper-study` puts the same questions to them (both need the
hub, the first a GPU too).

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
    text += "## Verdicts\n\n"
    verdicts = pd.DataFrame({"claim": [c.title for c in claims], "here it": [c.verdict for c in claims]})
    text += markdown(verdicts, ".4g", missing="") + "\n"
    for claim in claims:
        text += f"\n## {claim.title}\n\n**{claim.verdict.capitalize()}.** {claim.remark}\n\n*Rule:* {claim.rule}\n\n"
        if claim.figure:
            text += f"![{claim.title}](images/{claim.figure})\n\n"
        text += markdown(claim.numbers, ".2f", missing="-") + "\n"
    path.write_text(text + "\n" + ELSEWHERE, encoding="utf-8")
