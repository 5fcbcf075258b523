"""What the examples in docstrings may name: `results`, a results folder; `references`, reference models; `scratch`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept from run to run is kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "EMERGENCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _examples(
    request: pytest.FixtureRequest, doctest_namespace: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if any(isinstance(item, pytest.DoctestItem) for item in request.session.items):
        doctest_namespace["scratch"] = scratch = tmp_path_factory.mktemp("examples")
        doctest_namespace["results"] = _results(scratch / "results")
        doctest_namespace["references"] = _references()


def _results(folder: Path) -> Path:
    """Write a results folder of one model on one corpus, as a sweep does."""
    import pandas as pd

    from estimators.contracts.results_folder import blank_record
    from proxy.sweeps.store.results import ResultsStore, to_parquet
    from proxy.sweeps.store.storage import open_storage

    key = "0123456789abcdef"
    store = ResultsStore(open_storage(folder))
    store.write_header({"name": "example", "jobs": [key], "config": {}, "seed": 0})
    identity = {"model": "gpt2-30k", "family": "gpt2", "parameters": 30_000, "corpus": "animal", "corpus_hash": "abcd"}
    rows = [
        {**identity, "layer": layer, "position": t, "resolution": 0.18, "ie_bits": t * (1.0 + layer) / 8}
        for layer in range(2)
        for t in range(1, 9)
    ]
    table = pd.DataFrame(rows).assign(estimator="sample-propagation", ie_std_error=0.05, flags="", windows=1000)
    record = blank_record() | identity | {"seconds": 1.5, "started": "2026-01-01T10:00:00+00:00", "config": {}}
    store.write_done(key, to_parquet(table), record)
    return folder


def _references() -> Any:
    """Make twelve reference models whose emergence follows one feature but for a small error."""
    import numpy as np
    import pandas as pd

    size = np.linspace(4.0, 8.0, 12)
    noise = np.random.default_rng(0).normal(size=(2, 12))
    return pd.DataFrame(
        {
            "model": [f"m{number}" for number in range(12)],
            "family": ["gpt2", "gemma", "llama"] * 4,
            "small.reader.ie_0.18": size / 4 + 0.05 * noise[0],
            "behaviour.length": 10 * size + noise[1],
            "emergence_bits": size / 3,
        }
    )
