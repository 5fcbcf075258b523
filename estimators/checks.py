"""What every estimator asks of its input, and the sentence it says when the input is otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from estimators.base import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 22  # values looked at in one go: 16 MB of float32


def row_blocks(rows: torch.Tensor, values: int = _BLOCK_VALUES) -> Iterator[torch.Tensor]:
    """Cut `rows` (n, k) into views of about `values` numbers, so that temporaries stay small."""
    step = max(1, values // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step]


def seeded(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator of its own for `purpose`.

    Samples drawn by the caller with ``torch.manual_seed(seed)`` must not come back as the estimator's noise, so the
    stream depends on the purpose too.
    """
    words = np.random.SeedSequence([abs(seed), int(seed < 0), *purpose.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def as_rows(values: torch.Tensor | NDArray[np.generic], name: str) -> torch.Tensor:
    """Return `values` as a (n, k) tensor; a vector becomes (n, 1).

    Raises:
        InputError: if it is no tensor or array of one or two dimensions.
    """
    if isinstance(values, np.ndarray):
        if not values.flags.writeable:  # torch warns about read-only memory although nothing is written
            values = values.copy()
        try:
            values = torch.from_numpy(values)
        except TypeError as error:
            raise InputError(f"{name} must hold numbers; got an array of {values.dtype}.") from error
    if not isinstance(values, torch.Tensor):
        raise InputError(f"{name} must be a torch tensor or numpy array; got {type(values).__name__}.")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"{name} must have shape (samples, features); got {tuple(values.shape)}, so reshape it first.")
    return values.detach()


def real_rows(values: torch.Tensor | NDArray[np.generic], name: str, *, at_least: int = 2) -> torch.Tensor:
    """Return `values` as finite (n, k) rows of float32 or float64; half precision becomes float32.

    Raises:
        InputError: if they are not floating point, not finite, or fewer than `at_least` rows.
    """
    rows = as_rows(values, name)
    if not rows.is_floating_point():
        raise InputError(
            f"{name} must be floating point; got {rows.dtype}. Convert numbers with .float(); "
            "token ids belong into x of sample-propagation."
        )
    if rows.shape[0] < at_least:
        raise InputError(f"{name} needs at least {at_least} samples; got {rows.shape[0]}.")
    bad, first = 0, -1
    start = 0
    for block in row_blocks(rows):
        wrong = ~torch.isfinite(block).all(dim=1)
        count = int(wrong.sum())
        if count and first < 0:
            first = start + int(wrong.nonzero()[0, 0])
        bad += count
        start += block.shape[0]
    if bad:
        raise InputError(
            f"{name} has NaN or infinite values in {bad} of {rows.shape[0]} samples, first in row {first}; "
            "remove or repair them."
        )
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def paired(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse samples that are not rows of one joint sample on one device.

    Raises:
        InputError: if numbers of rows or devices differ.
    """
    if x.shape[0] != y.shape[0]:
        raise InputError(f"x and y must have one row per sample each; got {x.shape[0]} and {y.shape[0]} rows.")
    if x.device != y.device:
        raise InputError(f"x is on {x.device} and y on {y.device}; move one with .to({str(x.device)!r}).")


def real_pair(
    x: torch.Tensor | NDArray[np.generic], y: torch.Tensor | NDArray[np.generic]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `x` and `y` as finite rows of one joint sample, of one floating point type.

    Raises:
        InputError: as `real_rows` and `paired`.
    """
    x, y = as_rows(x, "x"), as_rows(y, "y")
    paired(x, y)
    x, y = real_rows(x, "x"), real_rows(y, "y")
    kind = torch.promote_types(x.dtype, y.dtype)
    return x.to(kind), y.to(kind)


def half_precision(*values: object) -> tuple[str, ...]:
    """Return the flag ``half-precision`` if any of `values` is such a tensor; it is computed in float32."""
    halves = (torch.float16, torch.bfloat16)
    half = any(isinstance(value, torch.Tensor) and value.dtype in halves for value in values)
    return ("half-precision",) if half else ()


def memory_bytes() -> float:
    """Memory of this machine that work may fill, in bytes."""
    return 0.9 * float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")


def fits_memory(needed_bytes: float, what: str, remedy: str) -> None:
    """Refuse work that this machine's memory cannot hold, before it starts.

    Raises:
        InputError: naming what was needed, what there is, and the `remedy`.
    """
    if needed_bytes > memory_bytes():
        raise InputError(
            f"{what} would need {needed_bytes / 1e9:.1f} GB, and {memory_bytes() / 1e9:.1f} GB can be used here; "
            f"{remedy}."
        )
