"""Ability and components by single windows: a known law is found again, and nobody is placed by himself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from proxy.features.continuations import COMPONENTS, fit_items, place, reference_features

WINDOWS = 1500
NAMES = [f"m{i}" for i in range(10)] + ["m1@25"]
RUNS = {name: name.partition("@")[0] for name in NAMES}
ABILITY = {name: -1.5 + 0.3 * i for i, name in enumerate(NAMES)}
TASTE = {name: np.cos(i) for i, name in enumerate(NAMES)}  # of the second kind of window against the first


def answers(names: list[str] = NAMES, seed: int = 0, windows: int = WINDOWS) -> pd.DataFrame:
    """Right with the chance of a Rasch model; costs of a mean each, windows and models, one component, and noise .3."""
    items = np.random.default_rng(1)
    difficulty, sort = items.normal(size=windows), items.choice([-1.0, 1.0], size=windows)
    rng = np.random.default_rng(seed)
    parts = []
    for name in names:
        chance = 1 / (1 + np.exp(difficulty - ABILITY.get(name, 0.9)))
        cost = 4 + difficulty - ABILITY.get(name, 0.9) + TASTE.get(name, 0.5) * sort
        parts.append(
            pd.DataFrame(
                {
                    "model": name,
                    "window": [f"w{j}" for j in range(windows)],
                    "right": (rng.random(windows) < chance).astype(float),
                    "cost_bits": cost + 0.3 * rng.normal(size=windows),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_abilities_and_components_are_found_again() -> None:
    """The error of an ability is about 1 / sqrt(1500 * .2) = .06 logits, of a component .3 / sqrt(1500) = .008 bits."""
    items = fit_items(answers(), RUNS)
    assert items is not None
    found = place(items, answers(["new"], seed=5))
    assert found["noise.output.ability"] == pytest.approx(0.06, abs=0.02)
    assert found["output.ability"] == pytest.approx(0.9, abs=0.3)
    table = reference_features(answers(), RUNS).set_index("model")
    truth = pd.Series(ABILITY)
    assert np.corrcoef(table["output.ability"].astype(float)[truth.index], truth)[0, 1] > 0.99
    taste = np.array([TASTE[name] for name in NAMES])
    mine = table[COMPONENTS[0]].astype(float)[NAMES].to_numpy()
    assert abs(np.corrcoef(mine, taste)[0, 1]) > 0.99
    assert table["noise." + COMPONENTS[0]].astype(float).median() == pytest.approx(0.3 / WINDOWS**0.5, rel=0.5)


def test_a_reference_is_placed_by_other_runs_alone() -> None:
    """What it says itself, and what other stages of its run say, changes its place by no bit of the others' fits."""
    table = answers()
    items = fit_items(table[~table["model"].isin(["m1", "m1@25"])], RUNS)
    assert items is not None
    alone = place(items, table[table["model"] == "m1"])
    found = reference_features(table, RUNS).set_index("model").loc["m1"]
    assert found["output.ability"] == pytest.approx(alone["output.ability"], abs=1e-9)


def test_few_shared_windows_place_nobody() -> None:
    items = fit_items(answers(), RUNS)
    assert items is not None
    assert place(items, answers(["new"]).head(99)) == {}
    assert set(place(items, answers(["new"]).head(300))) >= {"output.ability"}
    assert fit_items(answers().assign(window=lambda t: t["model"] + t["window"]), RUNS) is None
    assert fit_items(answers(["m0", "m1"]), RUNS) is None


def test_a_window_that_comes_twice_counts_once() -> None:
    items = fit_items(answers(), RUNS)
    assert items is not None
    own = answers(["new"])
    assert place(items, pd.concat([own, own])) == place(items, own)


def test_samples_have_an_ability_and_no_components() -> None:
    table = answers().assign(right=lambda t: t["right"] * 0.5, cost_bits=pd.NA)
    items = fit_items(table, RUNS)
    assert items is not None
    assert set(place(items, table[table["model"] == "m3"])) == {"output.ability", "noise.output.ability"}
