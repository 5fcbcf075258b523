"""A file is whole or unchanged, durable, and as readable as any other new file."""

import os
import stat
from pathlib import Path

import pytest

from estimators.base import InputError
from estimators.contracts.files import check_file, replacing, temporary_beside


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def stop_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((os.fstat(handle).st_size, path.exists())))
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert seen == [(5, False)]
    assert path.read_text() == "whole"


def test_a_new_file_has_the_permissions_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("shared with the group")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_temporary_file_is_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_beside(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".part")
    assert os.listdir(tmp_path) == []


def test_a_device_a_pipe_and_a_file_that_is_too_long_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(InputError, match="is a device or pipe, not a file"):
            check_file(odd)
    (tmp_path / "a.txt").write_text("12345")
    check_file(tmp_path / "a.txt", most_bytes=5)
    with pytest.raises(InputError, match="5 bytes, more than the 4"):
        check_file(tmp_path / "a.txt", most_bytes=4)
    check_file(tmp_path)
    check_file(tmp_path / "missing")
