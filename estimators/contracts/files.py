"""Writing a file or a folder so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from estimators.base import InputError

PART = ".part"  # ends the name of a temporary file
LONGEST_NAME = 220  # bytes: file systems take 255, and logs and further tables beside a file have longer names than it


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
def new_folder(folder: Path, what: str) -> Iterator[Path]:
    """A temporary folder to write to, which becomes `folder` at the end: it appears whole or not at all.

    Args:
        folder: must not exist yet, or be empty.
        what: it is for, in messages.

    Raises:
        InputError: as `check_new_folder`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with new_folder(Path(parent) / "proxy", "proxy") as made:
    ...         _ = (made / "a.txt").write_text("whole")
    ...     (Path(parent) / "proxy" / "a.txt").read_text()
    'whole'
    """
    folder = folder.absolute()
    check_new_folder(folder, what)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / what
        made.mkdir()
        yield made
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)


def check_new_folder(folder: Path, what: str) -> None:
    """Refuse a folder that nothing new could be written to, before any work is done.

    Args:
        folder: to be made.
        what: it is for, in messages.

    Raises:
        InputError: if it holds something, or its parent is missing or cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; give a new folder for the {what}.")
    check_place(folder)


def check_new_file(path: Path, what: str, endings: Sequence[str]) -> None:
    """Refuse a path at which a file could not be written, before any work is done for it.

    Args:
        path: to be written.
        what: the file is, in messages.
        endings: it may have.

    Raises:
        InputError: if it has another ending, is a folder, or the folder around it is missing or cannot be written.

    >>> check_new_file(Path("depth.jpg"), "figure", (".png", ".svg"))
    Traceback (most recent call last):
    estimators.base.InputError: A figure ends in .png or .svg; depth.jpg does not, so rename it.
    """
    if path.suffix not in endings:
        some = " or ".join([", ".join(endings[:-1]), endings[-1]] if len(endings) > 1 else endings)
        raise InputError(f"A {what} ends in {some}; {path} does not, so rename it.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a {what} in it.")
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a path at which no new file or folder could be made, before any work is done for it.

    Raises:
        InputError: if the folder around it is missing or cannot be written, or the name is too long.
    """
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise InputError(
            f"The name {path.name[:20]}... is too long for a file; give one of up to {LONGEST_NAME} bytes."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"The folder {folder} for {path} does not exist; create it first.")
    try:  # rights alone do not tell: of a read-only disk, and for root
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be written ({error.strerror}); choose another for {path}."
        ) from None


def check_file(path: Path, *, most_bytes: int | None = None) -> None:
    """Refuse to read what is no file: the end of a pipe may never come, and a run reads and hashes some files again.

    A path at which there is nothing is left to whoever opens it, apart from ``-``.

    Args:
        path: to be read.
        most_bytes: a file longer than this is refused, too.

    Raises:
        InputError: if it is a device, pipe or socket, stands for standard input, or is too long.

    >>> check_file(Path("/dev/zero"))
    Traceback (most recent call last):
    estimators.base.InputError: /dev/zero is a device or pipe, not a file; save its content to a file and give that.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        if str(path) == "-":
            raise InputError(
                "Standard input (-) is not read; save its content to a file that ends in its format and give that."
            ) from None
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise InputError(f"{path} is a device or pipe, not a file; save its content to a file and give that.")
    if most_bytes is not None and found.st_size > most_bytes:
        raise InputError(
            f"{path} has {found.st_size:,} bytes, more than the {most_bytes:,} that such a file can have; give another."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time on this machine work with a folder; nothing is written for it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
