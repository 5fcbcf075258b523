"""What cannot be read is refused before a model is loaded or a server asked: here the models have no weights at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from extraction.models.names import resolve_model

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    """A model's folder with its configuration and tokenizer, and no weights."""
    folder = tmp_path / "weightless"
    shutil.copytree(resolve_model("gpt2-30k").location, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def _unreadable(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Corpora that give no windows, as options of `measure`, and what the refusal says."""
    (folder / "binary.txt").write_bytes(b"\x89PNG\r\n\x1a\n" * 50)
    (folder / "table.csv").write_text("id,body\n1,A dog ran to the big tree and sat down there.\n")
    (folder / "late.jsonl").write_text(
        '{"text": "A dog ran to the tree. It sat down there for a while."}\n' * 3 + "5\n"
    )
    (folder / "short.txt").write_text("A dog.")
    (folder / "blank.txt").write_text(" \n\n ")
    (folder / "few.txt").write_text("dog\ncat\n")
    (folder / "empty").mkdir()
    return {
        "missing": ([folder / "missing.txt"], "Unknown corpus"),
        "binary": ([folder / "binary.txt"], "is not UTF-8"),
        "without the column": ([folder / "table.csv"], "has no column"),
        "with a bad row at its end": ([folder / "late.jsonl"], "Line 4"),
        "too short": ([folder / "short.txt"], "tokens"),
        "blank": ([folder / "blank.txt"], "is empty"),
        "a list that is too short": ([f"list:{folder / 'few.txt'}"], "but a window of"),
        "a folder without texts": ([folder / "empty"], "holds no"),
        "a list of an odd number of tokens": (["animal", "--tokens", 9], "multiple of 2"),
    }


KINDS = [
    "missing", "binary", "without the column", "with a bad row at its end", "too short", "blank",
    "a list that is too short", "a folder without texts", "a list of an odd number of tokens",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_measure_refuses_a_corpus_before_any_weights_are_read(kind, weightless, tmp_path, emergence) -> None:
    options, told = _unreadable(tmp_path)[kind]
    done = emergence("measure", weightless, "--corpus", *options)
    assert (done.code, "weights" in done.err) == (2, False), done.err
    assert told in done.err


def test_measure_reads_corpora_for_all_models_before_the_first_is_loaded(weightless, tmp_path, emergence) -> None:
    (tmp_path / "short.txt").write_text("A dog.")
    done = emergence("measure", "gpt2-30k", weightless, "--corpus", tmp_path / "short.txt", "--out", tmp_path / "a.csv")
    assert done.code == 2
    assert "a window needs 8" in done.err or "no sentence that long" in done.err
    assert not [*tmp_path.glob("a*.csv")]


@pytest.mark.parametrize("kind", KINDS)
def test_measure_refuses_a_corpus_before_a_server_is_asked(kind, tmp_path, emergence) -> None:
    options, told = _unreadable(tmp_path)[kind]
    done = emergence("measure", "m", "--base-url", NOWHERE, "--corpus", *options, "--log", tmp_path / "log.jsonl")
    assert (done.code, "server" in done.err) == (2, False), done.err
    assert told in done.err
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("too short", *KINDS[6:7], KINDS[8])])
def test_a_sweep_refuses_a_corpus_that_cannot_be_read_before_it_starts(kind, weightless, tmp_path, emergence) -> None:
    options, told = _unreadable(tmp_path)[kind]
    config = {"models": [str(weightless)], "corpora": [{"source": str(options[0])}]}
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    done = emergence("sweep", tmp_path / "sweep.yaml", "--results", tmp_path / "results")
    assert (done.code, "weights" in done.err) == (2, False), done.err
    assert told in done.err
    assert not (tmp_path / "results").exists()


def test_a_worker_of_a_sweep_refuses_a_short_corpus_before_weights_are_read(weightless, tmp_path) -> None:
    from proxy.sweeps.config import parse_config
    from proxy.sweeps.jobs import make_jobs
    from proxy.sweeps.worker import Worker

    (tmp_path / "short.txt").write_text("A dog.")
    config = parse_config({"name": "s", "models": [str(weightless)], "corpora": [str(tmp_path / "short.txt")]})
    record = Worker().run(make_jobs(config)[0]).record
    assert "a window needs 8" in record["error"] or "no sentence that long" in record["error"]


def test_features_refuse_answers_before_a_reader_is_loaded(weightless, tmp_path, emergence) -> None:
    few = pd.DataFrame({"model": "m", "prompt_id": ["0", "1"], "text": "A dog ran."})
    few.to_csv(tmp_path / "few.csv", index=False)
    done = emergence("features", tmp_path / "few.csv", "--readers", weightless)
    assert (done.code, "weights" in done.err) == (2, False), done.err
    assert "fewer than" in done.err
    enough = pd.DataFrame({"model": "m", "prompt_id": [str(i) for i in range(30)], "text": "A dog ran to the tree."})
    enough.to_csv(tmp_path / "enough.csv", index=False)
    measured = {"model": "other", "corpus": "animal", "layer": 0, "position": 1, "resolution": 0.18, "ie_bits": 1.0}
    measured |= {"family": "gpt2", "parameters": 1000, "estimator": "sample-propagation", "windows": 100}
    pd.DataFrame([measured]).to_csv(tmp_path / "emergence.csv", index=False)
    done = emergence(
        "features", tmp_path / "enough.csv", "--readers", weightless, "--emergence", tmp_path / "emergence.csv"
    )
    assert (done.code, "weights" in done.err) == (2, False), done.err
    assert "No emergence was measured for m" in done.err


def test_calibrate_reads_all_problems_before_any_estimator_is_asked(tmp_path, emergence) -> None:
    x = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=x, mutual_information_bits=1.0)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut short")
    done = emergence("calibrate", "--truths", tmp_path, "--method", "sample-propagation")
    assert (done.code, done.out) == (2, "")
    assert "b.npz must hold arrays" in done.err
