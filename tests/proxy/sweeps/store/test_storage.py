"""Storage: whole files or none, in a folder, in memory and behind pyarrow."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import LocalFileSystem

from estimators.base import InputError
from proxy.sweeps.store.remote import Remote
from proxy.sweeps.store.storage import Folder, Storage, open_storage, retry


@pytest.fixture(params=["folder", "memory", "arrow"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        yield open_storage(tmp_path / "results")
    elif request.param == "memory":
        yield open_storage("memory://sweep-test")
        fsspec.filesystem("memory").rm("/sweep-test", recursive=True)
    else:
        yield Remote(ArrowFSWrapper(LocalFileSystem()), str(tmp_path / "results"))


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write("jobs/a.json", b"one")
    storage.write("jobs/a.json", b"second")
    storage.write("jobs/b.json", b"two")
    assert storage.read("jobs/a.json") == b"second"
    assert storage.read_many(["jobs/a.json", "jobs/none.json", "jobs/b.json"]) == {
        "jobs/a.json": b"second",
        "jobs/b.json": b"two",
    }
    assert storage.sizes("jobs") == {"jobs/a.json": 6, "jobs/b.json": 3}
    assert storage.sizes("nothing") == {}


def test_a_file_is_put_whole(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    storage.put("emergence.parquet", tmp_path / "large")
    assert storage.read("emergence.parquet") == b"x" * 100_000


def test_only_the_first_creates(storage: Storage) -> None:
    assert storage.create("claims/a.json", b"first")
    assert not storage.create("claims/a.json", b"second")
    assert storage.read("claims/a.json") == b"first"
    storage.delete("claims/a.json")
    storage.delete("claims/a.json")
    assert storage.create("claims/a.json", b"second")


def test_a_missing_file_is_file_not_found(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("jobs/none.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    folder.write("jobs/a.json", b"old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        folder.write("jobs/a.json", b"new")
    assert os.listdir(tmp_path / "jobs") == ["a.json"]
    assert folder.read("jobs/a.json") == b"old"


def test_opening_leaves_nothing_behind(tmp_path: Path) -> None:
    open_storage(tmp_path / "results")
    assert os.listdir(tmp_path / "results" / "jobs") == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"Results cannot be written to .*file.*; choose another place"):
        open_storage(tmp_path / "file")
    with pytest.raises(InputError, match="nosuch://bucket/sweep is not a URL that fsspec supports"):
        open_storage("nosuch://bucket/sweep")


def test_reading_for_a_plan_writes_nothing(tmp_path: Path) -> None:
    open_storage(tmp_path / "results", writable=False)
    assert not (tmp_path / "results").exists()


def test_a_short_failure_is_waited_out() -> None:
    answers = iter([OSError("busy"), OSError("busy"), "there"])

    def action() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert retry(action, (0.0, 0.0)) == "there"


def test_a_long_failure_is_raised_and_a_missing_file_at_once() -> None:
    calls = []

    def action(error: OSError) -> None:
        calls.append(error)
        raise error

    with pytest.raises(OSError, match="busy"):
        retry(lambda: action(OSError("busy")), (0.0, 0.0))
    assert len(calls) == 3
    with pytest.raises(FileNotFoundError):
        retry(lambda: action(FileNotFoundError()), (0.0, 0.0))
    assert len(calls) == 4


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/results")
    assert isinstance(storage, Folder)
    assert storage.root == tmp_path / "results"


def test_where_files_grow_in_place_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = ArrowFSWrapper(LocalFileSystem())
    storage = Remote(filesystem, str(tmp_path))
    storage.write("jobs/a.json", b"old")

    def torn(path: str, content: bytes, **_: object) -> None:
        Path(path).write_bytes(content[:1])
        raise OSError("connection lost")

    monkeypatch.setattr(filesystem, "pipe_file", torn)
    with pytest.raises(OSError, match="connection lost"):
        storage.write("jobs/a.json", b"new")
    assert storage.read("jobs/a.json") == b"old"
    assert os.listdir(tmp_path / "jobs") == ["a.json"]


def test_an_error_of_a_filesystems_own_library_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowDownError(Exception):
        """As cloud libraries have them: no OSError."""

    storage = open_storage("memory://own-errors")
    assert isinstance(storage, Remote)
    pipe, answers = storage.filesystem.pipe_file, iter([True, True, False])

    def busy(path: str, content: bytes, **options: object) -> None:
        if next(answers, False):
            raise SlowDownError("503")
        pipe(path, content, **options)

    monkeypatch.setattr(storage.filesystem, "pipe_file", busy)
    retry(lambda: storage.write("jobs/a.json", b"there"), (0.0, 0.0))
    assert storage.read("jobs/a.json") == b"there"


def test_a_place_that_fails_for_a_moment_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.sweeps.store.storage.PAUSES", (0.0, 0.0))
    write, answers = Folder.write, iter([True, False])

    def busy(self: Folder, name: str, content: bytes) -> None:
        if next(answers, False):
            raise OSError(116, "Stale file handle")
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", busy)
    open_storage(tmp_path)


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    old, new = tmp_path / "jobs" / ".old.part", tmp_path / "jobs" / ".new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    storage.tidy()
    assert os.listdir(tmp_path / "jobs") == [".new.part"]
