"""One good file of each kind that the product reads, mutated: a result, a redo, or one sentence; never a traceback.

The mutations are the same on every machine (`derandomize`). `EXAMPLES` times the kinds below are more than 3,000.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from estimators.base import EmergenceError
from tests.fuzz.mutations import of_bytes, of_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")]

EXAMPLES = 120
LONGEST = 2000  # characters of a sentence
SECONDS = 20.0  # for one mutated file


@dataclass(frozen=True)
class Kind:
    """A kind of file: one that is good, and all that reads it."""

    name: str  # of the file, in its folder
    make: Callable[[Path], None]  # writes the folder
    read: Callable[[Path], Any]  # reads the folder
    json: bool = False  # whether what it says is mutated, too
    examples: int = EXAMPLES


KINDS: dict[str, Kind] = {}


def _kind(label: str, name: str, *, json: bool = False, examples: int = EXAMPLES) -> Callable[[Any], Any]:
    def add(functions: Callable[[], tuple[Callable[[Path], None], Callable[[Path], Any]]]) -> Any:
        make, read = functions()
        KINDS[label] = Kind(name, make, read, json, examples)
        return functions

    return add


ANSWERS = [
    {
        "model": "m",
        "prompt_id": f"p{i}",
        "sample": 0,
        "prompt": "The list is: dog, cat,",
        "text": f" answer {i}.",
        "finish_reason": "stop",
        "logprobs": '[{"token": " a", "logprob": -0.5, "top": {" a": -0.5, " b": -1.2}}]',
    }
    for i in range(8)
]


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(12)],
            "family": [f"f{i // 4}" for i in range(12)],
            "parameters": [10 ** (4 + i % 4) for i in range(12)],
            **{f"behaviour.b{j}": rng.normal(size=12) for j in range(3)},
            "bits": rng.normal(size=12),
            "bits_std_error": rng.uniform(0.1, 0.2, size=12),
        }
    )


@_kind("sweep config", "sweep.yaml")
def _() -> Any:
    def make(folder: Path) -> None:
        text = (Path(__file__).parents[2] / "ray_configs" / "sweeps" / "demo.yaml").read_text(encoding="utf-8")
        (folder / "sweep.yaml").write_text(text, encoding="utf-8")

    def read(folder: Path) -> Any:
        from proxy.sweeps.config import load_config
        from proxy.sweeps.jobs import make_jobs

        return make_jobs(load_config(folder / "sweep.yaml"))

    return make, read


@_kind("sweep config as JSON", "sweep.json", json=True)
def _() -> Any:
    def make(folder: Path) -> None:
        config = {
            "name": "t",
            "seed": 0,
            "models": [{"id": "gpt2-30k", "dtype": "float32"}, "gemma-30k"],
            "corpora": [{"source": "color", "windows": 100, "tokens": 10}],
            "measurement": {"estimator": "sample-propagation", "options": {}, "resolutions": [0.1], "queries": 10},
            "controls": True,
            "resources": {"cpus": 1, "gpus": 0.5, "memory_gb": 2.0},
            "retries": 1,
            "tracking": {"uri": "sqlite:///x.db", "experiment": "e"},
        }
        (folder / "sweep.json").write_text(json.dumps(config), encoding="utf-8")

    def read(folder: Path) -> Any:
        from proxy.sweeps.config import load_config
        from proxy.sweeps.jobs import make_jobs

        return make_jobs(load_config(folder / "sweep.json"))

    return make, read


def _responses(path: Path) -> Any:
    from extraction.answers.responses import read_responses
    from proxy.features.behaviour import behaviour_features

    return behaviour_features(read_responses(path))


@_kind("answers in JSON", "a.json", json=True)
def _() -> Any:
    return (lambda folder: (folder / "a.json").write_text(json.dumps(ANSWERS))), (
        lambda folder: _responses(folder / "a.json")
    )


@_kind("answers in CSV", "a.csv")
def _() -> Any:
    return (lambda folder: pd.DataFrame(ANSWERS).to_csv(folder / "a.csv", index=False)), (
        lambda folder: _responses(folder / "a.csv")
    )


@_kind("answers in parquet", "a.parquet")
def _() -> Any:
    def make(folder: Path) -> None:
        from extraction.tables import RESPONSES, write_table

        write_table(pd.DataFrame(ANSWERS), folder / "a.parquet", RESPONSES)

    return make, (lambda folder: _responses(folder / "a.parquet"))


def _prompts(path: Path) -> Any:
    from extraction.answers.prompt_sets import prompts

    return prompts(path)


@_kind("prompts in JSON", "p.json", json=True)
def _() -> Any:
    rows = [{"prompt_id": i, "prompt": f"Say {i}"} for i in range(5)]
    return (lambda folder: (folder / "p.json").write_text(json.dumps(rows))), (
        lambda folder: _prompts(folder / "p.json")
    )


@_kind("prompts in lines", "p.jsonl")
def _() -> Any:
    rows = "".join(json.dumps({"prompt_id": i, "prompt": f"Say {i}"}) + "\n" for i in range(5))
    return (lambda folder: (folder / "p.jsonl").write_text(rows)), (lambda folder: _prompts(folder / "p.jsonl"))


@_kind("prompts in text", "p.txt")
def _() -> Any:
    return (lambda folder: (folder / "p.txt").write_text("Say one\nSay two\n")), (
        lambda folder: _prompts(folder / "p.txt")
    )


def _texts(path: Path) -> Any:
    from extraction.corpora.text import documents

    return [*documents(str(path))]


@_kind("texts in lines", "t.jsonl")
def _() -> Any:
    rows = "".join(json.dumps({"text": f"It is {i}. And so on.", "id": i}) + "\n" for i in range(5))
    return (lambda folder: (folder / "t.jsonl").write_text(rows)), (lambda folder: _texts(folder / "t.jsonl"))


@_kind("texts in JSON", "t.json", json=True)
def _() -> Any:
    rows = [{"text": f"It is {i}. And so on.", "id": i} for i in range(5)]
    return (lambda folder: (folder / "t.json").write_text(json.dumps(rows))), (lambda folder: _texts(folder / "t.json"))


@_kind("texts in parquet", "t.parquet")
def _() -> Any:
    rows = pd.DataFrame({"text": [f"It is {i}. And so on." for i in range(5)]})
    return (lambda folder: rows.to_parquet(folder / "t.parquet")), (lambda folder: _texts(folder / "t.parquet"))


@_kind("texts in a folder", "texts/config.json", json=True)
def _() -> Any:
    def make(folder: Path) -> None:
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_text("A text. Another one.")
        (folder / "texts" / "config.json").write_text('{"n_embd": 3, "layers": [1, 2]}')

    return make, (lambda folder: _texts(folder / "texts"))


@_kind("entities", "e.txt")
def _() -> Any:
    def read(folder: Path) -> Any:
        from extraction.corpora.lists import read_entities

        return read_entities(folder / "e.txt")

    return (lambda folder: (folder / "e.txt").write_text("dog,\ncat,\nfox\n")), read


@_kind("references in CSV", "r.csv")
def _() -> Any:
    return (lambda folder: _frame().to_csv(folder / "r.csv", index=False)), (
        lambda folder: _references(folder / "r.csv")
    )


@_kind("references in parquet", "r.parquet")
def _() -> Any:
    return (lambda folder: _frame().to_parquet(folder / "r.parquet")), (
        lambda folder: _references(folder / "r.parquet")
    )


@_kind("references in JSON", "r.json", json=True)
def _() -> Any:
    return (lambda folder: _frame().to_json(folder / "r.json", orient="records")), (
        lambda folder: _references(folder / "r.json")
    )


def _references(path: Path) -> Any:
    from extraction.tables import read_table
    from proxy.regression.references import read_references

    return read_references(read_table(path), target="bits", groups="family", mode="outputs")


@_kind("emergence table", "e.parquet")
def _() -> Any:
    def make(folder: Path) -> None:
        from extraction.tables import write_table
        from proxy.schemas import EMERGENCE

        write_table(pd.DataFrame(_rows()), folder / "e.parquet", EMERGENCE)

    def read(folder: Path) -> Any:
        from extraction.tables import read_table
        from proxy.measurement.table import emergence_by_block, peak_emergence
        from proxy.schemas import EMERGENCE

        table = read_table(folder / "e.parquet", EMERGENCE)
        return emergence_by_block(table), peak_emergence(table)

    return make, read


def _rows() -> list[dict[str, Any]]:
    return [
        {
            "model": "gpt2-30k", "revision": None, "family": "gpt2", "parameters": 30_000, "corpus": "color",
            "corpus_hash": "0" * 16, "layer": layer, "position": t, "resolution": r, "estimator": "sample-propagation",
            "macro_bits": 1.5, "micro_bits": 0.5, "ie_bits": 1.0, "ie_std_error": 0.1, "flags": "",
        }
        for r in (0.18, 0.25) for layer in (0, 1) for t in (1, 2)
    ]  # fmt: skip


def _results(folder: Path) -> None:
    from proxy.sweeps.store.results import ResultsStore, to_parquet
    from proxy.sweeps.store.storage import open_storage

    store = ResultsStore(open_storage(folder))
    store.write_header({"name": "t", "config": {"models": [{"id": "gpt2-30k"}]}, "jobs": ["a" * 16], "seed": 0})
    record = {"model": "gpt2-30k", "corpus": "color", "corpus_hash": "0" * 16, "seconds": 1.0, "host": "h",
              "config": {"model": {"id": "gpt2-30k"}}, "started": "2026-01-01", "windows": 4}  # fmt: skip
    table = to_parquet(pd.DataFrame(_rows()))
    store.write_done("a" * 16, table, record, table)


def _read_results(folder: Path) -> Any:
    from proxy.sweeps.store.results import ResultsStore
    from proxy.sweeps.store.storage import open_storage
    from tracking.reports.page import page
    from tracking.results import read_results

    store = ResultsStore(open_storage(folder))
    found = store.find(["a" * 16])
    if found.done:
        list(store.tables([_Job()]))
    results = read_results(folder)
    results.windows("gpt2-30k", "color")
    return page(results)


class _Job:
    key, model_name, corpus_name = "a" * 16, "gpt2-30k", "color"


for _name, _is_json in (
    ("sweep.json", True),
    (f"jobs/{'a' * 16}.json", True),
    (f"jobs/{'a' * 16}.parquet", False),
    (f"windows/{'a' * 16}.parquet", False),
):
    KINDS[f"results: {_name.split('/')[0]} {_name[-4:]}"] = Kind(_name, _results, _read_results, _is_json)


@_kind("claim", f"claims/{'a' * 16}.json", json=True)
def _() -> Any:
    def make(folder: Path) -> None:
        (folder / "claims").mkdir()
        claim = {"driver": "b" * 32, "host": "away", "boot": "?", "pid": 1, "started": 0.0, "until": time.time() + 9e4}
        (folder / "claims" / f"{'a' * 16}.json").write_text(json.dumps(claim))

    def read(folder: Path) -> Any:
        from proxy.sweeps.store.claims import Claims
        from proxy.sweeps.store.storage import Folder

        claims = Claims(Folder(folder))
        claims.take(["a" * 16])
        claims.clear_dead()
        claims.release_all()

    return make, read


@_kind("answer log", "a.log.jsonl")
def _() -> Any:
    def make(folder: Path) -> None:
        from extraction.answers.collecting.log import AnswerLog

        with AnswerLog(folder / "a.log.jsonl") as log:
            for i in range(4):
                log.append({"key": f"{i:032x}", "model": "m", "text": f"answer {i}", "billed": [3, 4]})
            log.append({"key": f"{9:032x}", "model": "m", "error": "no"})

    def read(folder: Path) -> Any:
        from extraction.answers.collecting.log import AnswerLog

        with AnswerLog(folder / "a.log.jsonl") as log:
            return [log.record(f"{i:032x}") for i in range(10)], [*log.records()], log.due("m"), log.pending()

    return make, read


@_kind("line of an answer log", "a.log.jsonl", json=True)
def _() -> Any:
    def make(folder: Path) -> None:
        line = {"version": 1, "key": "0" * 32, "model": "m", "text": "answer", "billed": [3, 4], "logprobs": None}
        (folder / "a.log.jsonl").write_text(json.dumps(line))

    return make, KINDS["answer log"].read


@_kind("batch in an answer log", "a.log.jsonl", json=True)
def _() -> Any:
    def make(folder: Path) -> None:
        line = {"version": 1, "batch": "b", "state": "submitted", "token": "t", "keys": ["0" * 32], "held": [3, 4],
                "model": "m", "capabilities": None}  # fmt: skip
        del line["capabilities"]
        (folder / "a.log.jsonl").write_text(json.dumps(line))

    return make, KINDS["answer log"].read


@_kind("prices", "prices.json", json=True)
def _() -> Any:
    def read(folder: Path) -> Any:
        from extraction.answers.collecting.budget import read_prices

        return read_prices(folder / "prices.json", "m")

    return (lambda folder: (folder / "prices.json").write_text('{"m": {"input": 2.5, "output": 10}}')), read


@_kind("known truths", "truth.npz")
def _() -> Any:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        np.savez(
            folder / "truth.npz", x=rng.normal(size=(9, 2)), y=rng.normal(size=(9, 1)), mutual_information_bits=1.0
        )

    def read(folder: Path) -> Any:
        from estimators.truths import folder_truths

        return [*folder_truths(folder)]

    return make, read


def _proxy(folder: Path) -> Any:
    from proxy.regression.load import load_proxy
    from tracking.mlflow.proxy_run import _read_proxy

    _read_proxy(folder)
    return load_proxy(folder)


def _copy_model(folder: Path) -> None:
    source = Path(__file__).parents[2] / "extraction" / "reference_models" / "gpt2-30k"
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _load_model(folder: Path) -> Any:
    from extraction import load_model

    return load_model(str(folder))


for _name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    KINDS[f"model: {_name}"] = Kind(_name, _copy_model, _load_model, True, 60)
KINDS["model: weights"] = Kind("model.safetensors", _copy_model, _load_model, False, 60)


@pytest.fixture(scope="module")
def fitted_folder(fitted_once: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "proxy"
    fitted_once.save(folder)
    return folder


@pytest.fixture(scope="module")
def fitted_once() -> Any:
    from proxy import fit_proxy

    return fit_proxy(_frame(), target="bits")


@pytest.mark.parametrize("name", ["proxy.json", "model.skops", "references.parquet", "validation.parquet"])
def test_a_mutated_proxy_is_loaded_or_refused_in_one_sentence(
    fitted_folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    def make(folder: Path) -> None:
        shutil.copytree(fitted_folder, folder, dirs_exist_ok=True)

    _fuzz(Kind(name, make, _proxy, name == "proxy.json"), tmp_path_factory.mktemp("proxy"))


@pytest.mark.parametrize("label", [*KINDS])
def test_a_mutated_file_ends_in_a_result_or_one_sentence(label: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    _fuzz(KINDS[label], tmp_path_factory.mktemp("fuzz"))


def test_there_are_enough_mutations() -> None:
    assert sum(kind.examples for kind in KINDS.values()) + 4 * EXAMPLES >= 2000


def _fuzz(kind: Kind, folder: Path) -> None:
    good = folder / "good"
    good.mkdir()
    kind.make(good)
    content = (good / kind.name).read_bytes()
    kind.read(_copied(good, folder / "untouched"))  # the good file is read
    mutated = of_bytes(content) | of_json(content) if kind.json else of_bytes(content)
    count = 0

    @settings(
        max_examples=kind.examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(mutated)
    def run(changed: bytes) -> None:
        nonlocal count
        count += 1
        here = _copied(good, folder / f"{count}")
        (here / kind.name).write_bytes(changed)
        began = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.read(here)
        except EmergenceError as error:
            text = str(error)
            assert 0 < len(text) <= LONGEST, text[:LONGEST]
            assert not re.search(r"Traceback|\n", text), text
        finally:
            shutil.rmtree(here)
        assert time.monotonic() - began < SECONDS
        assert not [path for path in folder.rglob("outside*") if path]  # nothing is written where a name pointed to

    run()


def _copied(good: Path, target: Path) -> Path:
    return Path(shutil.copytree(good, target))
