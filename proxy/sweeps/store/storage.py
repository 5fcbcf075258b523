"""A folder or an fsspec URL as a place for small files, each written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from estimators.base import InputError
from estimators.contracts.files import PART, replacing, temporary_beside
from estimators.contracts.results_folder import FOLDERS
from proxy.sweeps.store.remote import remote

T = TypeVar("T")
ABANDONED = 600.0  # age in seconds after which a temporary file may be deleted
PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
PAUSES = (0.5, 2.0, 8.0, 20.0)  # seconds between tries when storage fails for a moment
PROBES = 3  # of them before a new sweep's place is refused


class Storage(Protocol):
    """Where a sweep keeps its results; names are relative and use '/'."""

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open a file to be read in parts."""

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist."""

    def write(self, name: str, content: bytes) -> None:
        """Put `content` in place so that a reader sees the old file or the whole new one."""

    def put(self, name: str, source: Path) -> None:
        """Like `write`, with the content of a local file that may be large."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet; False, and nothing written, if it does."""

    def delete(self, name: str) -> None:
        """Remove a file if it exists."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return name and size in bytes of every file directly in `folder`."""

    def tidy(self) -> None:
        """Remove what killed writers left half written."""


class Folder:
    """Storage in a folder, local or shared between machines."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        return (self.root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file to be read in parts."""
        return open(self.root / name, "rb")

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist."""
        found = {}
        for name in names:
            try:
                found[name] = self.read(name)
            except FileNotFoundError:
                continue
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write beside the target, flush to the disk, then rename over it."""
        with replacing(self._target(name)) as temporary:
            temporary.write_bytes(content)

    def put(self, name: str, source: Path) -> None:
        """Like `write`, with the content of a local file that may be large."""
        with replacing(self._target(name)) as temporary:
            shutil.copyfile(source, temporary)

    def create(self, name: str, content: bytes) -> bool:
        """Link a whole file into place, which fails if the name is taken; it need not outlive a power cut."""
        target = self._target(name)
        with temporary_beside(target) as temporary:
            temporary.write_bytes(content)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
        return True

    def delete(self, name: str) -> None:
        """Remove a file if it exists."""
        (self.root / name).unlink(missing_ok=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return name and size in bytes of every file directly in `folder`."""
        found = {}
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    try:
                        if entry.is_file():
                            found[f"{folder}/{entry.name}"] = entry.stat().st_size
                    except FileNotFoundError:  # removed by another driver while listed
                        continue
        except FileNotFoundError:
            return {}
        return found

    def tidy(self) -> None:
        """Remove what killed writers left half written; what was touched lately may still become whole."""
        for path in (path for folder in (".", *FOLDERS) for path in (self.root / folder).glob(f".*{PART}")):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def _target(self, name: str) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def open_storage(location: str | PathLike[str], *, writable: bool = True) -> Storage:
    """Open a results folder or URL; if `writable`, make sure that it can be written.

    Raises:
        InputError: if it cannot be opened or written.
    """
    try:
        storage = _opened(str(location))
        if not writable:
            return storage
        probe = f"jobs/.probe-{uuid.uuid4().hex}"
        retry(lambda: storage.write(probe, b"writable?"), PAUSES[:PROBES])
        retry(lambda: storage.delete(probe), PAUSES[:PROBES])
    except InputError:
        raise
    except Exception as error:  # each filesystem has its own errors; all mean the same here
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"Results cannot be written to {location}: {reason}; choose another place.") from error
    return storage


def _opened(location: str) -> Storage:
    if location.startswith(("file://", "local://")):
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        return Folder(Path(LocalFileSystem._strip_protocol(location)))
    return remote(location) if "://" in location else Folder(Path(location).expanduser().absolute())


def retry(action: Callable[[], T], pauses: Sequence[float] | None = None) -> T:
    """Do `action`, again after each of `pauses` (seconds; default `PAUSES`) while it raises an OSError that may pass.

    Raises:
        OSError: the last one, after the last pause.
    """
    for pause in PAUSES if pauses is None else pauses:
        try:
            return action()
        except PERMANENT:
            raise
        except OSError:
            time.sleep(pause)
    return action()
