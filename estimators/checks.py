"""What every estimator asks of its input, and the sentence it says when the input is otherwise."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch

from estimators.base import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALVES = (torch.float16, torch.bfloat16)
_BLOCK_VALUES = 1 << 22  # values looked at in one go: 16 MB of float32


def row_blocks(rows: torch.Tensor, values: int = _BLOCK_VALUES) -> Iterator[torch.Tensor]:
    """Cut `rows` (n, k) into views of about `values` numbers, so that temporaries stay small."""
    step = max(1, values // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step]


def seeded(seed: object, purpose: str) -> torch.Generator:
    """Return a CPU generator of its own for `purpose`.

    Samples made by the caller with ``torch.manual_seed(seed)`` must not come back as the estimator's noise, so the
    stream depends on the purpose too.

    Raises:
        InputError: if the seed is no whole number.
    """
    if not isinstance(seed, Integral):
        raise InputError(f"seed must be a whole number; got {seed!r}.")
    seed = int(seed)
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
        InputError: as `finite_rows`.
    """
    rows = finite_rows(values, name, at_least=at_least)
    return rows.float() if rows.dtype in _HALVES else rows


def finite_rows(values: torch.Tensor | NDArray[np.generic], name: str, *, at_least: int = 2) -> torch.Tensor:
    """Return `values` as finite (n, k) rows of their own floating point type, uncopied.

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
    return rows


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
    """Return the flag ``half-precision`` if any of `values` is such a tensor or array; it is computed in float32."""
    half = any(getattr(value, "dtype", None) in (*_HALVES, np.dtype(np.float16)) for value in values)
    return ("half-precision",) if half else ()


def whole_number(value: object, name: str, *, at_least: int) -> None:
    """Refuse an option that is no whole number, or too small; 5.0 and True are none.

    Raises:
        InputError: naming the option and its value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number; got {value!r}.")
    if int(value) < at_least:
        raise InputError(f"{name} must be at least {at_least}; got {value}.")


def real_number(value: object, name: str, what: str = "a number") -> float:
    """Return an option as a float, refusing what is no finite number; `what` says which numbers it may be.

    Raises:
        InputError: naming the option and its value.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} must be {what}; got {value!r}.")
    return float(value)


def memory_bytes(device: torch.device | None = None) -> float:
    """Memory that work may fill, in bytes: of the GPU where `device` is one, else of this machine."""
    if device is not None and device.type == "cuda":
        return 0.9 * torch.cuda.get_device_properties(device).total_memory
    return 0.9 * float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")


def fits_memory(needed_bytes: float, what: str, remedy: str, device: torch.device | None = None) -> None:
    """Refuse work that the memory of `device` cannot hold, before it starts.

    Raises:
        InputError: naming what was needed, what there is, and the `remedy`.
    """
    there = memory_bytes(device)
    if needed_bytes > there:
        raise InputError(
            f"{what} would need {needed_bytes / 1e9:.1f} GB, and {there / 1e9:.1f} GB is available; {remedy}."
        )
