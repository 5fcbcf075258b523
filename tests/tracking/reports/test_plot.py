"""A figure or a report of a table, without a sweep: in Python and by command."""

from pathlib import Path

import pandas as pd
import pytest

from estimators.base import InputError
from estimators.contracts.conventions import TWIN
from proxy import EMERGENCE
from tracking import plot_depth, report


@pytest.fixture
def table(job_rows) -> pd.DataFrame:
    """A model with its twin."""
    rows = job_rows("m", "animal", parameters=10**6, blocks=20)
    return pd.concat([rows, rows.assign(model=f"m{TWIN}", ie_bits=rows["ie_bits"] / 50)], ignore_index=True)


def test_depth_is_drawn_with_the_twin_as_a_band(table: pd.DataFrame, tmp_path: Path) -> None:
    figure = plot_depth(table)
    panel = figure.axes[0]
    assert [line.get_label() for line in panel.get_lines() if line.get_label() == "m"] == ["m"]
    assert "control: random weights" in {part.get_label() for part in panel.collections}
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".html": b"<!doctype html>"}
    for ending, start in starts.items():
        path = tmp_path / f"depth{ending}"
        plot_depth(table, str(path))
        assert path.read_bytes().startswith(start)
    assert "m has the highest E(l) of those above their controls" in (tmp_path / "depth.html").read_text()


def test_a_table_of_outputs_alone_is_drawn_too(table: pd.DataFrame) -> None:
    rows = table[(table["layer"] == 0) & (table["position"] == 8) & (table["resolution"] == 0.18)]
    figure = plot_depth(rows.assign(layer=-1, resolution=pd.NA, estimator="predictive-20", asked="chat"))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["m"]


def test_what_cannot_be_drawn_or_written_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.png, \.svg or \.html"):
        plot_depth(table, tmp_path / "depth.pdf")
    with pytest.raises(InputError, match="does not exist"):
        plot_depth(table, tmp_path / "no" / "depth.png")
    with pytest.raises(InputError, match="no finite emergence"):
        plot_depth(table.assign(ie_bits=float("nan")))
    with pytest.raises(InputError, match="lacks layer"):
        report(table.drop(columns="layer"), tmp_path / "report.html")


def test_report_of_a_table_counts_models_not_controls(emergence, table: pd.DataFrame, tmp_path: Path) -> None:
    EMERGENCE.conform(table).to_parquet(tmp_path / "emergence.parquet")
    done = emergence("report", tmp_path / "emergence.parquet", "--out", tmp_path / "report.html")
    assert done.code == 0, done.err
    text = (tmp_path / "report.html").read_text()
    assert "1 model on 1 corpus, 480 rows" in text
    assert f"m{TWIN}" not in text
    assert "learned" in text
    bad = emergence("report", tmp_path / "report.html", "--out", tmp_path / "again.html")
    assert bad.code == 2


def test_measure_draws_what_it_measured(emergence, tmp_path: Path) -> None:
    known = ("--corpus", "animal", "--windows", "200")
    done = emergence("measure", "gpt2-30k", *known, "--plot", tmp_path / "depth.png")
    assert done.code == 0, done.err
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    refused = emergence("measure", "gpt2-30k", *known, "--plot", tmp_path / "depth.gif")
    assert refused.code == 2
    assert "ends in" in refused.err
