"""A folder or an fsspec URL as a place for small files, each written whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from estimators.base import InputError

T = TypeVar("T")
PATIENCE = (0.5, 2.0, 8.0, 20.0)  # seconds between tries when storage fails for a moment


class Storage(Protocol):
    """Where a sweep keeps its results; names are relative and use '/'."""

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""

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


class Folder:
    """Storage in a folder, local or shared between machines."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        return (self.root / name).read_bytes()

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
        os.replace(self._written_beside(name, io.BytesIO(content)), self.root / name)

    def put(self, name: str, source: Path) -> None:
        """Like `write`, with the content of a local file that may be large."""
        with open(source, "rb") as content:
            os.replace(self._written_beside(name, content), self.root / name)

    def create(self, name: str, content: bytes) -> bool:
        """Link a whole file into place, which fails if the name is taken; it need not outlive a power cut."""
        temporary = self._written_beside(name, io.BytesIO(content), flush=False)
        try:
            os.link(temporary, self.root / name)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
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

    def _written_beside(self, name: str, content: BinaryIO, *, flush: bool = True) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                shutil.copyfileobj(content, stream)
                if flush:
                    stream.flush()
                    os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return Path(temporary)


class Remote:
    """Storage behind an fsspec or pyarrow filesystem, such as s3://bucket/sweep; a put of an object is atomic there."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")

    def __str__(self) -> str:
        return str(self.filesystem.unstrip_protocol(self.root))

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        return bytes(self.filesystem.cat_file(self._path(name)))

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist, fetched at once where the filesystem can."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        found = self.filesystem.cat(list(paths), on_error="return")
        for content in found.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return {paths[path]: bytes(content) for path, content in found.items() if not isinstance(content, Exception)}

    def write(self, name: str, content: bytes) -> None:
        """Put the whole object at once."""
        self._make_parent(name)
        self.filesystem.pipe_file(self._path(name), content)

    def put(self, name: str, source: Path) -> None:
        """Put a local file, which may be large, as one object."""
        self._make_parent(name)
        self.filesystem.put_file(str(source), self._path(name))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not exist yet; where the filesystem cannot tell, look, write and look again."""
        path = self._path(name)
        self._make_parent(name)
        try:
            self.filesystem.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError, ValueError):
            if self.filesystem.exists(path):
                return False
            self.filesystem.pipe_file(path, content)
            time.sleep(0.5)  # long enough for a rival that looked at the same moment to have written as well
        self.filesystem.invalidate_cache()
        return self.read(name) == content

    def delete(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            self.filesystem.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def sizes(self, folder: str) -> dict[str, int]:
        """Return name and size in bytes of every file directly in `folder`."""
        self.filesystem.invalidate_cache()
        try:
            entries = self.filesystem.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {
            f"{folder}/{entry['name'].rsplit('/', 1)[-1]}": int(entry["size"])
            for entry in entries
            if entry["type"] == "file"
        }

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _make_parent(self, name: str) -> None:
        self.filesystem.makedirs(self._path(name).rsplit("/", 1)[0], exist_ok=True)


def open_storage(location: str | Path, *, writable: bool = True) -> Storage:
    """Open a results folder or URL; if `writable`, make sure that it can be written.

    Raises:
        InputError: if it cannot be opened or written.
    """
    try:
        storage = _remote(str(location)) if "://" in str(location) else Folder(Path(location).expanduser().absolute())
        if not writable:
            return storage
        probe = f"jobs/.probe-{uuid.uuid4().hex}"
        storage.write(probe, b"writable?")
        storage.delete(probe)
    except InputError:
        raise
    except Exception as error:  # each filesystem has its own errors; all mean the same here
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"Results cannot be written to {location}: {reason}; choose another place.") from error
    return storage


def _remote(url: str) -> Remote:
    import fsspec  # type: ignore[import-untyped]

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError:
        from fsspec.implementations.arrow import ArrowFSWrapper  # type: ignore[import-untyped]
        from pyarrow import fs

        try:
            arrow, root = fs.FileSystem.from_uri(url)
        except Exception as error:
            raise InputError(f"{url}: {error}; install the fsspec package of this kind of URL.") from error
        filesystem = ArrowFSWrapper(arrow)
    except ValueError as error:
        raise InputError(f"{url} is no URL that fsspec knows: {error}.") from error
    return Remote(filesystem, root)


def patiently(action: Callable[[], T], patience: Sequence[float] | None = None) -> T:
    """Do `action`, again after each pause of `patience` (seconds; default `PATIENCE`) while it fails with an OSError.

    Raises:
        OSError: the last one, when patience has run out.
    """
    for pause in PATIENCE if patience is None else patience:
        try:
            return action()
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError:
            time.sleep(pause)
    return action()
