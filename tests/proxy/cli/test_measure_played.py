"""`emergence measure NAME --base-url URL` from the command line, against a played server on a real socket."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from extraction import load_model
from proxy.banks.bank import SHIPPED
from proxy.measurement.output import corpus_contexts
from tests.proxy.behind import Batches, Behind, on_a_socket

WINDOWS = 24


@pytest.fixture(scope="module")
def model():
    return load_model("gpt2-90k", device="cpu")


@pytest.fixture
def measure(model, emergence, tmp_path, monkeypatch):
    """Run the command against a server with the faults given; returns outcome and server."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    with ExitStack() as undo:

        def run(*more: object, **faults: object):
            server = Batches(Behind(model, **faults))
            url = undo.enter_context(on_a_socket(server))
            return emergence(*command(url), *more), server

        yield run


def command(url: str) -> list[str]:
    return [
        "measure", "m", "--base-url", url, "--corpus", "python-docs", "--windows", str(WINDOWS), "--tokenizer",
        "gpt2-90k", "--prefix", "none", "--out", "closed.parquet",
    ]  # fmt: skip


def table() -> pd.DataFrame:
    return pd.read_parquet("closed.parquet")


CHAT = {"chat": True}
NO_LOGPROBS = {"most": 0}


@pytest.mark.parametrize(
    ("faults", "asked", "estimators"),
    [
        ({"scores": "echo"}, "completions-echo", ["predictive", "predictive-20", "output-20"]),
        ({"scores": "prompt_logprobs"}, "completions-echo", ["predictive", "predictive-20", "output-20"]),
        ({}, "completions-logprobs-20", ["predictive-20", "output-20"]),
        ({"cap": 5}, "completions-logprobs-5", ["predictive-5", "output-5"]),
        ({"most": 5}, "completions-logprobs-5", ["predictive-5", "output-5"]),
        (CHAT, "chat-logprobs-20", ["predictive-20", "output-20"]),
        (CHAT | NO_LOGPROBS, "chat-samples-8", ["output-2"]),
        (NO_LOGPROBS, "completions-samples-8", ["output-2"]),
        ({"most": 1}, "completions-samples-8", ["output-2"]),  # the chosen token's logprob alone
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_one_command_gives_what_a_server_has_with_error_and_control(measure, faults, asked, estimators) -> None:
    done, server = measure("--controls", **faults)
    assert done.code == 0, done.err
    rows = table()
    assert list(rows["estimator"]) == estimators
    assert set(rows["asked"]) == {asked}
    assert rows[["macro_bits", "micro_bits", "ie_bits", "ie_std_error", "shuffled_ie_bits"]].notna().all(axis=None)
    assert (rows["bytes_per_token"] > 1).all()
    assert asked in done.out
    assert len(server.behind.asked) <= 2500


SAMPLES = CHAT | NO_LOGPROBS


@pytest.mark.parametrize(
    ("faults", "calls"),
    [
        ({"scores": "echo"}, 220),
        ({}, 150),
        ({}, 130),
        (CHAT, 90),
        (SAMPLES, 90),
        (SAMPLES | {"no_n": True}, 500),
        (SAMPLES | {"most_n": 4}, 500),  # two are given for one call, eight are refused
        (SAMPLES | {"few_n": 4}, 150),  # eight take two calls
    ],
)
def test_a_limit_holds_for_all_that_a_command_asks(measure, faults, calls) -> None:
    """First questions, first tokens that are tried, windows, lone tokens and the control."""
    limited = ("--controls", "--prefix", "auto", "--max-calls", calls)
    done, server = measure(*limited, **faults)
    assert done.code == 0, done.err
    repeated = faults.keys() & {"no_n", "most_n", "few_n"}  # the same text is asked for several times
    made = server.behind.asked if repeated else server.behind.seen  # calls may be made again after a fault
    assert 0.7 * calls < len(made) <= calls
    rows = table()
    assert rows[["ie_bits", "shuffled_ie_bits"]].notna().all(axis=None)
    assert (rows["windows"] >= 10).all()


def test_the_bill_says_how_the_calls_are_divided(measure) -> None:
    limited = ("--controls", "--prefix", "auto", "--max-calls", 200)
    done, before = measure(*limited, "--dry-run")
    assert done.code == 0, done.err
    text, shuffled, whole = done.out.splitlines()
    assert re.search(r"\(\d+ for windows, \d+ for lone tokens, \d+ to settle a first token\)", text)
    more = re.search(r"\(\d+ for windows, (\d+) for lone tokens\)", shuffled)
    assert int(more[1]) <= 8  # of a window that the text leaves out; all others are those of the text
    opening, said = map(int, re.fullmatch(r"With (\d+) first questions (\d+) calls, of at most 200\.", whole).groups())
    assert len(before.behind.seen) <= opening < 40
    done, server = measure(*limited, "--log", "new.jsonl")
    assert done.code == 0, done.err
    assert len(server.behind.seen) <= said <= 200
    done, server = measure(*limited, "--log", "new.jsonl", "--dry-run", "--json")
    assert [json.loads(line)["calls"] for line in done.out.splitlines()] == [0, 0]


@pytest.mark.parametrize(
    ("ask", "faults", "flag"),
    [
        ("completions-samples", {"greedy": True}, "samples-all-alike"),
        ("completions-samples", {"long": True}, "cut-to-one-token"),
        ("completions-samples", {"echo": True}, "echoed"),
        ("completions-logprobs", {"trim": True}, "spaces-trimmed"),
        ("auto", {"own_temperature": True}, "sampling-of-the-server"),
        ("auto", {"chat": True, "bos": 30}, "system-prompt"),
        ("completions-logprobs", {"filter_some": 17}, "incomplete"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_fault_that_can_be_lived_with_is_a_flag(measure, ask, faults, flag) -> None:
    done, _ = measure("--ask", ask, **faults)
    assert done.code == 0, done.err
    assert table()["flags"].str.contains(flag).all()


def test_a_control_that_cannot_be_had_leaves_what_was_measured(measure) -> None:
    done, _ = measure("--controls", "--ask", "completions-logprobs", filter_shuffled=True)
    assert (done.code, "m has no control: Only" in done.err) == (1, True), done.err
    rows = table()
    assert rows["ie_bits"].notna().all()
    assert rows["shuffled_ie_bits"].isna().all()


@pytest.mark.parametrize("place", ["bank", SHIPPED])
def test_references_of_a_bank_stand_beside(measure, place) -> None:
    done, _ = measure("--beside", place, "--plot", "forest.svg")
    assert done.code == 0, done.err
    assert "gemma-2m" in done.out
    assert "gpt2-90k@12" in done.out
    assert "Not measured in the same way on python-docs: numbers of windows differ (2" in done.err
    assert set(table()["model"]) == {"m"}
    assert "gemma-2m" in Path("forest.svg").read_text(encoding="utf-8")


def test_what_was_asked_as_text_does_not_stand_beside_a_chat(measure) -> None:
    done, _ = measure("--beside", "bank", chat=True)
    assert done.code == 0, done.err
    assert "weights-chat" in done.out
    assert " weights " not in done.out


def test_other_numbers_of_shown_tokens_do_not_stand_beside(measure) -> None:
    done, _ = measure("--beside", "bank", most=5)
    assert done.code == 0, done.err
    assert "no output rows of this corpus and estimator that were asked in the same way" in done.err


def test_an_open_model_is_not_asked_in_a_way_that_does_not_exist(emergence) -> None:
    done = emergence("measure", "gpt2-30k", "--corpus", "python-docs", "--ask", "telepathy")
    assert (done.code, "Unknown way of asking telepathy" in done.err) == (2, True), done.err


def test_a_model_that_thinks_first_is_found_out_before_it_is_paid_for(measure) -> None:
    done, server = measure(chat=True, reasoning=True)
    assert (done.code, "No window was sent" in done.err) == (2, True), done.err
    assert len(server.behind.asked) < 40  # the questions that find out what the server does, and one sentence


def test_windows_that_the_server_cuts_otherwise_are_counted(measure, model, tmp_path) -> None:
    """A tokenizer of fewer merges cuts some of them in the middle of the server's tokens."""
    model.tokenizer.save_pretrained(tmp_path / "finer")
    place = tmp_path / "finer" / "tokenizer.json"
    merges = json.loads(place.read_text(encoding="utf-8"))
    merges["model"]["merges"] = merges["model"]["merges"][: int(0.4 * len(merges["model"]["merges"]))]
    place.write_text(json.dumps(merges), encoding="utf-8")
    done, _ = measure("--tokenizer", tmp_path / "finer", scores="echo")
    assert done.code == 0, done.err
    assert re.search(r"\d+ of \d+ windows of python-docs are left out: the server cuts their text into other", done.err)
    assert table()["flags"].str.contains("incomplete").all()


def test_text_scored_behind_a_reference_tokenizer_gives_the_predictive_reading_alone(
    model, emergence, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    with on_a_socket(Batches(Behind(model, scores="echo"))) as url:
        asked = command(url)
        place = asked.index("--tokenizer")
        done = emergence(*asked[:place], *asked[place + 2 :])
    assert done.code == 0, done.err
    assert "so its scores of the text give predictive alone" in " ".join(done.err.split())
    assert table()["estimator"].tolist() == ["predictive"]


def test_a_second_corpus_asks_only_what_is_new(model, emergence, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    text = " ".join(inspect.getdoc(one) or "" for one in (argparse, json, re, subprocess))
    (tmp_path / "other.txt").write_text(text, encoding="utf-8")
    server = Batches(Behind(model))
    with on_a_socket(server) as url:
        done = emergence(*command(url), "--controls")
        assert done.code == 0, done.err
        first = {body["prompt"] for body in server.behind.asked}
        del server.behind.asked[:]
        done = emergence(*command(url), "--controls", "--corpus", "other.txt", "--out", "other.parquet")
        assert done.code == 0, done.err
    second = [body["prompt"] for body in server.behind.asked]
    assert len(second) == len(set(second)) > WINDOWS
    assert not first & set(second)
    alone = set(corpus_contexts("other.txt", model.tokenizer, count=WINDOWS).asked_texts)
    assert len(alone & first) > 20  # asked for the first corpus
    assert alone & set(second) == alone - first


@pytest.mark.parametrize("faults", [{}, CHAT | {"most": 0}, {"scores": "echo"}], ids=["logprobs", "samples", "scored"])
def test_single_tokens_are_kept_for_every_corpus_and_folder(
    model, emergence, tmp_path, monkeypatch, far, faults
) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.chdir(tmp_path)
    text = " ".join(inspect.getdoc(one) or "" for one in (argparse, json, re, subprocess))
    (tmp_path / "other.txt").write_text(text, encoding="utf-8")
    for folder in ("first", "second", "third"):
        (tmp_path / folder).mkdir()
    server = Batches(Behind(model, **faults))
    with on_a_socket(server) as url:
        done = emergence(*command(far(url)), "--out", "first/closed.parquet")
        assert done.code == 0, done.err
        first = [str(body) for body in server.behind.asked]
        del server.behind.asked[:]
        again = (*command(far(url)), "--corpus", "other.txt", "--out", "second/closed.parquet")
        bill = emergence(*again, "--dry-run", "--json")
        assert bill.code == 0, bill.err
        questions = len(server.behind.asked)  # of what the server does, which are asked for each log
        done = emergence(*again)
        assert done.code == 0, done.err
        second = [str(body) for body in server.behind.asked[questions:]]
        assert json.loads(bill.out)["calls"] == len(second)
        assert not set(first) & set(second)
        taken = re.search(r"(\d+) answers after single tokens were known", bill.err)
        assert faults.get("scores") or int(taken[1]) > 20  # pairs of tokens are seldom shared
        del server.behind.asked[:]
        done = emergence(*command(far(url)), "--out", "third/closed.parquet")  # the first corpus again
        assert done.code == 0, done.err
        assert len(server.behind.asked) < questions + 2 * WINDOWS + 8
        assert pd.read_parquet("third/closed.parquet")["micro_bits"].tolist() == pytest.approx(
            pd.read_parquet("first/closed.parquet")["micro_bits"].tolist()
        )
        del server.behind.asked[:]
        done = emergence(*command(far(url)), "--out", "third/closed.parquet", "--log", "apart.jsonl")
        assert done.code == 0, done.err
        assert "known from earlier" not in done.err
        assert len(server.behind.asked) == len(first)  # a log that is named stands by itself
    [kept] = (tmp_path / "cache" / "single-tokens").iterdir()
    written = kept.read_text(encoding="utf-8")
    assert key not in written
    assert key not in str(kept)
    assert not any(json.loads(line).get("billed") for line in written.splitlines())  # paid for in one log alone


def test_single_tokens_of_a_server_on_this_machine_stay_in_its_log(measure, monkeypatch, tmp_path) -> None:
    """Another model may answer there tomorrow under the same name."""
    monkeypatch.setenv("EMERGENCE_CACHE", str(tmp_path / "cache"))
    done, _ = measure()
    assert done.code == 0, done.err
    assert not (tmp_path / "cache" / "single-tokens").exists()


def test_a_damaged_file_of_single_tokens_is_one_sentence(model, emergence, tmp_path, monkeypatch, far) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    with on_a_socket(Batches(Behind(model))) as url:
        assert emergence(*command(far(url))).code == 0
        [kept] = (tmp_path / "cache" / "single-tokens").iterdir()
        lines = kept.read_text(encoding="utf-8").splitlines()
        lines[2] = lines[2].replace('"logprob": -', '"logprob": -1')
        kept.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / "new").mkdir()
        done = emergence(*command(far(url)), "--out", "new/closed.parquet")
    assert (done.code, done.err.count("Error: ")) == (2, 1), done.err
    assert "Line 3 of" in done.err
    assert "remove that line to ask for its answer again" in " ".join(done.err.split())


def test_what_is_held_back_is_counted(measure) -> None:
    done, _ = measure("--ask", "completions-logprobs", filter_some=17)
    assert "texts were not answered: held back by a content filter" in done.err


def test_a_bos_of_the_servers_own_is_named(measure) -> None:
    done, _ = measure(bos=1)
    assert done.code == 0, done.err
    assert set(table()["prefix"]) == {"1 of the server's own"}


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"stream": True}, "streams its replies although whole ones were asked for"),
        ({"scale": 3.0}, "add up to more than 1"),
        ({"renormalise": True}, "renormalises to what it shows"),
        ({"filter": True, "most": 0}, "held back by a content filter"),
        ({"chat": True, "reasoning": True}, "no text within one token, as of reasoning models"),
        ({"context": 14}, "the context is too short for this"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_fault_that_leaves_nothing_to_measure_is_one_sentence(measure, faults, message) -> None:
    done, _ = measure(*(("--tokens", 20) if "context" in faults else ()), **faults)
    assert (done.code, done.err.count("Error: ")) == (2, 1), done.err
    assert message in done.err
    assert not Path("closed.parquet").exists()


def test_a_corpus_in_another_script_than_the_tokenizers_is_one_sentence(measure, tmp_path) -> None:
    text = "เรือใบลำหนึ่งแล่นออกจากท่าในยามเช้า ท้องทะเลสงบนิ่ง และลมพัดเอื่อยเบา " * 60
    (tmp_path / "thai.txt").write_text(text, encoding="utf-8")
    done, _ = measure("--corpus", "thai.txt")
    assert done.code == 2, done.err
    assert "cuts characters of its script in pieces" in done.err


class Batched:
    """The command with --batch, in this process or in one of its own that is killed."""

    def __init__(self, model, emergence, **faults):
        self.server, self.emergence = Batches(Behind(model, chat=True, **faults)), emergence

    def submitted(self) -> list[str]:
        """Names of all calls that were handed in, in every batch."""
        return [line["custom_id"] for line in self.lines()]

    def lines(self) -> list[dict]:
        """All calls that were handed in, in every batch."""
        return [
            json.loads(line)
            for name in (batch["input_file_id"] for batch in self.server.made.values())
            for line in self.server.files[name].splitlines()
        ]

    def killed(self, url: str, when: Callable[[], bool]) -> None:
        code = "from proxy.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command(url), "--controls", "--batch"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()


@pytest.fixture
def batched(model, emergence, tmp_path, monkeypatch, request):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    return Batched(model, emergence, **getattr(request, "param", {}))


def kept() -> list[dict]:
    """Records of the log."""
    return [json.loads(line) for path in Path().glob("*.log.jsonl") for line in path.read_text("utf-8").splitlines()]


def test_a_batch_is_submitted_asked_after_and_fetched(batched) -> None:
    server = batched.server
    with on_a_socket(server) as url:
        run = partial(batched.emergence, *command(url), "--controls", "--batch")
        done = run()
        assert (done.code, "the same command later fetches the rest" in done.err) == (1, True), done.err
        done = run()
        assert (done.code, "is in progress" in done.err) == (1, True), done.err
        assert not Path("closed.parquet").exists()
        server.finished.set()
        done = run()
        assert done.code == 0, done.err
        rows = table()
        assert rows[["ie_bits", "ie_std_error", "shuffled_ie_bits"]].notna().all(axis=None)
        assert set(rows["asked"]) == {"chat-logprobs-20"}
        calls = batched.submitted()
        assert len(calls) == len(set(calls)) > 2 * WINDOWS
        assert len(server.made) == 1
        done = run()  # all is kept: nothing is asked for and nothing is billed
        assert (done.code, "billed 0 prompt and 0 answer tokens" in done.err) == (0, True), done.err
        assert table()["ie_bits"].tolist() == rows["ie_bits"].tolist()
        asked = len(server.behind.asked)
        done = batched.emergence(*command(url), "--controls")  # nor without --batch
        assert done.code == 0, done.err
        assert len(server.behind.asked) == asked


@pytest.mark.parametrize(
    ("batched", "each"),
    [(NO_LOGPROBS, 8), (NO_LOGPROBS | {"no_n": True}, 1), (NO_LOGPROBS | {"most_n": 4}, 1)],
    indirect=["batched"],
)
def test_a_batch_asks_for_all_samples_of_a_window_in_one_line_where_n_is_taken(batched, each) -> None:
    server = batched.server
    with on_a_socket(server) as url:
        run = partial(batched.emergence, *command(url), "--windows", 12, "--batch")
        done = run()
        lines = batched.lines()
        assert (done.code, f"Submitted {len(lines)} calls" in done.err) == (1, True), done.err
        assert {line["body"].get("n", 1) for line in lines} == {each}
        server.finished.set()
        done = run()
        assert done.code == 0, done.err
        assert set(table()["asked"]) == {"chat-samples-8"}
        answered = {record["key"]: record for record in kept() if record.get("text") is not None}
        assert {line["custom_id"] for line in lines} <= set(answered)
        assert len(answered) == len(lines) * each + 8  # and of the sentence that is asked first
        done = run()
        assert (done.code, "billed 0 prompt and 0 answer tokens" in done.err) == (0, True), done.err


@pytest.mark.slow
@pytest.mark.parametrize("batched", [{}, NO_LOGPROBS], indirect=True, ids=["logprobs", "samples"])
def test_a_batch_whose_process_was_killed_is_found_again_and_paid_for_once(batched) -> None:
    server = batched.server
    with on_a_socket(server) as url:
        run = partial(batched.emergence, *command(url), "--controls", "--batch")
        server.hold.set()  # the server has the batch, and the command never learns its name
        batched.killed(url, lambda: bool(server.made))
        server.hold.clear()
        done = run()
        assert (done.code, "batch-0 is in progress" in done.err) == (1, True), done.err
        server.finished.set()
        server.hold_content.set()  # killed while the answers are on their way
        batched.killed(url, lambda: server.fetched > 0)
        server.hold_content.clear()
        done = run()
        assert done.code == 0, done.err
        assert len(server.made) == 1
        calls = batched.submitted()
        assert len(calls) == len(set(calls))
        answered = [record["key"] for record in kept() if record.get("text") is not None]
        assert sorted(answered) == sorted(set(answered))
        billed = {record["key"] for record in kept() if record.get("text") is not None and any(record["billed"])}
        assert len(billed & set(calls)) == len(calls)
        assert len(billed - set(calls)) == 1  # the sentence that is asked first


def test_a_server_without_batches_is_said_in_a_sentence(measure) -> None:
    done, _ = measure("--batch", no_batches=True)
    assert (done.code, "has no Batch API" in done.err, "leave --batch out" in done.err) == (2, True, True), done.err
