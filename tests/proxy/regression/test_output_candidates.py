"""The candidates for output features, and checkpoints that count as one run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy import fit_proxy
from proxy.features.provenance import ASKED, how_asked
from proxy.regression.candidates import OutputLine, Rows, SizeSurrogate, offered
from proxy.regression.links import Link
from proxy.regression.references import read_references


def _rows(n: int = 24) -> Rows:
    rng = np.random.default_rng(0)
    size = np.linspace(5, 9, n)
    Z = np.column_stack([(size - 7) / 1.2, rng.normal(size=n)])
    names = np.array([f"m{i}" for i in range(n)])
    families = np.where(np.arange(n) % 2, "a", "b")
    return Rows(Z, 0.5 * size - 2, np.ones(n), names, families, Link(), size)


def test_size_surrogate_goes_through_the_size() -> None:
    """Size = 7 + 1.2 z and y = .5 size - 2: y = 1.5 + .6 z, by both steps; ridge takes hardly anything off."""
    head = SizeSurrogate().fit(_rows())
    assert head.coef_ == pytest.approx([0.6, 0.0], abs=0.01)
    assert head.intercept_ == pytest.approx(1.5, abs=0.01)


def test_size_surrogate_learns_from_models_of_known_size_alone() -> None:
    rows = _rows()
    assert rows.sizes is not None
    rows.sizes[::3] = np.nan
    wrong = rows.y.copy()
    wrong[::3] += 5
    head = SizeSurrogate().fit(Rows(rows.Z, wrong, rows.weights, rows.groups, rows.families, rows.link, rows.sizes))
    assert head.coef_ == pytest.approx([0.6, 0.0], abs=0.01)
    unknown = SizeSurrogate().fit(Rows(rows.Z, rows.y, rows.weights, rows.groups, rows.families, rows.link))
    assert unknown.eta(rows.Z) == pytest.approx(np.full(len(rows.y), rows.y.mean()))


def test_output_line_shifts_known_families() -> None:
    rows = _rows()
    y = rows.y + np.where(rows.families == "a", 0.4, -0.4)
    head = OutputLine().fit(Rows(rows.Z, y, rows.weights, rows.groups, rows.families, rows.link))
    a, b = head.eta(np.zeros((2, 2)), np.array(["a", "b"]))
    assert a - b == pytest.approx(0.8, abs=0.1)


def test_they_are_offered_where_they_can_be_fitted() -> None:
    names = ["output.nll", "output.j"]
    assert "output_line" in offered(names, size=False, reference_size=False)
    assert "size_surrogate" not in offered(names, size=False, reference_size=False)
    assert {"output_line", "size_surrogate"} <= set(offered(names, size=False, reference_size=True))
    assert not {"output_line", "size_surrogate"} & set(offered(["behaviour.a"], size=False, reference_size=True))


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 12
    cost = np.linspace(3, 1, n)
    frame = pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(n)],
            "run": [f"m{i}" for i in range(n)],
            "family": ["a", "b"] * (n // 2),
            "meta.log_parameters": np.linspace(5, 8, n),
            "output.nll": cost,
            "output.j2_e": 3 - cost + rng.normal(size=n) * 0.02,
            "bits": 3 - cost + rng.normal(size=n) * 0.02,
        }
    )
    stages = pd.concat([frame.iloc[[0]].assign(model=f"m0@{i}", bits=9.0) for i in range(3)])
    return pd.concat([frame, stages], ignore_index=True)


def test_checkpoints_weigh_as_one_run_and_leave_together() -> None:
    read = read_references(_table(), target="bits", groups="family", mode="outputs")
    weights = pd.Series(read.weights).groupby(read.runs).sum()
    assert weights.to_numpy() == pytest.approx(np.full(12, weights.iloc[0]))
    proxy = fit_proxy(_table(), target="bits", candidate="mean")
    assert proxy.unit == "run"
    left_out = proxy.validation.set_index("model")["estimate"]
    assert left_out["m0"] == left_out["m0@1"]  # by the same fit, without the run
    others = _table().query("run != 'm0'")["bits"].mean()
    assert left_out["m0"] == pytest.approx(others)


def test_the_size_of_references_is_not_asked_of_other_models() -> None:
    table = _table().query("not model.str.contains('@')").drop(columns="run")
    proxy = fit_proxy(table, target="bits", candidate="size_surrogate")
    found = proxy.predict(pd.DataFrame({"model": ["x"], "output.nll": [2.0], "output.j2_e": [1.0]})).iloc[0]
    assert found["lower"] < 1.0 < found["upper"]
    assert found["estimate"] == pytest.approx(1.0, abs=0.2)


def test_features_of_another_source_are_refused_with_the_one_that_is_needed() -> None:
    """A proxy of next tokens is given answers, and the other way round."""
    said = _table().query("not model.str.contains('@')").drop(columns="run")
    answered = said.rename(columns={"output.nll": "small.gpt2-2m.nll", "output.j2_e": "behaviour.empty"})
    with pytest.raises(
        InputError, match=r"missing here: output\S+, output\S+; give what .* \(features --output TABLE\)\."
    ):
        fit_proxy(said, target="bits", candidate="mean").predict(answered)
    with pytest.raises(InputError, match=r"make the features of .* answers, read by gpt2-2m \(features --readers\)\."):
        fit_proxy(answered, target="bits", candidate="mean").predict(said)


def test_a_model_that_was_asked_in_another_way_is_refused() -> None:
    text = how_asked("python-docs", tokens=8, shown=20, chat=False)
    table = _table().query("not model.str.contains('@')").drop(columns="run").assign(**{ASKED: text})
    proxy = fit_proxy(table, target="bits", candidate="output_line")
    model = pd.DataFrame({"model": ["x"], "output.nll": [2.0], "output.j2_e": [1.0]})
    assert proxy.predict(model.assign(**{ASKED: text}))["estimate"].notna().all()
    unsaid = proxy.predict(model)  # of a table that does not say
    assert unsaid["estimate"].notna().all()
    assert "how its next tokens were asked for is not recorded" in unsaid["remarks"].item()
    assert "not recorded" not in proxy.predict(model.assign(**{ASKED: text}))["remarks"].item()
    unread = model.assign(**{"output.nll": pd.NA, "output.j2_e": pd.NA}).astype({"output.nll": "Float64"})
    assert "not recorded" not in proxy.predict(unread)["remarks"].item()
    unsaid_of_references = fit_proxy(table.drop(columns=ASKED), target="bits", candidate="output_line")
    assert "how the references' next tokens were asked for is not recorded" in (
        unsaid_of_references.predict(model.assign(**{ASKED: text}))["remarks"].item()
    )
    table.loc[1, ASKED] = None
    some = fit_proxy(table, target="bits", candidate="mean")
    assert "how the next tokens of m1 were asked for is not recorded" in some.remarks
    for other in (
        how_asked("python-docs", tokens=8, shown=20, chat=True),
        how_asked("python-docs", tokens=8, shown=5, chat=False),
        how_asked("animal", tokens=8, shown=20, chat=False),
    ):
        with pytest.raises(InputError, match=r"x was not asked and read .* what it says next was asked for otherwise"):
            proxy.predict(model.assign(**{ASKED: other}))
    table.loc[0, ASKED] = how_asked("python-docs", tokens=8, shown=20, chat=True)
    with pytest.raises(InputError, match="What references say next was not asked for in the same way"):
        fit_proxy(table, target="bits", candidate="mean")
