"""Tracking reads what a sweep wrote: the same jobs, records, tables and windows."""

from pathlib import Path

import pandas as pd

from proxy.sweeps.config import parse_config
from proxy.sweeps.run import sweep
from proxy.sweeps.worker import Worker
from tests.proxy.sweeps.threads import Threads, broken
from tracking.results import read_results


def test_what_a_sweep_wrote_is_read(tmp_path: Path) -> None:
    config = parse_config(
        {
            "name": "small",
            "models": ["gpt2-30k"],
            "corpora": [{"source": "animal", "windows": 20}, {"source": "color", "windows": 20}],
            "measurement": {"estimator": "sample-propagation", "resolutions": [0.18], "queries": 10},
        }
    )
    worker = Worker()
    cluster = Threads(lambda job: worker.run(job) if job.corpus_name == "animal" else broken(job))
    written = sweep(config, tmp_path, cluster=cluster)
    read = read_results(tmp_path)

    assert read.name == "small"
    assert read.record["config"] == config.model_dump(mode="json")
    assert {job.key for job in read.jobs} == {*written.done, *(record["key"] for record in written.failed)}
    done, failed = read.jobs
    assert (done.model, done.corpus, done.failed) == ("gpt2-30k", "animal", False)
    assert done.record["seconds"] > 0
    assert (failed.corpus, failed.failed, failed.reason) == ("color", True, "ValueError: broken")
    assert read.missing == 0
    pd.testing.assert_frame_equal(read.table[written.table.columns], written.table, check_dtype=False)
    # two blocks, one resolution, ten queries in the block where E(l) peaks
    windows = read.windows("gpt2-30k", "animal")
    assert len(windows) == 10
    assert windows["share"].sum() == 1.0
