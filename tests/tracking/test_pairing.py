"""Differences of models that were read on the same windows: their errors against what many draws show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.contracts.variances import mean_variance
from tracking import track
from tracking.comparison import compare
from tracking.pairing import mean_error, paired_error


def windows(values: np.ndarray, share: np.ndarray | None = None) -> pd.DataFrame:
    count = len(values)
    share = np.full(count, 1 / count) if share is None else share
    return pd.DataFrame({"window": range(count), "share": share, "ie_bits": values})


def own_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


@given(st.integers(2, 40), st.integers(0, 1000))
def test_equal_weights_give_the_paired_t_test(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, count))
    found = paired_error(windows(a), own_error(a), windows(b), own_error(b))
    assert found == pytest.approx(own_error(b - a), rel=1e-9)


def test_what_both_share_cancels_and_own_noise_adds() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(3, 2, 500)
    same = paired_error(windows(common), own_error(common), windows(common + 0.3), own_error(common))
    assert same == pytest.approx(0, abs=1e-6)
    noisy = np.hypot(own_error(common), 0.04)  # noise that the spread over windows does not show
    assert paired_error(windows(common), noisy, windows(common), noisy) == pytest.approx(0.04 * np.sqrt(2), rel=1e-6)


def test_the_error_is_the_spread_over_draws_of_windows() -> None:
    """Over 400 draws of 200 weighted windows each, the error is right within its binomial scatter, about 1 in 20."""
    rng = np.random.default_rng(1)
    differences, errors = [], []
    for _ in range(400):
        weight = rng.integers(1, 4, 200).astype(float)
        share = weight / weight.sum()
        common, a, b = rng.normal(size=(3, 200))
        left, right = 2 * common + 0.3 * a, 2 * common + 0.3 * b
        sides = []
        for values in (left, right):
            mean = share @ values
            sides.append(float(np.sqrt(share**2 @ (values - mean) ** 2 * 200 / 199)))
        found = paired_error(windows(left, share), sides[0], windows(right, share), sides[1])
        assert found is not None
        assert found < sides[0] / 3  # far below what taking the sides as independent gives
        errors.append(found)
        differences.append(share @ (right - left))
    assert np.std(differences) / np.mean(errors) == pytest.approx(1, abs=0.15)  # four times 1/sqrt(2 * 400)


def test_the_mean_of_models_is_no_surer_than_the_windows_they_share() -> None:
    """Three models whose values share half of their variance, over 400 draws of 200 windows in 40 documents."""
    rng = np.random.default_rng(3)
    documents = np.repeat(np.arange(40), 5)
    means, errors, separate = [], [], []
    for _ in range(400):
        common = rng.normal(size=40)[documents] + rng.normal(size=200)
        sides = [windows(common + rng.normal(size=200)).assign(document=documents) for _ in range(3)]
        alone = [np.sqrt(mean_variance(side["ie_bits"].to_numpy(), np.full(200, 1 / 200), documents)) for side in sides]
        means.append(np.mean([side["ie_bits"].mean() for side in sides]))
        errors.append(mean_error(sides, alone))
        separate.append(np.hypot(np.hypot(alone[0], alone[1]), alone[2]) / 3)
    assert np.std(means) / np.mean(errors) == pytest.approx(1, abs=0.15)  # four times 1/sqrt(2 * 400)
    assert np.mean(separate) < 0.8 * np.mean(errors)  # what independent models would have
    assert mean_error([sides[0], sides[1].iloc[:100]], [0.1, 0.3]) == 0.2  # other windows: as if moving together


def test_other_windows_do_not_pair() -> None:
    values = np.arange(4.0)
    moved = windows(values).assign(window=[1, 2, 3, 4])
    heavier = windows(values, np.array([0.1, 0.2, 0.3, 0.4]))
    for other in (moved, heavier, windows(values[:3]), pd.DataFrame()):
        assert paired_error(windows(values), 1.0, other, 1.0) is None


@pytest.fixture
def read_alike(small, tmp_path: Path, job_rows):
    """Two sweeps of one model on the same windows, the second 0.3 bits above the first at each of them."""
    rng = np.random.default_rng(2)
    values = rng.normal(2, 1, 100)
    sweeps = []
    for name, more in (("first", 0.0), ("second", 0.3)):
        made = type(small)(tmp_path / name, name)
        rows = job_rows("gpt2-30k", "animal", parameters=30_000, blocks=3)
        rows["ie_std_error"] = own_error(values)
        rows["ie_bits"] += more
        made.done("gpt2-30k", "animal", rows)
        each = [windows(values + more).assign(layer=2, resolution=rho) for rho in (0.06, 0.18)]
        made.windows("gpt2-30k", "animal", pd.concat(each, ignore_index=True))
        sweeps.append(made)
    return sweeps


def test_runs_on_the_same_windows_are_paired_from_folders_and_from_mlflow(
    read_alike, fresh_sqlite, tmp_path: Path
) -> None:
    uri = fresh_sqlite(tmp_path)
    tracked = [track(sweep.folder, tracking_uri=uri) for sweep in read_alike]
    folders = [str(sweep.folder) for sweep in read_alike]
    sweeps = [one.run_id for one in tracked]
    jobs = [run for one in tracked for run in one.children.values()]
    for runs in (folders, sweeps, jobs, [folders[0], jobs[1]]):
        row = compare(runs, tracking_uri=uri).table.iloc[0]
        assert row["errors"] == "paired"
        assert row["difference"] == pytest.approx(0.3)
        assert row["std_error"] == pytest.approx(0, abs=1e-6)
    coarse = compare(folders, resolution=0.5).table.iloc[0]  # of which no windows were kept
    assert coarse["errors"] == "unpaired"
    assert coarse["std_error"] > 0.1


def test_other_text_is_not_paired(read_alike) -> None:
    path = next((read_alike[1].folder / "jobs").glob("*.parquet"))
    pd.read_parquet(path).assign(corpus_hash="f" * 16).to_parquet(path)
    assert compare([str(sweep.folder) for sweep in read_alike]).table["errors"].tolist() == ["unpaired"]


@pytest.mark.parametrize("estimator", ["predictive", "sample-propagation"])
def test_each_estimator_pairs_by_its_own_windows(small, tmp_path: Path, job_rows, estimator: str) -> None:
    """The predictive observer has no resolution; both were measured in one job."""
    values = np.random.default_rng(6).normal(2, 1, 100)
    folders = []
    for name, more in (("first", 0.0), ("second", 0.3)):
        made = type(small)(tmp_path / name, name)
        rows = job_rows("gpt2-30k", "animal", parameters=30_000, blocks=3, resolutions=(0.18,))
        rows = rows.assign(ie_std_error=own_error(values), ie_bits=rows["ie_bits"] + more)
        both = [rows, rows.assign(estimator="predictive", resolution=np.nan)]
        made.done("gpt2-30k", "animal", pd.concat(both, ignore_index=True))
        read = windows(values + more).assign(layer=2)
        of_both = [
            read.assign(estimator="predictive", resolution=np.nan),
            read.assign(estimator="sample-propagation", resolution=0.18, ie_bits=read["ie_bits"] * 2),
        ]
        made.windows("gpt2-30k", "animal", pd.concat(of_both, ignore_index=True))
        folders.append(str(made.folder))
    row = compare(folders).table.set_index("estimator").loc[estimator]
    assert row["errors"] == "paired"
    assert row["difference"] == pytest.approx(0.3)
    assert row["std_error"] == pytest.approx(0, abs=1e-6)
