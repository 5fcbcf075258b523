"""The log on disk: what a crash, a full disk or a foreign file may do to it."""

import json
import os

import pytest

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.log import AnswerLog

PLANTED = "sk-planted-0123456789"


def record(key: str, text: str = "said") -> dict:
    return {"version": 1, "key": key, "model": "m", "text": text}


def texts(path) -> list[str]:
    with AnswerLog(path) as log:
        return [entry["text"] for entry in log.records()]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"my only copy of a poem", r"Line 1 of .* is damaged"),
        (b'{"prompt": "a"}', r"is not an answer log \(line 1\)"),
        (b'{"prompt": "a"}\n{"prompt": "b"}', r"is not an answer log \(line 1\)"),
        (b"\x00\x01", r"Line 1 of .* is damaged"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_was(tmp_path, content, match):
    path = tmp_path / "a.log.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match):
        AnswerLog(path)
    assert path.read_bytes() == content


def test_a_torn_end_costs_its_own_answer_alone(tmp_path):
    path = tmp_path / "a.log.jsonl"
    with AnswerLog(path) as log:
        log.append(record("k1", "one"))
        log.append(record("k2", "two"))
    whole = path.read_bytes()
    for kept in range(len(whole.splitlines(keepends=True)[0]) + 1, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with AnswerLog(path) as log:
            assert [log.answered(key) for key in ("k1", "k2")] == [True, False]
            log.append(record("k3", "three"))
        assert texts(path) == ["one", "three"]
    path.write_bytes(whole[:-1])  # only the end of the line is lacking: the answer is paid for and there
    assert texts(path) == ["one", "two"]


def test_a_torn_middle_is_passed_over_and_the_record_behind_it_found(tmp_path):
    path = tmp_path / "a.log.jsonl"
    first, second, third = (json.dumps(record(f"k{n}", f"text {n}")) for n in range(3))
    path.write_text(f"{first}\n{second[:30]}{third}\n{first[:20]}\n{json.dumps(record('k9', 'last'))}\n")
    assert texts(path) == ["text 0", "text 2", "last"]


def test_the_last_answer_counts_and_a_failure_only_where_there_is_none(tmp_path):
    path = tmp_path / "a.log.jsonl"
    failure = {"key": "k1", "model": "m", "error": "late"}
    with AnswerLog(path) as log:
        assert log.record("k1") is None
        log.append(failure)
        assert not log.answered("k1")
        assert log.record("k1")["error"] == "late"
        log.append(record("k1", "one"))
        log.append(record("k1", "two"))
        log.append(failure)
        assert log.answered("k1")
        assert log.record("k1")["text"] == "two"
    with AnswerLog(path) as log:  # read again, it is the same
        assert log.answered("k1")
        assert log.record("k1")["text"] == "two"


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    path = tmp_path / "a.log.jsonl"
    real, written = os.write, []

    def full(handle, data):
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(handle, data[:10]))
        return 10

    with AnswerLog(path) as log:
        log.append(record("k1"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(EmergenceError, match=r"could not be written: No space left"):
                log.append(record("k2"))
        assert [log.answered(key) for key in ("k1", "k2")] == [True, False]  # what is not on disk is not answered
        log.append(record("k3"))
    with AnswerLog(path) as log:
        assert [log.answered(key) for key in ("k1", "k2", "k3")] == [True, False, True]
    assert path.read_bytes().count(b"\n") == 2


def test_a_secret_goes_from_values_and_takes_nothing_else_with_it(tmp_path):
    path = tmp_path / "a.log.jsonl"
    told = [{"token": part, "logprob": -1.0, "top": {}} for part in PLANTED]
    with AnswerLog(path, secret=PLANTED) as log:
        log.append(record("k1", f"it is {PLANTED}") | {"logprobs": told})
        log.append(record("k2", "calm") | {"logprobs": told[:2]})
    assert texts(path) == ["it is [key]", "calm"]
    with AnswerLog(path) as log:
        assert [bool(entry["logprobs"]) for entry in log.records()] == [False, True]


@pytest.mark.parametrize("secret", ["x", "text", "key", "version"])
def test_a_key_too_short_to_be_secret_costs_no_answer(tmp_path, secret):
    """Replaced in the line, it would rename the fields, and every answer would be lost."""
    path = tmp_path / "a.log.jsonl"
    with AnswerLog(path, secret=secret) as log:
        log.append(record("k1", "exact text"))
    assert texts(path) == ["exact text"]


def test_what_was_written_is_forced_to_the_disk_when_nothing_follows(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(os, "fsync", forced.append)
    with AnswerLog(tmp_path / "a.log.jsonl") as log:
        log.append(record("k1"))
        before = len(forced)
        monkeypatch.setattr("extraction.answers.collecting.log.SYNC_EVERY_S", 0.0)
        log.sync_now_and_then()
        assert len(forced) == before + 1
        log.sync_now_and_then()  # nothing new, nothing to force
        assert len(forced) == before + 1


@pytest.mark.parametrize(
    "line",
    [
        {"key": 5},
        {"key": None, "text": "said"},
        {"key": "ab", "model": "m", "text": 5},
        {"key": "ab", "model": 5, "billed": [1, 2]},
        {"key": "ab", "model": "m", "billed": [1, "2"]},
        {"key": "ab", "model": "m", "billed": [1]},
        {"key": "ab", "model": "m", "billed": [1, -2]},
        {"key": "ab", "model": "m", "sent": 5},
        {"key": "ab", "model": "m", "sent": ["x", 2]},
        {"key": "ab", "model": "m", "sent": [None, 2]},
        {"key": "ab", "sent": [1, 2]},
        {"key": "ab", "error": ["x"]},
        {"capabilities": {}},
        {"capabilities": [], "for": "x"},
        {"batch": "b"},
        {"batch": 5, "state": "fetched"},
        {"batch": "b", "state": "preparing", "keys": [5], "held": [1, 2], "model": "m"},
        {"batch": "b", "state": "preparing", "keys": ["k"]},
    ],
)
def test_a_line_whose_fields_have_other_types_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "a.log.jsonl"
    path.write_text(
        "\n".join(json.dumps({"version": 1, **each}) for each in ({"key": "k1", "text": "fine"}, line)) + "\n"
    )
    with pytest.raises(InputError, match=r"Line 2 of .*a.log.jsonl .*remove that line"):
        AnswerLog(path)
