"""The real client against a played server: what goes wrong, and that every answer is paid for once."""

import asyncio
import json
import os
import random
import threading
from collections import Counter

import httpx2
import pandas as pd
import pytest

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.log import AnswerLog
from extraction.answers.collecting.requests import FORBIDDEN_IN_A_ROW
from extraction.answers.collecting.run import log_path
from extraction.answers.responses import COLLECTED
from tests.extraction.answers.collecting.played import CHAT, KEY, ask, good, prompt_of, reply

pytestmark = pytest.mark.usefixtures("quick")


def test_every_answer_is_a_row_in_the_order_of_the_prompts(tmp_path):
    table = ask(tmp_path / "a.parquet", good, samples=2)
    assert table["prompt_id"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert table["sample"].tolist() == [0, 1] * 3
    assert table["text"].tolist() == [f"said Say {i // 2}" for i in range(6)]
    assert table["error"].isna().all()
    assert pd.read_parquet(tmp_path / "a.parquet")["text"].tolist() == table["text"].tolist()


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_the_table_is_read_back_as_it_was_collected(tmp_path, ending):
    def answer(request):
        number = int(prompt_of(request).split()[-1])
        return (
            httpx2.Response(200, json=reply("" if number == 0 else "NA, null")) if number < 2 else httpx2.Response(400)
        )

    table = ask(tmp_path / f"a.{ending}", answer)
    assert table.columns.tolist() == [*COLLECTED.columns]
    assert table["text"].tolist()[:2] == ["", "NA, null"]
    assert table["text"].isna().tolist() == [False, False, True]
    assert table["error"].isna().tolist() == [True, True, False]
    assert table["prompt_id"].tolist() == ["p0", "p1", "p2"]


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
    place = [number for number, line in enumerate(lines) if b'"text": ' in line][12]
    log.write_bytes(b"".join(lines[:place]) + lines[place][:40])  # killed while the thirteenth answer was written
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


def test_one_forbidden_prompt_is_a_failure_and_a_row_of_them_stops_the_run(tmp_path):
    """Some servers refuse a single prompt so, as their moderation does; a key without rights is refused every time."""

    def flags(request):
        flagged = prompt_of(request) == "Say 1"
        return httpx2.Response(403, json={"error": {"message": "flagged"}}) if flagged else good(request)

    table = ask(tmp_path / "a.parquet", flags, 20)
    assert table["error"].notna().sum() == 1
    assert "HTTP 403: flagged" in table["error"][1]

    calls = []

    def no_rights(request):
        calls.append(1)
        return httpx2.Response(403, json={"error": {"message": "no rights"}}) if len(calls) > 10 else good(request)

    with pytest.raises(InputError, match=r"no rights.*check the rights of the key.*10 of 500 answers are in"):
        ask(tmp_path / "b.parquet", no_rights, 500)
    assert len(calls) <= 10 + FORBIDDEN_IN_A_ROW + 4  # those in flight


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
        ({"samples": 0}, "samples takes a whole number from 1"),
        ({"max_tokens": 0}, "max_tokens takes a whole number from 1"),
        ({"temperature": 3.0}, "temperature takes a number from 0 to 2, got 3"),
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
    with pytest.raises(InputError, match="not an answer log"):
        ask(out, good)
    log_path(out).write_text('{"version": 99, "key": "k", "text": "t"}\n')
    with pytest.raises(InputError, match="another version"):
        ask(out, good)
    log_path(out).write_text('broken\n{"version": 1, "key": "k", "text": "t"}\n')
    with pytest.raises(InputError, match=r"Line 1 of .* is damaged"):
        ask(out, good)


def test_it_works_where_a_loop_is_running_already(tmp_path):
    async def notebook():
        return ask(tmp_path / "a.parquet", good)

    assert asyncio.run(notebook())["error"].isna().all()


def test_only_what_is_asked_for_counts_as_work(tmp_path):
    told = []
    ask(tmp_path / "a.parquet", good, 5)
    ask(tmp_path / "a.parquet", good, 8, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)


def test_a_table_that_cannot_be_written_is_told_before_anything_is_asked(tmp_path):
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(InputError, match=r"a.parquet is a folder; give the path of a table file in it"):
        ask(tmp_path / "a.parquet", lambda _: pytest.fail("asked"))
    (tmp_path / "b.log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"answer log .* could not be opened: Is a directory"):
        ask(tmp_path / "b.parquet", lambda _: pytest.fail("asked"))


def test_the_prompts_are_not_written_over(tmp_path, emergence):
    path = tmp_path / "p.csv"
    path.write_text("prompt\nName a river.\n")
    done = emergence("collect", "m", "--prompts", path, "--base-url", "http://127.0.0.1:9/v1", "--out", path)
    assert done.code == 2
    assert "is the file of the prompts" in done.err
    assert path.read_text() == "prompt\nName a river.\n"


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_a_full_disk_at_the_table_says_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch, ending):
    from extraction.answers.collecting import collected

    out = tmp_path / f"a.{ending}"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(collected, "_write_parquet" if ending == "parquet" else "_write_text", full)
        with pytest.raises(EmergenceError) as caught:
            ask(out, good)
    said = str(caught.value)
    assert "could not be written: No space left on device. 3 of 3 answers are kept in" in said
    assert "the same command continues without asking for them again" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.log.jsonl"]
    assert ask(out, lambda _: pytest.fail("asked again"))["error"].isna().all()


@pytest.mark.parametrize("place", ["/dev/full", "/dev/null"])
def test_a_log_that_is_no_file_is_refused(tmp_path, place):
    log_path(tmp_path / "a.csv").symlink_to(place)
    with pytest.raises(InputError, match="is not a file"):
        ask(tmp_path / "a.csv", lambda _: pytest.fail("asked"))


def test_a_disk_that_fills_up_ends_the_run_with_what_is_kept(tmp_path, monkeypatch):
    """From then on nothing is asked, as it could not be kept."""
    out, calls = tmp_path / "a.parquet", []
    write = os.write

    def nearly_full(handle, data):
        if len(calls) > 10:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    def counted(request):
        calls.append(1)
        return good(request)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", nearly_full)
        with pytest.raises(EmergenceError) as caught:
            ask(out, counted, 100)
    assert "No space left on device" in str(caught.value)
    assert "of 100 answers are in" in str(caught.value)
    assert len(calls) <= 10 + 4 + 1
    kept = pd.read_parquet(out)["text"].notna().sum()
    assert kept >= 10 - 4
    calls.clear()
    assert ask(out, counted, 100)["error"].isna().all()
    assert len(calls) == 100 - kept


@pytest.mark.parametrize("name", ["seed", "max_tokens", "samples", "concurrency"])
def test_numbers_beyond_what_tables_and_generators_hold_are_refused_first(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} takes a whole number"):
        ask(tmp_path / "a.parquet", lambda _: pytest.fail("asked"), **{name: 2**64})
    assert list(tmp_path.iterdir()) == []
