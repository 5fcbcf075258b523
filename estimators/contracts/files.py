"""Writing a file so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"  # ends the name of a temporary file


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty temporary file in the folder of `path`, with the permissions of any new file; deleted at the end."""
    temporary = path.absolute().parent / f".{uuid.uuid4().hex}{PART}"
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write to, which takes the place of `path` at the end; after an error `path` is unchanged.

    The content is on the disk before the name is, so a power cut leaves the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    with temporary_beside(path) as temporary:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time on this machine work with a folder; nothing is written for it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
