"""Which version a corpus stands for: of the hub asked there, else of its cache."""

from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from estimators.base import InputError
from extraction.corpora.spec import resolve_corpus

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def version(source: str) -> str:
    return resolve_corpus(source).version()


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
    assert version("hf:openorca") == COMMIT
    assert version("hf:openorca:train") == COMMIT
    hub["dataset Open-Orca/OpenOrca main"] = COMMIT[::-1]
    assert version("hf:openorca") == COMMIT[::-1]


def test_out_of_reach_the_cache_knows_it_else_its_name_counts(hub: dict[str, object], tmp_path: Path) -> None:
    hub["dataset a/b main"] = ConnectionError("no network")
    unknown = version("hf:a/b")
    assert len(unknown) == 16
    assert unknown != version("hf:a/b:test")
    (tmp_path / "datasets--a--b" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "refs" / "main").write_text(COMMIT)
    assert version("hf:a/b") == COMMIT


def test_what_the_hub_does_not_have_is_said(hub: dict[str, object]) -> None:
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub"))
    hub["dataset no/such main"] = RepositoryNotFoundError("404", response=response)
    with pytest.raises(InputError, match="no/such is not a data set of the hub that you can access"):
        version("hf:no/such")


def test_a_folder_is_not_asked_of_the_hub(
    hub: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "set").mkdir(parents=True)
    assert len(version("hf:my/set")) == 16


def test_files_go_by_their_own_name_however_they_are_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("One sentence.")
    (tmp_path / "animals.txt").write_text("dog\ncat\n")
    for source in ("texts", "texts/", "./texts", str(tmp_path / "texts"), tmp_path / "texts"):
        found = resolve_corpus(source)
        assert (found.kind, found.label) == ("file", "texts")
        assert found.version() == version("texts")
    own = resolve_corpus("list:./animals.txt")
    assert (own.kind, own.label, own.entities) == ("list", "list:animals.txt", ("dog", "cat"))


def test_a_list_of_ones_own_is_counted_as_a_list(tmp_path: Path) -> None:
    path = tmp_path / "animals.txt"
    path.write_text("\n".join("abcdefg"))
    found = resolve_corpus(f"list:{path}").workload(2000, None)
    # 7 entities in ordered choices of 4: 7 * 6 * 5 * 4; their tokens, and the comma.
    assert (found.windows, found.tokens, found.distinct) == (840, 8, 8)
