"""Pace and bill: pauses as a played server asks for them, and a budget that no run goes beyond."""

import asyncio
import json
import time

import httpx2
import pytest

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting import pace
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.run import estimate_bill, log_path
from tests.extraction.answers.collecting.played import URL, ask, good, prompt_of, reply, some_prompts

pytestmark = pytest.mark.usefixtures("quick")


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
    rate.complained(0.0)
    assert rate.limit == 8
    for _ in range(200):
        rate.answered({})
    assert rate.limit == 16
    with pytest.raises(pace.ServerBusyError, match="7200 s"):
        rate.complained(7200.0)


def test_one_call_refused_again_and_again_pauses_the_others_no_longer_than_any():
    rate = pace.Pace(4)
    for _ in range(10):
        rate.complained(None)
        rate.answered({})

    async def timed():
        started = time.monotonic()
        async with rate.turn():
            return time.monotonic() - started

    assert asyncio.run(timed()) < 2 * pace.FIRST_DELAY_S  # a tenth refusal in a row would pause for 15 to 30 s


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


def test_a_silent_call_does_not_hold_the_only_place(monkeypatch):
    """At one call at a time, the next begins once the silent one has had its second, and no earlier."""
    rate = pace.Pace(4)

    async def run():
        for _ in range(pace.REPLIES_FOR_MEDIAN):
            rate.answered({}, took_s=0.01)
        rate.limit = 1.0
        silent = asyncio.create_task(hold())
        await asyncio.sleep(0)
        started = time.monotonic()
        async with rate.turn():
            waited = time.monotonic() - started
        silent.cancel()
        return waited

    async def hold():
        async with rate.turn():
            await asyncio.sleep(60)

    monkeypatch.setattr(pace, "LENT_LEAST_S", 0.3)
    assert 0.29 <= asyncio.run(run()) < 1.0


def test_no_more_places_are_lent_than_there_are(monkeypatch):
    monkeypatch.setattr(pace, "LENT_UNKNOWN_S", 0.0)
    rate = pace.Pace(3)
    begun = []

    async def hold():
        async with rate.turn():
            begun.append(1)
            await asyncio.sleep(60)

    async def run():
        tasks = [asyncio.create_task(hold()) for _ in range(20)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert len(begun) == 6


def test_turns_are_taken_in_the_order_in_which_they_are_asked_for():
    rate = pace.Pace(1)
    order = []

    async def take(number):
        for _ in range(3):
            async with rate.turn():
                order.append(number)
                await asyncio.sleep(0)

    async def run():
        await asyncio.gather(*(take(number) for number in range(4)))

    asyncio.run(run())
    assert order == [0, 1, 2, 3] * 3


def test_the_time_limit_follows_the_replies(monkeypatch):
    """After 20 replies: 10 times the slowest, at least 15 s, doubled each time it was reached, never on the last."""
    rate = pace.Pace(4)
    took = []

    async def limit(late=0, last=False, timeout_s=120.0):
        async with rate.deadline(timeout_s, late, last=last) as held:
            return held.when() - asyncio.get_running_loop().time()

    async def run():
        took.append(await limit())
        for number in range(20):
            rate.answered({}, took_s=2.0 if number == 3 else 0.1)
        for late, last, timeout_s in ((0, False, 120), (1, False, 120), (3, False, 120), (0, True, 120), (0, False, 9)):
            took.append(await limit(late, last, timeout_s))

    asyncio.run(run())
    assert took == pytest.approx([120, 20, 40, 120, 120, 9], abs=0.1)


def test_calls_that_began_before_replies_were_known_are_held_to_the_limit_as_well(monkeypatch):
    monkeypatch.setattr(pace, "LATE_LEAST_S", 0.1)
    rate = pace.Pace(4)

    async def silent():
        async with rate.deadline(60.0, 0, last=False):
            for _ in range(20):
                rate.answered({}, took_s=0.02)
            await asyncio.sleep(60)

    async def run():
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await silent()
        return time.monotonic() - started

    assert 0.19 < asyncio.run(run()) < 1.0


def test_an_answer_that_takes_longer_than_all_others_is_had_in_the_end(tmp_path, monkeypatch):
    """The last attempt has all of the user's time."""
    monkeypatch.setattr(pace, "LATE_LEAST_S", 0.05)
    monkeypatch.setattr(pace, "LATE_SLOWEST", 1.0)

    async def server(request):
        if prompt_of(request) == "Say 30":
            await asyncio.sleep(1.0)
        return good(request)

    table = ask(tmp_path / "a.parquet", server, 40, max_retries=2, timeout_s=10.0, concurrency=4)
    assert table["text"].tolist() == [f"said Say {number}" for number in range(40)]


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
