"""What measuring prints: E on every screen, controls as columns, a line of E by depth for deep models."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from estimators.contracts.controls import FAILED
from estimators.contracts.conventions import TWIN
from proxy import EMERGENCE, peak_emergence
from proxy.cli.summary import BARS, HIDDEN, show_summary

LONG = "some-organisation/a-model-with-a-very-long-name-7B-instruct-v0.3"


def table(model: str, *, blocks: int = 30, scale: float = 1.0, corpus: str = "animal", **more: object) -> pd.DataFrame:
    """E rises from 0 by equal steps to `scale` at the last block."""
    layer = np.arange(blocks)
    rows = pd.DataFrame({"layer": layer, "ie_bits": scale * layer / (blocks - 1), "ie_std_error": 0.01})
    named = {"model": model, "corpus": corpus, "position": 8, "resolution": np.nan, "estimator": "predictive"}
    return EMERGENCE.conform(rows.assign(flags="", windows=500, prefix="<bos>", **named).assign(**more))


def printed(frame: pd.DataFrame, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show_summary(frame, to=console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_e_its_error_and_its_verdict_are_on_every_screen(width: int) -> None:
    trained = [table(f"{LONG}-{n}", corpus=c, windows=n, prefix=f"<{n}>") for n, c in ((500, "animal"), (800, "color"))]
    twins = [rows.assign(model=rows["model"] + TWIN, ie_bits=0.01) for rows in trained]
    text = printed(pd.concat([*trained, *twins]), width)
    lines = text.splitlines()
    rows = [line for line in lines if "1.000" in line]
    assert len(rows) == 2  # a row per model and corpus, none for the twins
    assert all(line.startswith("│") and line.rstrip().endswith("│") for line in rows)  # nothing is cut off
    assert all("0.010" in line for line in rows)
    assert len(re.findall("learned", text.replace("\n", ""))) == 2
    table_lines = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert all(len(line) <= width for line in table_lines)
    if width == 160:
        assert "twin" in text
        assert "windows" in text


@pytest.mark.parametrize("width", [60, 160])
def test_observers_have_a_table_each_that_names_them(width: int) -> None:
    both = [table(LONG, estimator=name, scale=scale) for name, scale in (("predictive", 1.0), ("mine", 2.0))]
    text = printed(pd.concat(both), width)
    predictive, mine = text.split("E at the highest block, mine, bits")
    assert "E at the highest block, predictive, bits" in predictive
    assert "1.000" in predictive
    assert "2.000" not in predictive
    assert "2.000" in mine


def test_the_path_of_a_model_on_disk_stands_in_a_column_of_its_own() -> None:
    here, hub = table("tiny", path="/models/tiny"), table("gpt2")
    assert "/models/tiny" in printed(pd.concat([here, hub]), 160)
    assert "path" not in printed(hub, 160)
    narrow = printed(pd.concat([here, table(LONG)]), 60)
    assert "/models/tiny" not in narrow  # E is worth more there
    assert "1.000" in narrow


def test_deep_models_have_a_line_of_e_by_depth_on_one_scale() -> None:
    low = table("low", scale=0.5)
    low.loc[low["layer"] < 3, "flags"] = FAILED
    text = printed(pd.concat([table("high"), low, table("shallow", blocks=4)]), 80)
    lines = {line.split(" ")[1]: line.split(" ")[0] for line in text.splitlines() if line[:1] in BARS + HIDDEN}
    assert len(lines["high"]) == 30
    assert lines["high"] == "".join(sorted(lines["high"]))  # rises throughout
    assert (lines["high"][0], lines["high"][-1]) == (BARS[0], BARS[-1])
    assert lines["low"].startswith(HIDDEN * 3)
    assert set(lines["low"][3:]) <= set(BARS[:5])  # half as high on the same scale
    assert "shallow" not in lines
    assert "0 to 1.00 bits" in text


def test_controls_are_called_by_what_they_showed(emergence, capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(table("m"), to=Console(file=io.StringIO()))
    assert "No controls were run" in capsys.readouterr().err
    rows = table("m").assign(flags=FAILED, twin_ie_bits=0.0, twin_ie_std_error=0.01)
    show_summary(EMERGENCE.conform(rows), to=Console(file=io.StringIO()))
    said = capsys.readouterr().err
    assert "Not shown: not above its controls" in said
    assert "Learned" not in said


def test_peaks_print_e_at_80_columns() -> None:
    frame = peak_emergence(pd.concat([table(LONG), table("b", corpus="python-docs")]))
    with pd.option_context("display.width", 80, "display.max_columns", 0):
        shown = str(
            frame
        )  # pandas breaks columns that do not fit onto further lines, and in a terminal leaves out some
    last = shown.split("\\")[-1].splitlines()
    assert last[-3].split()[-1] == "emergence_bits"
    assert last[-1].split()[-1] == "1.0"
