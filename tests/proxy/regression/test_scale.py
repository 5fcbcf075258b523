import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy.regression.references import SIZE
from proxy.regression.scale import DEPTHS, leave_largest_out, predict_profile, profiles


def emergence_table(shift: float = 0.4, noise: float = 0.02) -> pd.DataFrame:
    """Two families whose E(l) is a family's height plus one slope in log size, bent over depth; 3 or 5 blocks."""
    rng = np.random.default_rng(0)
    rows = []
    for family, height, blocks in (("a", 0.0, 3), ("b", shift, 5)):
        for size in (4.0, 4.5, 5.0, 5.5, 6.0, 6.5):
            for layer in range(blocks):
                depth = layer / (blocks - 1)
                rows.append(
                    {
                        "model": f"{family}-{size}",
                        "family": family,
                        "parameters": round(10**size),
                        "corpus": "text",
                        "layer": layer,
                        "position": 8,
                        "resolution": 0.18,
                        "ie_bits": height + 0.5 * size * (1 + depth) + rng.normal() * noise,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def references() -> pd.DataFrame:
    return profiles(emergence_table(), resolution=0.18)


def test_blocks_are_aligned_by_relative_depth(references: pd.DataFrame) -> None:
    by_model = references.set_index("model")
    assert len(references) == 12
    # 0.5 x 6 bits at the first block, twice that at the last, whatever the number of blocks; noise 0.02
    for model, height in (("a-6.0", 0.0), ("b-6.0", 0.4)):
        expected = height + 3.0 * (1 + np.array(DEPTHS))
        np.testing.assert_allclose(by_model.loc[model, list(DEPTHS)].astype(float), expected, atol=0.08)


def test_the_largest_siblings_are_predicted_better_than_by_the_baselines(references: pd.DataFrame) -> None:
    found = leave_largest_out(references)
    assert found["model"].unique().tolist() == ["a-6.5", "b-6.5"]
    error = {
        name: np.sqrt(np.mean((found[name] - found["truth"]) ** 2))
        for name in ("estimate", "mean", "log_parameters", "sibling")
    }
    # the line is exact up to the noise of 0.02; shrinking costs about as much again
    assert error["estimate"] < 0.1
    assert error["estimate"] < min(error["mean"], error["log_parameters"], error["sibling"])
    inside = (found["lower"] <= found["truth"]) & (found["truth"] <= found["upper"])
    assert inside.mean() >= 0.7  # of 18 dependent depths; jackknife+ promises .8 at least


def test_the_largest_is_predicted_without_any_model_of_its_size() -> None:
    # at the largest size everything jumps: whoever sees another family's largest knows, whoever extrapolates does not
    table = emergence_table(noise=0.0)
    table["ie_bits"] += np.where(table["parameters"] > 10**6.2, 50.0, 0.0)
    found = leave_largest_out(profiles(table, resolution=0.18))
    without = leave_largest_out(profiles(emergence_table(noise=0.0), resolution=0.18))
    for name in ("estimate", "lower", "upper", "mean", "log_parameters"):
        np.testing.assert_allclose(found[name], without[name], rtol=1e-9)


def test_too_few_smaller_models_give_estimates_without_intervals() -> None:
    table = emergence_table()
    found = leave_largest_out(profiles(table[table["parameters"] > 10**4.2], resolution=0.18))  # 8 smaller ones remain
    assert np.isfinite(found["estimate"]).all()
    assert found["lower"].isna().all()


def test_an_unknown_family_is_remarked(references: pd.DataFrame) -> None:
    found = predict_profile(references, family="c", parameters=1e6)
    assert found["remarks"].str.contains("no sibling of c").all()
    # on public data such intervals held .42 of the depths of an architecture that was left out
    assert found[["lower", "upper"]].isna().all(axis=None)
    assert np.isfinite(found["estimate"]).all()


def test_far_larger_models_get_no_interval(references: pd.DataFrame) -> None:
    found = predict_profile(references, family="a", parameters=1e12)
    assert found["lower"].isna().all()
    assert not found["in_domain"].any()
    assert np.isfinite(found["estimate"]).all()


def test_bad_input(references: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="at least 9"):
        predict_profile(references.head(8), family="a", parameters=1e6)
    with pytest.raises(InputError, match="positive"):
        predict_profile(references, family="a", parameters=0)
    table = emergence_table()
    with pytest.raises(InputError, match="one corpus"):
        profiles(pd.concat([table, table.assign(corpus="other")]), resolution=0.18)
    with pytest.raises(InputError, match="number of parameters"):
        profiles(table.assign(parameters=np.nan), resolution=0.18)
    with pytest.raises(InputError, match="No family has two sizes"):
        leave_largest_out(references.groupby("family").head(1))
    assert SIZE in references.columns
