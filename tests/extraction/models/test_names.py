"""One model has one name, however it is spelled; two of one name are told apart."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from estimators.base import InputError
from extraction import reference_models
from extraction.models.names import display_names, distinct_models, model_version, resolve_model, same_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the folder `tiny` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(reference_models.path("gpt2-30k"), tmp_path / "tiny"))


def test_every_spelling_is_one_model(folder: Path, tmp_path: Path) -> None:
    os.symlink(folder, tmp_path / "link")
    spelled = ["tiny", "tiny/", "./tiny", "../" + tmp_path.name + "/tiny", str(folder), folder]
    found = {resolve_model(name) for name in spelled}
    assert [(one.kind, one.display_name, one.path) for one in found] == [("disk", "tiny", folder.resolve())]
    assert distinct_models([*map(str, spelled), "link"]) == {"tiny": "tiny"}


def test_two_folders_of_one_name_are_distinguished(tmp_path: Path) -> None:
    folders = [tmp_path / run / "final" / "tiny" for run in "ab"]
    for folder in folders:
        shutil.copytree(reference_models.path("gpt2-30k"), folder)
    # Their parents have one name too, so that the one before it must be told.
    assert [*distinct_models([str(folder) for folder in folders]).values()] == ["a/final/tiny", "b/final/tiny"]
    alone = resolve_model(folders[0])
    assert display_names([alone, alone]) == {str(folders[0].resolve()): "tiny"}


def test_a_bundled_model_and_a_folder_of_its_name_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(reference_models.path("gpt2-30k"), tmp_path / "gpt2-30k")
    names = distinct_models(["gpt2-30k", "./gpt2-30k"])
    assert names == {"gpt2-30k": "gpt2-30k", "./gpt2-30k": f"{tmp_path.name}/gpt2-30k"}


@pytest.mark.parametrize("name", ["gpt2-2k", "gemma-3m", "GPT2-30K", "GPT2-2M"])
def test_a_slip_in_a_bundled_name_is_not_taken_for_the_hub(name: str) -> None:
    with pytest.raises(InputError, match=rf"no bundled model {name}.*nearest: g"):
        resolve_model(name)


@pytest.mark.parametrize(
    "name", ["gpt2-2m-", "-tiny", "a..b", "own--er/tiny", "owner/tiny.", "owner/tiny.git", "a" * 97]
)
def test_what_the_hub_allows_in_no_name_is_not_asked_for_there(name: str) -> None:
    with pytest.raises(InputError, match="not a valid hub id; check the path"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen2.5-0.5B", "owner/a_b.c-d", "x/y", "HuggingFaceTB/SmolLM2-135M"])
def test_names_that_the_hub_allows_are_its_models(name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    assert resolve_model(name).kind == "hub"


def test_names_of_earlier_tables_are_found() -> None:
    assert same_model("/models/tiny/", "tiny")
    assert not same_model("EleutherAI/pythia-70m", "pythia-70m")


def test_the_version_is_that_of_the_files(folder: Path) -> None:
    before = model_version(resolve_model(folder))
    (folder / "generation_config.json").write_text("{}")
    assert before != model_version(resolve_model(folder))


def test_measured_once_and_named_by_its_folder(folder: Path, emergence: Callable[..., Any]) -> None:
    done = emergence(
        "measure", "tiny/", "./tiny", folder, "--corpus", "animal", "--windows", 120, "--out", "found.parquet"
    )
    assert done.code == 0, done.err
    assert "given more than once are measured once: tiny\n" in done.err
    table = pd.read_parquet("found.parquet")
    assert set(table["model"]) == {"tiny"}
    assert set(table["path"]) == {str(folder.resolve())}
    assert not table.duplicated(["model", "layer", "position", "resolution"]).any()
