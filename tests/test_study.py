"""The study's rules give the answer that made-up measurements ask for, and the whole of it runs and repeats itself."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FIGURES = ("agreement", "bound", "depth", "levelling", "shots", "size", "spread", "token")
SIZES = {"30k": 3e4, "90k": 9e4, "280k": 2.8e5}


@pytest.fixture
def study(monkeypatch):
    """The modules that judge: the rules, and the claims about sizes and tokens, about lists, and about observers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import paper_claims
    import paper_list_claims
    import paper_observer_claims
    import paper_rules
    import paper_text

    return SimpleNamespace(
        rules=paper_rules,
        claims=paper_claims,
        lists=paper_list_claims,
        observers=paper_observer_claims,
        text=paper_text,
    )


def table(
    bits, corpus="python-docs", windows=1000, positions=8, twins=lambda number, layer, t: number / 1000, spread=None
):
    """An emergence table of three sizes, `bits(size number, layer, position)` for models and `twins` for theirs."""
    rows = []
    for number, (size, parameters) in enumerate(SIZES.items()):
        for value, suffix in ((bits, ""), (twins, "~random")):
            for layer in range(3):
                for t in range(1, positions + 1):
                    rows.append(
                        {
                            "model": f"gpt2-{size}{suffix}",
                            "family": "gpt2",
                            "parameters": parameters,
                            "corpus": corpus,
                            "corpus_hash": corpus,
                            "windows": windows,
                            "layer": layer,
                            "position": t,
                            "resolution": 0.18,
                            "ie_bits": float(value(number, layer, t)),
                            "ie_std_error": 0.01,
                            "ie_sample_std": 1.0 if spread is None else spread(t),
                            "macro_bits": 0.0,
                            "micro_bits": 0.0,
                            "macro_ceiling_bits": float(min(t, 6)),
                        }
                    )
    return pd.DataFrame(rows)


def size_of(study, made, tmp_path):
    return study.claims.by_size(made, tmp_path).verdict


def test_growth_with_size_holds_fails_or_is_shared_by_the_control(study, tmp_path):
    def grows(number, layer, t):
        return number + layer

    assert size_of(study, table(grows), tmp_path) == study.rules.HOLDS
    assert size_of(study, table(grows, twins=lambda n, layer, t: 0.6 * n), tmp_path) == study.rules.IN_CONTROL
    assert size_of(study, table(lambda n, layer, t: -n), tmp_path) == study.rules.FAILS
    assert size_of(study, table(lambda n, layer, t: [0, 2, 1][n]), tmp_path) == study.rules.UNKNOWN
    assert (tmp_path / "study_size.png").exists()


def at_two_scales(study, in_real_twins):
    """Three bundled models, and as many of a real family whose twins show `in_real_twins` bits, by both observers."""
    made = table(lambda n, layer, t: n + t)
    real = table(lambda n, layer, t: 20 + n + t, twins=lambda n, layer, t: in_real_twins + n / 1000)
    real = real.assign(
        model=real["model"].str.replace("gpt2", "real"), family="real", parameters=real["parameters"] * 1e3
    )
    both = pd.concat([made, real], ignore_index=True).assign(flags="", estimator="sample-propagation")
    following = both.assign(resolution=np.nan, estimator="predictive")
    return study.rules.Study(main=both, next=following)


def test_what_large_models_change_is_said_from_the_numbers(study, tmp_path):
    for twins, learned, above, so in (
        (0.0, "3 of 3 real models", "6 of 6 models lie above both", "So larger models make more of a context"),
        (40.0, "0 of 3 real models", "3 of 6 models lie above both", "So what this observer says of the bundled"),
    ):
        found = at_two_scales(study, twins)
        said = study.text.scales(found, study.claims.judge_all(found, tmp_path))
        assert learned in said
        assert so in said
        study.text.write_predictive_study([], found, tmp_path / "next.md")
        assert above in (tmp_path / "next.md").read_text()
        assert "from 0 million to 280 million parameters" in said
        assert "10.00 (gpt2-280k)" in said  # the largest of its family: 2 + 8
        assert "28.00 (real-30k), 29.00 (real-90k), 30.00 (real-280k)" in said
        assert "| Emergence rises with the size of the model | holds | holds | holds | holds |" in said


def test_the_page_of_the_predictive_observer_counts_what_lies_above_its_controls(study, tmp_path):
    found = at_two_scales(study, 0.0)
    claims = study.claims.judge_all(study.rules.Study(main=found.next), tmp_path)
    study.text.write_predictive_study(claims, found, tmp_path / "page.md")
    assert "6 of 6 models lie above both of their controls" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_models_of_one_scale_say_nothing_of_another(study, tmp_path):
    made = table(lambda n, layer, t: n + t).assign(flags="", estimator="sample-propagation")
    found = study.rules.Study(main=made, next=made.assign(resolution=np.nan, estimator="predictive"))
    assert study.text.scales(found, study.claims.judge_all(found, tmp_path)) == ""


def test_a_model_read_at_its_last_token_alone_says_nothing_of_tokens(study, tmp_path):
    rising = table(lambda n, layer, t: t)
    last = rising[rising["position"] == 8].assign(model=lambda rows: "lone-" + rows["model"])
    found = study.claims.by_token(pd.concat([rising, last]), tmp_path)
    assert found.verdict == study.rules.HOLDS
    assert not found.numbers["model"].str.startswith("lone").any()


def test_architectures_of_one_size_say_nothing_of_size(study, tmp_path):
    one = table(lambda n, layer, t: n)
    lone = one[one["model"].str.contains("30k")].assign(model="llama-3b", family="llama")
    assert size_of(study, pd.concat([one, lone]), tmp_path) == study.rules.HOLDS
    assert size_of(study, lone, tmp_path) == study.rules.UNKNOWN


def test_a_text_is_held_against_its_own_control(study, tmp_path):
    rising = table(lambda n, layer, t: t)
    other = table(lambda n, layer, t: t, twins=lambda n, layer, t: t, corpus="other text")
    both = study.claims.by_token(pd.concat([rising, other]), tmp_path).numbers
    controls = study.rules.only(both, study.rules.RANDOM).set_index("corpus")["rise"].astype(float)
    assert (controls["other text"] == 7).all()
    assert (controls["python-docs"] == 0).all()


def test_growth_token_by_token(study, tmp_path):
    def verdict(bits, twins=lambda n, layer, t: 0.0):
        return study.claims.by_token(table(bits, twins=twins), tmp_path).verdict

    assert verdict(lambda n, layer, t: t) == study.rules.HOLDS
    assert verdict(lambda n, layer, t: t, twins=lambda n, layer, t: t) == study.rules.IN_CONTROL
    assert verdict(lambda n, layer, t: min(t, 4)) == study.rules.UNKNOWN  # stops half-way
    assert verdict(lambda n, layer, t: -t) == study.rules.FAILS


def shots(bits, **options):
    return table(bits, corpus="country", positions=24, **options)


def test_a_staircase_is_told_from_a_slope_and_a_saw(study, tmp_path):
    def verdict(bits, twins=lambda n, layer, t: 0.0):
        return study.lists.staircase(shots(bits, twins=twins), tmp_path).verdict

    def stairs(n, layer, t):
        return (t + 1) // 2

    assert verdict(stairs) == study.rules.HOLDS
    assert verdict(stairs, twins=stairs) == study.rules.IN_CONTROL
    assert verdict(lambda n, layer, t: t) == study.rules.FAILS
    assert verdict(lambda n, layer, t: t % 2) == study.rules.FAILS  # up at the entity, down at the comma


def test_levelling_needs_a_rise_and_is_held_against_the_ceiling(study, tmp_path):
    def verdict(bits):
        return study.lists.levelling(shots(bits), tmp_path).verdict

    assert verdict(lambda n, layer, t: min(t, 12)) == study.rules.HOLDS  # levels at shot 6, the ceiling at shot 3
    assert verdict(lambda n, layer, t: min(t, 6)) == study.rules.IN_CONTROL  # with the ceiling
    assert verdict(lambda n, layer, t: t) == study.rules.FAILS  # goes on to the last shot
    assert verdict(lambda n, layer, t: 0.0) == study.rules.FAILS  # nothing rises


@pytest.mark.parametrize(("curve", "shot"), [([0, 5, 10, 10], 3), ([-3, -2, -1], 3), ([4, 3, 2], 1), ([1, 1], 1)])
def test_where_a_curve_levels_off(study, curve, shot):
    assert study.lists.levelled(curve) == shot


def test_spread_peaks_where_growth_stops_or_elsewhere(study, tmp_path):
    def verdict(peak):
        made = shots(lambda n, layer, t: min(t, 12), spread=lambda t: -abs(t - peak))
        return study.lists.spread(made[~made["model"].str.endswith("~random")], tmp_path).verdict

    assert verdict(12) == study.rules.HOLDS
    assert verdict(24) == study.rules.FAILS


def test_observers_agree_or_not(study, tmp_path):
    fine = table(lambda n, layer, t: n)
    same = pd.concat([fine, fine.assign(resolution=0.5)])
    other = pd.concat([fine, fine.assign(resolution=0.5, ie_bits=-fine["ie_bits"])])
    found = [study.observers.ranking(made, pd.DataFrame(), tmp_path) for made in (same, other)]
    assert [claim.verdict for claim in found] == [study.rules.HOLDS, study.rules.FAILS]
    assert np.isclose(found[1].numbers.iloc[0, 2], -1)
    alone = study.observers.ranking(fine, pd.DataFrame(), tmp_path)
    assert alone.verdict == study.rules.UNKNOWN  # one observer agrees with itself


def test_shuffled_windows_are_a_control_of_their_model(study, tmp_path):
    rising = table(lambda n, layer, t: t)
    model = rising[~rising["model"].str.endswith("~random")]
    for share, verdict in ((0.4, study.rules.HOLDS), (0.6, study.rules.IN_CONTROL)):
        control = model.assign(corpus="python-docs, shuffled", ie_bits=share * model["ie_bits"])
        found = study.claims.by_token(pd.concat([rising, control]), tmp_path)
        assert found.verdict == verdict
        assert found.numbers.groupby("case")["rise"].max()["shuffled"] == pytest.approx(7 * share)


def test_an_interval_is_that_of_the_errors(study):
    """The mean of 100 numbers with errors of 1 has one of 0.1, and 90 % of draws lie within 1.64 of it."""
    low, high = map(float, study.rules.interval(np.mean, np.full(100, 5.0), np.ones(100)).split(" to "))
    # quantiles of 1,000 draws err by sqrt(.05 x .95 / 1000) / density = .007 / 1.03 of a standard error; four of them
    assert low == pytest.approx(5 - 0.1645, abs=0.03)
    assert high == pytest.approx(5 + 0.1645, abs=0.03)
    assert study.rules.interval(study.lists.levelled, [0, 5, 10, 10], np.zeros(4)) == "3 to 3"


def test_the_error_of_a_spread_is_that_of_normal_windows(study):
    """Against the spread of the standard deviations of 4,000 samples of 50 normal numbers."""
    samples = np.random.default_rng(0).normal(0, 2, (4000, 50)).std(axis=1, ddof=1)
    made = pd.DataFrame({"ie_sample_std": [2.0], "ie_std_error": [2.0 / np.sqrt(50)]})
    # an estimate of a spread from 4,000 errs by 1 / sqrt(8000) = .011 of it; four of these, and the formula's 1 / (4n)
    assert study.lists.spread_error(made)[0] == pytest.approx(samples.std(), rel=0.05)


def test_the_papers_estimator_is_held_against_its_ceiling_in_every_run(study, tmp_path):
    def verdict(maxima):
        rows = [
            {"model": "gpt2-30k", "pairs": "true", "seed": seed, "max": one, "last": one, "held_out": 1.0}
            for seed, one in enumerate(maxima)
        ]
        made = study.rules.with_cases(pd.DataFrame(rows).assign(ceiling=2.0, epochs=3, samples=40))
        return study.observers.preset(made, tmp_path).verdict

    assert verdict([2.0, 2.04, 2.02]) == study.rules.HOLDS
    assert verdict([2.3, 2.31, 2.32]) == study.rules.FAILS
    assert verdict([0.1, 0.2, 2.5]) == study.rules.FAILS  # a bound that one run passes is none


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_study_runs_and_repeats_itself(tmp_path):
    pages = []
    for run in ("one", "two"):
        command = [
            sys.executable,
            BENCHMARKS / "paper.py",
            "--results",
            tmp_path / run,
            "--out",
            tmp_path / f"{run}-out",
        ]
        command += ["--models", "gpt2-30k", "gpt2-90k", "gemma-30k", "gemma-90k", "--windows", "120"]
        command += ["--next-windows", "150", "--queries", "60", "--samples", "60", "--epochs", "2"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        names = ("study.md", "study-predictive.md")
        pages.append([(tmp_path / f"{run}-out" / name).read_text(encoding="utf-8") for name in names])
    assert pages[0] == pages[1]
    figures = sorted(path.name for path in (tmp_path / "one-out" / "images").glob("*.png"))
    assert figures == ["depth.png", *(f"study_{name}.png" for name in FIGURES)]
    for figure in figures:
        assert (tmp_path / "one-out/images" / figure).read_bytes() == (
            tmp_path / "two-out/images" / figure
        ).read_bytes()


def test_no_benchmark_hides_a_package_from_the_others():
    packages = {"estimators", "extraction", "proxy", "ray_configs", "tracking"}
    assert not packages & {path.stem for path in BENCHMARKS.glob("*.py")}


def test_controls_beside_a_model_are_judged_as_controls(study, tmp_path):
    rising = table(lambda n, layer, t: t)
    model = rising[~rising["model"].str.endswith("~random")]
    for share, verdict in ((0.4, study.rules.HOLDS), (0.6, study.rules.IN_CONTROL)):
        columns = {"twin_ie_bits": 0.0, "shuffled_ie_bits": share * model["ie_bits"]}
        columns |= {"twin_ie_std_error": 0.01, "shuffled_ie_std_error": 0.01}
        made = study.rules.with_controls_as_rows(model.assign(resolution=np.nan, estimator="predictive", **columns))
        assert len(made) == 3 * len(model)
        found = study.claims.by_token(made, tmp_path)
        assert found.verdict == verdict
        assert set(found.numbers["case"]) == set(study.rules.CASES)
