"""Where states are kept: in memory, or in a file that goes away with the process however that ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from estimators.base import EmergenceError, InputError
from extraction.states.budget import StateBudget


class StateStore:
    """A (points, positions, rows, features) float32 array, written in runs of rows, read one (rows, features) a time.

    A spill file has no name from the moment it exists, so the system frees it on success, failure and kill alike;
    its whole size is reserved at once, so a full disk shows before any work is done.
    """

    def __init__(self, shape: tuple[int, int, int, int], folder: Path | None) -> None:
        self.shape = shape
        self.bytes = 4 * int(np.prod(shape, dtype=np.int64))
        self._memory: Tensor | None = None
        self._file: int | None = None
        if folder is None:
            self._memory = torch.empty(shape)
        else:
            self._file = _reserve(folder, self.bytes)

    def write(self, point: int, start: int, states: Tensor) -> None:
        """Put `states` (positions, n, features), float32 on CPU, at rows `start` to `start` + n."""
        if self._memory is not None:
            self._memory[point, :, start : start + states.shape[1]] = states
            return
        for position, rows in enumerate(states):
            data = memoryview(rows.contiguous().numpy()).cast("B")
            offset = self._offset(point, position) + 4 * self.shape[3] * start
            while data:
                try:
                    written = os.pwrite(self._open(), data, offset)
                except OSError as error:
                    raise EmergenceError(
                        f"Spilling the states failed: {error.strerror}; choose another spill_dir."
                    ) from error
                data, offset = data[written:], offset + written

    def read(self, point: int, position: int) -> Tensor:
        """Return the states (rows, features) of one point and position."""
        if self._memory is not None:
            return self._memory[point, position]
        states = np.empty(self.shape[2:], np.float32)
        view = memoryview(states.data).cast("B")
        offset = self._offset(point, position)
        while view:
            got = os.preadv(self._open(), [view], offset)
            if not got:
                raise EmergenceError("The spill file of the states is shorter than it was; run again.")
            view, offset = view[got:], offset + got
        return torch.from_numpy(states)

    def close(self) -> None:
        """Free the memory or the disk; reading afterwards is an error."""
        self._memory = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        if self._file is None:
            raise EmergenceError("These states are closed; read them inside `with extract(...) as states`.")
        return self._file

    def _offset(self, point: int, position: int) -> int:
        _, positions, rows, features = self.shape
        return 4 * (point * positions + position) * rows * features


def spill_folder(chosen: str | os.PathLike[str] | None) -> Path:
    """Return the folder to spill to: `chosen`, else the system's temporary one."""
    return Path(tempfile.gettempdir() if chosen is None else chosen)


def folder_for(size: int, budget: StateBudget, remedy: str = "take fewer windows") -> Path | None:
    """Return the folder to spill states of `size` bytes to; None where memory holds them.

    Raises:
        InputError: if they are more than `budget.spill_gb`; `remedy` says what else would help.
    """
    if not budget.spilled(size):
        return None
    folder = spill_folder(budget.spill_dir)
    if size > budget.spill_gb * 1e9:
        raise InputError(
            f"States of {size / 1e9:.1f} GB are to be spilled to {folder}, more than the {budget.spill_gb:g} GB "
            f"allowed; raise spill_gb or states_gb, or {remedy}."
        )
    return folder


def described(folder: Path) -> str:
    """Name `folder`, and say so where what is written there takes main memory (known on Linux only)."""
    folder = folder.absolute()
    with suppress(OSError, ValueError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        place = folder.resolve()
        around = [(len(mount), kind) for mount, kind in mounts if place.is_relative_to(mount)]
        kind = max(around, key=lambda found: found[0])[1]
        if kind in ("tmpfs", "ramfs"):
            return (
                f"{folder}, which lies in main memory ({kind}), so spilling there saves no memory; choose another "
                "spill_dir"
            )
    return str(folder)


def _reserve(folder: Path, size: int) -> int:
    """Open a nameless file of `size` bytes in `folder`."""
    if not folder.is_dir():
        raise InputError(f"The folder {folder} for spilled states does not exist; create it or choose another.")
    free = shutil.disk_usage(folder).free
    try:
        if free < size:
            raise OSError
        with tempfile.TemporaryFile(dir=folder) as file:
            handle = os.dup(file.fileno())
    except OSError as error:
        raise InputError(
            f"States of {size / 1e9:.1f} GB are to be spilled to {folder}, which has {free / 1e9:.1f} GB free or "
            "cannot be written; choose another spill_dir, or take fewer windows or a smaller project."
        ) from error
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        else:  # macOS has none: there a disk that others fill meanwhile shows when states are written
            os.ftruncate(handle, size)
    except OSError as error:
        os.close(handle)
        raise InputError(
            f"{folder} has no room for {size / 1e9:.1f} GB of spilled states ({error.strerror}); choose another "
            "spill_dir."
        ) from error
    return handle
