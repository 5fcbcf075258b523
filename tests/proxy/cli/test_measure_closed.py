"""`emergence measure NAME --base-url URL` from the command line, against llama.cpp's server with a bundled model."""

from __future__ import annotations

import json

import pandas as pd
import pytest


@pytest.fixture
def command(emergence, llama_server, tmp_path, monkeypatch):
    """Measure gpt2-90k behind the server; the price of a token of either kind is a millionth."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.json").write_text('{"gpt2-90k": {"input": 1, "output": 1}}', encoding="utf-8")
    url = llama_server("gpt2-90k")

    def run(*more: object):
        return emergence(
            "measure", "gpt2-90k", "--base-url", url, "--corpus", "python-docs", "--windows", 40, "--tokenizer",
            "gpt2-90k", "--prices", "prices.json", "--out", "closed.parquet", *more,
        )  # fmt: skip

    return run


def test_from_the_bill_to_a_table_beside_open_models(command, emergence, tmp_path) -> None:
    done = command("--dry-run", "--json")
    assert done.code == 0, done.err
    bill = json.loads(done.out)
    assert bill["calls"] == bill["answers"] > 100  # 40 windows and their lone tokens, one answer each
    assert not (tmp_path / "closed.parquet").exists()

    done = command("--max-cost", 0.0001)
    assert done.code == 1, done.err
    assert "the same command asks for the rest" in done.err

    names = "predictive-20,output-20"
    done = emergence(
        "measure", "gpt2-30k", "--corpus", "python-docs", "--windows", 40, "--estimator", names, "--out", "open.parquet"
    )
    assert done.code == 0, done.err
    done = command("--max-cost", 1, "--controls", "--beside", "open.parquet", "--plot", "forest.svg")
    assert done.code == 0, done.err
    assert "has no random-weights twin" in done.err
    assert "gpt2-30k" in done.out  # beside it
    figure = (tmp_path / "forest.svg").read_text(encoding="utf-8")
    assert "gpt2-30k" in figure
    assert "gpt2-90k" in figure
    table = pd.read_parquet("closed.parquet")
    assert list(table["estimator"]) == names.split(",")
    assert (table["asked"] == "completions-logprobs-20").all()
    assert table[["ie_bits", "ie_std_error", "shuffled_ie_bits", "macro_ceiling_bits"]].notna().all(axis=None)

    done = command("--controls")
    assert done.code == 0, done.err
    assert "billed 0 prompt and 0 answer tokens" in done.err


def test_a_log_of_its_own_and_few_calls(command, tmp_path) -> None:
    done = command("--log", "kept.jsonl", "--max-calls", 40, "--ask", "chat-logprobs")
    assert done.code == 0, done.err
    assert "positions, chosen at random" in done.err.replace("\n", " ")
    assert "of 40 windows are asked for, to keep to 40 calls" in done.err
    assert (tmp_path / "kept.jsonl").is_file()
    assert (pd.read_parquet("closed.parquet")["windows"] < 40).all()


def test_an_open_model_is_asked_as_a_chat(emergence, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = emergence(
        "measure", "gpt2-30k", "--corpus", "python-docs", "--windows", 16, "--estimator", "output-20", "--ask",
        "chat-logprobs", "--out", "open.parquet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert pd.read_parquet("open.parquet")["asked"].tolist() == ["weights-chat"]


def test_what_cannot_be_asked_ends_in_one_sentence(command) -> None:
    for options, message in (
        (("--ask", "telepathy"), "Unknown way of asking"),
        (("--max-calls", 12), "too few for 10 windows"),
        (("--estimator", "mine"), "output-2 (collisions)"),
        (("--ask", "chat-logprobs", "--prefix", "<s>"), "no first token"),
    ):
        done = command(*options)
        assert (done.code, message in done.err) == (2, True), done.err
