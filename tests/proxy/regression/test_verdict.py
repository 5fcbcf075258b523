"""The verdict on a proxy: its left-out errors beside those of the baselines."""

import numpy as np
import pandas as pd
import pytest

from proxy import fit_proxy
from proxy.regression.verdict import verdict


def validation(own: float, mean: float, *, rows: int = 40, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=rows)
    signs = rng.choice([-1.0, 1.0], size=(2, rows))
    frame = pd.DataFrame({"truth": truth, "estimate": truth + own * signs[0], "mean": truth + mean * signs[1]})
    return frame, pd.Series([f"family{number % 8}" for number in range(rows)])


def test_errors_are_those_given_and_the_better_one_is_useful() -> None:
    found = verdict(*validation(0.2, 0.5))
    assert found.useful
    assert found.error == pytest.approx(0.2)  # every error is 0.2 by construction, as far as floats go
    assert found.comparisons[0].difference == pytest.approx(-0.3)
    assert (found.comparisons[0].lower, found.comparisons[0].upper) == (pytest.approx(-0.3), pytest.approx(-0.3))
    assert "better than every baseline: mean absolute error 0.2" in found.sentence
    assert "the references' mean 0.5 (difference -0.3" in found.sentence


def test_what_does_no_better_than_one_baseline_is_of_no_use() -> None:
    frame, groups = validation(0.4, 0.5)
    found = verdict(frame.assign(log_parameters=frame["truth"] + 0.1), groups)
    assert not found.useful
    assert [one.baseline for one in found.comparisons] == ["log_parameters", "mean"]  # the strongest first
    assert found.sentence.startswith("The proxy did no better than log parameters")
    assert found.sentence.endswith("Prefer that.")
    assert verdict(*validation(0.6, 0.5)).sentence.endswith("Do not use its estimates.")


def test_a_difference_that_could_be_chance_is_said_so() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=30)
    noise = rng.normal(size=30)
    frame = pd.DataFrame({"truth": truth, "estimate": truth + noise, "mean": truth + noise[::-1] * 1.02})
    found = verdict(frame, pd.Series(np.arange(30).astype(str)))
    assert found.useful
    assert found.comparisons[0].lower < 0 < found.comparisons[0].upper
    assert "(the difference could be chance)" in found.sentence


def test_a_proxy_that_is_a_baseline_is_judged_against_the_others() -> None:
    """From itself it cannot differ: the best single feature, .2 off, against the mean, .5 off."""
    frame, groups = validation(0.2, 0.5)
    found = verdict(frame.assign(best_feature=frame["estimate"]), groups, "best_feature")
    assert found.useful
    assert [one.baseline for one in found.comparisons] == ["mean"]
    assert found.sentence.startswith(
        "The proxy is the best single feature, and did better than every other baseline: mean"
    )
    frame = frame.assign(best_feature=frame["truth"] + 0.3, log_parameters=frame["estimate"])
    size = verdict(frame, groups, "log_parameters")
    assert size.useful
    assert size.sentence.startswith("The proxy is log parameters, and did better than every other baseline")
    worse = verdict(frame.assign(best_feature=frame["truth"] + 0.1), groups, "log_parameters")
    assert not worse.useful
    assert worse.sentence.startswith("The proxy is log parameters, and did no better than the best single feature")


def test_the_mean_is_of_no_use_whatever_its_error() -> None:
    frame, groups = validation(0.2, 0.2)
    found = verdict(frame.assign(best_feature=frame["truth"] + 0.5), groups, "mean")
    assert not found.useful
    assert found.sentence.startswith(
        "The proxy is the references' mean, because no feature predicts better: mean absolute error 0.2"
    )
    assert found.sentence.endswith("Do not use its estimates.")
    assert found.warning == "the proxy is the references' mean, whatever the model"


def test_groups_are_drawn_whole() -> None:
    """One family makes the whole difference: over families the interval must reach 0, over rows it would not."""
    truth = np.zeros(40)
    estimate = np.where(np.arange(40) < 10, 0.0, 1.0)
    frame = pd.DataFrame({"truth": truth, "estimate": estimate, "mean": 1.0})
    by_family = verdict(frame, pd.Series(np.repeat(list("abcd"), 10)))
    by_row = verdict(frame, pd.Series(np.arange(40).astype(str)))
    assert by_family.comparisons[0].upper == 0 > by_row.comparisons[0].upper


def test_a_fitted_proxy_carries_it_to_card_and_file(families, tmp_path, emergence) -> None:
    table = families(features=6)
    table.to_parquet(tmp_path / "references.parquet")
    command = ("--target", "bits", "--out", tmp_path / "proxy")
    done = emergence("fit", tmp_path / "references.parquet", *command)
    assert done.code == 0, done.err
    sentence = fit_proxy(table, target="bits").verdict.sentence
    assert sentence in " ".join(done.err.split())
    assert sentence in (tmp_path / "proxy" / "card.md").read_text(encoding="utf-8")
    estimated = emergence("estimate", tmp_path / "proxy", tmp_path / "references.parquet")
    assert sentence in " ".join(estimated.err.split())


def test_what_is_of_no_use_is_not_registered(families, tmp_path, emergence) -> None:
    table = families(features=6)
    rng = np.random.default_rng(0)
    for name in table.filter(like="behaviour."):
        table[name] = rng.normal(size=len(table))  # tells nothing of the target
    table.to_parquet(tmp_path / "references.parquet")
    store = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    command = ("fit", tmp_path / "references.parquet", "--target", "bits", "--register", "noise", *store)
    refused = emergence(*command, "--out", tmp_path / "refused")
    assert refused.code == 2
    assert "did no better than" in refused.err
    assert "Register it all the same with --anyway." in refused.err
    assert emergence(*command, "--out", tmp_path / "anyway", "--anyway").code == 0
    promoted = emergence("promote", "noise", *store)
    assert promoted.code == 2
    assert "did no better than its best baseline" in promoted.err
    assert emergence("promote", "noise", "--anyway", *store).code == 0


def test_every_estimate_of_a_proxy_of_no_use_says_so() -> None:
    rng = np.random.default_rng(0)
    noise = pd.DataFrame({"model": [f"m{n}" for n in range(12)], "behaviour.a": rng.normal(size=12), "bits": range(12)})
    proxy = fit_proxy(noise, target="bits", candidate="best_feature")
    assert not proxy.verdict.useful
    warning = proxy.verdict.warning
    assert warning is not None
    assert warning.removeprefix("the proxy ") in proxy.verdict.sentence
    assert proxy.predict(noise)["remarks"].str.startswith(warning).all()


def test_a_proxy_of_use_has_no_warning() -> None:
    assert verdict(*validation(0.2, 0.5)).warning is None
