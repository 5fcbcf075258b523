"""How replies of every endpoint are read, whole and odd ones."""

import asyncio

import httpx2
import pytest

from extraction import Limits
from extraction.answers.collecting.api import Api
from extraction.answers.collecting.faults import BrokenError, MalformedAnswerError
from extraction.answers.collecting.replies import (
    billed_tokens,
    read,
    read_logprobs,
)


def deep(depth=100_000) -> bytes:
    return b'{"choices": ' + b"[" * depth + b"]" * depth + b"}"


CHOICE = {"message": {"content": "said"}, "finish_reason": "stop"}


def test_both_shapes_of_logprobs_are_read():
    chat = {
        "content": [
            {
                "token": "a",
                "logprob": -0.5,
                "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -9999.0}],
            }
        ]
    }
    legacy = {"tokens": ["x", "a"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"a": -0.5, "b": -9999.0}]}
    assert read_logprobs(chat) == [{"token": "a", "logprob": -0.5, "top": {"a": -0.5}}]
    assert read_logprobs(legacy) == [
        {"token": "x", "logprob": None, "top": {}},
        {"token": "a", "logprob": -0.5, "top": {"a": -0.5}},
    ]
    assert read_logprobs(None) is None
    assert read_logprobs({"content": []}) is None


def test_parts_of_characters_stay_apart():
    pairs = [{"token": "\ufffd", "logprob": -1.0, "bytes": [195]}, {"token": "\ufffd", "logprob": -2.0, "bytes": [226]}]
    entry = read_logprobs([{**pairs[0], "top_logprobs": pairs}])
    assert entry[0]["top"] == {"bytes:c3": -1.0, "bytes:e2": -2.0}


def test_logprobs_with_dropped_tokens_are_not_used():
    entries = [{"token": "a", "logprob": -1.0, "top_logprobs": []}] * 5
    choice = {"message": {"content": "a" * 9}, "finish_reason": "stop", "logprobs": {"content": entries}}
    whole = read("chat", {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 5}})[0]
    cut = read("chat", {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 9}})[0]
    assert len(whole.logprobs) == 5
    assert cut.logprobs is None


def test_a_response_cut_at_its_length():
    part = {"type": "output_text", "text": "so far"}
    reply = {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{"type": "message", "content": [part]}],
    }
    assert read("responses", reply)[0].finish_reason == "length"
    with pytest.raises(MalformedAnswerError, match="no output"):
        read("responses", {"status": "completed", "output": []})


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": "5"},
        {"prompt_tokens": 5, "completion_tokens": -1},
        {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 3},
    ],
)
def test_wrong_usage_is_unknown(usage):
    assert billed_tokens("chat", {"usage": usage}) == (None, None)


@pytest.mark.parametrize("usage", [10**30, -1, True, "9", 1.5, {"a": 1}])
def test_a_count_of_tokens_that_no_call_has_is_unknown(usage):
    reply = {"choices": [CHOICE], "usage": {"prompt_tokens": usage, "completion_tokens": 10**30}}
    assert billed_tokens("chat", reply) == (None, None)
    assert read("chat", reply)[0].completion_tokens is None


@pytest.mark.parametrize(
    ("endpoint", "reply"),
    [
        ("completions", {"choices": [{"text": "said", "logprobs": {"tokens": ["a"], "token_logprobs": 5}}]}),
        ("completions", {"choices": [{"text": "said", "logprobs": {"tokens": ["a"], "top_logprobs": 5}}]}),
        ("chat", {"choices": [{**CHOICE, "logprobs": {"content": [{"token": "a", "top_logprobs": 5}]}}]}),
        ("responses", {"status": "incomplete", "incomplete_details": "x", "output": [{"type": "message"}]}),
        (
            "responses",
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "s", "logprobs": 5}]}]},
        ),
        ("responses", {"status": "incomplete", "output": [{"type": "message", "content": 5}]}),
    ],
)
def test_fields_of_an_unexpected_shape_cost_that_field_alone(endpoint, reply):
    assert read(endpoint, reply)[0].logprobs is None


def test_what_cannot_be_read_at_all_is_a_fault_of_that_reply():
    """Whatever reading raises: the run goes on."""

    class Odd(dict):
        def get(self, name, default=None):
            raise RecursionError

    async def run():
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=deep())))
        async with Api("http://api.example/v1", "key-0123", Limits(), http_client=client) as api:
            with pytest.raises(MalformedAnswerError, match="unexpected shape"):
                api.read("chat", {"choices": [Odd()]})
            with pytest.raises(BrokenError, match="not valid JSON"):
                await api.call("chat", {"model": "m"})

    asyncio.run(run())
