import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy import Proxy, fit_proxy

Families = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def nine() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ability = np.tile(np.linspace(-1, 1, 5), 2)[:9]
    values = np.outer(ability, rng.normal(size=6)) + rng.normal(size=(9, 6)) * 0.1
    frame = pd.DataFrame(values, columns=[f"small.gpt2-30k.f{i}" for i in range(6)])
    frame.insert(0, "model", [f"m{i}" for i in range(9)])
    frame.insert(1, "family", ["a"] * 5 + ["b"] * 4)
    frame["parameters"] = (10 ** (5 + ability)).round()
    frame["bits"] = 2 + ability + rng.normal(size=9) * 0.05
    return frame


@pytest.fixture(scope="module")
def proxy(nine: pd.DataFrame) -> Proxy:
    return fit_proxy(nine, target="bits")


def test_nine_models_are_enough_and_the_law_is_found(proxy: Proxy) -> None:
    scores = proxy.scores.set_index("candidate")
    assert scores.loc["chosen", "rmse"] < 0.5 * scores.loc["mean", "rmse"]
    assert proxy.unit == "model"
    assert {"mean", "log_parameters", "best_feature"} <= set(proxy.validation.columns)
    estimate = proxy.predict(proxy.references)
    assert (estimate["lower"] < estimate["upper"]).all()
    assert estimate["in_domain"].all()


def test_left_out_rows_of_nine_have_no_ninety_per_cent_interval(proxy: Proxy) -> None:
    # eight remain, and the ninth-smallest of eight errors does not exist
    coverage = proxy.coverage.set_index("level")
    assert proxy.validation["lower"].isna().all()
    assert coverage.loc[0.9, "rows"] == 0
    assert coverage.loc[0.8, "rows"] == 9


@pytest.mark.parametrize("rows", [0, 3, 8])
def test_too_few_models_are_refused_with_the_reason(nine: pd.DataFrame, rows: int) -> None:
    with pytest.raises(InputError, match="no rows" if rows == 0 else r"at least 9 .*ceil\(\(n \+ 1\) x 0.9\)"):
        fit_proxy(nine.head(rows), target="bits")


def test_a_higher_level_needs_more_models(nine: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="at least 19 reference models, got 9"):
        fit_proxy(nine, target="bits", level=0.95)


def test_rows_of_one_model_count_once(nine: pd.DataFrame) -> None:
    doubled = pd.concat([nine.head(8), nine.head(1)])
    with pytest.raises(InputError, match="at least 9 reference models, got 8"):
        fit_proxy(doubled, target="bits")


def test_missing_features_are_named(proxy: Proxy, nine: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=re.escape("small.gpt2-30k.f3")):
        proxy.predict(nine.drop(columns="small.gpt2-30k.f3"))


def test_an_unseen_family_is_remarked(proxy: Proxy, nine: pd.DataFrame) -> None:
    strange = nine.head(1).assign(family="z")
    assert "not of a new family" in proxy.predict(strange)["remarks"].item()
    assert "not of a new family" not in proxy.predict(nine.head(1))["remarks"].item()


def test_a_family_that_is_named_and_new_gets_no_interval_where_models_were_left_out(
    proxy: Proxy, nine: pd.DataFrame
) -> None:
    strange = proxy.predict(nine.head(1).assign(family="z"), every_level=True)
    assert strange.filter(regex="^(estimate|lower|upper)").isna().all(axis=None)
    assert "withheld: left-out errors" in strange["remarks"].item()
    # of a closed model the family is mostly not known: the remark must do
    unnamed = proxy.predict(nine.head(1).drop(columns="family"))
    assert np.isfinite(unnamed["lower"]).all()
    assert "not of a new family" in unnamed["remarks"].item()


def test_a_model_without_features_is_outside(proxy: Proxy, nine: pd.DataFrame) -> None:
    found = proxy.predict(nine.head(1).assign(**dict.fromkeys(proxy.features, np.nan)))
    assert not found["in_domain"].item()
    assert found["lower"].isna().all()
    assert "withheld: " in found["remarks"].item()


def test_every_level_is_given_on_request(proxy: Proxy, nine: pd.DataFrame) -> None:
    found = proxy.predict(nine, every_level=True)
    assert "lower_50" not in proxy.predict(nine)
    assert (found["lower_90"] <= found["lower_80"]).all()
    assert (found["lower_80"] <= found["lower_50"]).all()
    assert (found["upper_90"] == found["upper"]).all()
    assert found["upper_95"].isna().all()  # nine models do not tell


def test_the_remark_names_the_families_that_the_level_needs(families: Families) -> None:
    table = families(12, 2, features=3)
    remarks = fit_proxy(table, target="bits", level=0.95, candidate="best_feature").remarks
    assert any("at least 19 families are needed at 95%" in remark for remark in remarks)
    assert not any("at least 9 families" in remark for remark in remarks)


def test_coverage_is_that_of_the_intervals_the_product_gives(families: Families) -> None:
    proxy = fit_proxy(families(10, 3, features=3), target="bits", candidate="best_feature")
    told = proxy.coverage.set_index("level").loc[0.8]
    assert told["rows_inside"] + told["rows_outside"] + told["withheld"] == 30
    assert told["rows_outside"] > 0
    outside = proxy.validation[~proxy.validation["in_domain"]]
    one = outside.iloc[0]
    kept = proxy.references[proxy.references["family"] != one["family"]]
    again = fit_proxy(kept, target="bits", candidate="best_feature")
    row = again.predict(proxy.references[proxy.references["model"] == one["model"]], every_level=True).iloc[0]
    assert not row["in_domain"]
    np.testing.assert_allclose(
        row[["lower_80", "upper_80"]].astype(float), one[["lower_80", "upper_80"]].astype(float), rtol=1e-9
    )


def test_far_out_models_get_a_wider_interval_then_none(proxy: Proxy, nine: pd.DataFrame) -> None:
    features = list(proxy.features)
    middle = nine[features].mean()
    rows = [nine.head(1).assign(**(middle + far * (nine[features].iloc[4] - middle))) for far in (0.5, 2.0, 30.0)]
    near, outside, far = (proxy.predict(row).iloc[0] for row in rows)
    assert near["in_domain"]
    assert not outside["in_domain"]
    assert not far["in_domain"]
    assert outside["upper"] - outside["lower"] > near["upper"] - near["lower"]
    assert np.isnan(far["lower"])
    assert np.isnan(far["estimate"])  # without an interval a number would be taken for more than it is
    assert "times as far out as any reference, by small." in far["remarks"]
    assert far["remarks"].count("(references ") == 3
    assert "pushed by" not in far["remarks"]


def test_another_level_is_given_where_there_are_intervals_of_it(proxy: Proxy, nine: pd.DataFrame) -> None:
    found = proxy.predict(nine, level=0.8, every_level=True)
    assert (found["lower"] == found["lower_80"]).all()
    assert (found["level"] == 0.8).all()
    with pytest.raises(InputError, match=r"has intervals at 0.5, 0.8, 0.9, 0.95; got level 0.7"):
        proxy.predict(nine, level=0.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(bits=np.nan), "None of the 9 models has a value of bits"),
        (lambda t: t.assign(bits=3.0), "the same bits"),
        (lambda t: t.drop(columns="bits"), "no target column bits"),
        (
            lambda t: t.rename(columns={"bits": "score"}).assign(**{"noise.output.j": 1.0, "score_std_error": 0.1}),
            r"no target column bits; the table has score\.$",
        ),
        (lambda t: t.drop(columns="model"), "needs the columns model"),
        (lambda t: t[["model", "family", "bits"]], "none of the 3 columns"),
        (lambda t: t.assign(**{"small.gpt2-30k.f0": "high"}), "small.gpt2-30k.f0 must hold numbers"),
        (lambda t: t.assign(**{"small.gpt2-30k.f0": np.inf}), "infinite"),
        (lambda t: t.assign(model=None), "needs a model name"),
    ],
)
def test_bad_tables_are_refused(nine: pd.DataFrame, change: Callable[..., pd.DataFrame], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_proxy(change(nine), target="bits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "outputs, scale"),
        ({"level": 90}, "between 0 and 1"),
        ({"bounds": (0.0, 1.0)}, "outside|bounds"),
        ({"bounds": (None, 1.0)}, "lower bound"),
        ({"candidate": "forest"}, "Unknown candidate"),
    ],
)
def test_bad_arguments_are_refused(nine: pd.DataFrame, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_proxy(nine, target="bits", **arguments)
