"""Which version a corpus on the hub stands for: asked of the hub, else of its cache."""

from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from estimators.base import InputError
from proxy.sweeps.config import parse_config
from proxy.sweeps.identity import corpus_version
from proxy.sweeps.jobs import make_jobs

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """The hub as `HfApi` sees it: by name a commit or what goes wrong; its cache is empty."""
    says: dict[str, object] = {}

    def repo_info(self: HfApi, name: str, *, repo_type: str, revision: str, timeout: float) -> object:
        answer = says[f"{repo_type} {name} {revision}"]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)

    monkeypatch.setattr(HfApi, "repo_info", repo_info)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return says


def test_a_data_set_is_known_by_its_commit(hub: dict[str, object]) -> None:
    hub["dataset Open-Orca/OpenOrca main"] = COMMIT
    assert corpus_version("hf:openorca") == COMMIT
    assert corpus_version("hf:openorca:train") == COMMIT
    config = parse_config({"name": "t", "models": ["gpt2-30k"], "corpora": ["hf:openorca"]})
    (before,) = make_jobs(config)
    hub["dataset Open-Orca/OpenOrca main"] = COMMIT[::-1]
    (after,) = make_jobs(config)
    assert before.key != after.key  # another text is other work


def test_out_of_reach_the_cache_knows_it_else_its_name_counts(hub: dict[str, object], tmp_path: Path) -> None:
    hub["dataset a/b main"] = ConnectionError("no network")
    unknown = corpus_version("hf:a/b")
    assert len(unknown) == 16
    assert unknown != corpus_version("hf:a/b:test")
    (tmp_path / "datasets--a--b" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "refs" / "main").write_text(COMMIT)
    assert corpus_version("hf:a/b") == COMMIT


def test_what_the_hub_does_not_have_is_said(hub: dict[str, object]) -> None:
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub"))
    hub["dataset no/such main"] = RepositoryNotFoundError("404", response=response)
    with pytest.raises(InputError, match="hf:no/such is no data set of the hub you can see"):
        corpus_version("hf:no/such")


def test_a_folder_is_not_asked_of_the_hub(
    hub: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "set").mkdir(parents=True)
    assert len(corpus_version("hf:my/set")) == 16
