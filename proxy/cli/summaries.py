"""What a command prints of an emergence table: a row per model and corpus, and what it says of its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.cli.console import screen, show

if TYPE_CHECKING:
    import pandas as pd

LEGEND = (
    "Learned: above the random twin and the shuffled windows by four joint errors. Not shown: not by so much. "
    "Control failed: nor is the control about 0."
)
NONE_RUN = "No controls were run; {how} shows what a random network and shuffled windows give."


def show_summary(summary: pd.DataFrame, *, how: str) -> None:
    """Print a row per model and corpus, what is the same for all of them above, and what the verdicts mean.

    Args:
        summary: of `estimators.contracts.controls.summary`.
        how: what runs the controls, such as an option.
    """
    from estimators.contracts.controls import varying

    shown, above = varying(summary)
    same = "; ".join(f"{name} {value if value != '' else 'none'}" for name, value in above.items())
    _say(f"E in bits at its highest block. All: {same}" if same else "E in bits at its highest block.")
    show(shown)
    none_run = (summary["verdict"] == "no controls").all()
    _say(NONE_RUN.format(how=how) if none_run else LEGEND)


def _say(text: str) -> None:
    screen.print(text, highlight=False, markup=False, soft_wrap=True)
