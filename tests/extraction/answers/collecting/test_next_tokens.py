"""Asking a played server for next tokens: what is sent, what is read, and what misbehaving servers come to."""

import json
import math

import httpx2
import pytest

from estimators.base import InputError
from extraction import Limits, Server
from extraction.answers.collecting.batch import NotReadyError
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.next_tokens import INSTRUCTION, find_asking, next_token_bill, next_tokens

URL = "http://127.0.0.1:9/v1"


class Played:
    """A server that shows `k` logprobs at the endpoints given, and notes what it was asked."""

    def __init__(self, k=20, endpoints=("completions", "chat"), cap=None, **more):
        self.k, self.endpoints, self.cap, self.more, self.bodies = k, endpoints, cap, more, []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        endpoint = "chat" if "messages" in body else "completions"
        self.bodies.append((endpoint, body))
        if endpoint not in self.endpoints:
            return httpx2.Response(404, json={"error": {"message": "no such endpoint"}})
        if self.more.get("stream_only") and not body.get("stream"):
            return httpx2.Response(200, text="data: {}\n\ndata: [DONE]\n\n")
        if body.get("n", 1) > self.more.get("most_n", 99):
            return httpx2.Response(400, json={"error": {"message": "n is too large"}})
        prompt = body["messages"][-1]["content"] if endpoint == "chat" else body["prompt"]
        if len(prompt) > self.more.get("context", 10**6):
            return httpx2.Response(400, json={"error": {"message": "the context is too short for this"}})
        asked = body.get("top_logprobs") or (body.get("logprobs") if endpoint == "completions" else 0) or 0
        if self.cap and asked > self.cap:
            return httpx2.Response(
                400, json={"error": {"message": f"logprobs is at most {self.cap}", "param": "logprobs"}}
            )
        choices = [self.choice(endpoint, prompt, body, i, min(asked, self.k)) for i in range(body.get("n", 1))]
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(choices), "total_tokens": 99}
        return httpx2.Response(200, json={"choices": choices, "usage": usage})

    def choice(self, endpoint, prompt, body, number, shown):
        seed = body.get("seed") or 0
        text = self.more.get("text") or (" a", " b", " c")[(seed + number) % 3]
        if self.more.get("echo"):
            text = prompt + text
        top = [{"token": f" t{i}", "logprob": math.log(0.9 / 2 ** (i + 1))} for i in range(shown)]
        top += [{"token": " never", "logprob": -9999.0}] if shown else []
        entries = [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}] if shown else None
        content = {"message": {"role": "assistant", "content": text}} if endpoint == "chat" else {"text": text}
        end = self.more.get("end", "length")
        return {"index": number, "finish_reason": end, "logprobs": {"content": entries} if shown else None, **content}


class Batching(Played):
    """The same behind a Batch API, which finishes what it was handed when asked for the second time."""

    file = made = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        if path == "/files":
            self.file = request.content[request.content.index(b'{"custom_id"') :].split(b"\r\n--")[0]
            return httpx2.Response(200, json={"id": "in", "object": "file"})
        if path == "/batches":
            self.made = {"id": "b1", "status": "in_progress", "metadata": json.loads(request.content)["metadata"]}
            return httpx2.Response(200, json=self.made)
        if path == "/batches/b1":
            return httpx2.Response(200, json=self.made | {"status": "completed", "output_file_id": "out"})
        if path == "/files/out/content":
            lines = []
            for call in map(json.loads, self.file.splitlines()):
                done = super().__call__(httpx2.Request("POST", f"{URL}/x", json=call["body"]))
                response = {"status_code": done.status_code, "body": done.json()}
                lines.append(json.dumps({"custom_id": call["custom_id"], "response": response}))
            return httpx2.Response(200, content="\n".join(lines).encode())
        return super().__call__(request)


def server(played, **options):
    # A client per run: each run has an event loop of its own.
    return Server(URL, http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(played)), limits=QUICK, **options)


QUICK = Limits(concurrency=2, max_retries=0)


def asked(played, tmp_path, texts=("one two", "three"), way="auto", **options):
    log = tmp_path / "m.log.jsonl"
    asking = find_asking("m", log=log, server=server(played), way=way, **options)
    return asking, next_tokens("m", texts, asking, log=log, server=server(played))


def test_completions_with_logprobs_come_first(tmp_path):
    played = Played()
    asking, replies = asked(played, tmp_path)
    assert asking.name == "completions-logprobs-20"
    assert len(replies.said["three"].top) == 20
    assert " never" not in replies.said["three"].top  # -9999: not shown
    endpoint, body = played.bodies[-1]
    assert (endpoint, body["prompt"] in ("one two", "three")) == ("completions", True)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs")} == {
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 1, "logprobs": 20,
    }  # fmt: skip


def test_every_reply_is_paid_for_once(tmp_path):
    played = Played()
    asking, _ = asked(played, tmp_path, ["one", "one", "two"])
    before = len(played.bodies)
    log = tmp_path / "m.log.jsonl"
    assert next_token_bill("m", ["one", "two"], asking, log=log, budget=Budget())["calls"] == 0
    bill = next_token_bill("m", ["one", "two", "four"], asking, log=log, budget=Budget(2.0, 8.0))
    assert (bill["calls"], bill["answers"]) == (1, 1)
    _, replies = asked(played, tmp_path, ["one", "two", "four"])
    assert len(played.bodies) == before + 1  # not even the questions to the server again
    assert set(replies.said) == {"one", "two", "four"}


def test_a_batch_is_submitted_and_fetched_later(tmp_path):
    played, log = Batching(endpoints=("chat",)), tmp_path / "m.log.jsonl"
    asking = find_asking("m", log=log, server=server(played))
    before = len(played.bodies)
    ask = lambda: next_tokens("m", ["one", "two"], asking, log=log, server=server(played), batch=True)  # noqa: E731
    with pytest.raises(NotReadyError, match=r"Submitted 2 calls as b1.*0 of 2 texts are answered"):
        ask()
    assert len(played.bodies) == before
    assert set(ask().said) == {"one", "two"}
    assert {len(said.top) for said in ask().said.values()} == {20}


def test_chat_carries_the_instruction(tmp_path):
    played = Played(endpoints=("chat",))
    asking, replies = asked(played, tmp_path)
    assert asking.name == "chat-logprobs-20"
    assert played.bodies[-1][1]["messages"][0]["content"].startswith(INSTRUCTION)
    assert set(replies.said) == {"one two", "three"}


def test_a_cap_of_five_is_in_the_name(tmp_path):
    asking, replies = asked(Played(cap=5), tmp_path, way="completions-logprobs")
    assert asking.name == "completions-logprobs-5"
    assert len(replies.said["three"].top) == 5


def test_one_logprob_alone_is_none_and_tokens_are_sampled(tmp_path):
    asking, replies = asked(Played(k=1), tmp_path)
    assert asking.name == "completions-samples-8"
    assert len(replies.said["three"].texts) == 8
    with pytest.raises(InputError, match="shows no logprobs"):
        find_asking("m", log=tmp_path / "n.jsonl", server=server(Played(k=1)), way="chat-logprobs")


def test_samples_where_n_is_taken_up_to_a_number(tmp_path):
    played = Played(k=0, most_n=4)
    asking, replies = asked(played, tmp_path)
    assert asking.capabilities.several
    assert {len(said.texts) for said in replies.said.values()} == {8}
    assert "n" not in played.bodies[-1][1]  # one each


def test_an_echoed_prompt_is_left_out(tmp_path):
    _, replies = asked(Played(k=0, echo=True), tmp_path)
    said = replies.said["three"]
    assert said.echoed
    assert set(said.texts) <= {" a", " b", " c"}


def test_streams_only_is_said(tmp_path):
    with pytest.raises(InputError, match="streams its replies"):
        find_asking("m", log=tmp_path / "m.jsonl", server=server(Played(stream_only=True)))


def test_what_is_not_answered_has_a_reason(tmp_path):
    _, replies = asked(Played(context=60), tmp_path, ["short", "far too long " * 9])
    assert set(replies.said) == {"short"}
    assert "context is too short" in next(iter(replies.reasons))


def test_a_content_filter_is_a_reason(tmp_path):
    _, replies = asked(Played(k=0, end="content_filter"), tmp_path, ["short"], way="chat-samples")
    assert list(replies.reasons) == ["held back by a content filter"]


def test_reasoning_that_takes_the_token_is_a_reason(tmp_path):
    _, replies = asked(Played(k=0, endpoints=("chat",), text="<think>"), tmp_path, ["short"])
    assert not replies.said
    assert "reasoning" in next(iter(replies.reasons))


def test_what_cannot_be_asked_is_refused(tmp_path):
    with pytest.raises(InputError, match="Unknown way"):
        find_asking("m", log=tmp_path / "m.jsonl", server=server(Played()), way="telepathy")
    with pytest.raises(InputError, match="at least 2"):
        find_asking("m", log=tmp_path / "m.jsonl", server=server(Played()), samples=1)
    with pytest.raises(InputError, match="must not be empty"):
        asked(Played(), tmp_path, [""])
