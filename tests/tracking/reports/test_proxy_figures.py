"""Figures of proxies and estimates: every model at its place, every name where it has room."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation, Text

from tracking.reports.proxy_figures import beside_baselines, parity


def test_parity_draws_estimates_against_truth_and_names_them() -> None:
    frame = pd.DataFrame({"truth": [1.0, 2.0], "estimate": [1.1, 1.9], "lower": [1.0, np.nan], "upper": [1.5, np.nan]})
    axes = parity(frame.assign(family=["a", "b"], model=["first", "second"])).axes[0]
    points = sorted((x, y) for line in axes.get_lines() if line.get_marker() != "None" for x, y in line.get_xydata())
    assert points == [(1.0, 1.1), (2.0, 1.9)]
    assert {text.get_text(): tuple(text.xy) for text in axes.texts} == {"first": (1.0, 1.1), "second": (2.0, 1.9)}
    assert not parity(frame).axes[0].texts  # models without a name


@pytest.mark.parametrize("count", [12, 60])
def test_names_lie_on_nothing(count: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=count)
    estimate = truth + 0.2 * rng.normal(size=count)
    estimate[3] = truth[3] + 3
    frame = pd.DataFrame({"truth": truth, "estimate": estimate, "lower": estimate - 0.3, "upper": estimate + 0.3})
    frame = frame.assign(family="f", model=[f"{row} a-model-of-an-organisation-instruct" for row in range(count)])
    figure = parity(frame)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(names) >= 10
    assert any(text.get_text().startswith("3 ") for text in names)  # the largest miss is named
    boxes = [Text.get_window_extent(text) for text in names]  # without the lines that lead to those farther away
    led = [text.arrow_patch is not None for text in names]
    assert any(led) if count == 60 else not all(led)  # where there is room, names stand at their points
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    spots = axes.transData.transform(np.column_stack([truth, estimate]))
    assert not [spot for spot in spots for box in boxes if box.contains(*spot)]


def test_estimates_stand_beside_their_baselines() -> None:
    frame = pd.DataFrame({"model": ["b", "a"], "truth": [2.0, 1.0], "estimate": [1.9, 1.2], "mean": [1.5, 1.6]})
    frame = frame.assign(lower=frame["estimate"] - 0.1, upper=frame["estimate"] + 0.1)
    axes = beside_baselines(frame, {"mean": "their mean", "log_parameters": "size"}).axes[0]
    lines = {line.get_label(): line.get_xdata().tolist() for line in axes.get_lines()}
    assert lines == {"measured": [1.0, 2.0], "estimated (bar: interval)": [1.2, 1.9], "their mean": [1.6, 1.5]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
