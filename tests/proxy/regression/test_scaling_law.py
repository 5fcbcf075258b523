"""Accuracies in one unit are learned from by the form of Observational Scaling Laws, gaps filled by one component."""

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy.regression.candidates import LAW
from proxy.regression.proxy import fit_proxy
from proxy.regression.regressor import GapFiller, ProxyRegressor


def leaderboard(models: int = 36, families: int = 9, seed: int = 0) -> pd.DataFrame:
    """Accuracies by three abilities, and a task that is a sigmoid of them, exactly."""
    rng = np.random.default_rng(seed)
    abilities = rng.normal(size=(models, 3)) * [1.0, 0.4, 0.2]
    loadings = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    accuracies = 0.5 + 0.15 * abilities @ loadings
    table = pd.DataFrame(accuracies, columns=[f"accuracy.{name}" for name in "ABCDEFGH"])
    return table.assign(
        model=[f"m{i}" for i in range(models)],
        family=[f"f{i % families}" for i in range(models)],
        score=1 / (1 + np.exp(-(2 * abilities[:, 0] - 3 * abilities[:, 1] - 1))),
    )


def test_the_law_is_taken_and_finds_a_sigmoid_of_three_abilities():
    proxy = fit_proxy(leaderboard(), target="score", bounds=(0.0, 1.0))
    assert proxy.chosen == LAW
    assert any("taken, not chosen" in remark for remark in proxy.remarks)
    scores = proxy.scores.set_index("candidate")["rmse"]
    assert scores["chosen"] == scores[LAW]
    assert scores["chosen"] < 1e-3  # nothing but the optimiser's end is between the law and the truth
    assert scores["chosen"] < 0.1 * scores["best_feature"]


@pytest.mark.parametrize(
    ("families", "bounds", "other"),
    [(6, (0.0, 1.0), {}), (9, (None, None), {}), (9, (0.0, 1.0), {"behaviour.length": np.arange(36.0)})],
)
def test_elsewhere_a_candidate_is_chosen(families, bounds, other):
    """With fewer than seven groups, a target without bounds, or features of another unit."""
    table = leaderboard(families=families).assign(**other)
    X = table.drop(columns=["model", "score"])
    one_unit = not other
    found = ProxyRegressor("auto", bounds, "family", "family", one_unit=one_unit).fit(X, table["score"])
    assert found.chosen_ != LAW
    assert (LAW in found.scores_) == one_unit


def test_a_gap_is_filled_from_what_else_is_known():
    rng = np.random.default_rng(1)
    X = 0.5 + 0.1 * np.outer(rng.normal(size=30), [1.0, 2.0, -1.0])  # one ability, exactly
    gaps = X.copy()
    gaps[3, 1] = gaps[7, 2] = np.nan
    np.testing.assert_allclose(GapFiller().fit(gaps).transform(gaps), X, atol=1e-5)  # it stops below 1e-7 a sweep


def test_shares_and_percentages_are_not_mixed():
    table = leaderboard()
    with pytest.raises(InputError, match=r"accuracy\.B reaches"):
        fit_proxy(table.assign(**{"accuracy.A": 100 * table["accuracy.A"]}), target="score", bounds=(0.0, 1.0))
    with pytest.raises(InputError, match="lies between 0 and 1"):
        fit_proxy(table.assign(**{"accuracy.A": table["accuracy.A"] - 1}), target="score", bounds=(0.0, 1.0))
