"""What a model behind an API says next beside what open models say: tables of `emergence measure` side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy.schemas import EMERGENCE
from tracking import track_emergence
from tracking.comparison import compare


def rows(model: str, asked: str, estimators: tuple[str, ...] = ("predictive-20",), **more: object) -> pd.DataFrame:
    """Output rows of a model; E is 1 bit for each, at 4 bytes a token."""
    table = pd.DataFrame({"estimator": estimators, "model": model, "asked": asked, "corpus": "python-docs"})
    known = {"corpus_hash": "a" * 16, "layer": -1, "position": 8, "resolution": None, "ie_bits": 1.0, "windows": 60}
    known |= {"ie_std_error": 0.3, "bytes_per_token": 4.0, "prefix": "", "flags": "", "seed": 0}
    return table.assign(**known | more)


OPEN = pd.concat([rows("a", "weights", ("predictive-20", "output-20")), rows("b", "weights", ie_bits=2.0)])
CLOSED = rows("gpt", "completions-logprobs-20", ie_bits=1.5, ie_std_error=0.4)


def test_a_closed_model_is_compared_with_each_open_one() -> None:
    found = compare([OPEN, CLOSED], names=["open", "closed"])
    table = found.table.set_index("model")
    assert table.index.tolist() == ["a → gpt", "b → gpt"]  # and no mean: the closed model is in both
    assert table["difference"].tolist() == [0.5, -0.5]
    assert np.allclose(table["std_error"], 0.5)  # both sides independent: the root of .09 + .16
    assert set(table["unit"]) == {"bits"}
    assert set(table["text"]) == {"same"}
    assert found.notes == ("Not compared: output-20 (open alone).",)
    settings = found.settings.set_index("setting")
    assert settings.loc["asked"].tolist() == ["weights", "completions-logprobs-20"]
    other_way = compare([CLOSED, OPEN]).table
    assert other_way["model"].tolist() == ["gpt → a", "gpt → b"]
    assert other_way["difference"].tolist() == [-0.5, 0.5]


def test_windows_of_another_tokenizer_compare_by_the_byte() -> None:
    other = CLOSED.assign(corpus_hash="b" * 16, bytes_per_token=5.0)
    found = compare([OPEN, other])
    row = found.table.iloc[0]
    assert (row["unit"], row["text"]) == ("bits per byte", "aaaaaaaa → bbbbbbbb")
    assert row["difference"] == pytest.approx(1.5 / 5 - 1 / 4)
    assert row["std_error"] == pytest.approx(np.hypot(0.4 / 5, 0.3 / 4))
    assert "bits per byte" in found.figure.axes[0].get_xlabel()
    assert any("compared in bits per byte" in note for note in found.notes)


def test_one_model_of_two_seeds_compares_in_bits() -> None:
    found = compare([CLOSED, CLOSED.assign(corpus_hash="b" * 16)])
    assert found.table["unit"].tolist() == ["bits"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (CLOSED.assign(estimator="predictive-5"), "predictive-20.*numbers of shown tokens have no difference"),
        (CLOSED.assign(asked="chat-logprobs-20"), r"different ways \(open as text; closed as a chat\).*in one way"),
        (CLOSED.assign(corpus="animal"), "neither model nor corpus is the same"),
        (CLOSED.assign(position=16), "windows of 8 tokens in open and of 16 in closed"),
        (CLOSED.iloc[:0], "table without rows"),
        (CLOSED.assign(ie_bits=np.nan), "closed holds no row with a finite emergence"),
    ],
    ids=["shown", "chat", "corpus", "tokens", "empty", "nan"],
)
def test_what_does_not_compare_is_refused_in_one_sentence(other: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        compare([OPEN, other], names=["open", "closed"])
    assert "\n" not in str(caught.value)


def test_an_output_is_not_compared_with_a_block() -> None:
    blocks = rows("a", "weights", ("predictive",), layer=3, ie_bits=9.0)
    scored = rows("gpt", "completions-echo", ("predictive",))
    with pytest.raises(InputError, match="predictive of open is of blocks alone"):
        compare([blocks, scored], names=["open", "closed"])
    both = pd.concat([blocks, rows("a", "weights", ("predictive",), ie_bits=0.5)])
    row = compare([both, scored]).table.iloc[0]
    assert (row["difference"], row["block"], row["against_block"]) == (0.5, -1, -1)


def test_a_chat_in_a_table_of_texts_is_left_out_and_said() -> None:
    both = pd.concat([OPEN, rows("a", "weights-chat", ("output-20",))])
    chat = rows("gpt", "chat-logprobs-20", ("predictive-20", "output-20"))
    found = compare([both, chat], names=["open", "closed"])
    assert found.table[["model", "estimator"]].to_numpy().tolist() == [["a → gpt", "output-20"]]
    assert found.notes == ("Not compared: predictive-20 (asked in another way).",)


def test_other_first_tokens_are_said() -> None:
    found = compare([OPEN, CLOSED.assign(prefix="<s>")])
    assert not any("First tokens" in note for note in compare([OPEN.assign(prefix=None), CLOSED]).notes)  # not known
    assert found.notes[-1] == "First tokens differ (none → <s>), which changes most what lone tokens say."


def test_controls_of_a_table_stay_columns() -> None:
    shuffled = CLOSED.assign(corpus="python-docs, shuffled", ie_bits=0.0)
    table = compare([OPEN, pd.concat([CLOSED, shuffled])]).table
    assert table["model"].tolist() == ["a → gpt", "b → gpt"]
    assert set(table["corpus"]) == {"python-docs"}


def test_a_table_that_was_tracked_by_itself(fresh_sqlite, tmp_path: Path) -> None:
    uri = fresh_sqlite(tmp_path)
    run_id = track_emergence(EMERGENCE.conform(OPEN), tracking_uri=uri)
    found = compare([run_id, CLOSED], tracking_uri=uri)
    assert found.table["difference"].tolist() == [0.5, -0.5]
    assert "asked" in found.settings["setting"].tolist()


def test_from_the_command_line_with_figure_and_table(emergence, tmp_path: Path) -> None:
    for name, table in (("open", OPEN), ("closed", CLOSED), ("five", CLOSED.assign(estimator="predictive-5"))):
        table.to_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("open", "closed", "five")]
    done = emergence("compare", *files[:2], "--figure", tmp_path / "d.png", "--out", tmp_path / "d.csv")
    assert done.code == 0, done.err
    assert "Not compared: output-20 (open alone)." in done.err
    assert pd.read_csv(tmp_path / "d.csv")["difference"].tolist() == [0.5, -0.5]
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    done = emergence("compare", files[0], files[2], "--out", tmp_path / "none.csv")
    assert (done.code, done.err.count("Error: ")) == (2, 1), done.err
    assert not (tmp_path / "none.csv").exists()
