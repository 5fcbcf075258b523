"""Pipes, devices and standard input where files are read: refused in one way, not waited for."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction.models.names import resolve_model

SERVER = ("--base-url", "http://127.0.0.1:9/v1")
PLACES = {
    "corpus.txt": ["measure", "gpt2-30k", "--corpus", "{}"],
    "corpus.jsonl": ["measure", "gpt2-30k", "--corpus", "{}"],
    "corpus.csv": ["measure", "gpt2-30k", "--corpus", "{}"],
    "corpus.parquet": ["measure", "gpt2-30k", "--corpus", "{}"],
    "texts/a.txt": ["measure", "gpt2-30k", "--corpus", "texts"],
    "list.txt": ["measure", "gpt2-30k", "--corpus", "list:{}"],
    "prompts.txt": ["collect", "m", *SERVER, "--out", "a.csv", "--prompts", "{}"],
    "prompts.csv": ["collect", "m", *SERVER, "--out", "a.csv", "--prompts", "{}"],
    "prompts.parquet": ["collect", "m", *SERVER, "--out", "a.csv", "--prompts", "{}"],
    "prices.json": ["collect", "m", *SERVER, "--out", "a.csv", "--prices", "{}"],
    "a.log.jsonl": ["collect", "m", *SERVER, "--out", "a.csv"],
    "answers.json": ["features", "{}"],
    "references.parquet": ["fit", "{}", "--target", "x", "--out", "proxy"],
    "results/sweep.json": ["report", "results"],
    "proxy/proxy.json": ["estimate", "proxy", "references.csv"],
    "bank/bank.json": ["bank", "show", "bank"],
    "truths/a.npz": ["calibrate", "--truths", "truths"],
    "model.gguf": ["measure", "{}", "--corpus", "animal"],
    "model/config.json": ["measure", "model", "--corpus", "animal"],
    "sweep.yaml": ["sweep", "{}"],
}


@pytest.fixture
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("the command waits for the end of a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_in_place_of_a_file_is_refused(place, tmp_path, emergence, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(exist_ok=True)
    os.mkfifo(place)
    Path("references.csv").write_text("model,x\na,1\n")
    if place.startswith("model/"):
        for file in Path(resolve_model("gpt2-30k").location).iterdir():
            if file.name != "config.json":
                shutil.copy(file, "model")
    done = emergence(*(part.format(place) for part in PLACES[place]))
    assert done.code == 2, done.err
    assert "Error: " in done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("place", ["prices.json", "prompts.txt", "corpus.txt"])
def test_a_device_without_end_is_refused(place, tmp_path, emergence, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = emergence(*(part.format("/dev/zero") for part in PLACES[place]))
    assert done.code == 2, done.err
    assert "is a device or pipe" in done.err


# Every argument and option that names a file to read or a folder of them.
READ = {
    "corpus": ["measure", "gpt2-30k", "--corpus", "{}"],
    "list": ["measure", "gpt2-30k", "--corpus", "list:{}"],
    "model": ["measure", "{}", "--corpus", "animal"],
    "prompts": ["collect", "m", *SERVER, "--out", "a.csv", "--prompts", "{}"],
    "prices": ["collect", "m", *SERVER, "--out", "a.csv", "--prices", "{}"],
    "features": ["features", "{}"],
    "fit": ["fit", "{}", "--target", "x", "--out", "proxy"],
    "estimate": ["estimate", "{}"],
    "features of a proxy": ["estimate", "proxy", "{}"],
    "bank": ["bank", "show", "{}"],
    "truths": ["calibrate", "--truths", "{}"],
    "sweep": ["sweep", "{}"],
    "report": ["report", "{}"],
    "track": ["track", "{}"],
}


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("command", READ)
def test_standard_input_and_substituted_processes_are_told_apart_from_missing_files(
    command, tmp_path, emergence, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()  # as <(...) of a shell gives it
    threading.Thread(target=os.write, args=(writing, b"hello\n"), daemon=True).start()
    try:
        for given, said in ((f"/dev/fd/{reading}", "is a device or pipe"), ("-", "Standard input (-) is not read")):
            done = emergence(*(part.format(given) for part in READ[command]))
            assert done.code == 2, done.err
            assert said in done.err
            assert "save its content to a file" in done.err
            assert "Traceback" not in done.err
    finally:
        os.close(reading)
        os.close(writing)
    assert list(tmp_path.iterdir()) == []


def test_a_file_called_as_standard_input_is_a_file(tmp_path, emergence, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("One")
    done = emergence("collect", "m", *SERVER, "--out", "a.csv", "--prices", "./-")
    assert "is not a price table" in done.err
