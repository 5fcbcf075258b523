"""What the hub says of a model, asked of a small hub at the transport of the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http
from safetensors.numpy import save

from extraction.versions import hub_parameters

ONE, MANY, OTHER, DAMAGED, DOWN = "o/one", "o/many", "o/pickled", "o/damaged", "o/down"


def files() -> dict[str, dict[str, bytes]]:
    """Files of each repository."""
    weights = {"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.float16)}
    # A header above the 100,000 bytes that the client fetches first.
    shards = {
        f"model-{part}.safetensors": {
            f"blocks.{part}.{i:0>40}.weight": np.zeros((2, 3), np.float32) for i in range(1200)
        }
        for part in (1, 2)
    }
    index = {"metadata": {}, "weight_map": {name: file for file, inside in shards.items() for name in inside}}
    return {
        ONE: {"model.safetensors": save(weights)},
        MANY: {
            "model.safetensors.index.json": json.dumps(index).encode(),
            **{file: save(inside) for file, inside in shards.items()},
        },
        OTHER: {"pytorch_model.bin": b"pickle"},
        DAMAGED: {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0"},
    }


class Hub:
    """Answers as the hub does, and notes how much of each file was sent."""

    def __init__(self) -> None:
        self.files = files()
        self.sent: list[tuple[str, int]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.strip("/")
        repo, _, rest = path.partition("/resolve/")
        if repo == DOWN:
            raise httpx2.ConnectError("no route to the hub", request=request)
        revision, _, name = rest.partition("/")
        content = self.files.get(repo, {}).get(name)
        if repo not in self.files or revision != "main":
            code = "RepoNotFound" if repo not in self.files else "RevisionNotFound"
            return httpx2.Response(404, headers={"X-Error-Code": code}, request=request)
        if content is None:
            return httpx2.Response(404, headers={"X-Error-Code": "EntryNotFound"}, request=request)
        headers = {"ETag": '"e"', "X-Repo-Commit": "0" * 40, "X-Linked-Size": str(len(content))}
        if request.method == "HEAD":
            return httpx2.Response(200, headers=headers | {"Content-Length": str(len(content))}, request=request)
        if asked := request.headers.get("range"):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        self.sent.append((name, len(content)))
        return httpx2.Response(206 if asked else 200, headers=headers, content=content, request=request)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    there = Hub()
    before = _http._GLOBAL_CLIENT_FACTORY
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(there)))
    yield there
    huggingface_hub.set_client_factory(before)


def test_parameters_are_counted_from_one_header(hub: Hub) -> None:
    assert hub_parameters(ONE) == 3 * 5 + 7
    assert hub_parameters(ONE, "main") == 22


def test_parameters_are_counted_over_shards_of_which_only_headers_are_sent(
    hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = sum(len(content) for name, content in hub.files[MANY].items() if name.endswith(".safetensors"))
    hub.files[MANY] = {
        name: content + bytes(10**7) if name.endswith(".safetensors") else content
        for name, content in hub.files[MANY].items()
    }
    assert hub_parameters(MANY) == 2 * 1200 * 6
    assert sum(size for name, size in hub.sent if name.endswith(".safetensors")) < whole + 2 * 100_001
    assert capfd.readouterr() == ("", "")  # no progress bar


@pytest.mark.parametrize("name", [OTHER, DAMAGED, DOWN, "o/none"])
def test_where_nothing_can_be_counted_nothing_is(hub: Hub, name: str) -> None:
    assert hub_parameters(name) is None


def test_a_revision_that_is_not_there(hub: Hub) -> None:
    assert hub_parameters(ONE, "none") is None


def test_a_hub_that_is_switched_off_is_not_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_parameters(ONE) is None
    assert hub.sent == []


def test_a_plan_uses_what_the_hub_says(hub: Hub) -> None:
    from proxy.sweeps.config import Model
    from proxy.sweeps.sizes import count_parameters

    count_parameters.cache_clear()
    assert count_parameters(Model(id=ONE)) == 22
    assert count_parameters(Model(id="o/pickled-70m")) == 70_000_000  # by its name
    count_parameters.cache_clear()
