"""What the probe finds out about servers that differ."""

import asyncio
import json
import random

import httpx2
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import Limits, collect, prompts
from extraction.answers.collecting.api import Api
from extraction.answers.collecting.budget import Budget, BudgetSpentError
from extraction.answers.collecting.endpoints import (
    ENDPOINTS,
    Capabilities,
    request,
)
from extraction.answers.collecting.probe import most_tokens, probe
from extraction.answers.sampling import Sampling
from tests.extraction.answers.collecting.played import grouped

WORDS = (
    "the",
    "sea",
    "was",
    "calm",
    "and",
    "every",
    "sailor",
    "slept",
    "beneath",
    "a",
    "pale",
    "moon",
    "while",
    "one",
    "more",
)


class Server:
    """An OpenAI-compatible server with switches for what real ones do differently."""

    def __init__(
        self, endpoints=("chat",), *, logprobs=0, n=True, seed=True, stop=True, sampled=True, rejects=(), extra=False
    ):
        self.paths = {"chat": "/chat/completions", "completions": "/completions", "responses": "/responses"}
        self.endpoints, self.logprobs, self.n, self.seed, self.stop = endpoints, logprobs, n, seed, stop
        self.sampled, self.rejects, self.extra = sampled, rejects, extra
        self.dice = random.Random(0)
        self.calls = 0

    def __call__(self, http):
        self.calls += 1
        body = json.loads(http.content)
        endpoint = next((name for name in self.endpoints if http.url.path == "/v1" + self.paths[name]), None)
        if endpoint is None:
            return httpx2.Response(404, json={"error": {"message": "no such path"}})
        for name in self.rejects:
            if name in body:
                error = {"message": f"Unsupported parameter: '{name}'.", "param": name, "code": "unsupported_parameter"}
                return httpx2.Response(400, json={"error": error})
        count = body.get("n", 1) if self.n else 1
        choices = [self.choice(endpoint, body, number) for number in range(count)]
        asked = 5 + sum(len(message["content"]) for message in body.get("messages", []) if message["role"] == "system")
        if endpoint == "responses":
            part = {"type": "output_text", "text": choices[0]["message"]["content"], "logprobs": []}
            output = [{"type": "reasoning"}, {"type": "message", "content": [part]}]
            usage = {"input_tokens": asked + len(body.get("instructions") or ""), "output_tokens": 9}
            return httpx2.Response(200, json={"status": "completed", "output": output, "usage": usage})
        usage = {"prompt_tokens": asked, "completion_tokens": 8 * count}
        return httpx2.Response(200, json={"choices": choices, "usage": usage})

    def choice(self, endpoint, body, number):
        dice = random.Random(0)
        if self.sampled and (not self.extra or "generation_config" in body) and body.get("temperature", 1):
            seed = body.get("seed") if self.seed else None
            dice = self.dice if seed is None else random.Random(seed + number)
        words = dice.choices(WORDS, k=8)
        text = " ".join(words)
        for end in (body.get("stop") or []) if self.stop else []:
            text = text.split(end)[0]
        made = {"text": text} if endpoint == "completions" else {"message": {"content": text}}
        if self.logprobs and body.get("logprobs"):
            made["logprobs"] = {
                "content": [
                    {
                        "token": word,
                        "logprob": -1.0,
                        "top_logprobs": [
                            {"token": f"{word}{place}", "logprob": -1.0 - place} for place in range(self.logprobs)
                        ],
                    }
                    for word in words
                ]
            }
        return {**made, "finish_reason": "length"}


ALL = {"stop": (".",), "system": "Be kind.", "several": True}


def found(server, endpoint=None, budget=None, several=False, **sampling) -> Capabilities:
    async def run():
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
        async with Api("http://api.example/v1", "key-0123", Limits(), http_client=client) as api:
            endpoints = [endpoint] if endpoint else ENDPOINTS
            return await probe(api, "m", endpoints, Sampling(**sampling), budget or Budget(), several=several)

    return asyncio.run(run())


def test_a_server_that_does_everything():
    able = found(Server(logprobs=5), **ALL)
    assert able == Capabilities("chat", logprobs=5, several=True, seed=True, stop=True, system=True, sampled=True)


def test_fields_ignored_with_http_200_are_noticed():
    able = found(Server(n=False, seed=False, stop=False), **ALL)
    assert able == Capabilities("chat", logprobs=0, several=False, seed=False, stop=False, system=True, sampled=True)


def test_a_server_that_decodes_greedily_is_told_to_sample_or_found_out():
    able = found(Server(extra=True))  # as `transformers serve`
    assert able.sampled
    assert "do_sample" in able.extra["generation_config"]
    assert not found(Server(sampled=False)).sampled


def test_a_reasoning_model_without_sampling_parameters():
    rejects = ("temperature", "seed", "stop", "logprobs", "max_tokens", "top_logprobs", "n")
    able = found(Server(rejects=rejects))
    assert set(able.rejected) >= {"temperature", "seed", "max_tokens"}
    assert not able.seed
    assert able.logprobs == 0
    body = request("m", "Hello", Sampling(max_tokens=9), able)
    assert body["max_completion_tokens"] == 9
    assert not set(body) & set(rejects)


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_the_first_endpoint_that_answers_is_taken(endpoint):
    assert found(Server((endpoint,))).endpoint == endpoint


def test_a_base_model_asked_at_the_chat_endpoint():
    with pytest.raises(InputError, match=r"no chat template: try --endpoint completions"):
        found(Server(("completions",)), "chat")


def test_a_wrong_url_says_what_was_tried():
    with pytest.raises(InputError, match=r"chat: HTTP 404.*completions: HTTP 404.*often /v1"):
        found(Server(()))


def test_the_probe_is_short():
    server = Server(logprobs=5)
    found(server)
    assert server.calls == 3  # whether seeds are obeyed; nothing that is not needed
    server = Server(logprobs=5)
    found(server, **ALL)
    assert server.calls == 6


class Picky(Server):
    """Refuses some fields in words of its own, as real servers do."""

    def __init__(self, refused, refusal, **switches):
        super().__init__(**switches)
        self.refused, self.refusal = refused, refusal

    def __call__(self, http):
        body = json.loads(http.content)
        if any(self.refused(name, body) for name in body):
            self.calls += 1
            status, content = self.refusal(body)
            return httpx2.Response(status, content=content)
        return super().__call__(http)


def as_error(message, status=400):
    return lambda body: (status, json.dumps({"error": {"message": message(body), "param": None, "code": status}}))


WORDINGS = {
    "names it": as_error(lambda body: "Unsupported parameter: 'seed'."),
    "repeats the request": as_error(
        lambda body: f"1 validation error: {{'msg': 'per-request seeds are off here', 'input': {body}}}"
    ),
    "lists what is supported": as_error(lambda body: "bad field; supported: 'temperature', 'n', 'stop', 'max_tokens'"),
    "names another": as_error(lambda body: "temperature is fine, but something else is not"),
    "says nothing": lambda body: (400, ""),
    "is a string": lambda body: (400, json.dumps({"code": "invalid-argument", "error": "no such thing here"})),
    "is a page": lambda body: (400, "<html><title>Bad Request</title></html>"),
    "is a list": lambda body: (422, json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "extra"}]})),
    "not implemented": as_error(lambda body: "not implemented", 501),
    "forbidden": as_error(lambda body: "You are not allowed to request this", 403),
    "failed": as_error(lambda body: "KeyError: 'seed'", 500),
    "with HTTP 200": as_error(lambda body: "no such thing here", 200),
    "with HTTP 200, named": as_error(lambda body: "Unsupported parameter: 'seed'.", 200),
    "with HTTP 200 and no success": lambda body: (200, json.dumps({"success": False, "msg": "no such thing here"})),
    "not acceptable": as_error(lambda body: "no such thing here", 406),
}


@pytest.mark.parametrize("wording", WORDINGS)
def test_the_refused_field_alone_is_left_out_whatever_the_wording(wording):
    able = found(Picky(lambda name, body: name == "seed", WORDINGS[wording], logprobs=5))
    assert able.rejected == ("seed",)
    assert able.seed is False
    assert able.logprobs == 5
    body = request("m", "Hello", Sampling(temperature=0.2), able, seed=7)
    assert body["temperature"] == 0.2
    assert "seed" not in body


def test_seeds_that_are_too_large_for_a_server_are_left_out():
    able = found(Picky(lambda name, body: name == "seed" and body["seed"] >= 2**16, WORDINGS["says nothing"]))
    assert able.rejected == ("seed",)


@pytest.mark.parametrize("field", ["temperature", "seed", "logprobs", "top_logprobs", "max_tokens"])
def test_every_optional_field_is_found_without_a_hint(field):
    able = found(Picky(lambda name, body: name == field, WORDINGS["says nothing"], logprobs=5))
    assert able.rejected == (("logprobs", "top_logprobs") if field == "logprobs" else (field,))
    assert able.logprobs == {"logprobs": 0, "top_logprobs": 5}.get(field, 5)
    body = request("m", "Hello", Sampling(), able, seed=7)
    assert {"temperature", "seed"} - {field} <= set(body)
    assert field not in body
    assert ("max_completion_tokens" in body) == (field == "max_tokens")


def test_several_refused_fields_are_found_without_a_hint():
    refused = ("temperature", "seed", "max_tokens")
    able = found(Picky(lambda name, body: name in refused, WORDINGS["says nothing"], logprobs=5))
    assert set(able.rejected) == set(refused)
    assert able.logprobs == 5


def test_several_choices_are_left_out_alone_where_they_are_refused():
    greedy = as_error(lambda body: "with greedy decoding the number of choices has to be 1, not 2")
    refuses = lambda name, body: name == "n" and body["n"] > 1 and not body.get("temperature")  # noqa: E731
    able = found(Picky(refuses, greedy, logprobs=5), several=True, temperature=0.0)
    assert not able.several
    assert able.logprobs == 5
    assert able.rejected == ("n",)
    for status in (403, 500):
        one = as_error(lambda body: "only one completion choice is allowed", status)
        able = found(Picky(lambda name, body: name == "n" and body["n"] > 1, one, logprobs=5), several=True)
        assert (able.several, able.rejected, able.logprobs) == (False, ("n",), 5)
    never = found(Picky(lambda name, body: name == "n", WORDINGS["says nothing"], logprobs=5), several=True)
    assert (never.several, never.logprobs, never.seed, never.rejected) == (False, 5, True, ("n",))


def test_stops_are_only_asked_for_where_the_user_gave_one(tmp_path):
    refused = as_error(lambda body: "this model takes no parameter named stop")
    server = Picky(lambda name, body: name == "stop", refused)
    assert found(server).rejected == ()
    able = found(server, stop=(",",))
    assert able.rejected == ("stop",)
    assert "stop" not in request("m", "Hello", Sampling(stop=(",",)), able)
    asked = prompts("questions").head(2)
    assert ask(tmp_path, server, asked, stop=(",",)).rejected == ("stop",)  # cut here instead
    texts = pd.read_csv(tmp_path / "a.csv")["text"]
    assert len(texts) == 2


def test_a_refusal_that_is_about_none_of_the_fields_is_told_with_its_reason():
    broke = as_error(lambda body: "the model has been retired")
    with pytest.raises(InputError, match="chat: HTTP 400: the model has been retired"):
        found(Picky(lambda name, body: name == "model", broke), "chat")


def test_the_length_of_an_answer_is_never_left_to_the_server():
    """Not even to find out which field is refused."""
    bodies = []

    class Watching(Picky):
        def __call__(self, http):
            bodies.append(json.loads(http.content))
            return super().__call__(http)

    found(Watching(lambda name, body: name in ("seed", "max_tokens"), WORDINGS["says nothing"]), **ALL)
    assert all(body.get("max_tokens", body.get("max_completion_tokens")) == 16 for body in bodies)


def test_a_reasoning_model_whose_short_answers_are_all_reasoning_is_found_out():
    class Thinking(Server):
        def choice(self, endpoint, body, number):
            made = super().choice(endpoint, body, number)
            return made | {"message": {"content": None, "reasoning_content": made["message"]["content"]}}

    able = found(Thinking(), **ALL)
    assert (able.seed, able.sampled, able.several, able.stop) == (True, True, True, True)


def test_a_reply_that_is_a_failure_is_asked_again(monkeypatch):
    monkeypatch.setattr("extraction.answers.collecting.pace.FIRST_DELAY_S", 0.001)
    lost = httpx2.Response(200, json={"choices": [{"finish_reason": "error", "error": {"message": "lost"}}]})
    assert found(failing(Server(logprobs=5), lost, lost)) == found(Server(logprobs=5))


def failing(server, *faults):
    """The server after so many faults."""
    left = list(faults)

    def handler(request):
        return left.pop(0) if left else server(request)

    return handler


def test_a_fault_that_passes_does_not_cost_an_endpoint(monkeypatch):
    monkeypatch.setattr("extraction.answers.collecting.pace.FIRST_DELAY_S", 0.001)
    faults = httpx2.Response(500, json={}), httpx2.Response(429, headers={"retry-after": "0.01"}, json={})
    assert found(failing(Server(("chat", "completions"), logprobs=5), *faults)) == found(Server(logprobs=5))


def test_the_probe_keeps_within_the_budget_and_is_on_the_bill():
    with pytest.raises(BudgetSpentError, match="limit of 40 tokens"):
        found(Server(), budget=Budget(max_total_tokens=40))
    budget = Budget()
    found(Server(extra=True), budget=budget)
    most = most_tokens()
    assert 0 < budget.prompt_tokens <= most[0]
    assert 0 < budget.completion_tokens <= most[1]
    assert budget.idle


def test_seeds_of_a_server_whose_answers_do_not_vary_are_unknown():
    assert found(Server(sampled=False)).seed is None
    assert found(Server(), temperature=0.0).seed is None
    assert found(Server(sampled=False, rejects=("seed",))).seed is False
    body = request("m", "Hello", Sampling(), Capabilities("chat", seed=None), seed=7)
    assert body["seed"] == 7  # it may work, and costs nothing


def test_a_logprob_of_the_chosen_token_alone_is_worth_asking_for():
    class Bare(Server):
        def choice(self, endpoint, body, number):
            made = super().choice(endpoint, body, number)
            for entry in made.get("logprobs", {}).get("content", []):
                entry["top_logprobs"] = []
            return made

    able = found(Bare(logprobs=5))
    assert able.logprobs == 1
    assert request("m", "Hello", Sampling(), able)["logprobs"]


def ask(tmp_path, server, asked, **options):
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    options = grouped(client, base_url="http://127.0.0.1:1/v1", **options)
    return collect("m", asked, out=tmp_path / "a.csv", **options).capabilities


def test_what_was_found_out_with_other_settings_is_found_out_again(tmp_path):
    asked = prompts("questions").head(2)
    server = Server(logprobs=5)
    assert not ask(tmp_path, server, asked, temperature=0.0).sampled
    assert ask(tmp_path, server, asked, temperature=1.0).sampled
    assert ask(tmp_path, server, asked, logprobs=0).logprobs == 0
    assert ask(tmp_path, server, asked).logprobs == 5
    calls = server.calls
    ask(tmp_path, server, asked)
    assert server.calls == calls  # known


def test_lists_are_asked_for_as_texts_to_go_on_with(tmp_path):
    both = Server(("chat", "completions"))
    assert ask(tmp_path, both, prompts("lists").head(3)).endpoint == "completions"
    assert ask(tmp_path, both, prompts("questions").head(3)).endpoint == "chat"
    assert ask(tmp_path, both, prompts("lists").head(3), endpoint="chat").endpoint == "chat"
    (tmp_path / "a.log.jsonl").unlink()
    assert ask(tmp_path, Server(), prompts("lists").head(3)).endpoint == "chat"  # where there is nothing else


def test_a_system_prompt_that_is_ignored_is_said(tmp_path, emergence, monkeypatch):
    class Deaf(Server):
        def __call__(self, http):
            body = json.loads(http.content)
            body["messages"] = body["messages"][-1:]
            return super().__call__(httpx2.Request(http.method, http.url, json=body))

    for server, told in ((Deaf(), True), (Server(), False)):
        transport = httpx2.MockTransport(server)
        monkeypatch.setattr(
            "openai.DefaultAsyncHttpxClient", lambda transport=transport, **_: httpx2.AsyncClient(transport=transport)
        )
        out = tmp_path / f"{told}.csv"
        url = "http://127.0.0.1:1/v1"
        done = emergence(
            "collect", "m", "--base-url", url, "--prompts", "questions", "--system", "Be brief.", "--out", out
        )
        assert done.code == 0, done.err
        assert ("the system prompt seems to be ignored" in done.err) == told


def test_a_question_without_reply_does_not_end_the_probe(monkeypatch):
    """As at a server that is silent now and then: the second and the fourth call get no reply at all."""
    monkeypatch.setattr("extraction.answers.collecting.probe.NEXT_WAIT_S", 0.2)
    server, calls = Server(logprobs=5), []

    async def silent_at_times(request):
        calls.append(1)
        if len(calls) in (2, 4):
            await asyncio.sleep(60)
        return server(request)

    budget = Budget()
    assert found(silent_at_times, budget=budget) == found(Server(logprobs=5))
    assert len(calls) == 3 + 2
    assert budget.idle
    assert budget.completion_tokens == 3 * 8 + 2 * 16  # what got no reply is charged at its most
