"""One worker, without Ray: real models, and failures as records."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from estimators.base import InputError
from proxy.schemas import EMERGENCE
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.worker import Outcome, Worker, forget_peaks, memory_peaks, trouble_of


def job(**change: Any) -> Job:
    small = {
        "name": "t",
        "models": ["gpt2-30k"],
        "corpora": [{"source": "animal", "windows": 60}],
        "measurement": {"estimator": "sample-propagation", "resolutions": [0.2], "queries": 30},
    }
    return make_jobs(parse_config({**small, **change}))[-1]


def rows(outcome: Outcome) -> pd.DataFrame:
    assert outcome.table is not None, outcome.record["traceback"]
    frame: pd.DataFrame = pq.read_table(pa.BufferReader(outcome.table)).to_pandas()
    return frame


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def test_a_job_gives_its_rows_and_a_record(worker: Worker) -> None:
    outcome = worker.run(job())
    frame = rows(outcome)
    assert list(frame.columns) == list(EMERGENCE.columns)
    assert set(frame["model"]) == {"gpt2-30k"}
    assert np.isfinite(frame["ie_bits"]).all()
    record = outcome.record
    assert (record["family"], record["parameters"]) == ("gpt2", frame["parameters"][0])
    assert (record["corpus"], record["windows"], record["host"]) == ("animal", 60, socket.gethostname())
    assert record["corpus_hash"] == frame["corpus_hash"][0]
    assert record["error"] is record["traceback"] is None
    assert 0.1 < record["peak_memory_gb"] < 10
    done, total = worker.steps()
    assert done == total > 0


def test_what_stands_in_front_is_the_jobs_own(worker: Worker) -> None:
    for prefix, shown in (("auto", ""), ("<|endoftext|>", "<|endoftext|>"), ("none", "")):
        frame = rows(worker.run(job(measurement={"estimator": "sample-propagation", "queries": 30, "prefix": prefix})))
        assert set(frame["prefix"]) == {shown}
    failed = worker.run(job(measurement={"prefix": "<bos>"}))
    assert failed.record["error"].startswith("The prefix '<bos>' is not a single token of gpt2-30k")


def test_readings_of_the_output_come_with_the_states(worker: Worker) -> None:
    both = {"estimator": "predictive,output-20,predictive-20"}
    frame = rows(worker.run(job(corpora=["python-docs"], measurement=both, controls=True)))
    output = frame[frame["layer"] < 0]
    assert output["estimator"].tolist() == ["output-20", "predictive-20", "predictive"]
    assert output[["twin_ie_bits", "shuffled_ie_bits", "ie_std_error"]].notna().all().all()
    assert set(output["model"]) == {"gpt2-30k"}


def test_the_same_job_gives_the_same_bits_whatever_ran_before(worker: Worker) -> None:
    first = rows(worker.run(job())).drop(columns="seconds")
    worker.run(job(models=["gemma-30k"], corpora=["python-docs"]))
    again = rows(worker.run(job())).drop(columns="seconds")
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_a_model_is_loaded_once_for_its_corpora(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    import extraction

    loads = []
    load = extraction.load_model
    monkeypatch.setattr(extraction, "load_model", lambda *a, **k: loads.append(a) or load(*a, **k), raising=False)
    fresh = Worker()
    for corpus in ("animal", "color"):
        fresh.run(job(corpora=[{"source": corpus, "windows": 20}]))
    assert len(loads) == 1


def test_what_is_spilled_is_bounded_by_the_config_and_said_in_the_log(worker: Worker, tmp_path: Path) -> None:
    room = {"states_gb": 1e-4, "spill_dir": str(tmp_path)}
    spilled = worker.run(job(resources=room))
    # 4 blocks x (10 positions x 60 windows + 17 tokens) x 16 features x 4 bytes
    assert "0.000158 GB of states of gpt2-30k will be spilled to" in spilled.record["log"]
    assert str(tmp_path) in spilled.record["log"]
    in_memory = worker.run(job())
    assert "spilled" not in in_memory.record["log"]
    for column in ("macro_bits", "micro_bits"):
        np.testing.assert_allclose(rows(spilled)[column], rows(in_memory)[column], atol=1e-3)
    refused = worker.run(job(models=[{"id": "gpt2-30k", "resources": {"spill_gb": 1e-4}}], resources=room))
    assert "more than the 0.0001 GB allowed; raise spill_gb" in refused.record["error"]


def test_a_job_measures_its_controls_beside_the_model(worker: Worker) -> None:
    """The model's own numbers are those without controls; the controls' are what measuring each by itself gives."""
    from extraction import load_model, random_twin, windows
    from proxy.measurement.prefix import with_prefix
    from proxy.measurement.table import Propagation, measure

    beside = rows(worker.run(job(controls=True)))
    assert worker.steps() == (120, 120)  # three times 4 blocks at 10 positions
    alone = rows(worker.run(job()))
    own = [name for name in alone if not name.startswith(("twin", "shuffled")) and name not in ("seconds", "flags")]
    pd.testing.assert_frame_equal(beside[own], alone[own], check_exact=True)
    assert (set(beside["model"]), set(beside["corpus"])) == ({"gpt2-30k"}, {"animal"})
    assert alone["twin_ie_bits"].isna().all()
    model = with_prefix(load_model("gpt2-30k", device="cpu"))
    chosen = windows("animal", model.tokenizer, count=60, seed=0, prefix=model.prefix)
    cases = {"twin": (random_twin(model, seed=0), chosen), "shuffled": (model, chosen.shuffled(0))}
    how: dict[str, Any] = {
        "estimator": "sample-propagation",
        "propagation": Propagation(resolutions=(0.2,), queries=30),
        "seed": 0,
    }
    for name, (one, read) in cases.items():
        found = measure(one, read, **how)
        np.testing.assert_allclose(beside[f"{name}_ie_bits"], found["ie_bits"], atol=1e-9)
        np.testing.assert_allclose(beside[f"{name}_ie_std_error"], found["ie_std_error"], atol=1e-9)
    above = [
        beside["ie_bits"] - beside[f"{name}_ie_bits"]
        > 4 * np.hypot(beside["ie_std_error"], beside[f"{name}_ie_std_error"])
        for name in cases
    ]
    assert (beside["flags"].str.contains("control-failed") == ~(above[0] & above[1])).all()


def test_a_control_that_cannot_be_had_is_said_and_the_other_one_kept(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import extraction

    def refuse(*args: object, **options: object) -> None:
        raise InputError("gpt2-30k is quantised, and a twin would not be.")

    monkeypatch.setattr(extraction, "random_twin", refuse, raising=False)
    outcome = worker.run(job(controls=True))
    assert outcome.record["remark"] == "Control twin not run: gpt2-30k is quantised, and a twin would not be."
    found = rows(outcome)
    assert "twin_ie_bits" not in found or found["twin_ie_bits"].isna().all()
    assert found["shuffled_ie_bits"].notna().all()


def test_a_failure_is_a_record_with_its_traceback(worker: Worker) -> None:
    outcome = worker.run(job(corpora=[{"source": "animal", "windows": 60, "tokens": 3}]))
    assert outcome.table is None
    assert outcome.trouble is None
    assert outcome.record["error_type"] == "InputError"
    assert "multiple of 2" in outcome.record["error"]
    assert "Traceback" in outcome.record["traceback"]
    assert worker.run(job()).table is not None


def test_a_hub_model_out_of_reach_fails_in_words(worker: Worker) -> None:
    outcome = worker.run(job(models=["nobody/model-1m"]))
    assert outcome.table is None
    assert "nobody/model-1m" in outcome.record["error"]


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError("stale file handle"), "again"),
        (ConnectionResetError(), "again"),
        (MemoryError(), "memory"),
        (OutOfMemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (caused(InputError("does not fit"), OutOfMemoryError()), "memory"),
        (InputError("wrong"), None),
        (ValueError("wrong"), None),
        (FileNotFoundError(), None),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, trouble: str | None) -> None:
    assert trouble_of(error) == trouble


def test_a_model_over_several_gpus_takes_what_all_of_them_held(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    held = {0: 3 * 2**30, 1: 2**30}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=0: held[device])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=0: held.update({device: 0}))
    assert memory_peaks()["peak_gpu_gb"] == 4.0
    forget_peaks()
    assert memory_peaks()["peak_gpu_gb"] == 0.0
