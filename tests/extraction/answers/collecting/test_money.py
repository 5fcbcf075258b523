"""What is billed when runs end in the middle, and numbers that would switch a limit off."""

import math
import signal
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer

import httpx2
import pytest

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.budget import Budget, prompt_tokens_upper, read_prices
from extraction.answers.collecting.log import AnswerLog
from extraction.answers.collecting.run import log_path
from tests.extraction.answers.collecting.played import ask, good, reply
from tests.handlers import JsonHandler

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("name", ["input_price", "output_price", "max_cost", "max_total_tokens"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, "many", True])
def test_prices_and_limits_are_finite_and_from_0_up(name, value):
    numbers = {"input_price": 1.0, "output_price": 1.0, "max_cost": 1.0} | {name: value}
    with pytest.raises(InputError, match=name):
        Budget(**numbers)


@pytest.mark.parametrize("price", ["NaN", "-1", "Infinity", "null", "[1]", "true", '"dear"'])
def test_a_price_table_holds_prices(tmp_path, price):
    path = tmp_path / "prices.json"
    path.write_text(f'{{"m": {{"input": 1, "output": {price}}}}}')
    with pytest.raises(InputError, match=r"prices.json: output takes a number"):
        read_prices(path, "m")


@pytest.mark.parametrize("content", ["", "[]", "5", '{"m": 5}', '{"m": [1, 2]}', "[" * 100_000])
def test_what_is_no_price_table_is_one_sentence(tmp_path, content):
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is not a price table, such as"):
        read_prices(path, "m")


@pytest.mark.parametrize(
    ("content", "twice"),
    [
        ('{"m": {"input": 2.5, "output": 10}, "m": {"input": 0, "output": 0}}', "m"),
        ('{"m": {"input": 2.5, "output": 10, "output": 0}}', "output"),
        ('{"m": {"input": 2.5, "output": 10}, "x": {"input": 1, "input": 2}}', "input"),
    ],
)
def test_a_price_that_stands_twice_is_refused(tmp_path, content, twice):
    (tmp_path / "prices.json").write_text(content)
    with pytest.raises(InputError, match=f"gives {twice} twice"):
        read_prices(tmp_path / "prices.json", "m")


def test_prices_in_scientific_notation_are_numbers(tmp_path):
    (tmp_path / "prices.json").write_text('{"m": {"input": 2.5e-6, "output": 1E1}}')
    assert read_prices(tmp_path / "prices.json", "m") == (2.5e-6, 10.0)


@pytest.mark.parametrize(("content", "lacks"), [('{"m": {"input": 1}}', "output"), ('{"n": {}}', "m"), ("{}", "m")])
def test_a_price_table_without_the_model_says_what_it_lacks(tmp_path, content, lacks):
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"prices.json has no {lacks} for m; add it"):
        read_prices(path, "m")


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize("option", ["--max-cost", "--timeout", "--temperature", "--max-retries", "--seed", "--samples"])
def test_numbers_that_are_none_are_refused_by_the_option_s_name(tmp_path, emergence, option, value):
    (tmp_path / "prices.json").write_text('{"m": {"input": 1, "output": 1}}')
    given = ["--prices", tmp_path / "prices.json", "--base-url", "http://127.0.0.1:9/v1", option, value]
    done = emergence("collect", "m", *given, "--out", tmp_path / "a.csv")
    assert done.code == 2
    assert option in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["prices.json"]


class Counting(JsonHandler):
    """Takes half a second for every answer, and counts the tokens that it bills for, whoever still waits."""

    def post(self, body):
        with self.server.lock:
            self.server.billed += 5 + body["max_tokens"]
            self.server.calls += 1
        time.sleep(0.5)
        usage = {"prompt_tokens": 5, "completion_tokens": body["max_tokens"], "total_tokens": 5 + body["max_tokens"]}
        self.answer(reply("said") | {"usage": usage})


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def counting():
    made = Quiet(("127.0.0.1", 0), Counting)
    made.lock, made.billed, made.calls = threading.Lock(), 0, 0
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


SCRIPT = """
import pandas as pd
from pathlib import Path
from extraction import Budget, Limits, Sampling, Server, collect
from extraction.answers.collecting.endpoints import Capabilities
collect(
    "m", pd.DataFrame({{"prompt": [f"prompt {{n}}" for n in range(300)]}}), out=Path({out!r}),
    server=Server({url!r}, capabilities=Capabilities("chat"), limits=Limits(concurrency=16),
    budget=Budget(max_total_tokens={limit})), sampling=Sampling(max_tokens=50),
)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interruptions_do_not_carry_a_run_beyond_its_limit(tmp_path, counting, how):
    """Calls in flight are charged at their most, interrupted or killed: three times, then to the end."""
    out, limit = tmp_path / "a.parquet", 6000
    url = f"http://127.0.0.1:{counting.server_port}/v1"
    script = SCRIPT.format(out=str(out), url=url, limit=limit)
    for stop in (True, True, True, False):
        before = counting.calls
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stderr=subprocess.PIPE,
            text=True,
        )
        while stop and counting.calls < before + 16 and process.poll() is None:
            time.sleep(0.01)
        if stop:
            process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert "limit of 6000 tokens" in said
    time.sleep(0.6)
    assert 3000 < counting.billed <= limit
    with AnswerLog(log_path(out)) as log:
        assert sum(log.billed["m"]) >= counting.billed
        log.settle_interrupted()  # nothing is left open


def test_a_call_that_was_sent_and_never_answered_is_charged_by_the_next_run(tmp_path):
    out = tmp_path / "a.parquet"
    with AnswerLog(log_path(out)) as log:
        log.append({"key": "ab" * 16, "model": "m", "sent": (40, 64)})
        log.append({"key": "ab" * 16, "model": "m", "sent": (40, 64)})  # asked again by the same run
        log.append({"key": "cd" * 16, "model": "m", "sent": (40, 64)})
        log.append({"key": "cd" * 16, "model": "m", "text": "said", "billed": [5, 3]})
    budget = Budget()
    ask(out, good, 1, budget=budget)
    assert budget.earlier == (85, 131)
    budget = Budget()
    ask(out, good, 1, budget=budget)
    assert budget.earlier == (85 + 5, 131 + 3)


def test_a_limit_holds_for_what_was_only_sent(tmp_path):
    out = tmp_path / "a.parquet"
    with AnswerLog(log_path(out)) as log:
        log.append({"key": "ab" * 16, "model": "m", "sent": (40, 960)})
    with pytest.raises(EmergenceError, match="limit of 1000 tokens, of which earlier runs took 1000 tokens"):
        ask(out, good, 1, budget=Budget(max_total_tokens=1000))


def test_a_probe_that_broke_off_is_on_the_bill(tmp_path):
    calls = []

    def dying(request):
        calls.append(1)
        if len(calls) > 1:
            return httpx2.Response(401, json={"error": {"message": "expired"}})
        return good(request)

    out = tmp_path / "a.parquet"
    with pytest.raises(InputError, match="expired"):
        ask(out, dying, capabilities=None)
    budget = Budget()
    ask(out, good, budget=budget)
    assert budget.earlier == (5, 3)


def test_refusals_cost_nothing_and_lost_replies_all_they_can(tmp_path):
    answers = [httpx2.Response(400, json={}), httpx2.ReadError("reset")]

    def server(request):
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    budget = Budget()
    ask(tmp_path / "a.parquet", server, 2, budget=budget, max_retries=0, concurrency=1)
    assert (budget.prompt_tokens, budget.completion_tokens) == (prompt_tokens_upper("Say 0"), 64)
