"""What another seed alone changes, on a real model: nine of ten differences lie within their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import make_jobs
from proxy.sweeps.store.provenance import header
from proxy.sweeps.store.results import ResultsStore
from proxy.sweeps.store.storage import open_storage
from proxy.sweeps.worker import Worker
from tracking.comparison import compare

SEEDS = 40


def swept(folder: Path, worker: Worker, seed: int) -> str:
    """Write what a sweep of two models would, without Ray."""
    settings: dict[str, Any] = {
        "name": "draws",
        "seed": seed,
        "models": ["gpt2-30k", "gemma-30k"],
        "corpora": [{"source": "python-docs", "windows": 200}],
        "measurement": {"estimator": "sample-propagation", "resolutions": [0.25], "queries": 100},
    }
    config = parse_config(settings)
    jobs = make_jobs(config)
    store = ResultsStore(open_storage(folder))
    store.write_header(header(config.name, config.model_dump(mode="json"), [job.key for job in jobs], seed))
    for job in jobs:
        outcome = worker.run(job)
        assert outcome.table is not None, outcome.record["traceback"]
        store.write_done(job.key, outcome.table, outcome.record, outcome.windows)
    return str(folder)


@pytest.mark.slow
def test_another_seed_alone_changes_no_more_than_the_errors_say(tmp_path: Path) -> None:
    worker = Worker()
    folders = [swept(tmp_path / str(seed), worker, seed) for seed in range(SEEDS)]
    pairs = [compare([folders[seed], folders[seed + 1]]).table for seed in range(0, SEEDS, 2)]
    table = pd.concat(pairs, ignore_index=True)
    assert set(table["errors"]) == {"unpaired"}
    for model, rows in table.groupby("model"):
        ratio = rows["difference"].to_numpy(float) / rows["std_error"].to_numpy(float)
        # Of 20 pairs 18 +- 1.3 are expected within 1.65 errors; three deviations below.
        assert (np.abs(ratio) <= 1.65).sum() >= 14, model
        # The spread of 20 has a relative error of 1 / sqrt(40) = 16 %: three of them.
        assert np.sqrt(np.mean(ratio**2)) == pytest.approx(1, abs=0.5), model
    assert sorted(set(table["model"])) == ["gemma-30k", "gpt2-30k", "mean of 2 models"]
