"""Banks on disk: what goes in comes out, and what is damaged, foreign or unfit is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from estimators.base import InputError
from estimators.contracts.seals import sealed
from extraction import load_model, windows
from proxy.banks.bank import load_bank
from proxy.banks.building import build_bank, merge_banks
from proxy.banks.estimating import check_runs
from proxy.banks.ways import Way, proxies
from tests.proxy.banks.conftest import NAMES


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bank"))


def test_what_goes_in_comes_out(built: Path) -> None:
    bank = load_bank(built)
    assert list(bank.models["model"]) == sorted(NAMES)
    assert bank.runs == 12  # checkpoints count with their runs
    assert proxies(bank, "python-docs") == {"logprobs-20": Way(20), "samples": Way(0)}
    assert bank.licence == "CC0-1.0"


def test_the_text_of_a_corpus_gives_the_same_windows_wherever_the_bank_is_read(built: Path) -> None:
    tokenizer = load_model("gpt2-30k", device="cpu").tokenizer
    corpus = load_bank(built).corpora[0]
    here = windows("python-docs", tokenizer, count=50)
    there = windows(corpus.place(built), tokenizer, count=50)
    assert here.hash == there.hash


def test_a_changed_table_is_refused(copy: Path) -> None:
    table = pd.read_parquet(copy / "emergence.parquet")
    table.assign(ie_bits=9.0).to_parquet(copy / "emergence.parquet")
    with pytest.raises(InputError, match=r"emergence\.parquet was changed"):
        load_bank(copy)


def test_a_missing_table_is_refused(copy: Path) -> None:
    (copy / "models.parquet").unlink()
    with pytest.raises(InputError, match=r"lacks models\.parquet"):
        load_bank(copy)


def _described(folder: Path, **changes: Any) -> None:
    path = folder / "bank.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **changes})))


def test_an_old_schema_is_refused_in_one_sentence(copy: Path) -> None:
    _described(copy, schema=0)
    with pytest.raises(InputError, match="has schema 0, this version reads 1; build it again"):
        load_bank(copy)


def test_a_changed_description_is_refused(copy: Path) -> None:
    path = copy / "bank.json"
    path.write_text(path.read_text().replace("CC0-1.0", "none"))
    with pytest.raises(InputError, match="was changed after the bank was built"):
        load_bank(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "could not be read as JSON"),
        ("[]", "describes no reference bank"),
        ("{}", "describes no reference bank"),
        ('"bank"', "describes no reference bank"),
    ],
)
def test_a_description_that_is_none_is_refused(copy: Path, content: str, message: str) -> None:
    (copy / "bank.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_bank(copy)


def test_a_description_that_lacks_something_is_refused(copy: Path) -> None:
    _described(copy, corpora=[{"name": "python-docs"}])
    with pytest.raises(InputError, match="not a description of a bank"):
        load_bank(copy)


def test_code_and_pickles_are_refused(copy: Path) -> None:
    (copy / "model.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds model\.pkl, which does not belong to it"):
        load_bank(copy)


def test_a_table_outside_the_bank_is_refused(copy: Path) -> None:
    hashes = json.loads((copy / "bank.json").read_text())["sha256"]
    _described(copy, sha256={**hashes, "../secret.parquet": "0"})
    with pytest.raises(InputError, match="not a table in the bank"):
        load_bank(copy)


def test_no_bank_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No bank in"):
        load_bank(tmp_path)


def _built(frame: pd.DataFrame, tmp_path: Path, name: str = "bank") -> Path:
    frame.to_parquet(tmp_path / f"{name}.parquet")
    build_bank([tmp_path / f"{name}.parquet"], tmp_path / name, name=name, licence="", provenance="")
    return tmp_path / name


def test_no_windows_are_refused_rather_than_read_from_the_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="windows takes a whole number of at least 8, got 0"):
        build_bank([tmp_path / "t.parquet"], tmp_path / "b", name="b", licence="", provenance="", windows=0)


def test_too_few_runs_are_said(table: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    bank = load_bank(_built(table(["one-1", "one-1@12", "one-2"]), tmp_path))
    with pytest.raises(InputError, match="has 2 independent training runs; a 90% interval needs 9"):
        check_runs(bank)


def test_models_of_different_windows_do_not_mix(table: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    mixed = pd.concat([table(["one-1"]), table(["one-2"], seed=1)])
    with pytest.raises(InputError, match="the seeds 0, 1"):
        _built(mixed, tmp_path)
    fewer = pd.concat([table(["one-1"]), table(["one-2"]).assign(windows=20)])
    with pytest.raises(InputError, match="different windows of python-docs: 8 tokens, 20 to 400 windows"):
        _built(fewer, tmp_path)


def test_a_model_without_its_output_is_refused_with_the_command(
    table: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    frame = table(["one-1", "one-2"])
    with pytest.raises(InputError, match=r"one-2 was not measured by its output .* predictive-20,output-20"):
        _built(frame[(frame["model"] == "one-1") | (frame["layer"] >= 0)], tmp_path)


def test_the_text_of_ones_own_must_come_along(table: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.txt is your own file; give it by --corpus PATH"):
        _built(table(["one-1"], corpus="mine.txt"), tmp_path)


def test_banks_are_merged_on_the_corpora_they_share(table: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    first = _built(pd.concat([table(["one-1"]), table(["one-1"], corpus="animal")]), tmp_path, "first")
    second = _built(table(["two-1"]), tmp_path, "second")
    merged = merge_banks([first, second], tmp_path / "both", name="both")
    assert list(merged.models["model"]) == ["one-1", "two-1"]
    assert [corpus.name for corpus in merged.corpora] == ["python-docs"]


def test_banks_of_different_ways_of_asking_do_not_merge(table: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    first = _built(table(["one-1"]), tmp_path, "first")
    with pytest.raises(InputError, match="asked in different ways"):
        merge_banks([first, _built(table(["two-1"], seed=3), tmp_path, "other")], tmp_path / "both", name="both")
    few = _built(table(["two-1"]).assign(windows=100), tmp_path, "few")
    with pytest.raises(InputError, match="python-docs is not the same"):
        merge_banks([first, few], tmp_path / "both", name="both")
    with pytest.raises(InputError, match="one-1 is in first and in again"):
        merge_banks([first, _built(table(["one-1"]), tmp_path, "again")], tmp_path / "both", name="both")
    lists = _built(table(["two-1"], corpus="animal"), tmp_path, "lists")
    with pytest.raises(InputError, match="share no corpus"):
        merge_banks([first, lists], tmp_path / "both", name="both")


def test_the_commands(built: Path, emergence: Callable[..., Any], tmp_path: Path) -> None:
    shown = emergence("bank", "show", built)
    assert shown.code == 0
    assert "logprobs-20, samples" in shown.out
    assert emergence("bank", "check", built).code == 0
    (tmp_path / "empty").mkdir()
    assert emergence("bank", "check", tmp_path / "empty").code == 2
    made = emergence("bank", "build", built.parent / "measured.parquet", "--out", tmp_path / "again")
    assert made.code == 0, made.err
    assert "14 models of 12 runs" in made.err
    assert emergence("bank", "merge", built, tmp_path / "again", "--out", tmp_path / "both").code == 2
