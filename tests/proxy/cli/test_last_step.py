"""Work is not lost at the last step: what can be checked is checked first, and a full disk costs no rows."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from estimators.base import EmergenceError
from extraction import tables
from proxy.cli.console import emit

Run = Callable[..., Any]

WITH_OUT = [
    ("measure", "gpt2-30k", "--corpus", "color"),
    ("collect", "m", "--base-url", "http://127.0.0.1:9/v1"),
    ("answer", "gpt2-30k", "--prompts", "demo"),
    ("features", "a.parquet"),
    ("estimate", "proxy", "a.parquet"),
    ("calibrate",),
]


@pytest.mark.parametrize("command", WITH_OUT, ids=[command[0] for command in WITH_OUT])
@pytest.mark.parametrize("out", ["folder.parquet", "nowhere/a.parquet", "a.txt", f"{'long' * 60}.csv"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    emergence: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.parquet").mkdir()
    done = emergence(*command, "--out", out)
    assert done.code == 2
    assert out.split("/")[0][:20] in done.err.replace("\n", "")


ELSEWHERE = [
    ("measure", "gpt2-30k", "--corpus", "color", "--out", "/proc/a.parquet"),
    ("measure", "gpt2-30k", "--corpus", "color", "--plot", "/proc/a.svg"),
    ("measure", "gpt2-30k", "--corpus", "color", "--likelihoods", "/proc/a.parquet"),
    ("fit", "references.parquet", "--target", "t", "--out", "/proc/proxy"),
    ("report", "results", "--out", "/proc/a.html"),
    ("compare", "before", "after", "--figure", "/proc/a.png"),
    ("estimate", "gpt2-30k", "--out", "/proc/estimate"),
]


@pytest.mark.parametrize("command", ELSEWHERE, ids=[f"{command[0]} {command[-2]}" for command in ELSEWHERE])
def test_a_folder_in_which_nothing_can_be_made_is_refused_first(emergence: Run, command: tuple[str, ...]) -> None:
    """Rights do not tell it: root may write everywhere, but there are no new files in /proc."""
    done = emergence(*command)
    assert done.code == 2
    assert "The folder /proc cannot be written (No such file or directory)" in done.err.replace("\n", " ")


def test_the_rows_of_a_full_disk_are_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    real = tables.replacing

    def full(path: Path) -> Any:
        if path.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    monkeypatch.setattr(tables, "replacing", full)
    with pytest.raises(EmergenceError) as caught:
        emit(frame, tmp_path / "a.csv")
    found = re.fullmatch(
        r".*a\.csv could not be written \(No space left on device\); its 3 rows are kept in (.*): move them\.",
        str(caught.value),
    )
    assert found is not None
    pd.testing.assert_frame_equal(pd.read_csv(found[1]), frame)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_disk_on_the_way_is_one_sentence(
    emergence: Run, monkeypatch: pytest.MonkeyPatch, number: int, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, "No room", "/somewhere")

    monkeypatch.setattr("extraction.load_model", fails)
    done = emergence("measure", "gpt2-30k", "--corpus", "color")
    assert done.code == 1
    assert done.err == "Failed: No room at /somewhere; correct that, and run the same command again.\n"
