"""The real client against a played server: what goes wrong, and that every answer is paid for once."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import pandas as pd
import pytest

from estimators.base import EmergenceError, InputError
from extraction import collect, pace
from extraction.answer_log import AnswerLog
from extraction.api import seconds_to_wait
from extraction.batch import NotReadyError
from extraction.collect import estimate_bill, log_path
from extraction.endpoints import Capabilities
from extraction.pace import Budget
from extraction.responses import read_responses

URL = "http://api.example/v1"
CHAT = Capabilities("chat", seed=True)
KEY = "sk-planted-0123456789"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(pace, "FIRST_DELAY_S", 0.001)


def some_prompts(count: int) -> pd.DataFrame:
    return pd.DataFrame({"prompt_id": [f"p{i}" for i in range(count)], "prompt": [f"Say {i}" for i in range(count)]})


def reply(text: str, **usage: object) -> dict:
    message = {"role": "assistant", "content": text}
    counts = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} | usage
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": counts}


def good(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json=reply("said " + prompt_of(request)))


def prompt_of(request: httpx2.Request) -> str:
    return json.loads(request.content)["messages"][-1]["content"]


def ask(out: Path, handler, count: int = 3, **options):
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    options = {"base_url": URL, "capabilities": CHAT, "concurrency": 4} | options
    return collect("m", some_prompts(count), out=out, http_client=client, **options)


def test_every_answer_is_a_row_in_the_order_of_the_prompts(tmp_path):
    table = ask(tmp_path / "a.parquet", good, samples=2)
    assert table["prompt_id"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert table["sample"].tolist() == [0, 1] * 3
    assert table["text"].tolist() == [f"said Say {i // 2}" for i in range(6)]
    assert table["error"].isna().all()
    assert pd.read_parquet(tmp_path / "a.parquet")["text"].tolist() == table["text"].tolist()


def test_two_thousand_prompts_with_every_fifth_call_failing(tmp_path):
    """Exactly one record each, none lost, and no call once an answer has arrived."""
    dice = random.Random(0)
    answered: Counter[str] = Counter()
    late: list[str] = []

    def flaky(request):
        prompt = prompt_of(request)
        if answered[prompt]:
            late.append(prompt)
        fault = dice.random()
        if fault < 0.05:
            return httpx2.Response(500, json={"error": {"message": "oops"}})
        if fault < 0.10:
            return httpx2.Response(429, headers={"retry-after": "0.01"}, json={"error": {"message": "slow down"}})
        if fault < 0.13:
            raise httpx2.ReadError("connection reset by peer")
        if fault < 0.16:
            return httpx2.Response(200, content=b'{"choices": [{"mess')
        if fault < 0.18:
            return httpx2.Response(200, json={"choices": []})
        if fault < 0.20:
            raise httpx2.ReadTimeout("too slow")
        answered[prompt] += 1
        return good(request)

    out = tmp_path / "a.parquet"
    table = ask(out, flaky, 2000, concurrency=32, max_retries=2)
    lost = int(table["error"].notna().sum())
    assert 0 < lost < 60  # about 0.2^3 of 2,000 = 16 fail three times in a row
    table = ask(out, flaky, 2000, concurrency=32, max_retries=20)  # the lost ones alone
    assert table["error"].isna().all()
    assert table["text"].tolist() == [f"said Say {i}" for i in range(2000)]
    assert not late
    assert set(answered.values()) == {1}
    with AnswerLog(log_path(out)) as log:
        keys = [record["key"] for record in log.records() if "text" in record]
    assert len(keys) == len(set(keys)) == 2000


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "a.parquet"
    calls: list[str] = []

    def counted(request):
        calls.append(prompt_of(request))
        return good(request)

    whole = ask(tmp_path / "whole.parquet", counted, 20)
    first = calls.copy()
    log = log_path(out)
    lines = log_path(tmp_path / "whole.parquet").read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:12]) + lines[12][:40])  # killed while the thirteenth record was written
    calls.clear()
    resumed = ask(out, counted, 20)
    assert len(calls) == 8
    assert set(calls) <= set(first)
    same = ["prompt_id", "sample", "text", "finish_reason", "prompt_tokens", "completion_tokens"]
    pd.testing.assert_frame_equal(resumed[same], whole[same])
    calls.clear()
    ask(out, counted, 20)
    assert calls == []


def test_other_settings_are_other_answers(tmp_path):
    calls = []

    def counted(request):
        calls.append(json.loads(request.content))
        return good(request)

    for temperature in (0.5, 0.5, 0.7):
        ask(tmp_path / "a.parquet", counted, 2, temperature=temperature)
    assert [call["temperature"] for call in calls] == [0.5, 0.5, 0.7, 0.7]
    assert len({call["seed"] for call in calls}) == 4


def test_two_runs_on_one_file_do_not_double(tmp_path):
    out = tmp_path / "a.parquet"
    inside, leave = threading.Event(), threading.Event()

    def slow(request):
        inside.set()
        leave.wait(10)
        return good(request)

    first = threading.Thread(target=ask, args=(out, slow))
    first.start()
    inside.wait(10)
    with pytest.raises(InputError, match="Another run is collecting"):
        ask(out, good)
    leave.set()
    first.join()
    assert pd.read_parquet(out)["error"].isna().all()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (httpx2.Response(500, json={"error": {"message": "oops"}}), "HTTP 500: oops"),
        (httpx2.Response(503, json={"error": {"message": "busy"}}), "HTTP 503: busy"),
        (httpx2.Response(429, json={"error": {"message": "slow down"}}), "HTTP 429: slow down"),
        (httpx2.Response(200, content=b"<html>"), "not valid JSON"),
        (httpx2.Response(200, content='{"choices": "é"}'.encode()[:-4]), "not valid JSON"),  # in the middle of a letter
        (httpx2.Response(200, json={"choices": []}), "no choices"),
        (httpx2.Response(200, json={"choices": [{"message": {"content": None}}]}), "neither text nor a reason"),
        (httpx2.Response(200, json=[1]), "not an object"),
        (httpx2.Response(200, json={"error": {"message": "upstream died"}}), "upstream died"),
        (httpx2.Response(400, json={"error": {"message": "context too long"}}), "HTTP 400: context too long"),
        (httpx2.ReadError("reset"), "cut off"),
        (httpx2.RemoteProtocolError("peer closed the connection"), "cut off"),
    ],
)
def test_a_fault_is_recorded_with_its_reason_and_asked_again_alone(tmp_path, fault, reason):
    calls = []

    def faulty(request):
        calls.append(prompt_of(request))
        if calls[-1] == "Say 1" and broken:
            if isinstance(fault, Exception):
                raise fault
            return httpx2.Response(fault.status_code, headers=dict(fault.headers), content=fault.content)
        return good(request)

    broken = True
    table = ask(tmp_path / "a.parquet", faulty, max_retries=1)
    assert table["error"].isna().tolist() == [True, False, True]
    assert reason in table["error"][1]
    assert pd.isna(table["text"][1])
    assert calls.count("Say 1") == (1 if "400" in reason else 2)
    broken = False
    calls.clear()
    assert ask(tmp_path / "a.parquet", faulty)["error"].isna().all()
    assert calls == ["Say 1"]


@pytest.mark.parametrize(
    ("status", "body", "error", "match"),
    [
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, EmergenceError, "quota is spent"),
        (402, {"error": {"message": "Insufficient Balance"}}, EmergenceError, "quota is spent"),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, InputError, "rejected the API key"),
        (403, {"error": {"message": "no rights"}}, InputError, "rejected the API key"),
    ],
)
def test_what_no_repetition_can_help_stops_the_run_at_once(tmp_path, status, body, error, match):
    calls = []

    def handler(request):
        calls.append(1)
        return httpx2.Response(status, json=body) if len(calls) > 10 else good(request)

    out = tmp_path / "a.parquet"
    with pytest.raises(error, match=match) as caught:
        ask(out, handler, 500)
    assert "10 of 500 answers are in" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(calls) <= 10 + 4  # those in flight
    assert pd.read_parquet(out)["text"].notna().sum() == 10
    assert isinstance(caught.value, InputError) == (error is InputError)


def test_a_pause_of_an_hour_is_told_not_slept_through(tmp_path):
    with pytest.raises(EmergenceError, match="pause of 3600 s"):
        ask(tmp_path / "a.parquet", lambda _: httpx2.Response(429, headers={"retry-after": "3600"}, json={}))


def test_a_server_that_goes_away_stops_the_run(tmp_path):
    calls = []

    def dying(request):
        calls.append(1)
        if len(calls) > 5:
            raise httpx2.ConnectError("connection refused")
        return good(request)

    with pytest.raises(EmergenceError, match="stopped answering"):
        ask(tmp_path / "a.parquet", dying, 5000)
    assert len(calls) < 100


def test_nobody_there(tmp_path):
    def nobody(request):
        raise httpx2.ConnectError("connection refused")

    for able in (None, CHAT):
        with pytest.raises(InputError, match=r"No server answers at http://api.example/v1"):
            ask(tmp_path / "a.parquet", nobody, capabilities=able)
    assert not (tmp_path / "a.parquet").exists()


def test_filtered_refused_and_odd_answers_are_answers(tmp_path):
    said = {
        "Say 0": {"message": {"content": None}, "finish_reason": "content_filter"},
        "Say 1": {"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"},
        "Say 2": {"message": {"content": "half \ud83d pair"}, "finish_reason": "stop"},
    }

    def handler(request):
        usage = {"prompt_tokens": -1, "completion_tokens": "many"}
        return httpx2.Response(200, content=json.dumps({"choices": [said[prompt_of(request)]], "usage": usage}))

    table = ask(tmp_path / "a.parquet", handler)
    assert table["text"].tolist() == ["", "I will not.", "half ? pair"]
    assert table["finish_reason"].tolist() == ["content_filter", "refusal", "stop"]
    assert table["completion_tokens"].isna().all()  # wrong usage is unknown usage
    assert table["error"].isna().all()


def test_a_budget_is_never_overrun(tmp_path):
    """Each call costs 5 + 3 tokens but could cost its reservation, so what is left must cover that."""
    budget = Budget(max_total_tokens=400)
    with pytest.raises(EmergenceError, match="limit of 400 tokens"):
        ask(tmp_path / "a.parquet", good, 500, budget=budget, max_tokens=50)
    assert 300 < budget.prompt_tokens + budget.completion_tokens <= 400
    priced = Budget(input_price=1e6, output_price=2e6, max_cost=1000)
    with pytest.raises(EmergenceError, match="limit of 1000"):
        ask(tmp_path / "b.parquet", good, 500, budget=priced)
    assert priced.spent is not None
    assert 800 < priced.spent <= 1000
    with pytest.raises(InputError, match="needs prices"):
        Budget(max_cost=1.0)


def test_the_bill_is_estimated_without_asking(tmp_path):
    out = tmp_path / "a.parquet"
    budget = Budget(input_price=1.0, output_price=2.0)
    bill = estimate_bill("m", some_prompts(10), out=out, budget=budget)
    assert bill["answers"] == 10
    assert bill["answer_tokens"] == 640
    probe = bill["probe_prompt_tokens"] + 2 * bill["probe_answer_tokens"]
    assert probe > 0  # asking what the server can do is paid as well
    assert bill["cost"] == pytest.approx((bill["prompt_tokens"] + 2 * 640 + probe) / 1e6)
    assert not log_path(out).exists()
    ask(out, good, 4)
    assert estimate_bill("m", some_prompts(10), out=out, budget=budget)["answers"] == 6


def test_pauses_follow_the_headers_and_pace_follows_the_complaints():
    rate = pace.Pace(16)
    rate.complained(0.0, 0)
    assert rate.limit == 8
    for _ in range(200):
        rate.answered({})
    assert rate.limit == 16
    with pytest.raises(pace.ServerBusyError, match="7200 s"):
        rate.complained(7200.0, 0)


@pytest.mark.parametrize(("reset", "pause"), [("80ms", 0.08), ("0.08", 0.08), ("6m0s", 0.0), ("soon", 0.0)])
def test_an_allowance_that_is_used_up_is_waited_for(reset, pause):
    """Only if that takes less than two minutes; otherwise the server will say how long to wait."""
    rate = pace.Pace(4)

    async def timed():
        rate.answered({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset})
        started = time.monotonic()
        async with rate.turn():
            return time.monotonic() - started

    waited = asyncio.run(timed())
    assert waited >= pause
    assert pause > 0 or waited < 0.05


def test_reasoning_that_leaves_no_room_for_an_answer_is_said(tmp_path, emergence, monkeypatch):
    nothing = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=nothing))
    monkeypatch.setattr("openai.DefaultAsyncHttpxClient", lambda **_: httpx2.AsyncClient(transport=transport))
    done = emergence("collect", "m", "--base-url", URL, "--prompts", "questions", "--out", tmp_path / "a.csv")
    assert done.code == 0, done.err
    assert "60 answers reached their length before any text" in done.err


def test_the_key_is_nowhere(tmp_path, capfd, caplog):
    """Neither in log, table, messages nor records of what went wrong, even if the server repeats it."""
    caplog.set_level("DEBUG")

    def echo(request):
        if prompt_of(request) == "Say 1":
            return httpx2.Response(400, json={"error": {"message": f"no: {request.headers['authorization']}"}})
        return httpx2.Response(200, json=reply(f"your header is {request.headers['authorization']}"))

    table = ask(tmp_path / "a.csv", echo)
    shown = capfd.readouterr()
    everything = shown.out + shown.err + caplog.text + table.to_string()
    everything += "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in everything
    assert "[key]" in everything  # and the server did send it


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"endpoint": "talk"}, "Unknown endpoint talk"),
        ({"base_url": "api.example/v1"}, "looks like http"),
        ({"base_url": "https://me:secret@api.example/v1"}, "user name or password"),
        ({"samples": 0}, "samples is a whole number"),
        ({"max_tokens": 0}, "max_tokens is a whole number"),
        ({"temperature": 3.0}, "between 0 and 2"),
        ({"key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"key_env": "sk-pasted-by-mistake"}, "the one named by --key-env"),
        ({"capabilities": Capabilities("completions"), "system": "Be kind."}, "no system prompt"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_table(tmp_path, options, match):
    with pytest.raises(InputError, match=match) as caught:
        ask(tmp_path / "a.parquet", good, **options)
    assert "secret" not in str(caught.value)
    assert "sk-pasted" not in str(caught.value)
    assert not (tmp_path / "a.parquet").exists()


def test_a_log_that_is_none_or_of_another_version(tmp_path):
    out = tmp_path / "a.parquet"
    log_path(out).write_text('{"something": "else"}\n')
    with pytest.raises(InputError, match="no answer log"):
        ask(out, good)
    log_path(out).write_text('{"version": 99, "key": "k", "text": "t"}\n')
    with pytest.raises(InputError, match="another version"):
        ask(out, good)
    log_path(out).write_text('broken\n{"version": 1, "key": "k", "text": "t"}\n')
    with pytest.raises(InputError, match=r"Line 1 of .* is damaged"):
        ask(out, good)


def test_stop_texts_are_obeyed_even_where_the_server_ignores_them(tmp_path):
    table = ask(tmp_path / "a.parquet", lambda _: httpx2.Response(200, json=reply("dog, cat, cow")), 1, stop=[","])
    assert table["text"].tolist() == ["dog"]


def test_it_works_where_a_loop_is_running_already(tmp_path):
    async def notebook():
        return ask(tmp_path / "a.parquet", good)

    assert asyncio.run(notebook())["error"].isna().all()


def batch_server(state: dict):
    """Files and batches of the Batch API, as documented; `state` is what the server remembers."""

    def handler(request):
        path = request.url.path.removeprefix("/v1")
        if path == "/files":
            body = request.content
            state["file"] = body[body.index(b'{"custom_id"') :].split(b"\r\n--")[0]
            return httpx2.Response(200, json={"id": "file-in", "object": "file"})
        if path == "/batches" and request.method == "POST":
            state["batch"] = {
                "id": "batch_1",
                "status": "in_progress",
                "metadata": json.loads(request.content)["metadata"],
            }
            if state.pop("die", False):
                raise httpx2.ReadError("reset")
            return httpx2.Response(200, json=state["batch"])
        if path == "/batches":
            return httpx2.Response(200, json={"data": [state["batch"]], "has_more": False})
        if path.startswith("/batches/"):
            counts = {"total": 3, "completed": 1, "failed": 0}
            return httpx2.Response(200, json=state["batch"] | {"request_counts": counts})
        if path == "/files/file-out/content":
            return httpx2.Response(200, content=state["out"])
        raise AssertionError(path)

    return handler


def finish(state: dict, faulty: int | None = None) -> None:
    lines = []
    for number, line in enumerate(state["file"].splitlines()):
        call = json.loads(line)
        assert call["url"] == "/v1/chat/completions"
        text = "said " + call["body"]["messages"][-1]["content"]
        response = {"status_code": 200, "body": reply(text)}
        if number == faulty:
            response = {"status_code": 500, "body": {"error": {"message": "oops"}}}
        lines.append(json.dumps({"custom_id": call["custom_id"], "response": response, "error": None}))
    lines += [lines[0], json.dumps({"custom_id": "stranger", "response": {"status_code": 200, "body": reply("x")}})]
    state["out"] = "\n".join(reversed(lines)).encode()
    state["batch"] |= {"status": "completed", "output_file_id": "file-out"}


def test_a_batch_is_handed_in_left_and_fetched(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Handed in 3 calls as batch_1"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(NotReadyError, match="in progress, 1 of 3 done"):
        ask(out, batch_server(state), batch=True)
    finish(state, faulty=1)
    table = ask(out, batch_server(state), batch=True)
    assert table["text"].tolist()[::2] == ["said Say 0", "said Say 2"]
    assert "oops" in table["error"][1]
    with pytest.raises(NotReadyError, match="Handed in 1 calls"):  # only what failed
        ask(out, batch_server(state), batch=True)
    finish(state)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()
    assert ask(out, batch_server({}), batch=True)["error"].isna().all()  # nothing to do: nothing asked


def test_a_batch_whose_name_was_lost_is_found_again_not_paid_twice(tmp_path):
    state: dict = {"die": True}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match="could not be reached"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(NotReadyError, match="Batch batch_1 is in progress"):
        ask(out, batch_server(state), batch=True)
    finish(state)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()


def test_a_server_without_batches(tmp_path):
    with pytest.raises(InputError, match="no Batch API"):
        ask(tmp_path / "a.parquet", lambda _: httpx2.Response(404, json={"detail": "Not Found"}), batch=True)


def test_one_odd_reply_costs_its_own_answer_and_no_rerun(tmp_path):
    odd = {
        "Say 0": json.dumps(reply("fine", completion_tokens=10**30)).encode(),
        "Say 1": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "Say 2": json.dumps(
            {"choices": [{"message": {"content": "\ud83d"}, "finish_reason": "\ud83d", "logprobs": {"content": [
                {"token": "\ud83d", "logprob": -1.0, "top_logprobs": []}]}}]}
        ).encode(),
    }  # fmt: skip

    def handler(request):
        return httpx2.Response(200, content=odd.get(prompt_of(request)) or json.dumps(reply("good")))

    table = ask(tmp_path / "a.parquet", handler, 5, max_retries=0)
    assert table["error"].isna().tolist() == [True, False, True, True, True]
    assert table["completion_tokens"].isna()[0]
    odd.clear()
    assert ask(tmp_path / "a.parquet", handler, 5)["error"].isna().all()


def test_a_count_in_an_older_log_that_fits_no_table_is_unknown(tmp_path):
    out = tmp_path / "a.parquet"
    ask(out, good, 1)
    lines = log_path(out).read_text().replace('"completion_tokens": 3', '"completion_tokens": ' + "1" + "0" * 30)
    log_path(out).write_text(lines)
    assert ask(out, good, 1)["completion_tokens"].isna().all()


def test_answers_of_a_batch_are_kept_whatever_run_fetches_them(tmp_path):
    """A run with other settings on the same log must not throw away what was paid for."""
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Handed in 3 calls"):
        ask(out, batch_server(state), batch=True, stop=["2"])
    finish(state)
    first = state["file"]
    with pytest.raises(NotReadyError, match="Handed in 3 calls"):  # its own are still to be asked for
        ask(out, batch_server(state), batch=True, temperature=0.5)
    assert state["file"] != first

    def nobody(request):
        raise AssertionError("asked again")

    table = ask(out, nobody, stop=["2"])  # all there, so nothing is asked, and cut by the run that asked
    assert table["text"].tolist() == ["said Say 0", "said Say 1", "said Say "]


def test_what_a_batch_was_asked_for_is_not_asked_for_again_without_it(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Handed in 3 calls"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(InputError, match="3 of these answers are on their way in a batch"):
        ask(out, good)
    assert estimate_bill("m", some_prompts(3), out=out, budget=Budget())["answers"] == 0
    assert ask(out, good, temperature=0.5)["error"].isna().all()  # other answers may be asked for
    finish(state, faulty=1)
    ask(out, batch_server(state), batch=True)
    assert ask(out, good)["error"].isna().all()  # what the batch did not bring


def test_a_lost_batch_is_found_beyond_the_first_page(tmp_path):
    state: dict = {"die": True}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match="could not be reached"):
        ask(out, batch_server(state), batch=True)
    pages = []

    def paged(request):
        if request.url.path == "/v1/batches":
            pages.append(request.url.params.get("after"))
            other = {"id": f"batch_other_{len(pages)}", "status": "completed", "metadata": {}}
            mine = len(pages) == 3
            return httpx2.Response(200, json={"data": [state["batch"] if mine else other], "has_more": not mine})
        return batch_server(state)(request)

    with pytest.raises(NotReadyError, match="Batch batch_1 is in progress"):
        ask(out, paged, batch=True)
    assert pages == [None, "batch_other_1", "batch_other_2"]


def test_a_batch_in_the_wrong_way_or_of_a_faulty_server_is_said_in_a_sentence(tmp_path):
    out = tmp_path / "a.parquet"
    with pytest.raises(InputError, match="no system prompt"):
        ask(out, good, batch=True, system="Be kind.", capabilities=Capabilities("completions"))
    state: dict = {}
    with pytest.raises(NotReadyError):
        ask(out, batch_server(state), batch=True)
    finish(state)
    faults = [
        httpx2.Response(500, json={"error": {"message": f"no file for {KEY}"}}),
        httpx2.ReadError("reset"),
        httpx2.Response(404, json={}),
    ]
    for fault in faults:

        def faulty(request, fault=fault):
            if request.url.path.endswith("/content"):
                if isinstance(fault, Exception):
                    raise fault
                return fault
            return batch_server(state)(request)

        with pytest.raises(EmergenceError) as caught:
            ask(out, faulty, batch=True)
        assert KEY not in str(caught.value)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()  # not marked as fetched in between


def test_the_reason_of_a_refused_batch_is_told_without_the_key(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError):
        ask(out, batch_server(state), batch=True)
    state["batch"] |= {"status": "failed", "errors": {"data": [{"message": f"key {KEY} has no batches"}]}}
    with pytest.raises(EmergenceError, match=r"refused batch batch_1: key \[key\] has no batches"):
        ask(out, batch_server(state), batch=True)


def test_a_batch_hands_in_what_the_budget_allows_for(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match=r"Handed in 4 calls as batch_1.*limit of 300 tokens"):
        ask(out, batch_server(state), 10, batch=True, max_tokens=50, budget=Budget(max_total_tokens=300))
    assert state["file"].count(b"custom_id") == 4  # each can cost 20 + 50
    with pytest.raises(EmergenceError, match=r"Nothing was handed in.*limit of 300 tokens"):
        ask(out, batch_server(state), 10, batch=True, max_tokens=50, budget=Budget(max_total_tokens=300))


def test_a_limit_covers_earlier_runs_into_the_same_log(tmp_path):
    out = tmp_path / "a.parquet"
    billed = 0
    for _ in range(3):
        budget = Budget(max_total_tokens=400)
        with pytest.raises(EmergenceError, match="limit of 400 tokens"):
            ask(out, good, 500, budget=budget, max_tokens=50)
        billed += budget.prompt_tokens + budget.completion_tokens
    assert 300 < billed <= 400


def test_replies_that_could_not_be_read_are_on_the_bill_of_the_next_run_too(tmp_path):
    out = tmp_path / "a.parquet"
    ask(out, lambda _: httpx2.Response(200, json={"choices": [], "usage": reply("")["usage"]}), max_retries=1)
    budget = Budget()
    ask(out, good, budget=budget)
    assert budget.earlier == (3 * 2 * 5, 3 * 2 * 3)


def test_only_what_is_asked_for_counts_as_work(tmp_path):
    told = []
    ask(tmp_path / "a.parquet", good, 5)
    ask(tmp_path / "a.parquet", good, 8, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)


def test_tokens_behind_the_stop_are_no_part_of_the_answer(tmp_path):
    words = ["dog", ",", " cat", ", cow"]
    told = {"content": [{"token": word, "logprob": -1.0, "top_logprobs": []} for word in words]}
    answer = reply("".join(words), completion_tokens=4)
    answer["choices"][0]["logprobs"] = told
    able = Capabilities("chat", logprobs=1)
    handler = lambda _: httpx2.Response(200, json=answer)  # noqa: E731
    table = ask(tmp_path / "a.parquet", handler, 1, stop=[" cow"], capabilities=able)
    assert [entry["token"] for entry in json.loads(table["logprobs"][0])] == words
    table = ask(tmp_path / "a.parquet", handler, 1, stop=[","], capabilities=able)
    assert [entry["token"] for entry in json.loads(table["logprobs"][0])] == ["dog"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_the_table_is_the_same_in_however_many_pieces(tmp_path, monkeypatch, ending):
    from extraction import responses

    whole = ask(tmp_path / f"a.{ending}", good, 7, samples=2)
    monkeypatch.setattr(responses, "ROWS_AT_A_TIME", 3)
    log_path(tmp_path / "a.x").rename(log_path(tmp_path / "b.x"))
    pieces = ask(tmp_path / f"b.{ending}", good, 7, samples=2)
    pd.testing.assert_frame_equal(whole, pieces)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes() or ending == "parquet"
    pd.testing.assert_frame_equal(
        read_responses(tmp_path / f"a.{ending}"), read_responses(tmp_path / f"b.{ending}"), check_dtype=False
    )
    assert len(read_responses(tmp_path / f"b.{ending}")) == 14


@pytest.mark.parametrize(
    ("left", "reset", "waits"), [("1", "80ms", True), ("500", "80ms", False), ("x", "80ms", False)]
)
def test_an_allowance_that_is_nearly_used_up_is_left_to_what_is_in_flight(left, reset, waits):
    rate = pace.Pace(8)

    async def timed():
        async with rate.turn(), rate.turn(), rate.turn():
            rate.answered({"x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset})
        started = time.monotonic()
        async with rate.turn():
            return time.monotonic() - started

    assert (asyncio.run(timed()) >= 0.07) == waits


def test_an_allowance_that_is_long_to_come_back_is_used_one_call_at_a_time():
    rate = pace.Pace(8)
    rate.answered({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"})
    assert rate.limit == 1.0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset-requests": "2s"}, 2.0),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-reset-tokens": "3s"}, 9.0),
        (
            {
                "x-ratelimit-reset-requests": "9s",
                "x-ratelimit-reset-tokens": "3s",
                "x-ratelimit-remaining-requests": "7",
                "x-ratelimit-remaining-tokens": "0",
            },
            3.0,
        ),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "9s"}, 1.0),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({}, None),
    ],
)
def test_a_complaint_without_retry_after_says_by_its_allowance_when_to_come_back(headers, wait):
    assert seconds_to_wait(headers) == wait


def test_the_command_says_what_it_would_cost_and_asks_nothing(tmp_path, emergence, monkeypatch):
    def nobody(**_):
        raise AssertionError("no connection is needed")

    monkeypatch.setattr("openai.DefaultAsyncHttpxClient", nobody)
    (tmp_path / "prices.json").write_text('{"m": {"input": 1000, "output": 2000}}')
    command = ["collect", "m", "--dry-run", "--prices", tmp_path / "prices.json", "--prompts", "questions"]
    command += ["--base-url", URL, "--max-tokens", 10, "--out", tmp_path / "a.parquet"]
    done = emergence(*command)
    assert done.code == 0, done.err
    assert done.out.startswith("60 answers would be asked for: about")
    assert "at most 600 answer tokens, with at most" in done.out
    assert "costing at most about" in done.out
    bill = json.loads(emergence(*command, "--json").out)
    assert bill["answers"] == 60
    assert bill["cost"] > 0.6 * 2
    assert [path.name for path in tmp_path.iterdir()] == ["prices.json"]
    said = emergence("collect", "--help").out
    assert "--max-cost" in said
    assert "--max-total-tokens" in said
