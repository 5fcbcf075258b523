"""Ready sweeps: each can be planned offline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extraction import reference_models
from proxy.sweeps.config import load_config, shipped_sweeps

SHIPPED = {"demo", "paper", "pythia", "gemma", "references"}


def test_all_of_them_are_here() -> None:
    assert set(shipped_sweeps()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_it_can_be_planned(name: str, emergence: Callable[..., Any], tmp_path: Path) -> None:
    outcome = emergence("sweep", name, "--dry-run", "--json", "--results", tmp_path / "results")
    plan = json.loads(outcome.out)
    config = load_config(name)
    hub = {model.id for model in config.models} - set(reference_models.names())
    assert set(plan["absent"]) == hub  # nothing is downloaded in tests
    assert outcome.code == (2 if hub else 0), outcome.err
    assert config.name == name
    assert config.description
    assert plan["jobs"] == len(config.models) * len(config.corpora)
    assert plan["done"] == 0
    assert all(model["parameters"] for model in plan["models"])
    assert not (tmp_path / "results").exists()


def test_the_demo_is_every_bundled_model() -> None:
    assert {model.id for model in load_config("demo").models} == set(reference_models.names())


def test_the_plan_says_what_does_not_fit(emergence: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "large.yaml"
    config.write_text("models: [gpt2-30k, some/model-900b]\ncorpora: [animal]\n")
    outcome = emergence("sweep", config, "--dry-run", "--results", tmp_path / "results")
    assert outcome.code == 2
    assert "some/model-900b is neither bundled, nor a folder, nor in the hub's cache" in outcome.err
    assert "No node has room for some/model-900b" in outcome.err
    assert "2 jobs, 0 done" in outcome.err
    assert "1 model could not be looked up" in outcome.err
    assert "memory_gb" not in outcome.out  # told as sizes and times, and only what differs
    assert "1.0 GB" in outcome.out


def test_the_references_are_models_and_families_enough_for_a_bank() -> None:
    models = load_config("references").models
    assert len(models) >= 24
    assert len({model.id.split("/")[0] for model in models}) >= 9  # at least as many families as makers
    assert all(model.parameters is not None and model.parameters < 8.1e9 for model in models)
