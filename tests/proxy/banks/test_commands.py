"""`emergence estimate` and `bank` as typed, against a server that plays what real ones give and refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest

from proxy.regression.proxy import fit_proxy
from tests.handlers import JsonHandler
from tests.proxy.banks.conftest import NAMES
from tests.proxy.banks.test_answers import FIXED, READER, answers

Run = Callable[..., Any]
TOKENS = [f" w{number}" for number in range(40)]
CHANCE = [1 / (rank + 1) / sum(1 / (k + 1) for k in range(40)) for rank in range(40)]


class _Played(JsonHandler):
    """Says by the length of the text which token is likeliest; scores no text."""

    shown, chat_only = 20, True

    def post(self, body: Any) -> None:
        """Answer, or refuse as a server of this kind does."""
        chat = self.path.endswith("/chat/completions")
        if not chat and (self.chat_only or not self.path.endswith("/completions")):
            return self.answer({"error": {"message": "There is no such endpoint."}}, 404)
        wanted = int((body.get("top_logprobs") if chat else body.get("logprobs")) or 0)
        if body.get("echo") or wanted > self.shown:
            wrong = {"message": "not supported", "param": "echo" if body.get("echo") else "logprobs"}
            return self.answer({"error": wrong}, 400)
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        turn = len(text) % 7
        logs = {TOKENS[(rank + turn) % 40]: math.log(p) for rank, p in enumerate(CHANCE)}
        top = dict(list(logs.items())[:wanted])
        choices = []
        for index in range(int(body.get("n") or 1)):
            said = TOKENS[(index + turn) % 40]
            choice: dict[str, Any] = {"index": index, "finish_reason": "length"}
            choice |= {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
            if wanted and chat:
                shown = [{"token": token, "logprob": log} for token, log in top.items()]
                choice["logprobs"] = {"content": [{"token": said, "logprob": logs[said], "top_logprobs": shown}]}
            elif wanted:
                choice["logprobs"] = {"tokens": [said], "token_logprobs": [logs[said]], "top_logprobs": [top]}
            choices.append(choice)
        usage = {"prompt_tokens": len(text) // 3, "completion_tokens": len(choices), "total_tokens": 0}
        return self.answer({"id": "x", "model": body["model"], "choices": choices, "usage": usage})


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Start a server that shows so many logprobs, as a chat alone or by completions too; returns its URL."""
    servers = []

    def start(*, shown: int, chat_only: bool) -> str:
        handler = type("Handler", (_Played,), {"shown": shown, "chat_only": chat_only})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_chat_that_no_reference_was_asked_as_is_measured_and_the_references_named(
    emergence: Run, served: Callable[..., str], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = served(shown=20, chat_only=True)
    done = emergence(
        "estimate", "closed", "--base-url", url, "--tokenizer", "gpt2-30k", "--bank", built, "--max-calls", 450,
        "--no-control", "--yes", "--out", "made",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "chat-logprobs-20" in done.out  # what was measured
    said = " ".join(done.err.split())
    assert (
        "as a chat the server gives 20 logprobs, and the proxies of made on python-docs need logprobs-20, samples"
        in said
    )
    assert "references asked in the same way are needed (--ask chat-logprobs" in said
    assert "A limit of 450 calls buys" in said
    measured = pd.read_parquet("made/measured.parquet")
    assert list(measured["estimator"]) == ["predictive-20", "output-20"]
    assert pd.read_parquet("made/measured.continuations.parquet")["model"].unique().tolist() == ["closed"]
    assert pd.read_csv("made/estimate.csv")["estimate"].isna().all()
    assert "Not estimated; what follows says why." in Path("made/card.md").read_text(encoding="utf-8")


def test_a_server_of_few_logprobs_is_sampled_where_a_proxy_of_samples_remains(
    emergence: Run, served: Callable[..., str], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = served(shown=5, chat_only=False)
    asked = ("estimate", "closed", "--base-url", url, "--tokenizer", "gpt2-30k", "--bank", built)
    done = emergence(*asked)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "shows 5 logprobs; of the proxies of made (logprobs-20, samples) samples remains" in said
    assert "closed is asked by completions-samples-8" in said
    assert "Nothing was sent. The same command with --yes continues." in said


def test_little_money_and_few_calls_say_what_they_buy(
    emergence: Run, served: Callable[..., str], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prices.json").write_text('{"closed": {"input": 1000, "output": 1000}}', encoding="utf-8")
    url = served(shown=20, chat_only=False)
    asked = ("estimate", "closed", "--base-url", url, "--tokenizer", "gpt2-30k", "--bank", built)
    done = emergence(*asked, "--max-calls", 50)
    assert done.code == 2
    assert "A limit of 50 calls buys" in done.err
    done = emergence(*asked, "--prices", "prices.json", "--max-cost", 0.05)
    assert done.code == 2
    assert "A limit of 0.05, about" in done.err
    assert "windows" in done.err


def test_single_tokens_that_were_measured_are_not_asked_for_again(
    emergence: Run,
    served: Callable[..., str],
    built: Path,
    far: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = ("closed", "--base-url", far(served(shown=20, chat_only=False)), "--tokenizer", "gpt2-30k")

    def calls(folder: str) -> int:
        done = emergence("estimate", *model, "--bank", built, "--no-control", "--out", folder)
        assert done.code == 0, done.err
        return int(re.search(r"The bill: (\d+) calls", " ".join(done.err.split()))[1])  # type: ignore[index]

    before = calls("one")
    done = emergence(
        "measure", *model, "--corpus", "python-docs", "--windows", 100, "--prefix", "none", "--out", "closed.parquet"
    )
    assert done.code == 0, done.err
    assert calls("two") < before - 100


def test_a_table_without_the_corpus_that_was_asked_for_is_refused(
    emergence: Run, table: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = table(["closed-3"])
    rows[rows["layer"] < 0].to_parquet("measured.parquet")
    done = emergence("estimate", "measured.parquet", "--corpus", "animal")
    assert done.code == 2
    assert "measured.parquet holds no output rows on animal; it has python-docs." in done.err


def test_a_table_of_answers_is_estimated_by_a_bank_that_has_answers(
    emergence: Run, table: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.banks.answers.DEFAULT_READERS", (READER,))
    by_one = {"candidate": FIXED}
    monkeypatch.setattr("proxy.banks.estimating.fit_proxy", lambda table, **how: fit_proxy(table, **{**how, **by_one}))
    table(NAMES).to_parquet("measured.parquet")
    answers(NAMES).to_parquet("open.parquet")
    answers(["closed-4"]).to_parquet("closed.parquet")
    answers(["closed-4"], first=50).to_parquet("other.parquet")
    done = emergence("bank", "build", "measured.parquet", "open.parquet", "--out", "bank")
    assert done.code == 0, done.err
    shown = emergence("bank", "show", "bank")
    assert "14 models, 12 prompts of hash" in " ".join(shown.out.replace("│", " ").split())
    done = emergence("estimate", "closed.parquet", "--bank", "bank", "--out", "made")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "nothing of closed-4 was measured, as only its answers are known" in said
    assert re.search(r"closed-4 lies (inside|outside) the bank\.", said)  # made-up answers may do either
    assert "Wrote card.md, estimate.csv, profile.png into made" in said
    assert "Measured" not in done.out
    assert set(pd.read_csv("made/estimate.csv")["how"]) == {"estimated"}
    refused = emergence("estimate", "other.parquet", "--bank", "bank")
    assert refused.code == 2
    assert "closed-4 did not answer as the references of bank did" in refused.err


def test_a_bank_without_answers_refuses_a_table_of_them(
    emergence: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers(["closed-4"]).to_parquet("closed.parquet")
    done = emergence("estimate", "closed.parquet", "--bank", built)
    assert done.code == 2
    assert "The bank made holds no answers of its references; let them answer" in done.err


def test_few_runs_are_refused_before_anything_is_asked(
    emergence: Run, table: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(["one-1", "one-2"]).to_parquet("measured.parquet")
    assert emergence("bank", "build", "measured.parquet", "--out", "bank").code == 0
    for command in (
        ("bank", "check", "bank"),
        ("estimate", "m", "--bank", "bank", "--base-url", "http://127.0.0.1:9/v1"),
    ):
        done = emergence(*command)
        assert done.code == 2
        assert "has 2 independent training runs; a 90% interval needs 9" in done.err
