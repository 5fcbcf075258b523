"""The completions server for a model in this process, asked by the real client over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import openai
import pytest
import torch

from extraction import LanguageModel, load_model
from extraction.answers.completions import serve_completions


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("gpt2-30k", device="cpu")


@pytest.fixture(scope="module")
def url(model: LanguageModel) -> Iterator[str]:
    with serve_completions(model) as found:
        yield found


def test_it_shows_the_logprobs_of_the_weights(model: LanguageModel, url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key="none")
    assert [one.id for one in client.models.list()] == ["gpt2-30k"]
    reply = client.completions.create(model="gpt2-30k", prompt="One day a dog", max_tokens=1, logprobs=20)
    ids = model.tokenizer("One day a dog")["input_ids"]
    with torch.inference_mode():
        expected = torch.log_softmax(model.model(torch.tensor([ids])).logits[0, -1].double(), -1).topk(20).values
    shown = sorted(reply.choices[0].logprobs.top_logprobs[0].values(), reverse=True)
    assert shown == pytest.approx(expected.tolist(), abs=1e-4)  # float32 states
    assert reply.usage.prompt_tokens == len(ids)


def test_a_seed_repeats_samples_and_several_come_at_once(url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key="none")
    asked = {"model": "gpt2-30k", "prompt": "One day", "max_tokens": 5, "seed": 3}
    first = client.completions.create(**asked, n=2)
    again = client.completions.create(**asked, n=2)
    assert [c.text for c in first.choices] == [c.text for c in again.choices]
    assert len({c.text for c in first.choices}) == 2


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("completions", b"{", 400),
        ("completions", b"[]", 400),
        ("completions", json.dumps({"model": "other", "prompt": "a"}).encode(), 400),
        ("completions", json.dumps({"model": "gpt2-30k", "prompt": ""}).encode(), 400),
        ("completions", json.dumps({"model": "gpt2-30k", "prompt": "a", "logprobs": 50}).encode(), 400),
        ("completions", json.dumps({"model": "gpt2-30k", "prompt": "a", "max_tokens": 0}).encode(), 400),
        ("completions", json.dumps({"model": "gpt2-30k", "prompt": "a", "n": 0}).encode(), 400),
        ("chat/completions", b"{}", 404),
    ],
)
def test_what_it_cannot_do_it_refuses(url: str, path: str, body: bytes, status: int) -> None:
    request = urllib.request.Request(f"{url}/{path}", body, {"content-type": "application/json"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)  # noqa: S310
    assert caught.value.code == status
    caught.value.close()
