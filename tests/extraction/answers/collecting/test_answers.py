"""What replies become: odd and cut answers as rows of the table."""

import json

import httpx2
import pandas as pd
import pytest

from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.run import log_path
from extraction.answers.responses import read_responses
from tests.extraction.answers.collecting.played import URL, ask, good, prompt_of, reply

pytestmark = pytest.mark.usefixtures("quick")


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


def test_reasoning_that_leaves_no_room_for_an_answer_is_said(tmp_path, emergence, monkeypatch):
    nothing = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=nothing))
    monkeypatch.setattr("openai.DefaultAsyncHttpxClient", lambda **_: httpx2.AsyncClient(transport=transport))
    done = emergence("collect", "m", "--base-url", URL, "--prompts", "questions", "--out", tmp_path / "a.csv")
    assert done.code == 0, done.err
    assert "60 answers reached their length before any text" in done.err


def test_stop_texts_are_obeyed_even_where_the_server_ignores_them(tmp_path):
    table = ask(tmp_path / "a.parquet", lambda _: httpx2.Response(200, json=reply("dog, cat, cow")), 1, stop=[","])
    assert table["text"].tolist() == ["dog"]


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
    records = [json.loads(line) for line in log_path(out).read_text().splitlines()]
    old = [{**record, "version": 1, "completion_tokens": 10**30} for record in records if "text" in record]
    log_path(out).write_text("".join(json.dumps(record) + "\n" for record in old))
    assert ask(out, good, 1)["completion_tokens"].isna().all()


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
    from extraction.answers.collecting import collected

    whole = ask(tmp_path / f"a.{ending}", good, 7, samples=2)
    monkeypatch.setattr(collected, "ROWS_AT_A_TIME", 3)
    log_path(tmp_path / "a.x").rename(log_path(tmp_path / "b.x"))
    pieces = ask(tmp_path / f"b.{ending}", good, 7, samples=2)
    pd.testing.assert_frame_equal(whole, pieces)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes() or ending == "parquet"
    pd.testing.assert_frame_equal(
        read_responses(tmp_path / f"a.{ending}"), read_responses(tmp_path / f"b.{ending}"), check_dtype=False
    )
    assert len(read_responses(tmp_path / f"b.{ending}")) == 14
