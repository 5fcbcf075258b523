"""Figures show what is in the table: asserted on what is drawn, not on pixels."""

import numpy as np
import pandas as pd
import pytest

from estimators.contracts.controls import FAILED, controls_as_columns, is_twin
from estimators.contracts.conventions import TWIN
from estimators.contracts.peaks import at_resolution, peaks
from tracking.reports import figures
from tracking.reports.rendering import png, svg
from tracking.reports.sweep_figures import SWEEP_FIGURES
from tracking.summary import figure_rows

UNTRAINED = f"gpt2-30k{TWIN}"


@pytest.fixture
def table(job_rows) -> pd.DataFrame:
    """Two families, two corpora, a twin."""
    sizes = {"gpt2-30k": 30_000, "gpt2-2m": 2_000_000, "gemma-280k": 280_000, UNTRAINED: 30_000}
    rows = pd.concat(
        [job_rows(m, c, parameters=n, blocks=3) for m, n in sizes.items() for c in ("animal", "python-docs")],
        ignore_index=True,
    )
    return rows.assign(ie_bits=rows["ie_bits"].where(rows["model"] != UNTRAINED, rows["ie_bits"] / 10))


def outputs(table: pd.DataFrame) -> pd.DataFrame:
    """What two readings of the output give beside it: layer -1, at the last position."""
    last = table[(table["layer"] == 0) & (table["position"] == 8) & (table["resolution"] == 0.18)]
    last = last.assign(layer=-1, resolution=pd.NA, asked="weights")
    closed = last[last["model"] == "gpt2-2m"].assign(model="gpt-4o-mini", parameters=pd.NA, family="", asked="chat")
    both = pd.concat([last, closed], ignore_index=True)
    return pd.concat([both.assign(estimator=e) for e in ("output-20", "predictive-20")], ignore_index=True)


def test_twins_are_known_by_the_mark_in_their_name() -> None:
    assert is_twin(UNTRAINED)
    assert is_twin(f"{UNTRAINED} dtype=float16")
    assert not is_twin("gpt2-30k")


@pytest.mark.parametrize("figure", [f for f in SWEEP_FIGURES if f.x != "model"], ids=lambda figure: figure.name)
def test_every_model_is_drawn_with_its_values(figure, table: pd.DataFrame) -> None:
    panels = figure.draw(table).axes
    assert [axes.get_title() for axes in panels] == ["animal", "python-docs"]
    if figure.x == "parameters":
        return
    rows = figure.rows(table)
    for axes, corpus in zip(panels, ("animal", "python-docs"), strict=True):
        lines = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
        assert set(lines) == set(table["model"])
        for model, line in lines.items():
            mine = rows[(rows["model"] == model) & (rows["corpus"] == corpus)].sort_values(figure.x)
            assert np.allclose(line.get_ydata(), mine["ie_bits"])
        assert lines[UNTRAINED].get_linestyle() == "--"
        assert lines["gpt2-2m"].get_linestyle() == "-"


def test_data_of_a_figure_are_the_drawn_values(table: pd.DataFrame) -> None:
    data = SWEEP_FIGURES[0].data(table)
    steps = ["layer 0", "± at 0", "layer 1", "± at 1", "layer 2", "± at 2"]
    assert list(data.columns) == ["corpus", "model", *steps]
    row = data[(data["corpus"] == "animal") & (data["model"] == "gpt2-2m")].iloc[0]
    rows = table[(table["corpus"] == "animal") & (table["model"] == "gpt2-2m")]
    rows = rows[(rows["position"] == 8) & (rows["resolution"] == 0.18)]
    assert row[["layer 0", "layer 1", "layer 2"]].tolist() == pytest.approx(rows["ie_bits"].tolist())
    assert row[steps[1::2]].tolist() == pytest.approx(rows["ie_std_error"].tolist())  # what the bands are drawn from
    unknown = SWEEP_FIGURES[0].data(table.assign(ie_std_error=np.nan))
    assert list(unknown.columns) == ["corpus", "model", "layer 0", "layer 1", "layer 2"]


def test_controls_are_bands_and_what_is_not_above_them_is_hollow(table: pd.DataFrame) -> None:
    rows = controls_as_columns(table)
    rows.loc[(rows["model"] == "gpt2-2m") & (rows["layer"] == 0), "flags"] = FAILED
    panel = figures.by_depth(rows).axes[0]
    assert UNTRAINED not in {line.get_label() for line in panel.get_lines()}
    band = next(part for part in panel.collections if part.get_label() == "control: random weights")
    twin = table[(table["model"] == UNTRAINED) & (table["corpus"] == "animal") & (table["position"] == 8)]
    twin = twin[twin["resolution"] == 0.18].sort_values("layer")
    edges = np.concatenate([twin["ie_bits"] - 1.645 * 0.05, twin["ie_bits"] + 1.645 * 0.05])
    drawn = band.get_paths()[0].vertices
    assert {round(y, 9) for y in edges} == {round(y, 9) for y in drawn[:, 1]}
    hollow = [line for line in panel.get_lines() if line.get_markerfacecolor() == "none"]
    own = rows[(rows["model"] == "gpt2-2m") & (rows["corpus"] == "animal") & (rows["position"] == 8)]
    own = own[(own["resolution"] == 0.18) & (own["layer"] == 0)]
    assert own["ie_bits"].tolist() in [line.get_ydata().tolist() for line in hollow]
    assert "control: random weights" in [text.get_text() for text in panel.figure.legends[0].get_texts()]


def test_each_estimator_has_its_panel(table: pd.DataFrame) -> None:
    both = pd.concat([table, table.assign(estimator="predictive", ie_bits=table["ie_bits"] + 1)])
    titles = [axes.get_title() for axes in figures.by_depth(both).axes]
    assert titles == [f"{c}, {e}" for c in ("animal", "python-docs") for e in ("predictive", "sample-propagation")]
    data = SWEEP_FIGURES[0].data(both)
    assert list(data.columns[:3]) == ["corpus", "estimator", "model"]


def test_closed_models_stand_among_open_ones_with_intervals_and_controls(table: pd.DataFrame) -> None:
    rows = figure_rows(pd.concat([table, outputs(table)], ignore_index=True))
    figure = next(f for f in SWEEP_FIGURES if f.name == "emergence_of_the_output")
    panels = figure.draw(rows).axes
    assert [axes.get_title() for axes in panels] == [
        f"{c}, {e}" for c in ("animal", "python-docs") for e in ("output-20", "predictive-20")
    ]
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert sorted(names) == ["gemma-280k", "gpt-4o-mini", "gpt2-2m", "gpt2-30k"]
    assert names[0] == "gpt2-30k"  # the lowest at the bottom
    closed = [box for box in panels[0].containers if box.get_label() == "through an API"]
    assert len(closed) == 1
    middle, _, (bars,) = closed[0]
    drawn = rows[(rows["asked"] == "chat") & (rows["corpus"] == "animal") & (rows["estimator"] == "output-20")].iloc[0]
    assert middle.get_xdata().tolist() == [drawn["ie_bits"]]
    half = 1.645 * drawn["ie_std_error"]
    assert bars.get_segments()[0][:, 0] == pytest.approx([drawn["ie_bits"] - half, drawn["ie_bits"] + half])
    assert "control: random weights" in {box.get_label() for box in panels[0].containers}
    # the output is no block: other figures leave it out
    assert set(figures.depth_rows(rows)["estimator"]) == {"sample-propagation"}
    assert set(figures.position_rows(rows)["estimator"]) == {"sample-propagation"}
    assert {"asked", "ie_bits", "twin_ie_bits", "verdict"} <= set(figure.data(rows).columns)


def test_only_what_is_not_below_its_controls_is_in_the_law(table: pd.DataFrame) -> None:
    more = table[table["model"] == "gpt2-2m"]
    sizes = [more.assign(model=f"m{n}", parameters=n, ie_bits=more["ie_bits"] / 4) for n in (10**5, 10**6, 10**7)]
    low = pd.concat([table, *sizes], ignore_index=True)
    control = pd.concat([rows.assign(model=f"{rows['model'].iloc[0]}{TWIN}") for rows in sizes])
    free = figures.by_size(controls_as_columns(low)).axes[0].texts[0].get_text()
    tested = pd.concat([low, control], ignore_index=True)
    assert "6 models" in free
    assert "3 models" in figures.by_size(controls_as_columns(tested)).axes[0].texts[0].get_text()


def test_a_law_of_models_that_were_not_measured_alike_says_so(table: pd.DataFrame) -> None:
    def law(rows: pd.DataFrame) -> str:
        return "".join(text.get_text() for text in figures.by_size(rows).axes[0].texts)

    alike = table.assign(windows=600, corpus_hash="1", prefix="")
    assert "not measured in the same way" not in law(alike)
    few = alike.assign(windows=alike["windows"].where(alike["model"] != "gpt2-2m", 2000))
    assert "not measured in the same way:\nnumbers of windows differ (600 to 2,000)" in law(few)


def test_lists_are_marked_by_shots(table: pd.DataFrame) -> None:
    lists, text = figures.by_position(table).axes
    assert lists.get_xlabel() == "position t [tokens], a shot every 2"
    assert {2, 4, 6, 8} <= set(lists.get_xticks())
    assert text.get_xlabel() == "position t [tokens]"


def test_size_law_is_the_least_squares_line(table: pd.DataFrame) -> None:
    sizes = np.array([1e4, 1e5, 1e6, 1e7])
    rows = pd.DataFrame({"parameters": sizes, "emergence_bits": 0.5 + 0.25 * np.log10(sizes)})
    assert figures.size_law(rows) == pytest.approx((0.5, 0.25, 1.0))
    assert figures.size_law(rows.head(2)) is None
    panel = figures.by_size(table).axes[0]
    assert any("log10 N" in text.get_text() for text in panel.texts)
    drawn = np.concatenate([line.get_xdata() for line in panel.get_lines() if line.get_marker() in figures.MARKERS])
    assert np.sum(drawn == 30_000) == 1  # the twin is a control, no evidence on size


def test_estimators_without_resolution_leave_that_figure_out(table: pd.DataFrame) -> None:
    trained = table[table["resolution"] == 0.18].assign(resolution=pd.NA, estimator="mine")
    assert [f.name for f in SWEEP_FIGURES if len(f.rows(trained))] == [
        "emergence_by_depth",
        "emergence_by_position",
        "emergence_by_size",
    ]
    assert len(at_resolution(trained)) == len(trained)


def test_peaks_take_the_highest_block_at_the_last_position(table: pd.DataFrame) -> None:
    found = peaks(table).set_index(["model", "corpus"]).loc[("gpt2-2m", "animal")]
    rows = table[(table["model"] == "gpt2-2m") & (table["corpus"] == "animal") & (table["resolution"] == 0.18)]
    rows = rows[rows["position"] == 8]
    assert found["emergence_bits"] == rows["ie_bits"].max()
    assert found["peak_layer"] == rows.loc[rows["ie_bits"].idxmax(), "layer"]
    assert found["blocks"] == 3


def test_people_are_picked_out_among_models() -> None:
    texts = figures.texts(pd.DataFrame({"model": ["human", "m"], "ie": [1.0, 2.0]}), "ie").axes[0]
    assert [label.get_text() for label in texts.get_yticklabels()] == ["human", "m"]
    assert [line.get_label() for line in texts.get_lines()][:2] == ["models", "people"]


def test_svg_is_safe_coloured_by_the_page_and_always_the_same(table: pd.DataFrame) -> None:
    evil = table.assign(corpus="<script>alert('$x$')</script>")
    text = svg(lambda: figures.by_depth(evil), 'a "label" <b>')
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in text
    assert "currentColor" in text
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert text == svg(lambda: figures.by_depth(evil), 'a "label" <b>')
    assert png(figures.by_depth(table)) == png(figures.by_depth(table))


def test_few_rows_give_the_same_as_all(table: pd.DataFrame) -> None:
    broken = table.assign(ie_bits=table["ie_bits"].where(table["layer"] != 2))
    for whole in (
        table,
        broken,
        table.assign(resolution=pd.NA).drop_duplicates(["model", "corpus", "layer", "position"]),
    ):
        few = figure_rows(whole)
        whole = controls_as_columns(whole)
        assert len(few) < len(whole)
        pd.testing.assert_frame_equal(peaks(few), peaks(whole))
        for figure in SWEEP_FIGURES:
            pd.testing.assert_frame_equal(
                figure.rows(few).reset_index(drop=True), figure.rows(whole).reset_index(drop=True)
            )
    assert figure_rows(pd.DataFrame()).empty


def test_many_models_have_no_legend(job_rows) -> None:
    table = pd.concat([job_rows(f"m-{i}", "animal", parameters=1000 + i, blocks=2) for i in range(20)])
    figure = figures.by_depth(table)
    assert not figure.legends
    assert "20 models" in figure.axes[0].get_title()
    families = figures.by_size(table.assign(family=table["model"]))
    assert not families.legends
    assert png(families)  # drawn without a warning that there is no room
