"""A discrete input and the states that are a function of it: what sample propagation is asked about."""

from __future__ import annotations

import torch

from estimators.base import InputError
from estimators.checks import as_rows, finite_rows, paired, row_blocks
from estimators.entropy import distinct_rows

# Kernels may round the same input differently in another batch; more than that is another function.
_ROUNDING = 1e-2


def states_of_symbols(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the distinct symbols in `x` and check that `y` is a function of them.

    Args:
        x: (n,) or (n, t) integer symbols; equal rows are one symbol.
        y: (n, k) the state that each symbol produced.

    Returns:
        states (u, k) of the distinct symbols in the type of y, `y` itself where none repeats, since a copy of the
        paper's states is a gigabyte; counts (u,) of the symbols; and the first row (u,) that shows each.

    Raises:
        InputError: if x is not integer, or y is not a function of x.
    """
    x, y = as_rows(x, "x"), as_rows(y, "y")
    paired(x, y)
    if x.is_floating_point() or x.is_complex():
        raise InputError(
            "sample-propagation needs the discrete input that produced y: integer symbols such as token ids, "
            f"(n, t); got x of {x.dtype}. For two continuous variables use infonce, smile, nwj, mine or gaussian."
        )
    y = finite_rows(y, "y")
    first, inverse = distinct_rows(x)
    if len(first) == len(y):
        return y, torch.ones_like(first), first
    _refuse_no_function(y, first, inverse)
    return y[first], torch.bincount(inverse, minlength=len(first)), first


def _refuse_no_function(y: torch.Tensor, first: torch.Tensor, inverse: torch.Tensor) -> None:
    """Compare every row with the first of its symbol, feature by feature, for one outlying feature dwarfs the others.

    A feature smaller than most is rounded like most: its error comes from what it was summed from.
    """
    top = torch.stack([block.float().abs().amax(dim=0) for block in row_blocks(y)]).amax(dim=0)
    allowed = _ROUNDING * torch.maximum(top, top.median()).clamp(min=torch.finfo(torch.float32).tiny)
    start = 0
    for block in row_blocks(y):
        twin = first[inverse[start : start + block.shape[0]]]
        gap = (block.float() - y[twin].float()).abs()
        worst = (gap / allowed).amax(dim=1)
        if float(worst.max()) > 1:
            at = int(torch.where(worst > 1, gap.amax(dim=1), 0.0).argmax())
            raise InputError(
                "sample-propagation is valid only where y is a function of x, and here it is not: rows "
                f"{int(twin[at])} and {start + at} have the same x but differ by {float(gap[at].max()):.3g} in y. "
                "Give the whole input as x, or use infonce, smile, nwj, mine or gaussian."
            )
        start += block.shape[0]
