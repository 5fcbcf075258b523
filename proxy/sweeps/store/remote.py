"""Storage behind a URL, such as s3://bucket/sweep: the same promises as in a folder."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from estimators.base import InputError

ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "r2", "memory"}  # a put shows whole or not at all


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turn the errors of a filesystem's own library into the OSErrors that are waited out."""
    try:
        yield
    except (OSError, TypeError, ValueError, NotImplementedError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class Remote:
    """Storage behind an fsspec or pyarrow filesystem, such as s3://bucket/sweep.

    In an object store a put is atomic; where a file grows in place (sftp, hdfs) it is written beside and moved.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        protocol = filesystem.protocol
        self.atomic = bool(ATOMIC & {protocol, *((protocol,) if isinstance(protocol, str) else protocol)})

    def __str__(self) -> str:
        return str(self.filesystem.unstrip_protocol(self.root))

    @_os_errors()
    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        return bytes(self.filesystem.cat_file(self._path(name)))

    @_os_errors()
    def open(self, name: str) -> BinaryIO:
        """Open a file to be read in parts."""
        return cast("BinaryIO", self.filesystem.open(self._path(name), "rb"))

    @_os_errors()
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

    @_os_errors()
    def write(self, name: str, content: bytes) -> None:
        """Put the whole object at once."""
        with self._target(name) as path:
            self.filesystem.pipe_file(path, content)

    @_os_errors()
    def put(self, name: str, source: Path) -> None:
        """Put a local file, which may be large, as one object."""
        with self._target(name) as path:
            self.filesystem.put_file(str(source), path)

    @_os_errors()
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

    @_os_errors()
    def delete(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            self.filesystem.rm_file(self._path(name))
        except FileNotFoundError:
            return

    @_os_errors()
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

    def tidy(self) -> None:
        """Nothing: an object store shows nothing half written, elsewhere the owner is unknown."""

    @contextlib.contextmanager
    def _target(self, name: str) -> Iterator[str]:
        """Give the path to write a file to, and see that it then stands whole at its place."""
        self._make_parent(name)
        path = self._path(name)
        if self.atomic:
            yield path
            return
        folder, _, last = path.rpartition("/")
        beside = f"{folder}/.{last}.{uuid.uuid4().hex}.part"
        try:
            yield beside
            self.filesystem.mv(beside, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self.filesystem.rm_file(beside)
            raise

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _make_parent(self, name: str) -> None:
        self.filesystem.makedirs(self._path(name).rsplit("/", 1)[0], exist_ok=True)


def remote(url: str) -> Remote:
    """Open a URL by the filesystem of its kind.

    Raises:
        InputError: if there is none.
    """
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
        raise InputError(f"{url} is not a URL that fsspec supports: {error}.") from error
    return Remote(filesystem, root)
